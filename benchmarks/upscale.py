"""Seconds per output megapixel and peak memory of enlarging one picture, each method in a process of its own.

    python benchmarks/upscale.py --peers-dir peers

Bicubic, the renderers with their predicted kernel, and Real-ESRGAN x4plus, at one thread and at two. Ours go through
``Upscaler`` as the command does; Real-ESRGAN takes the picture in one piece. Loading is not timed, and the time is the
best of the rounds; the peak is of the whole process, interpreter and libraries included.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from blindsr_agents.peers import load_realesrgan
from rich.console import Console
from rich.table import Table

from sr_env.degradation import bicubic_resize
from sr_env.models import available_checkpoints
from sr_env.photos import BundledPhotos, read_image
from sr_env.upscale import Upscaler
from sr_env.utils.checks import check_choice
from sr_env.utils.devices import Precision, autocast, resolve_device
from sr_env.utils.images import to_images, to_uint8
from sr_env.utils.provenance import hardware
from sr_env.utils.script import run_script

SCALE = 4
METHODS = ("bicubic", "amnet_l_x4", "amnet_x4", "amgan_x4", "realesrgan")


@dataclass
class Settings:
    """Measure enlarging by 4.

    Attributes:
        methods: Out of bicubic, realesrgan and the released renderers.
        photo: LR picture; None takes the bundled astronaut, 512x512 pixels.
        threads: CPU threads to measure with.
        rounds: Repetitions, of which the best time counts.
        peers_dir: Folder with Real-ESRGAN's weights; without them it is left out.
        device: Where to compute.
        precision: auto takes bf16 where the device computes in it.
        max_memory: GB that our tiles may take.
        child: Measure one method in this process and print JSON (what this script calls itself with).
    """

    methods: tuple[str, ...] = METHODS
    photo: Path | None = None
    threads: tuple[int, ...] = (1, 2)
    rounds: int = 1
    peers_dir: Path | None = None
    device: str = "cpu"
    precision: Precision = "auto"
    max_memory: float = 1.0
    child: bool = False


def load_method(settings: Settings) -> Callable[[np.ndarray], np.ndarray]:
    """The one method of the settings: uint8 [H, W, 3] -> uint8 [4H, 4W, 3]."""
    name, device = settings.methods[0], resolve_device(settings.device)
    if name not in ("bicubic", "realesrgan"):
        return Upscaler(
            name, device=device, precision=settings.precision, max_memory=settings.max_memory * 1e9
        ).__call__
    network = load_realesrgan(settings.peers_dir).to(device) if name == "realesrgan" else None

    @torch.inference_mode()
    def upscale(picture: np.ndarray) -> np.ndarray:
        lr = to_images(picture[None], device)
        if network is None:
            sr = bicubic_resize(lr, (SCALE * lr.shape[2], SCALE * lr.shape[3]))
        else:
            with autocast(settings.precision, device):
                sr = network(lr).float()
        return to_uint8(sr.clamp(0, 1))[0]

    return upscale


def measure(settings: Settings) -> dict[str, float]:
    """Best seconds per output megapixel and peak bytes of this process."""
    torch.set_num_threads(settings.threads[0])
    photos = BundledPhotos("train")
    picture = photos[photos.names.index("astronaut.png")] if settings.photo is None else read_image(settings.photo)
    method = load_method(settings)
    method(picture[:32, :32])  # the first call chooses algorithms
    seconds = []
    for _ in range(settings.rounds):
        begun = time.perf_counter()
        result = method(picture)
        seconds.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"seconds": min(seconds) / (result.shape[0] * result.shape[1] / 1e6), "peak": peak}


def call_child(settings: Settings) -> dict[str, float] | str:
    """Measure in a process of its own; its last line of stderr where it fails."""
    arguments = ["--methods", settings.methods[0], "--threads", str(settings.threads[0])]
    arguments += ["--rounds", str(settings.rounds)]
    arguments += ["--device", settings.device, "--precision", settings.precision]
    arguments += ["--max-memory", str(settings.max_memory), "--child"]
    for option, path in (("--photo", settings.photo), ("--peers-dir", settings.peers_dir)):
        arguments += [] if path is None else [option, str(path)]
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(settings: Settings) -> None:
    """Measure every method at every number of threads and print the table."""
    if settings.child:
        print(json.dumps(measure(settings)))
        return
    for name in settings.methods:
        check_choice("method", name, ("bicubic", "realesrgan", *available_checkpoints("renderer")))
    console = Console(width=140)
    table = Table(title=f"enlarging by {SCALE} on {hardware(resolve_device(settings.device))}, {settings.precision}")
    for column in ("threads", "method", "s per output megapixel", "/ bicubic", "/ realesrgan", "peak memory, MB"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for threads in settings.threads:
        found = {}
        for name in settings.methods:
            result = call_child(replace(settings, methods=(name,), threads=(threads,)))
            if isinstance(result, str):
                console.print(f"skipped: {name}: {result}", soft_wrap=True, markup=False)
            else:
                found[name] = result  # said at once, since the next may take minutes
                console.print(f"{threads} threads, {name}: {result['seconds']:.3f} s, {result['peak'] / 1e6:.0f} MB")
        for name, value in found.items():
            ratios = [
                f"{value['seconds'] / other['seconds']:.4g}" if other else ""
                for other in (found.get("bicubic"), found.get("realesrgan"))
            ]
            table.add_row(str(threads), name, f"{value['seconds']:.3f}", *ratios, f"{value['peak'] / 1e6:.0f}")
    console.print(table)


if __name__ == "__main__":
    run_script(Settings, main)
