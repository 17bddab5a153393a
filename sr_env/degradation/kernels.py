"""Blur kernels: Gaussians, and batches of kernels with what is known of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Side of the kernels in HR pixels.
KERNEL_SIZE = 21


@dataclass(frozen=True)
class Kernels:
    """A batch of blur kernels.

    Attributes:
        kernels: Shape [B, K, K], float32, each summing to one.
        widths: The two widths in HR pixels (equal where isotropic), shape [B, 2].
        angles: Angle of the first axis in radians, shape [B].
        taps: Shape [B, K] where every kernel is the outer product of its taps (isotropic), else None.
    """

    kernels: Tensor
    widths: Tensor
    angles: Tensor
    taps: Tensor | None

    def repeat(self, times: int) -> Kernels:
        """Every kernel ``times`` times in a row."""
        return Kernels(*(None if x is None else x.repeat_interleave(times, 0) for x in vars(self).values()))  # type: ignore[arg-type]


def gaussian_taps(widths: Tensor, size: int = KERNEL_SIZE) -> Tensor:
    """Sample normalised one-dimensional Gaussians; their outer product is the isotropic kernel.

    Args:
        widths: Standard deviations in pixels, shape [B], all > 0.
        size: Number of taps, odd.

    Returns:
        Taps of shape [B, size], each row summing to one.
    """
    offsets = torch.arange(size, device=widths.device, dtype=widths.dtype) - size // 2
    return torch.softmax(-0.5 * (offsets / widths[:, None]) ** 2, dim=-1)


def isotropic_kernels(widths: Tensor, size: int = KERNEL_SIZE) -> Tensor:
    """Isotropic Gaussian kernels.

    Args:
        widths: Standard deviations in HR pixels, shape [B], all > 0.
        size: Kernel side, odd.

    Returns:
        Kernels of shape [B, size, size], each summing to one.
    """
    taps = gaussian_taps(widths, size)
    return taps[:, :, None] * taps[:, None, :]


def anisotropic_kernels(widths: Tensor, angles: Tensor, size: int = KERNEL_SIZE) -> Tensor:
    """Gaussian kernels with two widths and an angle.

    Args:
        widths: Standard deviations in HR pixels along the two principal axes, shape [B, 2], all > 0.
        angles: Angle of the first axis against the image's x axis, in radians, shape [B].
        size: Kernel side, odd.

    Returns:
        Kernels of shape [B, size, size], each summing to one.
    """
    offsets = torch.arange(size, device=widths.device, dtype=widths.dtype) - size // 2
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    cos, sin = torch.cos(angles)[:, None, None], torch.sin(angles)[:, None, None]
    along, across = cos * x + sin * y, cos * y - sin * x
    exponent = -0.5 * ((along / widths[:, 0, None, None]) ** 2 + (across / widths[:, 1, None, None]) ** 2)
    return torch.softmax(exponent.flatten(1), dim=-1).unflatten(1, (size, size))
