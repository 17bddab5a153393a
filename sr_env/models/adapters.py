"""Networks that are no checkpoints of ours as renderers: any ``nn.Module``, and models that spandrel loaded."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from sr_env.degradation import KernelBasis
from sr_env.utils.checks import SCALES, UsageError, check_choice


class ModuleRenderer(nn.Module):
    """A user's network as a renderer: a frozen copy, called as an :class:`~sr_env.models.AMNet` is.

    Args:
        network: Any network from LR images [B, 3, h, w] in [0, 1] (and codes [B, L]) to SR images.
        scale: Its magnification.
        code_length: Length L of the codes it takes; 0 for one that is called with the LR image alone (a network that
            is not blind to the kernel but was trained for one; the code is then ignored).
    """

    def __init__(self, network: nn.Module, scale: int, code_length: int) -> None:
        super().__init__()
        self.network = network
        self.scale, self.code_length = scale, code_length

    @property
    def architecture(self) -> dict[str, Any]:
        """The network's own account of itself; empty where it gives none."""
        return dict(getattr(self.network, "architecture", {}))

    @property
    def receptive_radius(self) -> int:
        """The network's own.

        Raises:
            UsageError: It does not say: without it a picture cannot be cut into tiles.
        """
        radius = getattr(self.network, "receptive_radius", None)
        if not isinstance(radius, int):
            raise UsageError(
                f"renderer {type(self.network).__name__} has no whole number receptive_radius: set this attribute to "
                "how many LR pixels around its own a pixel of SR depends on"
            )
        return radius

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        """LR images [B, 3, h, w] in [0, 1] and codes [B, L] -> SR images [B, 3, scale*h, scale*w], not clamped.

        Raises:
            UsageError: The network gives another shape.
        """
        sr: Tensor = self.network(lr, code) if self.code_length else self.network(lr)
        height, width = lr.shape[-2:]
        expected = (len(lr), 3, height * self.scale, width * self.scale)
        if not isinstance(sr, Tensor) or sr.shape != expected:
            found = list(sr.shape) if isinstance(sr, Tensor) else type(sr).__name__
            raise UsageError(
                f"renderer {type(self.network).__name__} makes {found} of LR images {list(lr.shape)}, not "
                f"{list(expected)}: give a network for RGB and scale {self.scale}"
            )
        return sr


class _SpandrelModel(nn.Module):
    """A model that spandrel loaded as a module; spandrel pads to the sizes the architecture takes, and clamps."""

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.model, self.descriptor = descriptor.model, descriptor

    def forward(self, lr: Tensor) -> Tensor:
        sr: Tensor = self.descriptor(lr)
        return sr


def as_renderer(network: Any, basis: KernelBasis, scale: int | None, code_length: int | None) -> ModuleRenderer:
    """Wrap a module, or a model that spandrel loaded.

    Args:
        network: ``nn.Module`` or ``spandrel.ImageModelDescriptor``.
        basis: The basis whose codes it is given.
        scale: The magnification needed; None takes the network's attribute ``scale``.
        code_length: Of the codes it takes; None takes its attribute ``code_length``.

    Raises:
        UsageError: The scale or code length is unknown or does not fit.
    """
    title = type(network).__name__
    own_scale: Any
    length: Any
    if is_spandrel(network):
        title, own_scale, length = network.architecture.name, network.scale, 0
        if (network.input_channels, network.output_channels) != (3, 3):
            raise UsageError(
                f"spandrel's {title} turns {network.input_channels} channels into {network.output_channels}: give a "
                "model for RGB images"
            )
        network = _SpandrelModel(network)
    else:
        own_scale = getattr(network, "scale", scale)
        length = getattr(network, "code_length", code_length)
    if own_scale is None:
        raise UsageError(f"renderer {title} has no attribute scale: set it, or name the scale")
    if not isinstance(own_scale, int) or isinstance(own_scale, bool):
        raise UsageError(f"renderer {title} has scale {own_scale!r}: set this attribute to a whole number")
    check_choice(f"scale of renderer {title}", own_scale, SCALES)
    if scale is not None and own_scale != scale:
        raise UsageError(f"renderer {title} is for scale {own_scale}, not {scale}: give one for that scale")
    if length not in (0, basis.code_length) or isinstance(length, bool):
        raise UsageError(
            f"renderer {title} has code_length {length!r}: set this attribute to {basis.code_length}, the length of "
            "the kernel codes it is called with as network(lr, code), or to 0 if it is called as network(lr)"
        )
    return ModuleRenderer(deepcopy(network), int(own_scale), int(length))


def is_spandrel(network: object) -> bool:
    """Whether it is a model that spandrel loaded (told without importing spandrel)."""
    return any(base.__module__.split(".")[0] == "spandrel" for base in type(network).__mro__) and not isinstance(
        network, nn.Module
    )
