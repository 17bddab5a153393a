"""Fidelity to the reference: PSNR and SSIM."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_env.metrics.base import Metric, register

# The squared error, relative to full scale, below which images count as equal: PSNR then reads 100 dB. One 8-bit step
# in one channel of one pixel of a 4-megapixel picture is 119 dB; what a picture can show (below 90 dB) is untouched.
_SMALLEST_MSE = 1e-10

# Luma of ITU-R BT.601 in studio range as MATLAB's rgb2ycbcr gives it: 16 + these times RGB in [0, 1], so 16 .. 235.
_LUMA = (65.481, 128.553, 24.966)


def weighted_channels(image: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """Weighted sum [B, H, W] of the channels of ``image`` [B, 3, H, W]."""
    red, green, blue = image.unbind(1)
    return torch.add(torch.add(red * weights[0], green, alpha=weights[1]), blue, alpha=weights[2])


def luma(image: Tensor) -> Tensor:
    """Studio-range luma Y [B, H, W] in [16, 235] of RGB images [B, 3, H, W] in [0, 1], not rounded."""
    return weighted_channels(image, _LUMA) + 16.0


@register
class PSNR(Metric):
    """Peak signal-to-noise ratio on the Y channel (BT.601 studio range, peak 255), in dB.

    Y is not rounded, as in BasicSR. The value is capped at 100 dB, which identical images get; the gradient is zero
    there.
    """

    name = "psnr"
    title = "PSNR-Y"
    decimals = 2
    higher_is_better = True
    unit = "dB"

    def _encode(self, image: Tensor) -> Tensor:
        return image

    def _error(self, difference: Tensor) -> Tensor:
        """Mean square of the difference relative to the peak, per image."""
        return (weighted_channels(difference, _LUMA) / 255.0).square().mean((1, 2))

    def _compare(self, sr: Tensor, hr: Tensor) -> Tensor:
        return -10.0 * torch.log10(self._error(sr - hr).clamp_min(_SMALLEST_MSE))


@register
class PSNRRGB(PSNR):
    """Peak signal-to-noise ratio over the three RGB channels, in dB, capped at 100 dB."""

    name = "psnr_rgb"
    title = "PSNR-RGB"

    def _error(self, difference: Tensor) -> Tensor:
        return difference.square().mean((1, 2, 3))


@register
class SSIM(Metric):
    """Structural similarity on the Y channel, in [-1, 1].

    As in the authors' MATLAB code: Gaussian window 11x11 with sigma 1.5, valid region only, K = (0.01, 0.03),
    L = 255, no prior downsampling.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", TIP 2004, Eq. 13.
    """

    name = "ssim"
    title = "SSIM-Y"
    higher_is_better = True
    min_size = 11
    window: Tensor

    def __init__(self, border: int = 0) -> None:
        super().__init__(border)
        window = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
        self.register_buffer("window", (window / window.sum()).float(), persistent=False)

    def _encode(self, image: Tensor) -> Tensor:
        return luma(image) - 128.0  # centred: keeps the variances below exact in float32

    def _compare(self, sr: Tensor, hr: Tensor) -> Tensor:
        # The four local moments in one depthwise convolution. Stacked last, they are channels_last in memory, where
        # depthwise convolution is ten times faster on a CPU.
        hr = hr.expand_as(sr)
        moments = torch.stack([sr, hr, sr * sr + hr * hr, sr * hr], dim=-1).permute(0, 3, 1, 2)
        moments = F.conv2d(moments, self.window.view(1, 1, 1, 11).expand(4, 1, 1, 11), groups=4)
        moments = F.conv2d(moments, self.window.view(1, 1, 11, 1).expand(4, 1, 11, 1), groups=4)
        mean_sr, mean_hr, squares, product = moments.unbind(1)
        covariance = product - mean_sr * mean_hr
        variances = squares - mean_sr.square() - mean_hr.square()
        mean_sr, mean_hr = mean_sr + 128.0, mean_hr + 128.0
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        luminance = (2 * mean_sr * mean_hr + c1) / (mean_sr.square() + mean_hr.square() + c1)
        structure = (2 * covariance + c2) / (variances + c2)
        return (luminance * structure).mean((1, 2))
