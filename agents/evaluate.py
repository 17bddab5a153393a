"""Measure reconstructions of benchmark sets: bicubic, the renderer with the true kernel, and with the predicted one.

    python agents/evaluate.py --bench-dir FOLDER

``FOLDER`` holds one folder of HR images per set (``FOLDER/Set5/*.png``). Each is blurred with each width, reduced,
rounded to 8 bit, reconstructed whole, rounded, and compared with HR; PSNR and SSIM leave out a border of ``scale``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from sr_env._files import atomic_write, check_writable
from sr_env._script import run_script
from sr_env.checkpoint import load_predictor, load_renderer
from sr_env.degradation import REPORTED_WIDTHS, Degradation, bicubic_resize, quantize
from sr_env.devices import resolve_device
from sr_env.images import to_images
from sr_env.metrics import create_metric
from sr_env.photos import PhotoFolder

#: (LR, true code) -> SR.
Method = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Settings:
    """Measure reconstructions of benchmark sets.

    Attributes:
        bench_dir: Folder with one folder of HR images per set.
        sets: Sets to measure; one that is missing is named and skipped.
        renderer: Name or path of the renderer.
        predictor: Name or path of the kernel predictor; None takes ``predictor_x{scale}``.
        widths: Kernel widths in HR pixels.
        metrics: Metrics to measure.
        device: "auto", "cpu", "cuda" or "cuda:N".
        out: JSON file for the figures per set, method, metric and width; None writes none.
    """

    bench_dir: Path
    sets: tuple[str, ...] = ("Set5", "Set14", "BSD100")
    renderer: str = "amnet_l_x4"
    predictor: str | None = None
    widths: tuple[float, ...] = REPORTED_WIDTHS
    metrics: tuple[str, ...] = ("psnr", "ssim", "lpips")
    device: str = "auto"
    out: Path | None = None


#: set -> method -> metric -> width -> mean over the images
Figures = dict[str, dict[str, dict[str, dict[str, float]]]]


def scenes(photos: PhotoFolder, degradation: Degradation, device: torch.device) -> Iterator[Tensor]:
    """HR images cropped at the bottom and right to a multiple of the scale, float32 [1, 3, H, W] in [0, 1]."""
    scale = degradation.scale
    for image in photos:
        height, width = (side // scale * scale for side in image.shape[:2])
        yield to_images(image[None, :height, :width].copy(), device)


@torch.no_grad()
def measure(settings: Settings, console: Console) -> Figures:
    """Run every method over every set.

    Raises:
        FileNotFoundError: The folder, or every set in it, is missing.
    """
    if not settings.bench_dir.is_dir():
        raise FileNotFoundError(f"no folder {str(settings.bench_dir)!r}: --bench-dir names the one that holds the sets")
    present = [name for name in settings.sets if (settings.bench_dir / name).is_dir()]
    for name in sorted(set(settings.sets) - set(present)):
        console.print(f"{name}: no such folder in {settings.bench_dir}, skipped")
    if not present:
        raise FileNotFoundError(f"none of {', '.join(settings.sets)} is in {str(settings.bench_dir)!r}")
    device = resolve_device(settings.device)
    renderer = load_renderer(settings.renderer, device=device)
    network, basis, scale = renderer.network, renderer.basis, renderer.scale
    predictor = load_predictor(
        settings.predictor or f"predictor_x{scale}", scale=scale, basis=basis, device=device
    ).network
    methods: Mapping[str, Method] = {
        "bicubic": lambda lr, code: bicubic_resize(lr, (lr.shape[-2] * scale, lr.shape[-1] * scale)),
        "predicted kernel": lambda lr, code: network(lr, basis.to_code(predictor(lr))),
        "true kernel": network,
    }
    degradation = Degradation(scale)
    metrics = {name: create_metric(name, border=scale, device=device) for name in settings.metrics}
    figures: Figures = {}
    for name in present:
        photos = PhotoFolder(settings.bench_dir / name, min_size=8 * scale)
        values: dict[tuple[str, str, float], list[float]] = {}
        for hr in track(scenes(photos, degradation, device), name, total=len(photos), console=console, transient=True):
            for width in settings.widths:
                kernels = degradation.build(np.array([width]), device=device)
                lr, code = degradation(hr, kernels), basis.encode(kernels.kernels)
                for method, reconstruct in methods.items():
                    sr = quantize(reconstruct(lr, code))
                    for metric, compute in metrics.items():
                        values.setdefault((method, metric, width), []).append(float(compute(sr, hr)))
        figures[name] = {
            method: {
                metric: {str(width): float(np.mean(values[method, metric, width])) for width in settings.widths}
                for metric in metrics
            }
            for method in methods
        }
    return figures


def table(figures: Figures, settings: Settings) -> Table:
    """The figures as a table: mean over the widths, and each width."""
    shown = Table(title=f"{settings.renderer}, kernel widths {', '.join(map(str, settings.widths))}")
    shown.add_column("set")
    shown.add_column("code")
    for metric in settings.metrics:
        shown.add_column(f"{metric}: mean", justify="right")
        shown.add_column("per width", justify="right")
    for name, methods in figures.items():
        for method, metrics in methods.items():
            cells = []
            for metric in settings.metrics:
                each = list(metrics[metric].values())
                digits = 2 if metric.startswith("psnr") else 4
                cells += [f"{np.mean(each):.{digits}f}", " / ".join(f"{value:.{digits}f}" for value in each)]
            shown.add_row(name, method, *cells)
        shown.add_section()
    return shown


def main(settings: Settings) -> Figures:
    """Measure, print the table, and write the figures."""
    console = Console()
    if settings.out is not None:
        check_writable(settings.out.parent)
    figures = measure(settings, console)
    console.print(table(figures, settings))
    if settings.out is not None:
        with atomic_write(settings.out) as temporary:
            temporary.write_text(json.dumps(figures, indent=2) + "\n")
        console.print(f"figures written to {settings.out}")
    return figures


if __name__ == "__main__":
    run_script(Settings, main)
