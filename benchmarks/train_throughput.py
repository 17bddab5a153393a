"""Speed of the training loop against a bare forward and backward pass of the same network, measured in one run.

    python benchmarks/train_throughput.py --size amnet

The bare work is what no training can do without: forward, L1 loss, backward, on a batch that lies ready on the device.
The loop adds cutting photographs, degradation, the other losses, the optimiser, the moving average and logging. Both
are compiled, and run in the same precision and memory layout. Beside them a plain matrix product in that precision
says what the device can do. Rounds of the three are interleaved and the best of each is taken, so that a busy machine
disturbs all alike. What counts are the shares: bare time over loop time, and the loop's operations over the product's.
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
from blindsr_pretrain.amnet import AMNetSettings, AMNetTask
from blindsr_pretrain.batches import as_images
from blindsr_pretrain.data import split_photos
from blindsr_pretrain.trainer import Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sr_env.utils.devices import Precision, autocast, uses_bf16
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
    batch_size: int = AMNetSettings.batch_size
    patch_size: int = AMNetSettings.patch_size
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


def bare_work(trainer: Trainer, network: nn.Module, batch: tuple[Tensor, np.ndarray]) -> Callable[[], None]:
    """Forward, L1 and backward of the trainer's network, compiled or not, on one batch that is degraded beforehand."""
    task = trainer.task
    hr = as_images(batch[0])
    lr, code = task.degrade(hr, batch[1])

    def call() -> None:
        with autocast(trainer.settings.precision, trainer.device):
            loss = F.l1_loss(network(lr, code).float(), hr)
        task.network.zero_grad(set_to_none=True)
        loss.backward()

    return call


def matrix_product(trainer: Trainer, side: int) -> Callable[[], Tensor]:
    """A square matrix product in the trainer's precision."""
    dtype = torch.bfloat16 if uses_bf16(trainer.settings.precision, trainer.device) else torch.float32
    left, right = torch.rand(2, side, side, device=trainer.device).to(dtype)
    return lambda: left @ right


def loop_step(trainer: Trainer, batches: Iterator[tuple[Tensor, np.ndarray]]) -> Callable[[], None]:
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
        own = AMNetSettings(
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
        first = next(batches)
        side = 8192 if trainer.device.type == "cuda" else 1024
        with FlopCounterMode(display=False) as counter:
            bare_work(trainer, trainer.task.network, first)()
        calls = (
            bare_work(trainer, trainer.network, first),
            loop_step(trainer, batches),
            matrix_product(trainer, side),
        )
        for call in calls:
            call()
        rounds = [
            [seconds_per_call(call, trainer.device, settings.seconds) for call in calls] for _ in range(settings.rounds)
        ]
        batches.close()
    bare, step, product = np.min(rounds, axis=0)
    rate, reached = counter.get_total_flops() / step / 1e9, 2 * side**3 / product / 1e9
    precision = "bf16" if uses_bf16(settings.precision, trainer.device) else "fp32"
    table = Table(
        title=f"{settings.size} x4, batch {settings.batch_size}, HR patch {settings.patch_size}, {trainer.device}, "
        f"{precision}, {torch.get_num_threads()} threads, {settings.data}"
    )
    for column in (
        *("bare forward + backward", "step of the loop", "steps/s", "share of bare speed"),
        *("GFLOP/s of the loop", "of a matrix product", "share"),
    ):
        table.add_column(column, justify="right")
    table.add_row(
        *(f"{1e3 * bare:.1f} ms", f"{1e3 * step:.1f} ms", f"{1 / step:.1f}", f"{bare / step:.0%}"),
        *(f"{rate:.0f}", f"{reached:.0f}", f"{rate / reached:.0%}"),
    )
    Console(width=160).print(table)


if __name__ == "__main__":
    run_script(Settings, main)
