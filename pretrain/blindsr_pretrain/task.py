"""What differs between training a renderer, a GAN and a predictor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blindsr_pretrain.runtime import full_float32, training_device, upload
from blindsr_pretrain.settings import MiddleSettings, TrainingSettings
from sr_env.degradation import Degradation, KernelBasis, Kernels
from sr_env.models import load_predictor
from sr_env.utils.checks import UsageError
from sr_env.utils.devices import channels_last


class Task(ABC):
    """What is trained: the network, its loss, its validation; and, in a GAN, the network that it is trained against.

    Attributes:
        network: The network whose parameters are trained, on its device.
        adversary: The network trained against it (a discriminator), on its device; None where there is none.
        adversary_rate: Peak learning rate of the adversary, which follows the same schedule.
        basis: Kernel basis that the exported checkpoint is bound to.
        degradation: How LR patches are made.
        scale: Magnification.
        name: File name of the exported weights, without suffix.
        headline: Validation figure by which the best weights are chosen.
        higher_is_better: Direction of the headline.
        share: Share of the training that is done, in [0, 1]; the trainer keeps it.

    Args:
        settings: How it is trained; also fixes the seed from which networks are initialised.
    """

    network: nn.Module
    adversary: nn.Module | None = None
    adversary_rate: float = 1e-4
    basis: KernelBasis
    degradation: Degradation
    scale: int
    name: str
    headline: str = "psnr"
    higher_is_better: bool = True
    share: float = 0.0

    def __init__(self, settings: TrainingSettings) -> None:
        self.unblurred = settings.unblurred
        self.device = training_device(settings)
        torch.manual_seed(settings.seed)

    @abstractmethod
    def loss(
        self, network: nn.Module, hr: Tensor, uniforms: np.ndarray, step: int
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss of one batch.

        Args:
            network: The network to run, possibly compiled.
            hr: HR patches, float32 in [0, 1], [B, 3, P, P].
            uniforms: Numbers in [0, 1) on the host, [B, 6]: three to draw the kernel from, one of the patch's softness,
                one for the task's own use, and one that says whether the patch stays unblurred.
            step: Number of this step, from 0.

        Returns:
            The scalar to minimise, and named scalars to log. Nothing here may wait for the device.
        """

    def adversary_loss(self, adversary: nn.Module) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss of the adversary on the pictures of the batch whose :meth:`loss` was computed last.

        Args:
            adversary: The adversary to run, possibly wrapped for several processes.

        Returns:
            The scalar to minimise, and named scalars to log.
        """
        raise NotImplementedError

    @abstractmethod
    def validate(self, network: nn.Module) -> tuple[dict[str, float], Tensor]:
        """Figures of the averaged network on the held-out photos, and a picture [3, H, W] in [0, 1]."""

    def card(self) -> dict[str, Any]:
        """Entries of the exported card that this task knows."""
        return {}

    def kernels_card(self) -> dict[str, Any]:
        """The card's entries on the kernels that were drawn."""
        return {
            "kernels": f"{self.degradation.kernels}, {self.basis.kernel_size}x{self.basis.kernel_size}",
            "widths": self.degradation.width_range,
            "unblurred": self.unblurred,
        }

    def degrade(self, hr: Tensor, uniforms: np.ndarray) -> tuple[Tensor, Tensor]:
        """LR patches [B, 3, p, p], channels-last multiples of 1/255, and the codes [B, L] of their kernels.

        Args:
            hr: HR patches, float32 in [0, 1], [B, 3, P, P].
            uniforms: As :meth:`loss` gets them.
        """
        kernels = self.degradation.draw(uniforms[:, :3])  # on the host: the same on every device, and nothing waits
        if self.unblurred > 0:
            kernels = _without_blur(kernels, torch.from_numpy(uniforms[:, 5] < self.unblurred))
        kernels = kernels.map(lambda x: upload(x, hr.device))
        with full_float32():
            lr = self.degradation(hr, kernels).contiguous(memory_format=torch.channels_last)
            return lr, self.basis.code_of(kernels)


def check_render_size(settings: MiddleSettings, scale: int) -> None:
    """Refuse a middle that does not consist of whole LR pixels.

    Raises:
        UsageError: ``render_size`` is no multiple of the scale.
    """
    if (settings.render_size or 0) % scale:
        raise UsageError(f"render_size is {settings.render_size}: give a multiple of the scale, {scale}")


def middle(images: Tensor, settings: MiddleSettings, scale: int, pixels: int) -> Tensor:
    """The part of a patch that is rendered.

    Args:
        images: Patches [B, 3, h, w], of HR or of LR.
        settings: Their ``patch_size`` and ``render_size``.
        scale: Magnification.
        pixels: Pixels of ``images`` that an LR pixel is wide: the scale for HR, 1 for LR.
    """
    if settings.render_size is None:
        return images
    margin = (settings.patch_size - settings.render_size) // 2 // scale
    window = slice(margin * pixels, (margin + settings.render_size // scale) * pixels)
    return images[..., window, window].contiguous(memory_format=torch.channels_last)


def _without_blur(kernels: Kernels, chosen: Tensor) -> Kernels:
    """Kernels whose chosen ones [B] let the image through as it is."""
    delta = torch.zeros_like(kernels.kernels[0])
    middle = delta.shape[-1] // 2
    delta[middle, middle] = 1
    full = torch.where(chosen[:, None, None], delta, kernels.kernels)
    taps = None if kernels.taps is None else torch.where(chosen[:, None], delta[middle], kernels.taps)
    return replace(kernels, kernels=full, taps=taps)


def code_predictor(
    name: str | None, scale: int, basis: KernelBasis, device: torch.device
) -> Callable[[Tensor], Tensor] | None:
    """What a renderer is given in use: LR images [B, 3, h, w] -> the codes [B, L] that a frozen predictor sees.

    Args:
        name: Name or path of the predictor; None makes none.
        scale: The renderer's magnification.
        basis: The renderer's kernel basis.
        device: Where the predictor goes.

    Raises:
        UsageError: No such predictor, or it is for another scale or basis.
    """
    if name is None:
        return None
    network = channels_last(load_predictor(name, scale=scale, basis=basis, device=device).network)

    @torch.no_grad()
    def predict(lr: Tensor) -> Tensor:
        return basis.to_code(network(lr))

    return predict
