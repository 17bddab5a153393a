"""The documentation: it builds without warnings, its commands are understood, and its example runs."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import pytest
import tyro
from PIL import Image

from sr_env.simulator import Simulator, SimulatorSettings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: What may begin a command line that is none of ours.
OTHERS = ("pip", "python3", "pytest", "mkdocs", "tensorboard", "git", "cd", ".", "export")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def command_lines(page: Path) -> list[list[str]]:
    """Commands of a page's bash blocks, split as a shell does; what stands for "as above" (...) is left out."""
    text = "".join(blocks(page, "bash")).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [[word for word in line if "..." not in word] for line in lines if line]


def load(script: str) -> ModuleType:
    """Import a script."""
    path = ROOT / script
    assert path.is_file(), f"{script} does not exist"
    spec = importlib.util.spec_from_file_location(f"documented_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings_of(script: str) -> Any:
    """What a script's command line is parsed into."""
    module = load(script)
    found = re.search(r"run_script\((\w+), ", (ROOT / script).read_text())
    assert found is not None, f"{script} runs nothing"
    return getattr(module, found[1])


def subcommands() -> dict[str, Any]:
    """Settings of blindsr's subcommands by name."""
    from sr_env.cli.main import Command

    choices = get_args(get_type_hints(Command, include_extras=True)["command"])
    classes = [get_args(choice)[0] for choice in choices]
    return {cls.__module__.rsplit(".", 1)[-1]: cls for cls in classes}


def check_command(words: list[str]) -> None:
    """Parse a command as its script would.

    Raises:
        AssertionError: The script, an option or a value is not known.
    """
    while "=" in words[0]:  # NAME=VALUE before the command
        words = words[1:]
    if words[0] == "blindsr":
        known = subcommands()
        assert words[1] in known, f"blindsr has no {words[1]}, only {', '.join(known)}"
        settings, given = known[words[1]], words[2:]
    elif words[0] in ("python", "accelerate") and words[1] != "-m":
        place = next(index for index, word in enumerate(words) if word.endswith(".py"))
        settings, given = settings_of(words[place]), words[place + 1 :]
    else:
        assert words[0] in OTHERS or words[:2] == ["python", "-m"], f"unknown command {words[0]}"
        return
    printed, stopped = io.StringIO(), False
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            tyro.cli(settings, args=given)
    except SystemExit as end:
        stopped = bool(end.code)
    assert not stopped, f"{shlex.join(words)}\n{printed.getvalue()}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_understood(page: Path) -> None:
    for words in command_lines(page):
        check_command(words)


@pytest.mark.parametrize(
    "line",
    [
        "python agents/no_such_script.py",
        "python agents/train_ddpg.py --no-such-option 3",
        "python agents/train_ddpg.py --steps many",
        "blindsr enlarge photo.jpg -o larger.png",
        "blindsr upscale photo.jpg --larger -o larger.png",
        "upscale photo.jpg",
    ],
)
def test_wrong_commands_are_found(line: str) -> None:
    with pytest.raises(AssertionError):
        check_command(shlex.split(line))


def test_every_page_shows_what_it_should() -> None:
    """The commands are really found in the pages."""
    assert {page.stem: len(command_lines(page)) for page in PAGES}["train"] >= 8
    assert len(command_lines(ROOT / "docs" / "upscale.md")) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_blocks_are_python(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


def test_worked_example_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's worked example, as one program, and what the page says it prints."""
    page = ROOT / "docs" / "environment.md"
    names: dict[str, Any] = {}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)
    printed = capsys.readouterr().out.split()
    shown = "".join(blocks(page, "text")).split()
    assert len(printed) == len(shown)
    for got, said in zip(printed, shown, strict=True):
        try:
            assert float(got) == pytest.approx(float(said), abs=0.02), (printed, shown)
        except ValueError:
            assert got == said


def test_before_and_after(tmp_path: Path, tiny_renderer: Path) -> None:
    script = load("examples/before_after.py")
    out = tmp_path / "deep" / "a.jpg"
    script.main(script.Settings(out=out, model=str(tiny_renderer), crop=(8, 16), size=(40, 30)))
    with Image.open(out) as image:
        assert image.format == "JPEG"
        assert image.height > 80
        assert image.width >= 3 * 60
    with pytest.raises(ValueError, match=r"crop \(290, 0\).*move it"):
        script.main(script.Settings(out=out, model=str(tiny_renderer), crop=(290, 0)))
    with pytest.raises(ValueError, match=r"unknown photo 'dog.png': choose one of .*chelsea.png"):
        script.main(script.Settings(out=out, model=str(tiny_renderer), photo="dog.png"))


def test_real_photographs(tmp_path: Path) -> None:
    script = load("examples/real_photographs.py")
    assert [pixels.shape for pixels in script.photographs(0).values()] == [(96, 96, 3)] * 3
    script.main(script.Settings(out=tmp_path / "real.jpg"))
    with Image.open(tmp_path / "real.jpg") as image:
        assert image.format == "JPEG"
        assert image.width > 3 * 4 * 96
        assert image.height > 3 * 4 * 96


def test_figures_of_the_method(tmp_path: Path, tiny_renderer: Path) -> None:
    """The figures that need no long computation, and that the statistics of the reward are of the actions tried."""
    script = load("docs/figures.py")
    script.save(script.draw_losses(), tmp_path / "losses.png")
    script.save(script.draw_kernels(), tmp_path / "kernels.png")
    assert {path.name for path in tmp_path.iterdir()} == {"losses.png", "kernels.png"}
    settings = SimulatorSettings(split="all", renderer=str(tiny_renderer), reference="predictor", patch_size=64)
    simulator = Simulator(settings)
    _, still = script.draw_rewards(simulator, script.Settings(scenes=14, actions=2))
    assert set(still) == {"none", "bicubic", "predictor", "actions"}
    assert still["none"] > still["predictor"]
    assert still["actions"] > 0


def test_sphinx_roles_become_code() -> None:
    pytest.importorskip("griffe")
    module = load("docs/sphinx_roles.py")
    assert module.without_roles(":class:`~sr_env.envs.scalar.BlindSREnv` and :meth:`draw`") == "`BlindSREnv` and `draw`"


def test_site_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if line.startswith("WARNING")], done.stderr
    reference = (tmp_path / "site" / "reference" / "index.html").read_text()
    for name in (
        "BlindSRVectorEnv",
        "Upscaler",
        "KernelBasis",
        "HingeDDPGConfig",
        "create_metric",
        "register_function",
        "register_renderer",
        "register_family",
    ):
        assert name in reference
    for page in (tmp_path / "site").rglob("*.html"):
        assert "fonts.googleapis.com" not in page.read_text()
