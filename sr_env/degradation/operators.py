"""What a degradation does to pictures: blurring, reducing, rounding. Batched, a different kernel per image."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_env.degradation.kernels import gaussian_taps


def quantize(images: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to multiples of 1/255, as saving to 8 bit does. Not differentiable."""
    return (images * 255).round_().clamp_(0, 255).div_(255)


def bicubic_resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic resize with antialiasing to ``(height, width)``; MATLAB's ``imresize`` away from the border."""
    return F.interpolate(images, size=size, mode="bicubic", antialias=True)


def soften(images: Tensor, widths: Tensor) -> Tensor:
    """Blur each image by an isotropic Gaussian of its own width, replicating the border.

    Photographs differ in how sharp they are before any degradation; this makes sharp ones softer.

    Args:
        images: Shape [B, C, H, W].
        widths: Standard deviations in pixels, shape [B]; one near zero leaves its image as it is.

    Returns:
        Shape [B, C, H, W].
    """
    taps = gaussian_taps(widths.clamp_min(0.1))  # at a tenth of a pixel the kernel is a single tap
    return blur_and_reduce(images, taps, 1, "decimate")


def unsharp(images: Tensor, strength: Tensor, width: float) -> Tensor:
    """Images plus their difference from themselves blurred by a Gaussian, times a strength.

    Args:
        images: [B, C, H, W], float32; beyond the edges their outermost pixels go on.
        strength: [B]; 0 changes nothing, -1 gives the blurred images.
        width: Standard deviation of the Gaussian in pixels; it is cut off at three of them.
    """
    radius, channels = math.ceil(3 * width), images.shape[1]
    taps = gaussian_taps(torch.full((1,), width, dtype=torch.float32, device=images.device), 2 * radius + 1)
    taps = taps.expand(channels, 1, 1, -1)
    with torch.autocast(images.device.type, enabled=False):
        blurred = F.pad(images, (radius,) * 4, mode="replicate")
        blurred = F.conv2d(F.conv2d(blurred, taps, groups=channels), taps.transpose(2, 3), groups=channels)
        return images + per_image(strength) * (images - blurred)


def per_image(values: Tensor) -> Tensor:
    """One value per image, [B] -> [B, 1, 1, 1]."""
    return values[:, None, None, None]


def blur(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate each image with its own kernel by FFT, replicating the border.

    (A Gaussian is symmetric under a half turn, so that correlation and convolution agree.)

    Args:
        images: Shape [B, C, H, W].
        kernels: Shape [B, K, K] with K odd.

    Returns:
        Shape [B, C, H, W].
    """
    reach = kernels.shape[-1] // 2
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    size = padded.shape[-2:]
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernels, s=size).conj()[:, None]
    return torch.fft.irfft2(spectrum, s=size)[..., : images.shape[-2], : images.shape[-1]]


def blur_and_reduce(images: Tensor, taps: Tensor, scale: int, reduction: str) -> Tensor:
    """Blur and reduce by one matrix per axis, many times faster than convolving: [B, C, H, W] -> [B, C, H/s, W/s]."""
    # A training step calls this under autocast, and bf16 products would be off by more than a grey level.
    with torch.autocast(images.device.type, enabled=False):
        rows, columns = (_axis_operator(taps, length, scale, reduction) for length in images.shape[-2:])
        return rows[:, None] @ images @ columns[:, None].mT


def _axis_operator(taps: Tensor, length: int, scale: int, reduction: str) -> Tensor:
    """Matrices [B, length/scale, length] that blur one axis with replicated border and reduce it."""
    reach = taps.shape[-1] // 2
    reducer, sources = _axis_plan(length, scale, reduction, reach, taps.device)
    matrices = taps.new_zeros(len(taps), length, length)
    # Row i takes tap t from pixel clamp(i + t - reach); taps that fall on one border pixel add up.
    index = sources.expand(len(taps), -1, -1)
    matrices.scatter_add_(2, index, taps[:, None, :].expand(-1, length, -1).contiguous())
    if reduction == "decimate":
        return matrices[:, ::scale]
    return reducer @ matrices


@lru_cache(maxsize=64)
def _axis_plan(length: int, scale: int, reduction: str, reach: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Bicubic reduction as a matrix [length/scale, length], and the source pixel of every (row, tap)."""
    with torch.inference_mode(False):  # kept for later calls, among which one may need gradients
        positions = torch.arange(length, device=device)[:, None] + torch.arange(-reach, reach + 1, device=device)
        identity = torch.eye(length, dtype=torch.float32, device=device)[None, None]
        reducer = bicubic_resize(identity, (length // scale, length))[0, 0]
    return reducer, positions.clamp_(0, length - 1)
