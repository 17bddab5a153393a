"""The discriminator that AMGAN is trained against."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from sr_env.utils.checks import UsageError

#: Smallest side of an image that the discriminator takes.
MIN_SIZE = 64
# Five unit-norm layers with LeakyReLU let through so little of what sets two images apart that a distribution over
# outcomes would stay near the same for all. In 160 steps on fixed pictures the realness loss fell from .26 to .22
# without a gain, to .21 with 8 and to .19 with 30.
_GAIN = 16.0


class Discriminator(nn.Module):
    """Images -> raw outputs: a distribution over outcomes before its softmax (realness GAN), or one number.

    A 3x3 convolution at full size and four 4x4 convolutions of stride 2 (``channels`` times 1, 2, 4, 8, 8), each with
    LeakyReLU 0.2, global average pooling, a gain of 16, and a linear head, so that images of any size fit. Every layer
    is spectrally normalised (Miyato et al., ICLR 2018) with one power iteration per forward pass in training mode.
    There is no batch normalisation: it lets the images of a batch see each other.

    Args:
        outputs: Numbers for an image (``AdversarialLoss.outputs``).
        channels: Width of the first layer; 32 makes 1.75 M parameters.

    Raises:
        UsageError: ``outputs`` or ``channels`` is below one.
    """

    def __init__(self, outputs: int, channels: int = 32) -> None:
        super().__init__()
        if min(outputs, channels) < 1:
            raise UsageError(f"outputs={outputs} and channels={channels} must both be >= 1")
        widths = [channels * factor for factor in (1, 2, 4, 8, 8)]
        convolutions = [nn.Conv2d(3, channels, 3, padding=1)]
        convolutions += [nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths)]
        layers: list[nn.Module] = []
        for convolution in convolutions:
            layers += [spectral_norm(convolution), nn.LeakyReLU(0.2, inplace=True)]
        self.features = nn.Sequential(*layers)
        self.head = spectral_norm(nn.Linear(widths[-1], outputs))

    def forward(self, image: Tensor) -> Tensor:
        """Judge images.

        Args:
            image: Images [B, 3, H, W], nominally in [0, 1], both sides at least 64.

        Returns:
            Raw outputs [B, outputs], float32 under autocast too.

        Raises:
            ValueError: A side is under 64 pixels.
        """
        height, width = image.shape[-2:]
        if min(height, width) < MIN_SIZE:
            raise ValueError(
                f"image size {height}x{width} is under {MIN_SIZE}x{MIN_SIZE}: give the discriminator larger patches"
            )
        with parametrize.cached():
            with torch.autocast(image.device.type, enabled=False):
                for layer in list(self.features)[::2]:
                    _ = layer.weight  # power iteration and division in float32 even under autocast; kept for below
            x = self.features(2 * image - 1)
            with torch.autocast(image.device.type, enabled=False):
                outputs: Tensor = self.head(_GAIN * x.float().mean((2, 3)))
        return outputs
