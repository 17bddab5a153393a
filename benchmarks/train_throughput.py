"""Speed of the training loop against a bare forward and backward pass of the same network, measured in one run.

    python benchmarks/train_throughput.py

The bare work is what no training can do without: forward, L1 loss, backward, on a batch that lies ready on the device.
The loop adds reading and cutting photographs, degradation, the optimiser, the moving average and logging. Both are
compiled, and run in the same precision and memory layout. Rounds of the two are interleaved and the best of each is
taken, so that a busy machine disturbs both alike. What counts is the share, bare time over loop time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from blindsr_pretrain.trainer import Trainer, split_photos
from rich.console import Console
from rich.table import Table
from train_amnet import AMNetTask
from train_amnet import Settings as TrainSettings

from sr_env.degradation import Degradation
from sr_env.utils.devices import Precision, autocast, uses_bf16
from sr_env.utils.images import to_images
from sr_env.utils.script import run_script


@dataclass
class Settings:
    """Measure training throughput.

    Attributes:
        data: Folder of HR photos, or "bundled".
        size: Size of AMNet.
        batch_size: Patches per step.
        patch_size: HR patch side in pixels.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto" (bf16 where the device computes in it), "fp32" or "bf16".
        compile: Use torch.compile.
        rounds: Interleaved rounds, of which the best counts.
        seconds: Least time of one measurement.
        threads: CPU threads of torch; None leaves torch's choice.
    """

    data: str = "bundled"
    size: Literal["amnet", "amnet_l"] = "amnet_l"
    batch_size: int = 16
    patch_size: int = 128
    device: str = "auto"
    precision: Precision = "auto"
    compile: bool = True
    rounds: int = 5
    seconds: float = 3.0
    threads: int | None = None


def seconds_per_call(call: Callable[[], Any], device: torch.device, least: float) -> float:
    """Mean seconds of a call, over as many calls as fill ``least`` seconds."""
    calls, begun = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - begun < least:
        call()
        calls += 1
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - begun) / calls


def bare_work(trainer: Trainer, batch: tuple[np.ndarray, np.ndarray]) -> Callable[[], None]:
    """Forward, L1 and backward of the trainer's network on one batch that is degraded beforehand."""
    task = trainer.task
    hr = to_images(batch[0], trainer.device)
    degradation = Degradation(task.scale)
    kernels = degradation.draw(batch[1], hr.device)
    lr = degradation(hr, kernels).contiguous(memory_format=torch.channels_last)
    code = task.basis.encode(kernels.kernels)

    def call() -> None:
        with autocast(trainer.settings.precision, trainer.device):
            loss = F.l1_loss(trainer.network(lr, code).float(), hr)
        task.network.zero_grad(set_to_none=True)
        loss.backward()

    return call


def loop_step(trainer: Trainer, batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> Callable[[], None]:
    """One step of the training loop, data included."""

    def call() -> None:
        logs = trainer._update(*next(batches))
        trainer.step += 1
        if trainer.step % trainer.settings.log_every == 0:
            float(logs["loss"])

    return call


def main(settings: Settings) -> None:
    """Measure and print."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    with tempfile.TemporaryDirectory() as folder:
        own = TrainSettings(
            out=Path(folder),
            data=settings.data,
            size=settings.size,
            batch_size=settings.batch_size,
            patch_size=settings.patch_size,
            device=settings.device,
            precision=settings.precision,
            compile=settings.compile,
            steps=1_000_000,
        )
        photos, indices, held_out = split_photos(own)
        trainer = Trainer(AMNetTask(own, held_out), own, photos, indices)
        batches = trainer._batches()
        calls = (bare_work(trainer, next(batches)), loop_step(trainer, batches))
        for call in calls:
            call()
        rounds = [
            [seconds_per_call(call, trainer.device, settings.seconds) for call in calls] for _ in range(settings.rounds)
        ]
        batches.close()
    bare, step = np.min(rounds, axis=0)
    precision = "bf16" if uses_bf16(settings.precision, trainer.device) else "fp32"
    shown = Table(
        title=f"{settings.size} x4, batch {settings.batch_size}, HR patch {settings.patch_size}, {trainer.device}, "
        f"{precision}, {torch.get_num_threads()} threads, {settings.data}"
    )
    for column in ("bare forward + backward", "step of the loop", "steps/s", "share of bare speed"):
        shown.add_column(column, justify="right")
    shown.add_row(f"{1e3 * bare:.1f} ms", f"{1e3 * step:.1f} ms", f"{1 / step:.1f}", f"{bare / step:.0%}")
    Console(width=140).print(shown)


if __name__ == "__main__":
    run_script(Settings, main)
