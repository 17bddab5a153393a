"""Train the kernel predictor mu: first on the code itself, then through the frozen renderer.

    python pretrain/train_predictor.py --data FOLDER --renderer amnet_l_x4

Through the renderer the target is the picture that the true kernel would give, ``|G(LR, mu(LR)) - G(LR, code)|``. Its
gradient points where ``|G(LR, mu(LR)) - HR|`` points on average, without the noise of the detail that no kernel can
restore; ``--target hr`` takes the latter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from blindsr_pretrain.trainer import (
    HeldOut,
    Task,
    Trainer,
    TrainingSettings,
    compile_where_possible,
    split_photos,
    training_device,
)
from torch import Tensor, nn

from sr_env.degradation import Degradation
from sr_env.models.checkpoint import load_predictor, load_renderer
from sr_env.models.predictor import KernelPredictor
from sr_env.photos import PhotoSource
from sr_env.utils.devices import channels_last
from sr_env.utils.provenance import public_path
from sr_env.utils.script import run_script


@dataclass
class Settings(TrainingSettings):
    """Train the kernel predictor.

    Attributes:
        renderer: Name or path of the frozen renderer.
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

    def __init__(self, settings: Settings, held_out: PhotoSource) -> None:
        device = training_device(settings)
        torch.manual_seed(settings.seed)
        checkpoint = load_renderer(settings.renderer, device=device)
        self.settings = settings
        self.scale, self.basis = checkpoint.scale, checkpoint.basis
        self.renderer = channels_last(checkpoint.network)
        self.rendering = compile_where_possible(self.renderer, settings, device)
        self.degradation = Degradation(self.scale)
        self.name = f"predictor_x{self.scale}"
        if settings.start is None:
            self.network: nn.Module = KernelPredictor(code_length=self.basis.code_length).to(device)
        else:
            started = load_predictor(settings.start, device=device).network
            if started.code_length != self.basis.code_length:
                raise ValueError(
                    f"predictor {settings.start!r} gives codes of {started.code_length} numbers, renderer "
                    f"{settings.renderer!r} takes {self.basis.code_length}: start from another, or from scratch"
                )
            self.network = started.requires_grad_(True).train()
        self.held_out = HeldOut(held_out, self.degradation, self.basis, device, softness=settings.softness / 2)
        self.true_psnr = self.held_out.score(self.renderer)[0]["psnr"]
        self.renderer_card = checkpoint.card

    def loss(
        self, network: nn.Module, hr: Tensor, uniforms: np.ndarray, step: int
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean squared error of the code; after ``code_steps`` mainly the L1 of the rendered picture."""
        kernels = self.degradation.draw(uniforms, hr.device)
        lr = self.degradation(hr, kernels).contiguous(memory_format=torch.channels_last)
        true_code = self.basis.encode(kernels.kernels)
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
        return {**figures, "psnr_true_kernel": self.true_psnr}, picture

    def card(self) -> dict[str, Any]:
        """Losses used, and the renderer."""
        return {
            "losses": {"code_mse": self.settings.code_weight, "render_l1": self.settings.render_weight},
            "renderer": f"{public_path(self.settings.renderer)}, validation {self.renderer_card.get('validation')}",
            "kernels": "isotropic Gaussian, 21x21",
            "widths": self.degradation.width_range,
        }


def main(settings: Settings) -> dict[str, float]:
    """Train and export; returns the last validation's figures."""
    photos, indices, held_out = split_photos(settings)
    return Trainer(PredictorTask(settings, held_out), settings, photos, indices).run()


if __name__ == "__main__":
    run_script(Settings, main)
