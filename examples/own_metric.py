"""A reward of one's own: an agent learns to make blurred QR codes readable, which no gradient tells.

python examples/own_metric.py --out runs/own_metric

The metric is OpenCV's reader: 1 where it reads a code, 0 where it does not. One LR pixel is as wide as a module of the
code. The released predictor has learned from photographs and takes the black and white squares for another blur; the
agent learns from the reader's answers alone. What keeps it honest is a guard: no actor is taken that loses PSNR.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from blindsr_agents.hinge_ddpg import HingeDDPGSettings, train
from numpy.typing import NDArray
from rich.console import Console

from sr_env.metrics import register_function
from sr_env.models import load_predictor
from sr_env.simulator import Simulator, SimulatorSettings
from sr_env.utils.checks import UsageError
from sr_env.utils.script import run_script

#: HR pixels that a module is wide, gray levels of black and white ones, and the modules of the white frame.
_MODULE, _LEVELS, _FRAME = 4, (25, 235), 3
#: Characters of a text; all texts give codes of the same 21 modules.
_LENGTH = 8
_WIDTHS = (0.2, 1.3, 2.6)


@dataclass
class Settings:
    """Train a kernel predictor to make QR codes readable.

    Attributes:
        out: Folder for what training writes.
        steps: Environment steps.
        codes: QR codes to train on; a quarter as many others are the test.
        renderer: Name or path of the frozen renderer.
        seed: Of codes, scenes and training.
    """

    out: Path = Path("runs/own_metric")
    steps: int = 5120
    codes: int = 128
    renderer: str = "amnet_x4"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.codes < 64:
            raise UsageError(f"codes {self.codes} are too few to hold some out: give 64 or more")


def readable(sr: NDArray[np.uint8]) -> float:
    """Whether a QR code is read: 1.0 or 0.0 for an image, uint8 RGB [H, W, 3]; codes know when misread."""
    try:
        return float(bool(cv2.QRCodeDetector().detectAndDecode(sr)[0]))
    except cv2.error:  # what it takes for a code may be one that it cannot handle
        return 0.0


def draw_codes(count: int, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """QR codes of random texts, uint8 RGB of one size."""
    encoder = cv2.QRCodeEncoder.create()
    letters = np.array(list(string.ascii_uppercase + string.digits))
    pictures = []
    for text in rng.choice(letters, (count, _LENGTH)):
        modules = np.pad(encoder.encode("".join(text)), _FRAME, constant_values=255)
        gray = np.where(modules.repeat(_MODULE, 0).repeat(_MODULE, 1) > 127, *_LEVELS[::-1]).astype(np.uint8)
        pictures.append(np.repeat(gray[:, :, None], 3, axis=2))
    return pictures


@torch.inference_mode()
def readable_shares(settings: dict[str, Any], actors: dict[str, Any]) -> dict[str, dict[float, float]]:
    """Share of the codes that are read, by method and kernel width.

    Args:
        settings: Of the simulator.
        actors: Name -> network from LR images to actions; bicubic and the true kernel stand beside them.
    """
    simulator = Simulator(SimulatorSettings(**settings))
    count = len(simulator.photos)
    uniforms = np.zeros((count, 6))
    uniforms[:, 0] = (np.arange(count) + 0.5) / count  # each once
    shares: dict[str, dict[float, float]] = {}
    for width in _WIDTHS:
        scenes = simulator.draw(uniforms, {"kernel_width": width})
        results = {"bicubic": simulator.bicubic(scenes)}
        results |= {name: simulator.evaluate(scenes, actor(scenes.lr)) for name, actor in actors.items()}
        results["true kernel"] = simulator.evaluate(scenes, simulator.basis.to_action(scenes.code).clamp(-1, 1))
        for name, result in results.items():
            shares.setdefault(name, {})[width] = float(result.terms["readable"].mean())
    return shares


def main(settings: Settings) -> dict[str, dict[float, float]]:
    """Draw codes, train, and print how many of others are read."""
    register_function("readable", readable, higher_is_better=True, decimals=2, batched=False)
    rng = np.random.default_rng(settings.seed)
    codes, test = draw_codes(settings.codes, rng), draw_codes(settings.codes // 4, rng)
    side = len(codes[0])
    trained = train(
        HingeDDPGSettings(
            out=settings.out,
            steps=settings.steps,
            renderer=settings.renderer,
            reward={"readable": 1.0},
            guards={"psnr": 0.0},
            controls=("code",),
            normalisation="none",  # most rewards are 0, and so is their median
            noise=5.0,  # what is read changes with strong changes of the picture alone
            noise_limit=0.4,
            constant_steps=0,  # what is read is so rare that all steps are needed for what the picture says
            actor_learning_rate=1e-3,
            patch_size=side,
            selection_side=side,
            selection_photos=settings.codes // 4,
            selection_widths=_WIDTHS,
            test_crops=0,  # the bundled photographs have no codes
            seed=settings.seed,
        ),
        photos=codes,
    )
    environment = {
        "photos": test,
        "patch_size": side,
        "renderer": settings.renderer,
        "reward": {"readable": 1.0},
        "reference": "predictor",
    }
    paths: dict[str, str | Path] = {"released predictor": "predictor_x4", "agent": trained.path}
    shares = readable_shares(environment, {name: load_predictor(path).network for name, path in paths.items()})
    console = Console()
    for name, by_width in shares.items():
        console.print(f"{name:<20}" + "".join(f"{share:>8.0%}" for share in by_width.values()), highlight=False)
    console.print("of the test codes read at kernel widths of " + ", ".join(map(str, _WIDTHS)), highlight=False)
    return shares


if __name__ == "__main__":
    run_script(Settings, main)
