"""Record the README's animation: an episode of BlindSRIterative-v0 that walks from the mean kernel to the predictor's.

python examples/record_episode.py --out docs/episode.webp
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
from PIL import Image

from sr_env import load_predictor
from sr_env.utils.files import atomic_write
from sr_env.utils.script import run_script


@dataclass
class Settings:
    """Record one episode.

    Attributes:
        out: Animated WebP to write.
        photo: Bundled photo.
        crop: Top and left of the patch in HR pixels.
        kernel_width: Kernel width in HR pixels.
        steps: Steps of the episode.
        correction: Largest change of a code component by one step, in action units.
        milliseconds: How long each picture stays; the last one stays four times as long.
        quality: WebP quality, 0 to 100.
    """

    out: Path = Path("docs/episode.webp")
    photo: str = "chelsea.png"
    crop: tuple[int, int] = (60, 120)
    kernel_width: float = 2.6
    steps: int = 4
    correction: float = 0.12
    milliseconds: int = 700
    quality: int = 80


def main(settings: Settings) -> None:
    """Play the episode and save its panels."""
    env = gym.make(
        "sr_env:BlindSRIterative-v0",
        split="all",
        reward={"psnr": 1.0},
        info_metrics=["lpips"],
        max_steps=settings.steps,
        correction=settings.correction,
        render_mode="rgb_array",
        device="cpu",
    )
    options = {"photo": settings.photo, "crop": settings.crop, "kernel_width": settings.kernel_width}
    observation, _ = env.reset(seed=0, options=options)
    target = load_predictor("predictor_x4").network.act(observation["lr"])
    frames, over = [env.render()], False
    while not over:
        action = np.clip((target - observation["code"]) / settings.correction, -1, 1)
        observation, _, over, _, _ = env.step(action)
        frames.append(env.render())
    pictures = [Image.fromarray(np.asarray(frame)) for frame in frames]
    durations = [settings.milliseconds] * (len(pictures) - 1) + [4 * settings.milliseconds]
    with atomic_write(settings.out) as temporary:
        pictures[0].save(
            temporary,
            format="WEBP",
            save_all=True,
            append_images=pictures[1:],
            duration=durations,
            loop=0,
            quality=settings.quality,
        )
    print(f"{len(pictures)} pictures of {pictures[0].width}x{pictures[0].height} written to {settings.out}")


if __name__ == "__main__":
    run_script(Settings, main)
