"""Held-out pictures, and how well they are reconstructed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sr_env.degradation import REPORTED_WIDTHS, Degradation, KernelBasis, Kernels, quantize, soften
from sr_env.metrics import create_metric
from sr_env.photos import PhotoSource, centre_crops
from sr_env.utils.finished import Take, anew, within
from sr_env.utils.images import to_images

_VALIDATION_CROP = 288


class ValidationSet:
    """Held-out photos, degraded once with the three reported widths, and the scores of their reconstruction.

    Of a kernel family that has no widths to report, three kernels are drawn for every photo.

    Args:
        photos: The held-out photos; a centre crop of each is used.
        degradation: How LR images are made.
        basis: Kernel basis for the true codes.
        device: Where they are kept.
        softness: Where positive, every photo is also there softened by a Gaussian of this width in HR pixels.
        metrics: What is measured.
        drawings: Held-out drawings, measured apart; None for none.
    """

    def __init__(
        self,
        photos: PhotoSource,
        degradation: Degradation,
        basis: KernelBasis,
        device: torch.device,
        softness: float = 0.0,
        metrics: Sequence[str] = ("psnr",),
        drawings: PhotoSource | None = None,
    ) -> None:
        scale = degradation.scale
        hr = to_images(centre_crops(photos, _VALIDATION_CROP, scale), device)
        if softness > 0:
            hr = torch.cat((hr, quantize(soften(hr, hr.new_full((len(hr),), softness)))))
        self.hr = hr
        self.metrics = {name: create_metric(name, border=scale, device=device) for name in metrics}
        self.sets: dict[str, tuple[Tensor, Tensor]] = {}
        for name, kernels in _kernels(degradation, len(hr), device).items():
            self.sets[name] = (degradation(hr, kernels), basis.code_of(kernels))
        self.drawings = None
        if drawings is not None:
            self.drawings = ValidationSet(drawings, degradation, basis, device, metrics=metrics)

    @torch.inference_mode()
    def score(
        self,
        render: Callable[[Tensor, Tensor], Tensor],
        predict: Callable[[Tensor], Tensor] | None = None,
        take: Take = anew,
    ) -> tuple[dict[str, float], Tensor]:
        """Every metric's mean, under its name, and per width, as ``psnr_0.2``; and the last picture beside HR.

        Where there are drawings, their means stand beside as ``psnr_drawings``.

        Args:
            render: (LR [B, 3, h, w], code [B, L]) -> SR [B, 3, H, W].
            predict: LR [B, 3, h, w] -> the code [B, L] to render with. The true code's means then stand beside, as
                ``psnr_true_kernel``. None renders with the true code.
            take: Scores the photos at a width, or gives what was found before; the picture is the last of those that
                were rendered, and HR stands alone where none was.
        """
        if predict is not None:
            figures, picture = self.score(lambda lr, code: render(lr, predict(lr)), take=take)
            true_kernel = self.score(render, take=within(take, "true kernel"))[0]
            return figures | true_kernel_figures(true_kernel, list(self.metrics)), picture
        seen: list[Tensor] = []
        each = {kernel: take(kernel, partial(self._values, kernel, render, seen)) for kernel in self.sets}
        figures = {}
        for name in self.metrics:
            values = {kernel: found[name] for kernel, found in each.items()}
            figures[name] = float(np.mean(list(values.values())))
            figures |= {f"{name}_{kernel}": value for kernel, value in values.items()}
        if self.drawings is not None:
            drawn = self.drawings.score(render, take=within(take, "drawings"))[0]
            figures |= {f"{name}_drawings": drawn[name] for name in self.metrics}
        return figures, torch.cat([*seen[-1:], self.hr[0]], dim=-1)

    def _values(self, kernel: str, render: Callable[[Tensor, Tensor], Tensor], seen: list[Tensor]) -> dict[str, float]:
        """Every metric's mean with one of the kernels; the first picture is added to those seen."""
        sr = render(*self.sets[kernel]).float().clamp(0, 1)
        seen.append(sr[0])
        return {name: float(metric(sr, self.hr).mean()) for name, metric in self.metrics.items()}


def true_kernel_figures(figures: dict[str, float], metrics: Sequence[str]) -> dict[str, float]:
    """What stands beside the figures with predicted codes: ``psnr`` as ``psnr_true_kernel``, of drawings too."""
    kept = [name for metric in metrics for name in (metric, f"{metric}_drawings") if name in figures]
    return {f"{name}_true_kernel": figures[name] for name in kept}


def _kernels(degradation: Degradation, count: int, device: torch.device) -> dict[str, Kernels]:
    """Three kernels for each of ``count`` photos, by the name of their width, or by number."""
    if degradation.kernels == "isotropic":
        return {
            f"{width}": degradation.build(np.full(count, width), device=device)
            for width in REPORTED_WIDTHS[degradation.scale]
        }
    uniforms = np.random.default_rng(0).random((3, count, 3))
    return {f"kernel_{number}": degradation.draw(drawn, device) for number, drawn in enumerate(uniforms, 1)}
