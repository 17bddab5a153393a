"""AMNet: a super-resolution network modulated by the blur-kernel code.

The adaptive modulation layer (AMLayer) turns the code into one scale and one shift per channel. It is computed once
per image, not per pixel as in SRMD, so that its cost does not grow with the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sr_env.models.base import register_renderer
from sr_env.utils.checks import CODE_LENGTH, SCALES, UsageError, check_choice, check_lr_size, check_sizes

#: Channels and residual blocks of the named sizes.
SIZES: Mapping[str, Mapping[str, int]] = {
    "amnet": {"channels": 64, "blocks": 18},
    "amnet_l": {"channels": 48, "blocks": 8},
}


class AMLayer(nn.Module):
    """Per-channel scale and shift from the code: ``x * (1 + scale(code)) + shift(code)``.

    Args:
        channels: Channels C of the features.
        code_length: Length L of the code.
    """

    def __init__(self, channels: int, code_length: int = CODE_LENGTH) -> None:
        super().__init__()
        last = nn.Linear(channels, 2 * channels)
        # Starting as the identity leaves the residual network's own initialisation intact.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(nn.Linear(code_length, channels), nn.ReLU(), last)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        """Modulate features [B, C, H, W] by codes [B, L]."""
        scale, shift = self.mlp(code)[:, :, None, None].chunk(2, dim=1)
        return features * (1 + scale) + shift


class ModulatedBlock(nn.Module):
    """``x + AMLayer(conv(relu(conv(x))), code)``."""

    def __init__(self, channels: int, code_length: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = AMLayer(channels, code_length)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        """Features [B, C, H, W], codes [B, L] -> [B, C, H, W]."""
        return features + self.modulation(self.conv2(F.relu(self.conv1(features), inplace=True)), code)


@register_renderer("AMNet")
class AMNet(nn.Module):
    """LR image and kernel code -> SR image.

    A 3x3 head, ``blocks`` residual blocks of two 3x3 convolutions and an AMLayer, a long skip, and a 3x3 convolution
    with pixel shuffle whose output is added to the bilinearly enlarged LR image.

    Pixel shuffle writes every block of ``scale`` x ``scale`` pixels with its own filters, and losses that ask for
    texture find it cheapest to fill flat areas with a grid of that period. A fixed box filter of that size after the
    shuffle takes away exactly that period and its harmonics, whatever the weights (Kinoshita and Kiya, "Fixed smooth
    convolutional layer for avoiding checkerboard artifacts in CNNs", ICASSP 2020). AMGAN has it; AMNet, trained for
    fidelity, draws no grid and is better without.

    Args:
        scale: Magnification, 2, 3 or 4.
        channels: Width of the network.
        blocks: Number of residual blocks.
        code_length: Length L of the code.
        smooth: Whether the box filter is there.

    Raises:
        UsageError: An unknown scale, or a size that is no whole number in its bounds.
    """

    def __init__(
        self,
        scale: int = 4,
        channels: int = 64,
        blocks: int = 18,
        code_length: int = CODE_LENGTH,
        smooth: bool = False,
    ) -> None:
        super().__init__()
        check_choice("scale", scale, SCALES)
        check_sizes(4096, channels=channels, code_length=code_length)
        check_sizes(256, blocks=blocks)
        self.scale = scale
        self.code_length = code_length
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.ModuleList(ModulatedBlock(channels, code_length) for _ in range(blocks))
        self.tail = nn.Conv2d(channels, 3 * scale**2, 3, padding=1)
        self.smooth = bool(smooth)

    @property
    def architecture(self) -> dict[str, Any]:
        """Constructor arguments, as kept in a checkpoint's card."""
        return {
            "scale": self.scale,
            "channels": self.head.out_channels,
            "blocks": len(self.body),
            "code_length": self.code_length,
            "smooth": self.smooth,
        }

    @property
    def receptive_radius(self) -> int:
        """How many LR pixels around its own a pixel of SR depends on."""
        return amnet_radius(self.architecture)

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        """Render.

        Args:
            lr: Images in [0, 1], float, shape [B, 3, h, w], both sides at least 8.
            code: Kernel codes (:class:`~sr_env.degradation.KernelBasis`), shape [B, L].

        Returns:
            SR images, shape [B, 3, scale*h, scale*w], not clamped.

        Raises:
            UsageError: A side is under 8 pixels, or the code has another shape.
        """
        check_lr_size(*lr.shape[-2:])
        if code.shape != (lr.shape[0], self.code_length):
            raise UsageError(
                f"code shape {tuple(code.shape)} does not fit: this renderer takes {(lr.shape[0], self.code_length)}"
            )
        features = skip = self.head(lr)
        for block in self.body:
            features = block(features, code)
        detail = F.pixel_shuffle(self.tail(features + skip), self.scale)
        if self.smooth:
            detail = F.avg_pool2d(detail, self.scale, stride=1, padding=self.scale // 2, count_include_pad=False)
            if self.scale % 2 == 0:  # a box of even length shifts by half a pixel; one of two pixels shifts back
                detail = F.avg_pool2d(detail, 2, stride=1)
        return detail + F.interpolate(lr, scale_factor=self.scale, mode="bilinear", align_corners=False)


def amnet_radius(architecture: Mapping[str, Any]) -> int:
    """Receptive radius in LR pixels of an AMNet with these constructor arguments.

    One per 3x3 convolution (head, two per block, tail), and one for the box filter behind the pixel shuffle, which
    reaches two HR pixels far. The bilinear base runs beside them and reaches one pixel.
    """
    return 2 * int(architecture["blocks"]) + 2 + int(architecture["smooth"])


def create_amnet(size: str, scale: int = 4, smooth: bool = False, code_length: int = CODE_LENGTH) -> AMNet:
    """Build an untrained AMNet of a named size (``SIZES``).

    Raises:
        UsageError: An unknown size or scale, naming the valid ones.
    """
    check_choice("renderer size", size, tuple(SIZES))
    return AMNet(scale, SIZES[size]["channels"], SIZES[size]["blocks"], code_length, smooth)


def parameter_count(network: nn.Module) -> int:
    """Number of trainable numbers in a network."""
    return sum(parameter.numel() for parameter in network.parameters())
