"""The code that a picture, or a part of it, is rendered with: predicted from it, or of a given kernel."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_env.degradation import LEVELS, KernelBasis, isotropic_kernels
from sr_env.models import Controls, KernelPredictor
from sr_env.upscale.channels import rgb
from sr_env.upscale.tiling import to_float
from sr_env.utils.checks import MIN_LR_SIZE

#: Levels of a longer code that the dial "denoise" moves.
DENOISED: tuple[str, ...] = ("noise", "jpeg")
#: LR pixels of a picture up to which the predictor sees all of it.
_WHOLE = 768 * 768
#: A larger picture is shown to the predictor as a mosaic of this many squares a side, of this many pixels each.
_MOSAIC, _PIECE = 3, 256
#: Bytes per LR pixel that the predictor takes at its peak (measured: 300 to 390).
_PREDICTOR_BYTES = 400
#: Widest Gaussian that a code is likened to, as a share of the kernels' side.
_WIDEST = 6 / 21


def equivalent_widths(codes: Tensor, basis: KernelBasis, low: float = 0.1, high: float | None = None) -> Tensor:
    """Widths of the isotropic Gaussians whose codes lie nearest to the given ones.

    Args:
        codes: Kernel codes, shape [B, L].
        basis: Their basis; levels behind the kernel's coefficients do not count.
        low: Narrowest width considered, in HR pixels.
        high: Widest; None takes 6 for kernels of 21x21, and in proportion for larger ones.

    Returns:
        Widths in HR pixels, shape [B], multiples of 0.01.
    """
    size = basis.kernel_size
    high = _WIDEST * size if high is None else high
    widths = torch.arange(round(100 * low), round(100 * high) + 1, device=codes.device) / 100
    known = basis.encode(isotropic_kernels(widths, size))[:, : basis.coefficients]
    return widths[torch.cdist(codes[:, : basis.coefficients].float(), known).argmin(1)]


def level_shares(basis: KernelBasis, denoise: float) -> Tensor:
    """What the dial "denoise" multiplies the numbers of a code by, [L]: noise and compression by it, others by one."""
    shares = torch.ones(basis.code_length, device=basis.mean.device)
    if basis.levels:
        for number, name in enumerate(LEVELS, basis.coefficients):
            if name in DENOISED:
                shares[number] = denoise
    return shares


class PictureCodes:
    """Codes of pictures and of tiles.

    Args:
        basis: The renderer's.
        predictor: Gives the actions of ``controls``; None where the kernel is given and codes hold nothing else.
        controls: What the predictor's actions are.
        kernel: Coefficients of a given kernel, [1, C]; None predicts them.
        denoise: By which share of what is seen of noise and compression the renderer is told.
        precision: Makes the context in which the predictor computes.
    """

    def __init__(
        self,
        basis: KernelBasis,
        predictor: KernelPredictor | None,
        controls: Controls,
        kernel: Tensor | None,
        denoise: float,
        precision: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.basis, self.predictor, self.controls, self.kernel = basis, predictor, controls, kernel
        self._precision, self._device = precision, basis.mean.device
        self._shares = torch.ones(controls.length, device=self._device)
        self._shares[: basis.code_length] = level_shares(basis, denoise)

    def of_tiles(self, lr: Tensor) -> Tensor:
        """RGB [B, 3, h, w] in [0, 1] -> codes [B, L], or [B, L + 1] with the strength of sharpening behind them."""
        assert self.predictor is not None
        with self._precision():
            return self._completed(self.predictor(lr))

    def of_pictures(self, stack: NDArray[Any], max_memory: float) -> Tensor:
        """One code for each picture [B, H, W, C]: of all of it where memory allows, or of a mosaic."""
        if self.predictor is None:
            assert self.kernel is not None
            return self.kernel.expand(len(stack), -1)
        height, width = stack.shape[1:3]
        seen = min(_WHOLE, max_memory / _PREDICTOR_BYTES)
        codes = []
        for picture in stack:  # one by one: their sum may not fit the memory
            if height * width <= seen:
                codes.append(self.of_tiles(rgb(to_float(picture[None], self._device))))
                continue
            piece = max(MIN_LR_SIZE, min(_PIECE, math.isqrt(int(seen)) // _MOSAIC))
            tall, wide = min(piece, height), min(piece, width)
            tops = np.linspace(0, height - tall, _MOSAIC).astype(int)
            lefts = np.linspace(0, width - wide, _MOSAIC).astype(int)
            pieces = np.stack([picture[t : t + tall, x : x + wide] for t in tops for x in lefts])
            with self._precision():
                features = self.predictor.features(rgb(to_float(pieces, self._device))).mean(0, keepdim=True)
                codes.append(self._completed(torch.tanh(self.predictor.head(features).float())))
        return torch.cat(codes)

    def _completed(self, actions: Tensor) -> Tensor:
        codes = self.controls.joined(actions) * self._shares
        if self.kernel is not None:
            codes = torch.cat((self.kernel.expand(len(codes), -1), codes[:, self.kernel.shape[1] :]), dim=1)
        return codes
