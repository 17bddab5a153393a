"""What is installed: three packages that collide with nobody's, with their weights, whole beside and without others."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
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
OURS = (
    "import gymnasium, sr_env, blindsr_agents, blindsr_pretrain; gymnasium.spec('BlindSR-v0'); print(sr_env.__file__)"
)
#: Fails where a file of the distribution has gone.
WHOLE = "import importlib.metadata as m; assert all(f.locate().is_file() for f in m.files({name!r})); "


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
    if not (ROOT / "sr_env").is_dir():
        pytest.skip("the packages are installed, and not those of this checkout")
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


def check_beside(built: Path, folder: Path, other: object, name: str, theirs: str, ours_first: bool) -> None:
    """Whatever the order, both work, and each is whole when the other has gone."""
    environment, empty = Environment(folder / "env"), folder / "empty"
    empty.mkdir()
    install: list[Callable[[], None]] = [
        lambda: environment.pip("install", "--no-deps", "--no-compile", wheel(built, "blindsr_gym")),
        lambda: environment.pip("install", "--no-compile", other),
    ]
    for step in install if ours_first else reversed(install):
        step()
    whole = [(WHOLE.format(name="blindsr-gym") + OURS), (WHOLE.format(name=name) + theirs)]
    assert all(environment.whose(code, empty) for code in whole)
    environment.pip("uninstall", "-y", name)
    assert environment.whose(whole[0], empty)
    assert "usage: " in run(environment.python.with_name("blindsr"), "--help")
    install[1]()
    environment.pip("uninstall", "-y", "blindsr-gym")
    assert environment.whose(whole[1], empty)


@pytest.mark.parametrize("ours_first", [True, False])
def test_beside_a_distribution_called_agents(built: Path, tmp_path: Path, ours_first: bool) -> None:
    theirs = "import agents; print(agents.__file__)"
    check_beside(built, tmp_path, wheel(built, "other_agents"), "other-agents", theirs, ours_first)


@pytest.mark.skipif(not os.environ.get("BLINDSR_TEST_DOWNLOAD"), reason="BLINDSR_TEST_DOWNLOAD is not set")
@pytest.mark.parametrize("ours_first", [True, False])
def test_beside_openai_agents(built: Path, tmp_path: Path, ours_first: bool) -> None:
    """The distribution that the name collided with, and all that it needs."""
    theirs = "import agents; agents.Agent(name='one'); print(agents.__file__)"
    check_beside(built, tmp_path, "openai-agents", "openai-agents", theirs, ours_first)
