"""What is installed: three packages that collide with nobody's, with their weights, whole beside and without others."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("hatchling", reason="the extra [dev] is not installed")

#: A distribution whose package is called `agents`, as openai-agents is.
STAND_IN = {
    "pyproject.toml": (
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "other-agents"\nversion = "1"\n'
        '[tool.hatch.build.targets.wheel]\npackages = ["agents"]\n'
    ),
    "agents/__init__.py": "WHOSE = 'theirs'\n",
    "agents/train_ddpg.py": "WHOSE = 'theirs'\n",
}
OURS = "import sr_env, blindsr_agents.hinge_ddpg.losses, blindsr_pretrain.losses; print(sr_env.__file__)"
THEIRS = "import agents; print(agents.__file__)"


def run(*command: object, **options: object) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def build(project: Path, out: Path, *targets: str) -> None:
    run(
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "-d",
        out,
        *(word for t in targets for word in ("-t", t)),
        cwd=project,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with our wheel, our sdist and the wheel of the stand-in."""
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("not in a checkout")
    out = tmp_path_factory.mktemp("built")
    build(ROOT, out, "wheel", "sdist")
    other = tmp_path_factory.mktemp("other")
    for name, text in STAND_IN.items():
        (other / name).parent.mkdir(exist_ok=True)
        (other / name).write_text(text)
    build(other, out, "wheel")
    return out


class Environment:
    """A virtual environment that borrows this one's dependencies, but not this project."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.site = Path(run(self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
        # A path file's own lines come after everything that is installed here, and its .pth files are not followed.
        (self.site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def pip(self, *arguments: object) -> None:
        run(sys.executable, "-m", "pip", "--python", self.python, "-q", "--disable-pip-version-check", *arguments)

    def install(self, *wheels: object) -> None:
        self.pip("install", "--no-deps", *wheels)

    def whose(self, code: str, folder: Path) -> bool:
        """Whether the module whose file the code prints lies in this environment, run from an empty folder."""
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return Path(run(self.python, "-c", code, cwd=folder, env=variables).strip()).is_relative_to(self.site)


def wheel(built: Path, name: str) -> Path:
    (path,) = built.glob(f"{name}-*.whl")
    return path


def test_the_wheel_holds_three_packages_with_their_data(built: Path) -> None:
    names = zipfile.ZipFile(wheel(built, "blindsr_gym")).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"sr_env", "blindsr_agents", "blindsr_pretrain"}
    tracked = run("git", "ls-files", "sr_env", "agents/blindsr_agents", "pretrain/blindsr_pretrain", cwd=ROOT).split()
    expected = {name.removeprefix("agents/").removeprefix("pretrain/") for name in tracked if (ROOT / name).is_file()}
    assert expected <= set(names)
    assert any(name.endswith("amgan_x4.safetensors") for name in names)
    assert "sr_env/py.typed" in names


def test_the_sdist_can_be_built_from(built: Path, tmp_path: Path) -> None:
    (path,) = built.glob("blindsr_gym-*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    build(source, tmp_path / "again", "wheel")
    names = [set(zipfile.ZipFile(wheel(folder, "blindsr_gym")).namelist()) for folder in (built, tmp_path / "again")]
    assert names[0] == names[1]


@pytest.mark.parametrize("ours_first", [True, False])
def test_beside_a_distribution_called_agents(built: Path, tmp_path: Path, ours_first: bool) -> None:
    """Whatever the order, both work, and each is whole when the other has gone."""
    empty = tmp_path / "empty"
    empty.mkdir()
    wheels = [wheel(built, "blindsr_gym"), wheel(built, "other_agents")]
    for gone, left in (("other-agents", OURS), ("blindsr-gym", THEIRS)):
        environment = Environment(tmp_path / gone)
        for path in wheels if ours_first else reversed(wheels):
            environment.install(path)
        assert environment.whose(OURS, empty)
        assert environment.whose(THEIRS, empty)
        environment.pip("uninstall", "-y", gone)
        assert environment.whose(left, empty)


@pytest.mark.skipif(not os.environ.get("BLINDSR_TEST_DOWNLOAD"), reason="BLINDSR_TEST_DOWNLOAD is not set")
def test_beside_openai_agents(built: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "env")
    environment.install("openai-agents")
    environment.install(wheel(built, "blindsr_gym"))
    find = "import importlib.util; print(importlib.util.find_spec('agents').origin)"  # its own needs are not installed
    assert environment.whose(OURS, tmp_path)
    assert environment.whose(find, tmp_path)
    assert "usage: " in run(environment.python.with_name("blindsr"), "--help")
    environment.pip("uninstall", "-y", "openai-agents")
    assert environment.whose(OURS, tmp_path)
