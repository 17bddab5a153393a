"""Train AMNet for fidelity: L1 between SR and HR and between their Fourier transforms, the true kernel code given.

python pretrain/train_amnet.py --data FOLDER --size amnet_l --scale 4
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from blindsr_pretrain.losses import frequency_loss
from blindsr_pretrain.trainer import HeldOut, Task, Trainer, TrainingSettings, split_photos, training_device
from torch import Tensor, nn

from sr_env.degradation import Degradation, load_basis
from sr_env.models import AMNet, create_amnet
from sr_env.models.checkpoint import load_renderer
from sr_env.photos import PhotoSource
from sr_env.utils.script import run_script


@dataclass
class Settings(TrainingSettings):
    """Train AMNet.

    Attributes:
        size: "amnet" (1.5 M parameters) or "amnet_l" (0.4 M).
        scale: Magnification, 2, 3 or 4.
        start: Name or path of a renderer to start from, of this size or smaller and of any scale (see :func:`inherit`);
            None starts from scratch.
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
            raise ValueError(f"frequency is {self.frequency}: give a weight >= 0")
        if not 0 <= self.squared_share <= 1:
            raise ValueError(f"squared_share is {self.squared_share}: give a share from 0 to 1")


@torch.no_grad()
def inherit(network: AMNet, smaller: AMNet) -> None:
    """Start a network from a trained one that is as large or smaller.

    At the same scale the result renders what the smaller one renders, to rounding (unless one has the box filter and
    the other has not): the channels and blocks that it adds feed into nothing yet, but receive gradients from the first
    step on (Net2Net, Chen et al., 2016). At another scale the tail, whose shape hangs on the scale, keeps its fresh
    initialisation.

    Args:
        network: A freshly initialised network; changed in place.
        smaller: What to start from.

    Raises:
        ValueError: ``smaller`` has more channels or blocks, or another code length.
    """
    own, other = network.architecture, smaller.architecture
    if other["code_length"] != own["code_length"] or any(other[key] > own[key] for key in ("channels", "blocks")):
        raise ValueError(f"a renderer of {other} does not fit into one of {own}: choose a larger --size")
    channels = other["channels"]

    into, trained = network.state_dict(), smaller.state_dict()  # views: writing to them changes the network
    for name, source in trained.items():
        target = into[name]
        if name.startswith("tail.") and own["scale"] != other["scale"]:
            continue
        if name.endswith("modulation.mlp.2.weight") or name.endswith("modulation.mlp.2.bias"):
            source, target = source.unflatten(0, (2, -1)), target.unflatten(0, (2, -1))  # scales, then shifts
            rows: tuple[slice, ...] = (slice(None), slice(channels))
        else:
            rows = (slice(len(source)),)
        target[rows] = 0
        target[(*rows, *(slice(side) for side in source.shape[len(rows) :]))] = source
    for name, target in into.items():
        if ".conv2." in name and name not in trained:
            target.zero_()


#: Weight of the squared error, which brings its gradients to the size of L1's at the end of a training.
_SQUARED_WEIGHT = 10.0


class AMNetTask(Task):
    """Fidelity with the true code (the renderer of the supervised model)."""

    def __init__(self, settings: Settings, held_out: PhotoSource) -> None:
        device = training_device(settings)
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.degradation = Degradation(settings.scale)
        self.basis = load_basis("isotropic", settings.scale).to(device)
        self.scale = settings.scale
        self.name = f"{settings.size}_x{settings.scale}"
        self.network = create_amnet(settings.size, settings.scale, settings.smooth).to(device)
        if settings.start is not None:
            inherit(self.network, load_renderer(settings.start, device=device).network)
        self.held_out = HeldOut(held_out, self.degradation, self.basis, device, settings.softness / 2)

    def loss(
        self, network: nn.Module, hr: Tensor, uniforms: np.ndarray, step: int
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean absolute error of the rendered patches and of their spectra; at the end the squared error."""
        kernels = self.degradation.draw(uniforms, hr.device)
        lr = self.degradation(hr, kernels).contiguous(memory_format=torch.channels_last)
        sr = network(lr, self.basis.encode(kernels.kernels)).float()
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
        """Losses used."""
        losses = {"l1": 1.0, "frequency": self.settings.frequency}
        if self.settings.squared_share > 0:
            losses[f"squared, in the last {self.settings.squared_share:.0%}"] = _SQUARED_WEIGHT
        return {"losses": losses, "kernels": "isotropic Gaussian, 21x21", "widths": self.degradation.width_range}


def main(settings: Settings) -> dict[str, float]:
    """Train and export; returns the last validation's figures."""
    photos, indices, held_out = split_photos(settings)
    return Trainer(AMNetTask(settings, held_out), settings, photos, indices).run()


if __name__ == "__main__":
    run_script(Settings, main)
