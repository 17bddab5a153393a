"""AMNet, trained for fidelity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from blindsr_pretrain.data import held_out_drawings
from blindsr_pretrain.inherit import inherit, translated
from blindsr_pretrain.losses import frequency_loss
from blindsr_pretrain.settings import TrainingSettings
from blindsr_pretrain.task import Task
from blindsr_pretrain.validation import ValidationSet
from sr_env.degradation import Degradation, family_of, kernel_family, load_basis
from sr_env.models import AMNet, create_amnet, load_renderer
from sr_env.photos import PhotoSource
from sr_env.utils.checks import UsageError

#: Weight of the squared error, which brings its gradients to the size of L1's at the end of a training.
_SQUARED_WEIGHT = 10.0


@dataclass(kw_only=True)
class AMNetSettings(TrainingSettings):
    """Train AMNet.

    Attributes:
        size: "amnet" (1.5 M parameters) or "amnet_l" (0.4 M).
        scale: Magnification, 2, 3 or 4.
        start: Name or path of a renderer to start from, of this size or smaller, of any scale and kernel family; None
            starts from scratch.
        smooth: Give it the box filter that AMGAN may have (see :class:`~sr_env.models.AMNet`).
        frequency: Weight of the mean absolute difference of the Fourier transforms, beside L1.
        squared_share: Last share of the training that minimises the squared error instead, which is what PSNR is of.
    """

    out: Path = Path("runs/amnet")
    size: Literal["amnet", "amnet_l"] = "amnet_l"
    scale: int = 4
    start: str | None = None
    smooth: bool = False
    frequency: float = 0.05
    squared_share: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.frequency < math.inf:
            raise UsageError(f"frequency is {self.frequency}: give a weight >= 0")
        if not 0 <= self.squared_share <= 1:
            raise UsageError(f"squared_share is {self.squared_share}: give a share from 0 to 1")


class AMNetTask(Task):
    """Fidelity with the true code (the renderer of the supervised model)."""

    def __init__(self, settings: AMNetSettings, held_out: PhotoSource) -> None:
        super().__init__(settings)
        self.settings = settings
        self.degradation = Degradation(settings.scale, kernels=settings.kernels)
        self.basis = load_basis(settings.kernels, settings.scale).to(self.device)
        self.scale = settings.scale
        self.name = f"{settings.size}_x{settings.scale}"
        made = create_amnet(settings.size, settings.scale, settings.smooth, self.basis.code_length)
        self.network = made.to(self.device)
        if settings.start is not None:
            started = load_renderer(settings.start, device=self.device)
            network = started.network
            if isinstance(network, AMNet) and started.scale == self.scale and not self.basis.matches(started.basis):
                known = kernel_family(family_of(started.basis, self.scale) or "isotropic").width_range(self.scale)
                network = translated(network, started.basis, self.basis, known)
            inherit(self.network, network)
        self.held_out = ValidationSet(
            held_out,
            self.degradation,
            self.basis,
            self.device,
            settings.softness_at(self.scale) / 2,
            drawings=held_out_drawings(settings),
        )

    def loss(
        self, network: nn.Module, hr: Tensor, uniforms: np.ndarray, step: int
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean absolute error of the rendered patches and of their spectra; at the end the squared error."""
        sr = network(*self.degrade(hr, uniforms)).float()
        if self.share >= 1 - self.settings.squared_share:
            return _SQUARED_WEIGHT * F.mse_loss(sr, hr), {}
        loss = F.l1_loss(sr, hr)
        if self.settings.frequency > 0:
            loss = loss + self.settings.frequency * frequency_loss(sr, hr)
        return loss, {}

    def validate(self, network: nn.Module) -> tuple[dict[str, float], Tensor]:
        """PSNR-Y on held-out photos with the true code."""
        return self.held_out.score(network)

    def card(self) -> dict[str, Any]:
        """Losses used, and the kernels."""
        losses = {"l1": 1.0, "frequency": self.settings.frequency}
        if self.settings.squared_share > 0:
            losses[f"squared, in the last {self.settings.squared_share:.0%}"] = _SQUARED_WEIGHT
        return {"losses": losses, **self.kernels_card()}
