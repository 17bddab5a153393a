"""How a sharp HR image becomes the blurred LR image: a kernel of a family, blur, reduction, rounding.

The setting is the one shared by IKC, DAN, DCLS and the supplement of "Learning the Non-differentiable Optimization for
Blind Super-Resolution" (CVPR 2021): a 21x21 Gaussian kernel, bicubic reduction with antialiasing, rounding to 8 bit.
A kernel is described by its *code*, ten PCA coefficients in units of their standard deviation, and an *action* is the
same code mapped to [-1, 1] per component.

Everything is batched, with a different kernel per image, and runs on the device of its inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sr_env.degradation.families import KernelFamily, kernel_family
from sr_env.degradation.kernels import Kernels
from sr_env.degradation.operators import bicubic_resize, blur, blur_and_reduce, quantize
from sr_env.utils.checks import SCALES, UsageError, check_choice

Reduction = Literal["bicubic", "decimate"]
REDUCTIONS: tuple[str, ...] = ("bicubic", "decimate")


@dataclass(frozen=True)
class Degradation:
    """HR -> LR: ``LR = round8(reduce(HR * kernel))``.

    Args:
        scale: Reduction factor, 2, 3 or 4.
        kernels: Kernel family: ``"isotropic"``, ``"anisotropic"`` or another registered one.
        reduction: ``"bicubic"`` (antialiased, MATLAB's ``imresize`` away from the border) or ``"decimate"``
            (every ``scale``-th pixel, the USRGAN setting).
        widths: Range of the width in HR pixels; None takes the family's usual range.

    Raises:
        UsageError: An unknown name or scale, or a range that is not ``0 < low <= high < K``.
    """

    scale: int = 4
    kernels: str = "isotropic"
    reduction: Reduction = "bicubic"
    widths: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_choice("scale", self.scale, SCALES)
        check_choice("reduction", self.reduction, REDUCTIONS)
        _check_range(self.widths or self.family.width_range(self.scale), self.family.size)

    @property
    def family(self) -> KernelFamily:
        """The kernel family."""
        return kernel_family(self.kernels)

    @property
    def width_range(self) -> tuple[float, float]:
        """Range from which widths are drawn, in HR pixels."""
        return self.family.width_range(self.scale) if self.widths is None else self.widths

    def draw(self, uniforms: np.ndarray, device: torch.device | str = "cpu") -> Kernels:
        """Turn uniform numbers into kernels: width(s) uniform in the range, angle uniform in [0, pi).

        Args:
            uniforms: Numbers in [0, 1), shape [B, 3].
            device: Where the kernels are built.
        """
        return self.family.draw(uniforms, self.width_range, device)

    def build(
        self, widths: np.ndarray, angles: np.ndarray | None = None, device: torch.device | str = "cpu"
    ) -> Kernels:
        """Build the kernels of given widths (one per image, [B], or two, [B, 2]) and angles ([B], radians).

        In the isotropic family the first width counts and the angle is zero.

        Raises:
            UsageError: A width is not between 0 and the kernels' side of K HR pixels, or an angle is not finite.
        """
        widths = np.asarray(widths, dtype=np.float64)
        widths = np.repeat(widths[:, None], 2, axis=1) if widths.ndim == 1 else widths
        side = self.family.size
        if not ((widths > 0) & (widths < side)).all():
            raise UsageError(f"kernel widths must be positive numbers of HR pixels under {side}, not {widths.tolist()}")
        angles = np.zeros(len(widths)) if angles is None else np.asarray(angles, dtype=np.float64)
        if not np.isfinite(angles).all():
            raise UsageError(f"kernel angles must be finite numbers of radians, not {angles.tolist()}")
        return self.family.build(widths, angles, device)

    def given(self, kernels: np.ndarray | Tensor, device: torch.device | str = "cpu") -> Kernels:
        """Kernels of the user's own, in no family: measured ones, motion blur, anything.

        Args:
            kernels: Finite, non-negative weights at HR resolution, shape [B, k, k] with k odd and at most the family's
                K. They are scaled to sum to one and padded with zeros to KxK. Pictures are correlated with them.
            device: Where the kernels go.

        Returns:
            The kernels; ``widths`` and ``angles`` are those of the ellipse with the same second moments.

        Raises:
            UsageError: The shape or a weight is wrong, or a kernel is zero throughout.
        """
        try:
            array = np.asarray(kernels.detach().cpu() if isinstance(kernels, Tensor) else kernels, dtype=np.float64)
        except (TypeError, ValueError):
            raise UsageError(f"kernels {kernels!r} are no array of real numbers: give shape [B, k, k]") from None
        side, largest = array.shape[-1] if array.ndim == 3 else 0, self.family.size
        if array.ndim != 3 or array.shape[1] != side or side % 2 == 0 or side > largest or not len(array):
            raise UsageError(
                f"kernels of shape {list(array.shape)} do not fit: give [B, k, k] with k odd and at most {largest}"
            )
        totals = array.sum((1, 2))
        if not np.isfinite(totals).all() or array.min() < 0 or totals.min() <= 0:
            raise UsageError(
                f"kernel weights from {array.min():g} to {array.max():g}, sums {totals.tolist()}: give finite, "
                "non-negative weights with a positive sum"
            )
        padded = np.pad(array / totals[:, None, None], ((0, 0), *[((largest - side) // 2,) * 2] * 2))
        widths, angles = _ellipses(padded)
        made = [torch.from_numpy(x.copy()).to(device, torch.float32) for x in (padded, widths, angles)]
        return Kernels(made[0], made[1], made[2], None)

    def __call__(self, hr: Tensor, kernels: Kernels) -> Tensor:
        """Blur, reduce, corrupt where the kernels say how, clamp and round to 8 bit.

        Args:
            hr: Images, float32 in [0, 1], shape [B, 3, H, W] with H and W divisible by ``scale``.
            kernels: One kernel per image.

        Returns:
            LR images, float32 multiples of 1/255 in [0, 1], shape [B, 3, H/scale, W/scale].

        Raises:
            UsageError: H or W is not divisible by the scale.
        """
        height, width = hr.shape[-2:]
        if height % self.scale or width % self.scale:
            raise UsageError(f"HR size {height}x{width} is not divisible by scale {self.scale}: crop it first")
        lr = self.reduce(hr, kernels)
        return quantize(lr if kernels.corruption is None else kernels.corruption.apply(lr))

    def reduce(self, hr: Tensor, kernels: Kernels) -> Tensor:
        """Blur and reduce without clamping or rounding: the linear operator, differentiable in ``hr``."""
        if kernels.taps is not None:
            return blur_and_reduce(hr, kernels.taps, self.scale, self.reduction)
        blurred = blur(hr, kernels.kernels)
        if kernels.corruption is not None:
            return kernels.corruption.reduce(blurred, self.scale)
        if self.reduction == "decimate":
            return blurred[..., :: self.scale, :: self.scale]
        return bicubic_resize(blurred, (hr.shape[-2] // self.scale, hr.shape[-1] // self.scale))


def _check_range(widths: object, side: int) -> None:
    """Raise :class:`UsageError` unless ``widths`` is a pair of numbers ``0 < low <= high < side``."""
    pair = tuple(widths) if isinstance(widths, Sequence) and not isinstance(widths, str) else ()
    numbers = [float(x) for x in pair if isinstance(x, Real) and not isinstance(x, bool)]
    if len(pair) != 2 or len(numbers) != 2 or not 0 < numbers[0] <= numbers[1] < side:
        raise UsageError(f"kernel widths {widths!r} are not a range: give (low, high) with 0 < low <= high < {side}")


def _ellipses(kernels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Widths [B, 2], the larger first, and angles [B] of the first axis, of kernels [B, K, K] that sum to one."""
    offsets = np.arange(kernels.shape[-1]) - kernels.shape[-1] // 2
    y, x = np.meshgrid(offsets, offsets, indexing="ij")
    place = np.stack((x, y), -1).reshape(-1, 2)
    weights = kernels.reshape(len(kernels), -1)
    mean = weights @ place
    moments = np.einsum("bn,ni,nj->bij", weights, place, place) - mean[:, :, None] * mean[:, None, :]
    values, vectors = np.linalg.eigh(moments)
    first = vectors[:, :, 1]
    return np.sqrt(values[:, ::-1].clip(min=0)), np.arctan2(first[:, 1], first[:, 0]) % np.pi
