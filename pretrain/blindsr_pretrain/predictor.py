"""The kernel predictor mu."""

from __future__ import annotations

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
from blindsr_pretrain.settings import TrainingSettings
from blindsr_pretrain.task import Task
from blindsr_pretrain.validation import ValidationSet, true_kernel_figures
from sr_env.degradation import Degradation
from sr_env.models import KernelPredictor, load_predictor, load_renderer
from sr_env.photos import PhotoSource
from sr_env.utils.checks import UsageError
from sr_env.utils.devices import channels_last
from sr_env.utils.provenance import public_path


@dataclass(kw_only=True)
class PredictorSettings(TrainingSettings):
    """Train the kernel predictor.

    Attributes:
        renderer: Name or path of the frozen renderer, or the name of a registered one.
        start: Name or path of a predictor to start from; None starts from scratch. One of another scale or kernel basis
            brings its eye for blur, and ``code_steps`` teach it the new code.
        code_steps: Steps on the code alone, before the renderer takes part.
        code_weight: Weight of the code's error once the renderer takes part.
        render_weight: Weight of the rendered picture's L1.
        softness: As in the other training scripts, but not zero: a predictor that has only seen sharp photographs takes
            softness of the scene for blur of the camera, and over-estimated blur costs most.
        target: What the rendered picture is compared with: the rendering by the true kernel, or HR.
    """

    out: Path = Path("runs/predictor")
    steps: int = 24_000
    patch_size: int = 256
    renderer: str = "amnet_l_x4"
    start: str | None = None
    code_steps: int = 10_000
    code_weight: float = 0.05
    render_weight: float = 10.0
    softness: float = 1.5
    target: Literal["true_kernel", "hr"] = "true_kernel"


class PredictorTask(Task):
    """Code regression, then the supervised blind model: error of the picture rendered with the predicted code."""

    def __init__(self, settings: PredictorSettings, held_out: PhotoSource) -> None:
        super().__init__(settings)
        device = self.device
        checkpoint = load_renderer(settings.renderer, device=device, family=settings.kernels)
        self.settings = settings
        self.scale, self.basis = checkpoint.scale, checkpoint.basis
        self.renderer = channels_last(checkpoint.network)
        self.rendering = compile_where_possible(self.renderer, settings, device)
        self.degradation = Degradation(self.scale, kernels=settings.kernels)
        self.name = f"predictor_x{self.scale}"
        if settings.start is None:
            self.network: nn.Module = KernelPredictor(code_length=self.basis.code_length).to(device)
        else:
            started = load_predictor(settings.start, device=device).network
            if started.code_length != self.basis.code_length:
                raise UsageError(
                    f"predictor {settings.start!r} gives codes of {started.code_length} numbers, renderer "
                    f"{settings.renderer!r} takes {self.basis.code_length}: start from another, or from scratch"
                )
            self.network = started.requires_grad_(True).train()
        self.held_out = ValidationSet(
            held_out,
            self.degradation,
            self.basis,
            device,
            settings.softness / 2,
            drawings=held_out_drawings(settings),
        )
        self.true_kernel = true_kernel_figures(self.held_out.score(self.renderer)[0], ("psnr",))
        self.renderer_card = checkpoint.card

    def loss(
        self, network: nn.Module, hr: Tensor, uniforms: np.ndarray, step: int
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean squared error of the code; after ``code_steps`` mainly the L1 of the rendered picture."""
        lr, true_code = self.degrade(hr, uniforms)
        code = self.basis.to_code(network(lr).float())
        code_error = F.mse_loss(code, true_code)
        if step < self.settings.code_steps:
            return code_error, {"code": code_error}
        sr = self.rendering(lr, code).float()
        if self.settings.target == "hr":
            target = hr
        else:
            with torch.no_grad():
                target = self.rendering(lr, true_code).float()
        render_error = F.l1_loss(sr, target)
        loss = self.settings.render_weight * render_error + self.settings.code_weight * code_error
        return loss, {"code": code_error, "render": render_error}

    def validate(self, network: nn.Module) -> tuple[dict[str, float], Tensor]:
        """PSNR-Y on held-out photos with the predicted code, beside what the true code gives."""
        figures, picture = self.held_out.score(lambda lr, code: self.renderer(lr, self.basis.to_code(network(lr))))
        return figures | self.true_kernel, picture

    def card(self) -> dict[str, Any]:
        """Losses used, and the renderer."""
        return {
            "losses": {"code_mse": self.settings.code_weight, "render_l1": self.settings.render_weight},
            "renderer": f"{public_path(self.settings.renderer)}, validation {self.renderer_card.get('validation')}",
            **self.kernels_card(),
        }
