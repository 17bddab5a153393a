"""Kinds of pictures measured apart: what the predicted kernel costs on each, and what a perceptual renderer gains.

A mean over photographs hides that a predictor fails on drawings, or that a renderer adds texture to grass alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blindsr_agents.evaluation.artefacts import gradients, grey_levels
from blindsr_agents.evaluation.methods import PREDICTED, TRUE, ReconstructionMethod, reconstructions
from blindsr_agents.evaluation.tables import Cells
from sr_env.degradation import Degradation
from sr_env.metrics import Metric
from sr_env.photos import PhotoSource, Pixels, crops
from sr_env.utils.checks import UsageError
from sr_env.utils.devices import Precision
from sr_env.utils.images import to_images

_BOX = 15  # HR pixels over which an edge is to be straight
_STRAIGHT = 0.9  # coherence of the gradients there; 1 where all have one direction
_STEP = 4

#: Metric -> mean over the kernel widths, of one method.
Values = dict[str, float]


@dataclass(frozen=True)
class Kind:
    """Pictures of one kind, measured together.

    Attributes:
        name: What they are.
        hr: HR pictures [B, 3, H, W] in [0, 1].
        seen: Whether the renderers were trained on them.
    """

    name: str
    hr: Tensor
    seen: bool = False


def straight_edges(photos: PhotoSource, side: int, count: int, multiple: int = 1) -> Pixels:
    """Windows of the photos with the strongest straight edges, which buildings and other made things have.

    Of every photo the window is taken where the gradients are strongest, counting those alone that have one direction
    over 15 pixels; then the photos whose windows have most.

    Args:
        photos: The photos.
        side: Side of a window in pixels at most; the shortest side of the photos where that is less.
        count: Windows to give, each of another photo.
        multiple: What divides the side that is taken.

    Returns:
        uint8 RGB [count, side, side, 3], the straightest first; fewer where there are fewer photos.

    Raises:
        UsageError: The windows would be too small.
    """
    side = min(side, int(photos.shape_array.min())) // multiple * multiple
    if side < 2 * _BOX:
        raise UsageError(f"windows of {side} pixels are too small to look for straight edges: give {2 * _BOX} or more")
    # Photos differ in size, so they are searched one by one.
    found = np.array([_straightest(photo, side) for photo in photos])
    best = np.argsort(-found[:, 0], kind="stable")[:count]
    return crops(photos, best, found[best, 1].astype(int), found[best, 2].astype(int), side)


def _straightest(photo: Pixels, side: int) -> tuple[float, int, int]:
    """Straightness, top and left of the window with most of it."""
    gradient = gradients(grey_levels(to_images(photo[None].copy())))
    products = torch.cat((gradient.square(), gradient.prod(1, keepdim=True)), 1)
    xx, yy, xy = F.avg_pool2d(products, _BOX, _STEP).unbind(1)
    energy = xx + yy
    coherence = torch.hypot(xx - yy, 2 * xy) / (energy + 1)  # grey levels squared: noise has no direction
    straight = energy.sqrt() * (coherence > _STRAIGHT)
    windows = F.avg_pool2d(straight[None], (side - _BOX) // _STEP + 1, 1)[0, 0]
    row, column = divmod(int(windows.argmax()), windows.shape[1])
    return float(windows.max()), row * _STEP, column * _STEP


def measure_kind(
    kind: Kind,
    methods: Sequence[ReconstructionMethod],
    metrics: Mapping[str, Metric],
    degradation: Degradation,
    widths: Sequence[float],
    precision: Precision = "fp32",
) -> dict[str, Values]:
    """Mean over the pictures of a kind and over the kernel widths: method -> metric -> value."""
    references = {name: metric.prepare(kind.hr) for name, metric in metrics.items() if metric.needs_reference}
    each: dict[str, list[list[float]]] = {method.name: [] for method in methods}
    for method, _, sr in reconstructions(kind.hr, methods, degradation, widths, precision):
        with torch.inference_mode():
            each[method].append([float(metric(sr, references.get(name)).mean()) for name, metric in metrics.items()])
    return {
        method: dict(zip(metrics, np.mean(values, axis=0).tolist(), strict=True)) for method, values in each.items()
    }


def renderer_names(methods: Sequence[ReconstructionMethod]) -> list[str]:
    """Names of the renderers that are there with the true and with the predicted kernel, in their order."""
    names = [method.name for method in methods]
    bare = [name.removesuffix(f", {TRUE}") for name in names if name.endswith(f", {TRUE}")]
    return [name for name in bare if f"{name}, {PREDICTED}" in names]


def kind_cells(kinds: Sequence[Kind], values: Mapping[str, Mapping[str, Values]], renderers: Sequence[str]) -> Cells:
    """Header and rows: both kernels and the gap between them in PSNR, LPIPS and its gain over the first renderer.

    Args:
        kinds: What was measured.
        values: Kind -> method -> metric -> value, with psnr and lpips among the metrics.
        renderers: The first is the baseline. A gain of 25 % is an LPIPS that is a quarter lower, with the predicted
            kernel in both.
    """
    cells = [["kind", "renderer", "pictures", "PSNR-Y, true", "predicted", "loss", "LPIPS, true", "predicted", "gain"]]
    for kind in kinds:
        found = values[kind.name]
        baseline = found[f"{renderers[0]}, {PREDICTED}"]["lpips"]
        for number, renderer in enumerate(renderers):
            true, predicted = (found[f"{renderer}, {kernel}"] for kernel in (TRUE, PREDICTED))
            cells.append(
                [
                    (kind.name + (" (trained on)" if kind.seen else "")) if number == 0 else "",
                    renderer,
                    str(len(kind.hr)) if number == 0 else "",
                    f"{true['psnr']:.2f}",
                    f"{predicted['psnr']:.2f}",
                    f"{true['psnr'] - predicted['psnr']:.2f}",
                    f"{true['lpips']:.4f}",
                    f"{predicted['lpips']:.4f}",
                    f"{1 - predicted['lpips'] / baseline:.1%}" if number else "",
                ]
            )
    return cells
