"""The blur, noise and compression of pictures as people have them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from sr_env.degradation.basis import KernelBasis
from sr_env.degradation.corruption import LEVELS, Corruption, chosen_of, hashed, hashed_uniforms
from sr_env.degradation.families import KernelFamily, basis_path, register_family, sample_uniforms
from sr_env.degradation.kernels import Kernels, anisotropic_kernels, turned_grid

#: Shapes of the kernels, and how often each is drawn.
SHAPES: Mapping[str, float] = {"isotropic": 0.3, "anisotropic": 0.3, "defocus": 0.25, "motion": 0.15}
#: The narrower width of an anisotropic Gaussian is at least this share of the wider one.
_FLATTEST = 0.4
#: Width in HR pixels across the way of a motion, and the largest along it, as a share of the range's.
_ACROSS, _LONGEST = 0.8, 0.5
#: Coefficients of a code.
_COEFFICIENTS = 15
#: A uniform line of the width 1 is so long.
_LINE = math.sqrt(12)


@register_family
class Real(KernelFamily):
    """Blur, noise and JPEG as people have them.

    The kernel is a Gaussian of one or of two widths, the disc of a lens out of focus, or the line of a short motion.
    Widths are standard deviations along the principal axes, up to 2.5 LR pixels, narrow ones more often: the lowest of
    the range plus its length times the square of a uniform number. What else happens to a picture is in
    :class:`~sr_env.degradation.corruption.Corruption`, and codes hold its levels behind 15 coefficients.

    Kernels that are asked for by width and angle are Gaussians.
    """

    name = "real"
    two_widths = True
    has_angle = True
    corrupts = True
    size = 49

    def width_range(self, scale: int) -> tuple[float, float]:
        """Up to two and a half LR pixels."""
        return 0.2, 2.5 * scale

    def kernels(self, widths: Tensor, angles: Tensor) -> Tensor:
        """Gaussians of both widths, turned by the angle."""
        return anisotropic_kernels(widths, angles, self.size)

    def draw(self, uniforms: np.ndarray, width_range: tuple[float, float], device: torch.device | str) -> Kernels:
        """Draw shape, widths, angle and corruption from uniform numbers [B, 3], by a hash of them."""
        seed = torch.zeros(len(uniforms), dtype=torch.int64)
        for column in np.floor(uniforms * 2.0**32).astype(np.int64).T:
            seed = hashed(seed, torch.from_numpy(column))
        seed = seed.to(device)
        u, (low, high) = hashed_uniforms(seed, 4), width_range
        shape = chosen_of(SHAPES, u[:, 0])
        anisotropic, motion = shape == 1, shape == 3
        wide = low + (high - low) * torch.where(motion, _LONGEST, 1.0) * u[:, 1].square()
        narrow = torch.where(anisotropic, wide * (_FLATTEST + (1 - _FLATTEST) * u[:, 3]), wide).clamp_min(low)
        widths = torch.stack((wide, torch.where(motion, _ACROSS, narrow)), dim=1).float()
        angles = torch.where(anisotropic | motion, math.pi * u[:, 2], 0.0).float()
        return self.shaped(shape, widths, angles, Corruption.draw(hashed(seed, 4)))

    def shaped(self, shape: Tensor, widths: Tensor, angles: Tensor, corruption: Corruption) -> Kernels:
        """Kernels of given shapes, indices into ``SHAPES``, int64 [B], widths [B, 2] in HR pixels and angles [B]."""
        gaussians = self.kernels(widths, angles)
        built = torch.stack((gaussians, _discs(widths[:, 0], self.size), _lines(widths, angles, self.size)))
        chosen = built[(shape - 1).clamp_min(0), torch.arange(len(shape), device=shape.device)]
        return Kernels(chosen, widths, angles, None, corruption)

    def basis(self, scale: int) -> KernelBasis:
        """The stored one."""
        return KernelBasis.from_state(load_file(basis_path(self.name, scale)))

    def fit(self, scale: int) -> KernelBasis:
        """Fit to kernels of all shapes."""
        kernels = self.draw(sample_uniforms(), self.width_range(scale), "cpu").kernels
        return KernelBasis.fit(kernels, _COEFFICIENTS).lengthened(list(LEVELS.values()))


def _lines(widths: Tensor, angles: Tensor, size: int) -> Tensor:
    """Lines [B, K, K] of given widths along and across them: a box along, a Gaussian across."""
    along, across = turned_grid(angles, size)
    box = (_LINE / 2 * widths[:, :1, None] + 0.5 - along.abs()).clamp(0, 1)
    return _summing_to_one(box * torch.exp(-0.5 * (across / widths[:, 1:, None]).square()))


def _discs(widths: Tensor, size: int) -> Tensor:
    """Discs [B, K, K] of given widths [B], their radius twice as long, with edges a pixel wide."""
    far = torch.hypot(*turned_grid(torch.zeros_like(widths[:1]), size))
    return _summing_to_one((2 * widths[:, None, None] + 0.5 - far).clamp(0, 1))


def _summing_to_one(kernels: Tensor) -> Tensor:
    return kernels / kernels.sum((1, 2), keepdim=True)
