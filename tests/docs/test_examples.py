"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from sr_env.utils.checks import UsageError

ROOT = Path(__file__).resolve().parents[2]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("index", range(2))
def test_the_readmes_python_runs(index: int, tmp_path: Path) -> None:
    code = blocks("python")[index]
    code = "import torch; torch.set_num_threads(1)\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_script_of_the_readme_explains_itself() -> None:
    scripts = set(re.findall(r"python ((?:agents|pretrain)/\w+\.py)", "\n".join(blocks("bash"))))
    assert len(scripts) >= 4
    for script in scripts:
        command = [sys.executable, str(ROOT / script), "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "--" in done.stdout


@pytest.mark.parametrize("script", ["examples/actor_critic_torch.py", "agents/train_sb3.py", "examples/rllib_ppo.py"])
def test_the_learning_programs_explain_themselves(script: str, tmp_path: Path) -> None:
    if "rllib" in script:
        pytest.importorskip("ray.rllib", reason="the extra [rllib] is not installed")
    command = [sys.executable, str(ROOT / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--steps" in done.stdout
    assert "--reference {bicubic,predictor}" in done.stdout
    assert "Environment steps in all." in done.stdout  # what a setting means, though its base class has it


def test_the_panel_example_draws(tmp_path: Path) -> None:
    out = tmp_path / "panel.png"
    command = [sys.executable, str(ROOT / "examples" / "render_panel.py"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size > 10_000


def test_an_episode_is_recorded_as_an_animation(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "episode.webp"
    command = [sys.executable, str(ROOT / "examples" / "record_episode.py"), "--out", str(out), "--steps", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Image.open(out) as animation:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(animation)]
    assert len(frames) == 3  # the start, and what each step came to
    assert len({frame.tobytes() for frame in frames}) == 3
    assert out.stat().st_size < 1_000_000
    assert (ROOT / "docs" / "episode.webp").stat().st_size < 1_000_000


def test_the_metric_of_the_own_metric_example_tells_codes_apart() -> None:
    example = runpy.run_path(str(ROOT / "examples" / "own_metric.py"))
    codes = example["draw_codes"](3, np.random.default_rng(0))
    assert len({code.tobytes() for code in codes}) == 3
    assert [example["readable"](code) for code in codes] == [1.0] * 3
    assert [example["readable"](np.full_like(code, 128)) for code in codes] == [0.0] * 3
    assert example["readable"](codes[0][::4, ::4]) == 0.0  # one pixel a module
    with pytest.raises(UsageError, match="codes 8 are too few"):
        example["Settings"](codes=8)
