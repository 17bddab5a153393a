"""Blur kernels: Gaussians, and batches of kernels with what is known of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sr_env.degradation.corruption import Corruption

#: Side of the kernels in HR pixels.
KERNEL_SIZE = 21


@dataclass(frozen=True)
class Kernels:
    """A batch of blur kernels, and what else happens to the pictures that they blur.

    Attributes:
        kernels: Shape [B, K, K], float32, each summing to one.
        widths: The two widths in HR pixels (equal where isotropic), shape [B, 2].
        angles: Angle of the first axis in radians, shape [B].
        taps: Shape [B, K] where every kernel is the outer product of its taps (isotropic), else None.
        corruption: Of the same B pictures; None where they are blurred and reduced alone.
    """

    kernels: Tensor
    widths: Tensor
    angles: Tensor
    taps: Tensor | None
    corruption: Corruption | None = None

    def map(self, change: Callable[..., Tensor], *others: Kernels) -> Kernels:
        """Apply a function to every tensor and those of the same name of others; what one of them lacks is left out."""
        return _mapped(change, self, *others)

    def repeat(self, times: int) -> Kernels:
        """Every kernel ``times`` times in a row."""
        return self.map(lambda x: x.repeat_interleave(times, 0))


def _mapped(change: Callable[..., Tensor], *records: Any) -> Any:
    """One tensor of several, or one dataclass of several of the same kind, field by field."""
    if isinstance(records[0], Tensor):
        return change(*records)
    names = [field.name for field in fields(records[0])]
    columns = [[getattr(record, name) for record in records] for name in names]
    whole = [not any(entry is None for entry in column) for column in columns]
    return type(records[0])(*(_mapped(change, *c) if w else None for c, w in zip(columns, whole, strict=True)))


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
    along, across = turned_grid(angles, size)
    exponent = -0.5 * ((along / widths[:, 0, None, None]) ** 2 + (across / widths[:, 1, None, None]) ** 2)
    return torch.softmax(exponent.flatten(1), dim=-1).unflatten(1, (size, size))


def turned_grid(angles: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Where the weights of kernels lie, in pixels from the middle: along and across a direction, both [B, size, size].

    Args:
        angles: Of the direction against the image's x axis, in radians, shape [B].
        size: Kernel side, odd.
    """
    offsets = torch.arange(size, device=angles.device, dtype=angles.dtype) - size // 2
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    cos, sin = torch.cos(angles)[:, None, None], torch.sin(angles)[:, None, None]
    return cos * x + sin * y, cos * y - sin * x
