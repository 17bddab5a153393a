"""Draw a picture of the documentation: one scene of a bundled photograph, with the pretrained predictor's action.

python examples/render_panel.py --out panel.png
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import gymnasium as gym
import numpy as np

from sr_env import load_predictor
from sr_env.utils.files import atomic_write
from sr_env.utils.script import run_script


@dataclass
class Settings:
    """Draw one scene's panel.

    Attributes:
        out: PNG to write.
        photo: Bundled photo.
        crop: Top and left of the patch in HR pixels.
        kernel_width: Kernel width in HR pixels.
    """

    out: Path = Path("runs/panel.png")
    photo: str = "chelsea.png"
    crop: tuple[int, int] = (60, 120)
    kernel_width: float = 2.0


def main(settings: Settings) -> None:
    """Make the scene, act, and save what render() shows."""
    env = gym.make(
        "BlindSR-v0",
        split="all",
        reference="bicubic",
        reward={"psnr": 1.0},
        info_metrics=["ssim", "lpips"],
        render_mode="rgb_array",
        device="cpu",
    )
    options = {"photo": settings.photo, "crop": settings.crop, "kernel_width": settings.kernel_width}
    observation, _ = env.reset(seed=0, options=options)
    predictor = load_predictor("predictor_x4").network
    env.step(predictor.act(observation))
    with atomic_write(settings.out) as temporary:
        cv2.imwrite(str(temporary), cv2.cvtColor(np.asarray(env.render()), cv2.COLOR_RGB2BGR))
    print(f"panel written to {settings.out}")


if __name__ == "__main__":
    run_script(Settings, main)
