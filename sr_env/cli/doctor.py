"""What is installed, what is found and how fast it is: the first thing to look at when something does not work.

    blindsr doctor

Nothing is downloaded.
"""

from __future__ import annotations

import json as jsonlib
import platform
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from sr_env import __version__
from sr_env.metrics import ARCHITECTURES, find_local
from sr_env.models import RELEASED, load_predictor, load_renderer, read_card
from sr_env.upscale import Upscaler, default_model
from sr_env.utils.checks import UsageError
from sr_env.utils.devices import resolve_device, uses_bf16
from sr_env.utils.provenance import hardware

_PACKAGES = (
    *("torch", "torchvision", "gymnasium", "stable-baselines3", "numpy", "opencv-python-headless", "pillow", "lpips"),
    *("piq", "safetensors", "tyro", "rich", "scikit-image", "accelerate"),
)
_SIDE = 128  # LR pixels of the picture that is timed


@dataclass
class Settings:
    """Check the installation.

    Attributes:
        device: Device to check: auto, cpu, cuda, cuda:N or mps.
        seconds: Time for the speed check; 0 leaves it out.
        json: Print JSON instead of tables.
    """

    device: str = "auto"
    seconds: float = 5.0
    json: bool = False


def examine(settings: Settings) -> dict[str, Any]:
    """Everything the command shows, as JSON values; ``problems`` has a line for each thing that is wrong.

    Raises:
        UsageError: The device is unknown or absent, or the time is negative.
    """
    device = resolve_device(settings.device)
    if not settings.seconds >= 0:
        raise UsageError(f"--seconds {settings.seconds}: give 0 or more")
    problems: list[str] = []
    versions = {"blindsr-gym": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
            problems.append(f"the package {package} is not installed: pip install blindsr-gym again")
    return {
        "versions": versions,
        "device": str(device),
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
        "bf16": uses_bf16("auto", device),
        "checkpoints": _checkpoints(problems),
        "backbones": {arch: None if (path := find_local(arch)) is None else str(path) for arch in ARCHITECTURES},
        "speed": _speed(device, settings.seconds, problems) if settings.seconds else None,
        "problems": problems,
    }


def _checkpoints(problems: list[str]) -> list[dict[str, Any]]:
    """Name and card of every released checkpoint, each loaded as it would be for use."""
    found = []
    for name in sorted(path.stem for path in RELEASED.glob("*.json")):
        try:
            card = read_card(name)
            (load_renderer if card["kind"] == "renderer" else load_predictor)(name)
        except (FileNotFoundError, ValueError, KeyError) as error:
            problems.append(str(error))
            continue
        keys = ("kind", "scale", "parameters", "steps", "seconds", "validation")
        found.append({"name": name, **{key: card.get(key) for key in keys}})
    return found


@torch.inference_mode()
def _speed(device: torch.device, seconds: float, problems: list[str]) -> dict[str, Any] | None:
    """Seconds per output megapixel of the default model, the kernel's prediction included."""
    model = default_model(4)
    try:
        upscaler = Upscaler(model, device=device)
    except (FileNotFoundError, ValueError) as error:
        problems.append(f"no speed check: {error}")
        return None
    picture = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
    upscaler(picture)  # the first call chooses algorithms
    calls, begun = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - begun < seconds:
        upscaler(picture)
        calls += 1
    megapixels = calls * (_SIDE * upscaler.scale) ** 2 / 1e6
    return {"model": model, "seconds_per_megapixel": round((time.perf_counter() - begun) / megapixels, 4)}


def show(found: dict[str, Any], console: Console) -> None:
    """Print what :func:`examine` found."""
    console.print(", ".join(f"{name} {version}" for name, version in found["versions"].items()), highlight=False)
    console.print(
        f"device {found['device']} ({found['hardware']}), {found['threads']} threads, "
        f"bf16 {'used' if found['bf16'] else 'not used: the device does not compute in it'}",
        highlight=False,
    )
    table = Table(title="checkpoints")
    for column in ("name", "kind", "scale", "parameters", "steps", "seconds", "validation"):
        table.add_column(column, justify="left" if column in ("name", "kind", "validation") else "right")
    for card in found["checkpoints"]:
        scores = {key: value for key, value in (card["validation"] or {}).items() if "_" not in key}
        cells = [card[key] for key in ("name", "kind", "scale", "parameters", "steps", "seconds")]
        table.add_row(*("" if cell is None else str(cell) for cell in cells), _scores(scores))
    console.print(table)
    for arch, path in found["backbones"].items():
        console.print(
            f"{arch}: {path or 'not here; metrics that need it look further'}", highlight=False, soft_wrap=True
        )
    if found["speed"] is not None:
        speed = found["speed"]
        console.print(f"{speed['model']}: {speed['seconds_per_megapixel']:.2f} s per output megapixel")
    for problem in found["problems"]:
        console.print(f"problem: {problem}", style="bold red", markup=False, soft_wrap=True)


def _scores(scores: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in scores.items() if isinstance(value, float | int))


def main(settings: Settings) -> None:
    """Examine and print; exit with status 1 where something is wrong."""
    found = examine(settings)
    if settings.json:
        print(jsonlib.dumps(found, indent=2))
    else:
        show(found, Console(width=None if sys.stdout.isatty() else 160))
    if found["problems"]:
        sys.exit(1)
