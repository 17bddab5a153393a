"""The kernel predictor mu."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blindsr_pretrain.data import held_out_drawings
from blindsr_pretrain.runtime import compile_where_possible
from blindsr_pretrain.settings import MiddleSettings
from blindsr_pretrain.task import Task, check_render_size, middle
from blindsr_pretrain.validation import ValidationSet, true_kernel_figures
from sr_env.degradation import Degradation
from sr_env.models import KernelPredictor, load_predictor, load_renderer
from sr_env.photos import PhotoSource
from sr_env.utils.checks import UsageError
from sr_env.utils.devices import channels_last
from sr_env.utils.provenance import public_path

#: Mean squared error of half a grey level of 255: flat patches have no PSNR to lose.
_FLOOR = (0.5 / 255) ** 2


@dataclass(kw_only=True)
class PredictorSettings(MiddleSettings):
    """Train the kernel predictor.

    Attributes:
        renderers: Names or paths of the frozen renderers, or names of registered ones, of one scale and kernel basis.
            Steps go through them in turn; the first is what held-out photos are rendered with.
        start: Name or path of a predictor to start from; None starts from scratch. One of another scale or kernel basis
            brings its eye for blur, and ``code_steps`` teach it the new code.
        doubt: Let it say how far off each number of the code may be, too; what it says of the code stays the same.
        code_steps: Steps on the code alone, before the renderer takes part.
        code_weight: Weight of the code's error once the renderer takes part.
        render_weight: Weight of the rendered picture's error.
        softness: As in the other training scripts, but not zero: a predictor that has only seen sharp photographs takes
            softness of the scene for blur of the camera, and over-estimated blur costs most.
        target: "true_kernel": the picture's error is its L1 from the rendering by the true kernel. "hr": from HR.
            "decibels": about what the predicted kernel costs in PSNR, patch by patch, see :func:`decibels_lost`.
    """

    out: Path = Path("runs/predictor")
    steps: int = 24_000
    patch_size: int = 256
    renderers: tuple[str, ...] = ("amnet_l_x4",)
    start: str | None = None
    doubt: bool = False
    code_steps: int = 10_000
    code_weight: float = 0.05
    render_weight: float = 10.0
    softness: float = 1.5
    target: Literal["true_kernel", "hr", "decibels"] = "true_kernel"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.renderers:
            raise UsageError("renderers is empty: name at least one, for example amnet_l_x4")


def decibels_lost(sr: Tensor, best: Tensor, hr: Tensor) -> Tensor:
    """What a wrong code costs in PSNR, if its error and that of the renderer itself are independent.

    ``10 log10(1 + |sr - best|^2 / |best - hr|^2)``, patch by patch: a patch counts by what is lost in it, whatever its
    contrast, as in a mean PSNR. It is 0 for the true code and never negative.

    Args:
        sr: Renderings by the predicted codes, [B, 3, H, W].
        best: Renderings by the true codes, same shape.
        hr: What they render, same shape.

    Returns:
        The mean over the batch in decibels, a float32 scalar.
    """
    wrong, unavoidable = ((a - b).square().mean((1, 2, 3)) for a, b in ((sr, best), (best, hr)))
    return 10 / math.log(10) * torch.log1p(wrong / (unavoidable + _FLOOR)).mean()


def doubt_loss(actions: Tensor, true: Tensor, doubt: Tensor) -> Tensor:
    """Negative log likelihood of the actions' errors under Gaussians, a scalar; it moves the doubt alone.

    Args:
        actions: What is predicted, [B, L].
        true: What is right, [B, L].
        doubt: Standard deviations, [B, L].
    """
    return ((actions.detach() - true) / doubt).square().div(2).add(doubt.log()).mean()


def with_outputs(network: KernelPredictor, code_length: int, doubt: bool) -> KernelPredictor:
    """A predictor that starts as another one, and gives codes of another length or its doubt, where that is asked.

    Its eye for blur stays; of other codes the last layer is a fresh one.

    Args:
        network: A trained one.
        code_length: Numbers of the code.
        doubt: Whether to say how sure it is.
    """
    wanted = {**network.architecture, "code_length": code_length, "doubt": doubt or network.spread is not None}
    made = KernelPredictor(**wanted)
    own, trained = made.state_dict(), network.state_dict()
    made.load_state_dict({k: trained[k] if k in trained and trained[k].shape == v.shape else v for k, v in own.items()})
    return made


class PredictorTask(Task):
    """Code regression, then the supervised blind model: error of the picture rendered with the predicted code."""

    def __init__(self, settings: PredictorSettings, held_out: PhotoSource) -> None:
        super().__init__(settings)
        device = self.device
        loaded = [load_renderer(name, device=device, family=settings.kernels) for name in settings.renderers]
        self.settings = settings
        self.scale, self.basis = loaded[0].scale, loaded[0].basis
        check_render_size(settings, self.scale)
        for name, checkpoint in zip(settings.renderers, loaded, strict=True):
            if checkpoint.scale != self.scale or checkpoint.basis.digest != self.basis.digest:
                raise UsageError(
                    f"renderer {name!r} has another scale or kernel basis than {settings.renderers[0]!r}: a predictor "
                    "is trained through renderers that take the same codes"
                )
        networks = [channels_last(checkpoint.network) for checkpoint in loaded]
        self.renderer = networks[0]
        self.renderings = [compile_where_possible(network, settings, device) for network in networks]
        self.degradation = Degradation(self.scale, kernels=settings.kernels)
        self.name = f"predictor_x{self.scale}"
        if settings.start is None:
            network = KernelPredictor(code_length=self.basis.code_length, doubt=settings.doubt)
        else:
            network = with_outputs(load_predictor(settings.start).network, self.basis.code_length, settings.doubt)
        self.network: nn.Module = network.to(device)
        self.doubt = network.spread is not None
        self.held_out = ValidationSet(
            held_out,
            self.degradation,
            self.basis,
            device,
            settings.softness_at(self.scale) / 2,
            drawings=held_out_drawings(settings),
        )
        self.true_kernel = true_kernel_figures(self.held_out.score(self.renderer)[0], ("psnr",))
        self.renderer_cards = [checkpoint.card for checkpoint in loaded]

    def loss(
        self, network: nn.Module, hr: Tensor, uniforms: np.ndarray, step: int
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean squared error of the code; after ``code_steps`` mainly the error of the rendered picture."""
        lr, true_code = self.degrade(hr, uniforms)
        actions, doubt = network(lr, doubtful=self.doubt).float().tensor_split([self.basis.code_length], dim=1)
        code = self.basis.to_code(actions)
        code_error = F.mse_loss(code, true_code)
        logged = {"code": code_error}
        if self.doubt:
            logged["doubt"] = doubt_loss(actions, self.basis.to_action(true_code), doubt)
        if step < self.settings.code_steps:
            return sum(logged.values(), code_error.new_zeros(())), logged
        rendering = self.renderings[step % len(self.renderings)]
        lr, hr = (middle(images, self.settings, self.scale, pixels) for images, pixels in ((lr, 1), (hr, self.scale)))
        sr = rendering(lr, code).float()
        if self.settings.target == "hr":
            render_error = F.l1_loss(sr, hr)
        else:
            with torch.no_grad():
                best = rendering(lr, true_code).float()
            render_error = F.l1_loss(sr, best) if self.settings.target == "true_kernel" else decibels_lost(sr, best, hr)
        loss = self.settings.render_weight * render_error + self.settings.code_weight * code_error
        loss = loss + logged.get("doubt", 0.0)
        return loss, {**logged, "render": render_error}

    def validate(self, network: nn.Module) -> tuple[dict[str, float], Tensor]:
        """PSNR-Y on held-out photos with the predicted code, beside what the true code gives."""
        figures, picture = self.held_out.score(lambda lr, code: self.renderer(lr, self.basis.to_code(network(lr))))
        return figures | self.true_kernel, picture

    def card(self) -> dict[str, Any]:
        """Losses used, and the renderers."""
        error = "render_decibels" if self.settings.target == "decibels" else "render_l1"
        return {
            "losses": {"code_mse": self.settings.code_weight, error: self.settings.render_weight},
            "renderers": [
                f"{public_path(name)}, validation {card.get('validation')}"
                for name, card in zip(self.settings.renderers, self.renderer_cards, strict=True)
            ],
            **self.kernels_card(),
        }
