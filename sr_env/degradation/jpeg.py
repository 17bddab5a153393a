"""What JPEG compression does to pictures: batched, a different quality per image, on the device of its inputs.

Compression loses in one place, where the cosine transform's coefficients are rounded to multiples of a table (ITU-T
T.81); entropy coding is exact and needs no imitation. The tables are those of its Annex K, scaled as libjpeg does;
colour is kept at half the resolution (4:2:0) and enlarged as libjpeg does.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

#: Annex K's tables of quality 50, luminance and chrominance, row by row.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47),
    (18, 21, 26, 66),
    (24, 26, 56, 99),
    (47, 66, 99, 99),
)
#: JFIF: RGB -> luminance and two colour differences, without their offset of 128.
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
#: Side of what is compressed by itself: of colour, which is kept at half the resolution, eight samples.
BLOCK = 16
_BLOCK = 8


def table_factor(quality: Tensor) -> Tensor:
    """Quality 1 to 100 -> by how many hundredths libjpeg scales the tables of quality 50: 5000 down to 0."""
    return torch.where(quality < 50, 5000 / quality.clamp_min(1), 200 - 2 * quality)


def table_quality(factor: Tensor) -> Tensor:
    """The inverse of :func:`table_factor`: hundredths of the tables -> quality 1 to 100."""
    return torch.where(factor > 100, 5000 / factor.clamp_min(1), 100 - factor / 2)


def compress(images: Tensor, quality: Tensor) -> Tensor:
    """Compress as JPEG, and read again.

    Args:
        images: RGB in [0, 1], float32, [B, 3, H, W].
        quality: As libjpeg's, 1 to 100, [B].

    Returns:
        Multiples of 1/255 in [0, 1], float32, [B, 3, H, W]; half a level from what libjpeg makes, in the mean. Not
        differentiable.
    """
    height, width = images.shape[-2:]
    ycc = torch.einsum("ij,bjhw->bihw", images.new_tensor(_TO_YCC), (images * 255).round().clamp(0, 255))
    ycc = F.pad(ycc, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate").round()
    small = F.avg_pool2d(ycc[:, 1:], 2).round()
    luminance, chrominance = _tables(images.device)
    factor = table_factor(quality.float())
    y = _quantised(ycc[:, :1] - 128, _scaled(luminance, factor)) + 128
    colour = _quantised(small, _scaled(chrominance, factor))
    colour = F.interpolate(colour, scale_factor=2, mode="bilinear", align_corners=False).round()
    rgb = torch.einsum("ij,bjhw->bihw", images.new_tensor(_TO_RGB), torch.cat((y.clamp(0, 255), colour), 1))
    return rgb[..., :height, :width].round().clamp(0, 255) / 255


def _scaled(table: Tensor, factor: Tensor) -> Tensor:
    """Table [8, 8] and factors [B] -> what coefficients are rounded to multiples of, [B, 8, 8]."""
    return ((table * factor[:, None, None] + 50) / 100).floor().clamp(1, 255)


def _quantised(planes: Tensor, steps: Tensor) -> Tensor:
    """Round the coefficients of all 8x8 blocks of planes [B, C, H, W] to multiples of steps [B, 8, 8]."""
    cosines = _cosines(planes.device)
    blocks = planes.unflatten(3, (-1, _BLOCK)).unflatten(2, (-1, _BLOCK)).transpose(3, 4)  # [B, C, rows, columns, 8, 8]
    steps = steps[:, None, None, None]
    coefficients = ((cosines @ blocks @ cosines.T) / steps).round() * steps
    again = (cosines.T @ coefficients @ cosines).round()
    return again.transpose(3, 4).flatten(4, 5).flatten(2, 3)


@lru_cache(maxsize=8)
def _cosines(device: torch.device) -> Tensor:
    """The orthonormal cosine transform of eight samples, [8, 8]."""
    with torch.inference_mode(False):
        n = torch.arange(_BLOCK, dtype=torch.float32, device=device)
        rows = torch.cos(math.pi / _BLOCK * (n + 0.5) * n[:, None]) * math.sqrt(2 / _BLOCK)
        rows[0] /= math.sqrt(2)
    return rows


@lru_cache(maxsize=8)
def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):
        chrominance = torch.full((_BLOCK, _BLOCK), 99.0, device=device)
        chrominance[:4, :4] = torch.tensor(_CHROMINANCE, dtype=torch.float32, device=device)
        return torch.tensor(_LUMINANCE, dtype=torch.float32, device=device), chrominance
