"""Each block of docs/extend.md runs as it is printed, alone, and is as short as the page promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extend.md").read_text()
BLOCKS = dict(re.findall(r"^## ([^\n]+)\n\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
#: What each block must have done, as statements that run after it.
DONE = {
    "A metric": """
env.reset(seed=0)
*_, info = env.step(env.action_space.sample())
assert info["crispness"] > 0 and 0 < info["piq.haarpsi"] <= 1
from sr_env.metrics import create_metric, describe
assert describe("crispness").format(1.234) == "1.23"
import torch
ramp = torch.linspace(0, 1, 11).expand(2, 3, 5, 11)
assert torch.allclose(create_metric("crispness", border=1)(ramp), torch.tensor([10.0, 10.0]))
""",
    "A renderer": """
env.reset(seed=0)
env.step(env.action_space.sample())
assert env.unwrapped.sr.shape == (192, 192, 3)
import numpy as np
from sr_env.models import load_renderer
from sr_env import Upscaler
assert load_renderer("pixels", scale=2).network.scale == 2
assert gym.make("sr_env:BlindSR-v0", renderer=Pixels(2), scale=2, patch_size=64).reset(seed=0)[0].shape == (32, 32, 3)
assert Upscaler("pixels")(np.zeros((20, 24, 3), np.uint8)).shape == (80, 96, 3)
""",
    "A kernel family": """
lr, info = env.reset(seed=0)
env.step(env.action_space.sample())
assert 0.6 <= info["kernel_width"].min() <= info["kernel_width"].max() <= 8
import numpy as np
disc = Defocus().build(np.full((1, 2), 3.0), np.zeros(1)).kernels[0]
assert torch.allclose(disc, disc.T) and abs(float(disc[10, 10] / disc[10, 12]) - 1) < 1e-6 and float(disc[10, 14]) == 0
from blindsr_pretrain.settings import TrainingSettings
assert TrainingSettings.__dataclass_fields__["kernels"].type == "str"  # --kernels takes any that is registered
try:
    gym.make("sr_env:BlindSR-v0", kernels="defocus")
except ValueError as error:
    assert "amnet_l_x4" in str(error) and "isotropic" in str(error) and "defocus" in str(error)
else:
    raise AssertionError("a renderer of another family was taken")
""",
    "An algorithm": """
from sr_env.models import read_card
assert read_card("runs/climb/actor_x4.safetensors")["method"] == "blind search"
assert [step for step, _ in run.selection.history] == [0, 1, 2, 3]
assert kept == ("pretrained" if run.selection.best is None else f"step {run.selection.best_step}")
""",
    "HingeDDPG from Python": """
import numpy as np
assert actor.act(np.zeros((48, 48, 3), np.uint8)).shape == (11,)
assert sorted(Path("runs/mine/saved").glob("*.zip"))
assert load_predictor(done.path, controls=settings.controls).card["reward"] == {"piq.haarpsi": 1}
""",
}


def test_the_page_has_its_doors() -> None:
    assert list(BLOCKS) == list(DONE)
    assert PAGE.count("```python") == len(BLOCKS)


@pytest.mark.parametrize("title", BLOCKS)
def test_blocks_are_short(title: str) -> None:
    assert len([line for line in BLOCKS[title].splitlines() if line.strip()]) <= 15


@pytest.mark.parametrize("title", BLOCKS)
def test_blocks_run_as_printed(title: str, tmp_path: Path) -> None:
    folder = tmp_path / "my_photos"
    folder.mkdir()
    for name in ("chelsea", "coffee", "astronaut", "rocket"):
        pixels = getattr(data, name)()[:240, :240]
        Image.fromarray(pixels).save(folder / f"{name}.png")
    program = tmp_path / "program.py"
    program.write_text(f"import torch; torch.set_num_threads(1)\n{BLOCKS[title]}\n{DONE[title]}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
