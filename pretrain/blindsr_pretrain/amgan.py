"""AMGAN: a fidelity renderer that is fine-tuned for looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blindsr_pretrain.data import held_out_drawings
from blindsr_pretrain.discriminator import MIN_SIZE, Discriminator
from blindsr_pretrain.inherit import inherit
from blindsr_pretrain.losses import (
    LEARNED,
    AdversarialLoss,
    Anchors,
    Form,
    LossWeights,
    MetricLoss,
    PhaseLoss,
    RealnessLoss,
    RelativisticAverageLoss,
    VGGArchitecture,
    VGGLoss,
    total,
    vgg_backbone,
)
from blindsr_pretrain.runtime import upload
from blindsr_pretrain.settings import MiddleSettings
from blindsr_pretrain.task import Task, check_render_size, code_predictor, middle
from blindsr_pretrain.validation import ValidationSet
from sr_env.degradation import Degradation
from sr_env.models import SIZES, AMNet, load_renderer
from sr_env.photos import PhotoSource
from sr_env.utils.checks import UsageError
from sr_env.utils.devices import channels_last
from sr_env.utils.provenance import public_path


@dataclass(kw_only=True)
class AMGANSettings(MiddleSettings):
    """Fine-tune AMNet into AMGAN.

    Attributes:
        start: Name or path of the fidelity renderer to start from; its size and scale are AMGAN's.
        adversarial: "realness" (AMGAN) or "relativistic" (AMGAN*).
        weights: Weights of the loss terms.
        vgg: Backbone of the VGG loss: "vgg19", "vgg16", or "auto" for VGG19 where its weights can be had.
        outcomes: Outcomes of the realness discriminator.
        anchors: Realness anchors: the supplement's, or those of the official code.
        form: Realness distance: "kl" or "cross_entropy".
        discriminator_rate: Peak learning rate of the discriminator.
        discriminator_channels: Width of the discriminator's first layer.
        smooth: Give it the box filter of :class:`~sr_env.models.AMNet`. It hinders a grid as the phase loss does,
            and leaves ripples beside edges.
        predictor: Name or path of the kernel predictor whose codes a share of the patches is rendered with; None gives
            every patch its true code.
        predicted_share: That share, the chance of each patch.
    """

    out: Path = Path("runs/amgan")
    steps: int = 20_000
    learning_rate: float = 1e-4
    start: str = "amnet_x4"
    adversarial: Literal["realness", "relativistic"] = "realness"
    weights: LossWeights = field(default_factory=LossWeights)
    vgg: VGGArchitecture = "auto"
    outcomes: int = 51
    anchors: Anchors = "supplement"
    form: Form = "kl"
    discriminator_rate: float = 1e-4
    discriminator_channels: int = 32
    smooth: bool = False
    predictor: str | None = None
    predicted_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.discriminator_rate < 1:
            raise UsageError(f"discriminator_rate is {self.discriminator_rate}: give a rate between 0 and 1")
        if not 0 < self.predicted_share <= 1:
            raise UsageError(f"predicted_share is {self.predicted_share}: give a share above 0 and at most 1")
        if self.patch_size < MIN_SIZE:
            raise UsageError(f"patch_size is {self.patch_size}: the discriminator needs at least {MIN_SIZE}")
        if self.render_size is not None and self.render_size < MIN_SIZE:
            raise UsageError(f"render_size is {self.render_size}: the discriminator needs at least {MIN_SIZE}")


class AMGANTask(Task):
    """Perceptual fine-tuning of a renderer against a discriminator.

    The weights kept are those of the lowest LPIPS on the held-out photos; where that is a term of the loss, of the
    lowest DISTS, and LPIPS stands beside it.
    """

    headline = "lpips"
    higher_is_better = False

    def __init__(self, settings: AMGANSettings, held_out: PhotoSource) -> None:
        super().__init__(settings)
        device = self.device
        self.settings = settings
        started = load_renderer(settings.start, device=device, family=settings.kernels)
        if not isinstance(started.network, AMNet):
            raise UsageError(f"renderer {settings.start!r} is no AMNet, which AMGAN is fine-tuned from: choose one")
        self.network = AMNet(**{**started.network.architecture, "smooth": settings.smooth}).to(device)
        inherit(self.network, started.network)
        self.basis, self.scale, self.started = started.basis, started.scale, started.card
        check_render_size(settings, self.scale)
        self.predicted = code_predictor(settings.predictor, self.scale, self.basis, device)
        self.degradation = Degradation(self.scale, kernels=settings.kernels)
        self.name = f"{_name(settings, self.network.architecture)}_x{self.scale}"
        self.terms: dict[str, nn.Module] = {}  # only what has a weight is loaded and computed
        self.vgg_source = None
        if settings.weights.vgg > 0:
            backbone = vgg_backbone(settings.vgg, device)
            self.terms["vgg"], self.vgg_source = VGGLoss(backbone), backbone.source
        for metric in LEARNED:
            if getattr(settings.weights, metric) > 0:
                self.terms[metric] = MetricLoss(metric, device)
        if settings.weights.phase > 0:
            self.terms["phase"] = PhaseLoss(self.scale)
        self.adversarial: AdversarialLoss = (
            RealnessLoss(settings.outcomes, settings.anchors, settings.form)
            if settings.adversarial == "realness"
            else RelativisticAverageLoss()
        )
        if settings.weights.adversarial > 0:
            discriminator = Discriminator(self.adversarial.outputs, settings.discriminator_channels)
            self.adversary = channels_last(discriminator.to(device))
            self.adversary_rate = settings.discriminator_rate
        if settings.weights.lpips > 0:
            self.headline = "dists"
        self.pair: tuple[Tensor, Tensor] | None = None
        self.last_step = 0
        self.held_out = ValidationSet(
            held_out,
            self.degradation,
            self.basis,
            device,
            settings.softness_at(self.scale) / 2,
            metrics=tuple(dict.fromkeys(("lpips", "psnr", self.headline))),
            drawings=held_out_drawings(settings),
        )

    def loss(
        self, network: nn.Module, hr: Tensor, uniforms: np.ndarray, step: int
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The weighted sum of the terms."""
        lr, code = self.degrade(hr, uniforms)
        if self.predicted is not None:
            by_predictor = upload(torch.from_numpy(uniforms[:, 4] < self.settings.predicted_share), hr.device)
            code = torch.where(by_predictor[:, None], self.predicted(lr), code)
        hr, lr = middle(hr, self.settings, self.scale, self.scale), middle(lr, self.settings, self.scale, 1)
        sr = network(lr, code).float()
        self.pair, self.last_step = (hr, sr.detach()), step
        terms = {"l1": F.l1_loss(sr, hr), **{name: term(sr, hr) for name, term in self.terms.items()}}
        if self.adversary is not None:
            with torch.no_grad():
                real = self.adversary(hr) if self.adversarial.needs_real else None
            terms["adversarial"] = self.adversarial.generator(real, self.adversary(sr), seed=step)
        return total(terms, self.settings.weights), terms

    def adversary_loss(self, adversary: nn.Module) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss of the discriminator on the last batch's HR and SR, and how far apart it tells them."""
        if self.pair is None:
            raise RuntimeError("the discriminator's loss needs a rendered batch: call loss() first")
        real, fake = adversary(torch.cat(self.pair)).chunk(2)
        loss = self.adversarial.discriminator(real, fake, seed=self.last_step)
        return loss, {"real_fake_distance": (real.mean(0) - fake.mean(0)).norm()}

    def validate(self, network: nn.Module) -> tuple[dict[str, float], Tensor]:
        """LPIPS and PSNR-Y on held-out photos, with the true code or, with a predictor, with the predicted one.

        Of a network trained for a predictor its headline is with that predictor, and the true code's figures stand
        beside it, as ``lpips_true_kernel``.
        """
        return self.held_out.score(network, self.predicted)

    def card(self) -> dict[str, Any]:
        """Losses used, the VGG behind them, and the renderer this one started from."""
        settings = self.settings
        kind: str = settings.adversarial
        if kind == "realness":
            kind = f"realness, {settings.outcomes} outcomes, anchors {settings.anchors}, form {settings.form}"
        return {
            "losses": asdict(settings.weights),
            "vgg": self.vgg_source,
            "adversarial": kind,
            "start": f"{public_path(settings.start)}, validation {self.started.get('validation')}",
            **self.kernels_card(),
            "codes": "true"
            if settings.predictor is None
            else f"of {public_path(settings.predictor)} with a chance of {settings.predicted_share:g}, else true",
        }


def _name(settings: AMGANSettings, architecture: Mapping[str, int]) -> str:
    """The weights' name: amgan or amgan_star, with _l where it is of AMNet-L's size."""
    small = all(architecture[key] == value for key, value in SIZES["amnet_l"].items())
    return ("amgan" if settings.adversarial == "realness" else "amgan_star") + ("_l" if small else "")
