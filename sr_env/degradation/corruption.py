"""What happens to a picture beside blur: how it is reduced, sharpened, how noisy it is, and its JPEG compression.

Every image has its own parameters, drawn from one seed each by a hash, so that the same seed gives the same picture on
every device and in every batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_env.degradation.jpeg import BLOCK, compress, table_factor, table_quality
from sr_env.degradation.operators import bicubic_resize, per_image, unsharp

#: Noise of the standard deviation 5 (of 255), JPEG tables of 40 hundredths (quality 80) and a sharpening of 0.5 are one
#: unit of a code.
_NOISE_UNIT, _JPEG_UNIT, _SHARPENING_UNIT = 5.0, 40.0, 0.5
#: Largest standard deviation of noise in levels of 255, lowest JPEG quality, and strongest sharpening that are drawn.
NOISE, QUALITY, SHARPENING = 15.0, 40.0, 1.5
#: Levels that a longer code holds behind the kernel's coefficients, and the largest value of each there.
LEVELS: Mapping[str, float] = {
    "noise": NOISE / _NOISE_UNIT,
    "jpeg": float(table_factor(torch.tensor(QUALITY))) / _JPEG_UNIT,
    "sharpening": SHARPENING / _SHARPENING_UNIT,
}
#: Ways in which pictures are reduced, and how often each is drawn.
WAYS: Mapping[str, float] = {"bicubic": 0.5, "area": 0.2, "bilinear": 0.15, "direct": 0.15}
#: Shares of pictures with noise, with JPEG compression, and that are sharpened after the reduction.
_NOISY, _COMPRESSED, _SHARPENED = 0.6, 0.65, 0.25
#: Share of noisy pictures whose noise is gray, and width in LR pixels of the sharpening's Gaussian.
_GRAY, _SHARPENING_WIDTH = 0.3, 1.0
_LARGEST = 0xFFFFFFFF


@dataclass(frozen=True)
class Corruption:
    """What happens to each of B pictures beside blur.

    Attributes:
        seed: Of the noise, int64 in [0, 2^32), [B].
        way: Index into ``WAYS``, int64 [B].
        sharpening: Strength of an unsharp mask on LR, float32 [B].
        noise: Its standard deviation at middle gray, in levels of 255, float32 [B].
        shot: Share of its variance that grows with the light (Poisson's, by a Gaussian of its variance), in [0, 1],
            float32 [B].
        gray: Whether the three channels share one noise, bool [B].
        quality: Of the JPEG compression, 1 to 100; 0 where there is none, float32 [B].
        phase: Rows and columns of a compressed block that lie outside the picture, int64 in [0, 16), [B, 2]: what is
            seen is part of a larger photograph.
    """

    seed: Tensor
    way: Tensor
    sharpening: Tensor
    noise: Tensor
    shot: Tensor
    gray: Tensor
    quality: Tensor
    phase: Tensor

    @classmethod
    def draw(cls, seed: Tensor) -> Corruption:
        """Draw everything from a seed per picture, int64 in [0, 2^32), [B]."""
        u = hashed_uniforms(seed, 11)
        sharpening = SHARPENING * u[:, 2] * (u[:, 1] < _SHARPENED)
        noise = NOISE * u[:, 4] ** 1.5 * (u[:, 3] < _NOISY)
        quality = (QUALITY + (100 - QUALITY) * u[:, 8]) * (u[:, 7] < _COMPRESSED)
        return cls(
            hashed(seed, 11),
            chosen_of(WAYS, u[:, 0]),
            sharpening.float(),
            noise.float(),
            u[:, 5].float(),
            u[:, 6] < _GRAY,
            quality.round().float(),
            (BLOCK * u[:, 9:]).long(),
        )

    @classmethod
    def nothing(cls, seed: Tensor) -> Corruption:
        """Bicubic reduction alone; blocks, if a quality is put in, begin where the seeds [B] say."""
        zeros, no = torch.zeros_like(seed, dtype=torch.float32), torch.zeros_like(seed, dtype=torch.bool)
        phase = (BLOCK * hashed_uniforms(seed, 2)).long()
        return cls(hashed(seed, 2), torch.zeros_like(seed), zeros, zeros, zeros, no, zeros, phase)

    @property
    def levels(self) -> Tensor:
        """What a longer code says of it, [B, 3], in the order of ``LEVELS``: 0 for none."""
        jpeg = torch.where(self.quality > 0, table_factor(self.quality), 0.0)
        return torch.stack((self.noise / _NOISE_UNIT, jpeg / _JPEG_UNIT, self.sharpening / _SHARPENING_UNIT), dim=1)

    def reduce(self, images: Tensor, scale: int) -> Tensor:
        """Reduce each picture [B, C, H, W] in its way -> [B, C, H/scale, W/scale]; linear and differentiable."""
        with torch.autocast(images.device.type, enabled=False):
            rows, columns = (_reducers(side, scale, images.device)[self.way] for side in images.shape[-2:])
            return rows[:, None] @ images @ columns[:, None].mT

    def apply(self, lr: Tensor) -> Tensor:
        """Sharpen LR images [B, 3, h, w], add noise and compress -> float32 [B, 3, h, w]; rounded where compressed."""
        with torch.autocast(lr.device.type, enabled=False):
            lr = unsharp(lr, self.sharpening, _SHARPENING_WIDTH).clamp(0, 1)
            field = hashed_noise(self.seed, lr[0].numel()).view_as(lr)
            field = torch.where(per_image(self.gray), field[:, :1], field)
            shot = per_image(self.shot)
            lr = lr + field * per_image(self.noise / 255) * (1 - shot + 2 * shot * lr).sqrt()
            compressed = self._compressed(lr)
            return torch.where(per_image(self.quality > 0), compressed, lr)

    def _compressed(self, lr: Tensor) -> Tensor:
        """LR images as JPEG would keep them, where the blocks begin outside of them."""
        height, width = lr.shape[-2:]
        rows, columns = (
            torch.arange(side + BLOCK, device=lr.device) - self.phase[:, axis, None]
            for axis, side in enumerate((height, width))
        )
        larger = _taken(lr, rows.clamp(0, height - 1), columns.clamp(0, width - 1))
        larger = compress(larger, self.quality.clamp_min(1))
        rows, columns = (
            torch.arange(side, device=lr.device) + self.phase[:, axis, None]
            for axis, side in enumerate((height, width))
        )
        return _taken(larger, rows, columns)


def level_values(levels: Tensor) -> dict[str, Tensor]:
    """What the levels of codes [B, 3] stand for.

    Returns:
        ``noise``: standard deviation in levels of 255; ``quality``: of JPEG, at most 100, which stands for none too;
        ``sharpening``: strength; all [B].
    """
    noise, jpeg, sharpening = levels.clamp_min(0).unbind(1)
    quality = table_quality(jpeg * _JPEG_UNIT)
    return {"noise": noise * _NOISE_UNIT, "quality": quality, "sharpening": sharpening * _SHARPENING_UNIT}


def chosen_of(shares: Mapping[str, float], uniforms: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), [B] -> indices into ``shares``, int64 [B], each drawn as often as its share says."""
    borders = torch.tensor(list(shares.values()), device=uniforms.device, dtype=uniforms.dtype).cumsum(0)[:-1]
    return torch.bucketize(uniforms.contiguous(), borders)


def hashed(seed: Tensor, number: int | Tensor) -> Tensor:
    """Whole numbers in [0, 2^32) that look random: a hash of seeds and numbers, int64, which broadcast.

    Two rounds of the 32-bit integer hash "lowbias32" (Wellons, 2018), the second of the sum of the first's and the
    number; integers alone, so that every device gives the same.
    """
    return _mixed((_mixed(seed) + number) & _LARGEST)


def hashed_uniforms(seed: Tensor, count: int) -> Tensor:
    """Numbers in (0, 1) for each seed [B], float64 [B, count]."""
    numbers = torch.arange(count, device=seed.device)
    return (hashed(seed[:, None], numbers) + 0.5) / (_LARGEST + 1)


def hashed_noise(seed: Tensor, count: int) -> Tensor:
    """Numbers of the standard normal distribution for each seed [B], float32 [B, count] (Box and Muller, 1958)."""
    half = -(-count // 2)
    u = hashed_uniforms(seed, 2 * half).float().clamp_min(1e-9)
    radius, turn = (-2 * u[:, :half].log()).sqrt(), 2 * math.pi * u[:, half:]
    return torch.cat((radius * turn.cos(), radius * turn.sin()), dim=1)[:, :count]


def _mixed(x: Tensor) -> Tensor:
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _LARGEST
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _LARGEST
    return x ^ (x >> 16)


@lru_cache(maxsize=64)
def _reducers(length: int, scale: int, device: torch.device) -> Tensor:
    """The ways of reducing an axis, as matrices [ways, length/scale, length], in the order of ``WAYS``."""
    size = length // scale
    with torch.inference_mode(False):  # kept for later calls, among which one may need gradients
        identity = torch.eye(length, dtype=torch.float32, device=device)[None, None]
        made = {
            "bicubic": bicubic_resize(identity, (size, length)),
            "area": F.avg_pool2d(identity, (scale, 1)),
            "bilinear": F.interpolate(identity, size=(size, length), mode="bilinear", antialias=True),
            # The pixel in the middle, or of an even scale the mean of the two there, so that nothing shifts.
            "direct": F.interpolate(identity, size=(size, length), mode="bilinear"),
        }
        return torch.stack([made[way][0, 0] for way in WAYS])


def _taken(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Rows [B, h] and columns [B, w] of images [B, C, H, W]."""
    images = images.gather(2, rows[:, None, :, None].expand(-1, images.shape[1], -1, images.shape[3]))
    return images.gather(3, columns[:, None, None, :].expand(-1, images.shape[1], images.shape[2], -1))
