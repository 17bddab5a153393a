"""The kernel predictor mu: LR image -> kernel code, as an action in [-1, 1].

The environment's reference reconstruction, the upscaler and the agents' actor share this network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_env.utils.checks import CODE_LENGTH, UsageError, check_lr_size, check_sizes
from sr_env.utils.images import to_images

#: No number of an action is surer than this, in action units.
_SMALLEST_DOUBT = 0.01


class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(x)))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, C, H, W] -> [B, C, H, W]."""
        return features + self.conv2(F.relu(self.conv1(features)))


class KernelPredictor(nn.Module):
    """Fully convolutional kernel predictor for LR images of any size from 8x8.

    Blur shows where there are edges and not in flat regions, so the pooled description of an image joins a plain mean
    with a mean weighted by a learned gate per feature.

    Args:
        channels: Width of the first stage; the second has twice, the third three times as many.
        code_length: Length L of the code.
        hidden: Width of the layer between the pooled features and the code.
        doubt: Whether it says how far off each number of its actions may be, too (:meth:`doubt`).

    Raises:
        UsageError: A size is no whole number in its bounds.
    """

    def __init__(
        self, channels: int = 32, code_length: int = CODE_LENGTH, hidden: int = 128, doubt: bool = False
    ) -> None:
        super().__init__()
        check_sizes(4096, channels=channels, code_length=code_length, hidden=hidden)
        wide, deep = 2 * channels, 3 * channels
        self.channels, self.code_length, self.hidden = channels, code_length, hidden
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, wide, 3, stride=2, padding=1),
            ResidualBlock(wide),
            ResidualBlock(wide),
            ResidualBlock(wide),
            nn.ReLU(),
            nn.Conv2d(wide, deep, 3, stride=2, padding=1),
            ResidualBlock(deep),
            ResidualBlock(deep),
            nn.ReLU(),
        )
        self.gate = nn.Conv2d(deep, deep, 1)
        self.head = nn.Sequential(nn.Linear(2 * deep, hidden), nn.ReLU(), nn.Linear(hidden, code_length))
        self.spread = nn.Linear(hidden, code_length) if doubt else None

    @property
    def architecture(self) -> dict[str, Any]:
        """Constructor arguments, as kept in a checkpoint's card."""
        sizes = {"channels": self.channels, "code_length": self.code_length, "hidden": self.hidden}
        return sizes if self.spread is None else {**sizes, "doubt": True}

    @property
    def feature_size(self) -> int:
        """Length of the pooled description that :meth:`features` returns."""
        return 6 * self.channels

    def features(self, lr: Tensor) -> Tensor:
        """Pooled description of LR images: [B, 3, h, w] in [0, 1] -> [B, feature_size].

        Raises:
            UsageError: A side is under 8 pixels.
        """
        check_lr_size(*lr.shape[-2:])
        # Centred and stretched, the input has about unit variance without a statistic that would hide its contrast.
        maps = self.stem(4 * lr - 2)
        weights = torch.sigmoid(self.gate(maps).float())
        maps = maps.float()
        gated = (weights * maps).mean((2, 3)) / (weights.mean((2, 3)) + 1e-3)
        return torch.cat((maps.mean((2, 3)), gated), dim=1)

    def forward(self, lr: Tensor, doubtful: bool = False) -> Tensor:
        """LR images, float in [0, 1], [B, 3, h, w] -> actions in (-1, 1), float32, [B, L].

        With ``doubtful`` what :meth:`doubt` gives follows in the same rows, [B, 2 L].

        Raises:
            UsageError: A side is under 8 pixels.
        """
        features = self.features(lr)
        actions = torch.tanh(self.head(features).float())
        return torch.cat((actions, self.doubt(features)), dim=1) if doubtful else actions

    def doubt(self, features: Tensor) -> Tensor:
        """How far off each number of the actions may be.

        Args:
            features: What :meth:`features` gave, [B, feature_size]. No gradient reaches them: what the network sees is
                learned for the actions alone.

        Returns:
            Standard deviations in action units, float32 [B, L].

        Raises:
            UsageError: The network was not made with ``doubt``.
        """
        if self.spread is None:
            raise UsageError("this predictor does not say how sure it is: take one that was trained with --doubt")
        hidden = self.head[:-1](features.detach()).detach()
        return _SMALLEST_DOUBT + F.softplus(self.spread(hidden).float())

    @torch.no_grad()
    def act(self, observation: np.ndarray) -> np.ndarray:
        """Act on what the environments show.

        Args:
            observation: LR images, uint8 [h, w, 3] or [N, h, w, 3].

        Returns:
            Actions, float32 in (-1, 1), [L] or [N, L].

        Raises:
            UsageError: A side is under 8 pixels.
        """
        device = next(self.parameters()).device
        single = observation.ndim == 3
        actions = self(to_images(observation[None] if single else observation, device)).cpu().numpy()
        return actions[0] if single else actions
