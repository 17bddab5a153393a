"""What lies between two renderers: one trained for fidelity and one for looks, blended in the picture.

A network with the mean of their weights (``pretrain/interpolate.py``) would take one forward pass in the place of two.
On held-out photographs it is worse: half way, its LPIPS is hardly better than the fidelity renderer's, where the mean
of the two renderings is half way there at a higher PSNR (docs/experiments/renderers.md). So renderings are what is
blended, and the two networks may be of any two architectures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sr_env.models.checkpoint import Checkpoint
from sr_env.utils.checks import UsageError


def check_texture(texture: float) -> None:
    """Raise :class:`UsageError` unless a texture is a number from 0 to 1."""
    if not 0 <= texture <= 1:
        raise UsageError(f"texture {texture}: give 0 (faithful) to 1 (textured)")


class BlendedRenderer(nn.Module):
    """``SR = (1 - texture) F(LR, code) + texture P(LR, code)``.

    At 0 and 1 only the one network runs, and the picture is its own, bit for bit. The sum is a plain one, so that a
    texture for each picture of a batch would be a tensor [B, 1, 1, 1] in the place of the number.

    Args:
        fidelity: The renderer F at 0.
        perceptual: The renderer P at 1, of the same scale and code length.
        texture: Where to begin.

    Raises:
        UsageError: The texture is outside [0, 1].
    """

    def __init__(self, fidelity: Any, perceptual: Any, texture: float) -> None:
        super().__init__()
        self.fidelity, self.perceptual = fidelity, perceptual
        self.scale, self.code_length = fidelity.scale, fidelity.code_length
        self.texture = texture

    @property
    def texture(self) -> float:
        """Share of the perceptual renderer, in [0, 1]; set it at any time."""
        return self._texture

    @texture.setter
    def texture(self, texture: float) -> None:
        check_texture(texture)
        self._texture = float(texture)

    @property
    def architecture(self) -> dict[str, Any]:
        """That of the network with more channels, which sets what a forward pass takes: the two run in turn."""
        both: list[dict[str, Any]] = [dict(network.architecture) for network in (self.fidelity, self.perceptual)]
        return max(both, key=lambda architecture: int(architecture.get("channels", 0)))

    @property
    def receptive_radius(self) -> int:
        """How many LR pixels around its own a pixel of SR depends on."""
        return max(int(network.receptive_radius) for network in (self.fidelity, self.perceptual))

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        """Render.

        Args:
            lr: Images in [0, 1], float, shape [B, 3, h, w].
            code: Kernel codes, shape [B, L].

        Returns:
            SR images, shape [B, 3, scale*h, scale*w], not clamped.
        """
        faithful: Tensor | None = self.fidelity(lr, code) if self._texture < 1 else None
        if self._texture == 0 and faithful is not None:
            return faithful
        textured: Tensor = self.perceptual(lr, code)
        return textured if faithful is None else faithful.lerp(textured, self._texture)


def blend_renderers(
    fidelity: Checkpoint[Any], perceptual: Checkpoint[Any], texture: float
) -> Checkpoint[BlendedRenderer]:
    """A renderer between two.

    Args:
        fidelity: What it is at 0.
        perceptual: What it is at 1.
        texture: Share of the second, in [0, 1]. The result's ``network.texture`` moves it.

    Returns:
        A checkpoint that shares the networks of both, and whose card names them.

    Raises:
        UsageError: The two differ in scale or kernel basis, or the texture is outside [0, 1].
    """
    for what, first, second in (
        ("scale", fidelity.scale, perceptual.scale),
        ("kernel basis", fidelity.basis.digest, perceptual.basis.digest),
    ):
        if first != second:
            raise UsageError(
                f"{fidelity.path.name} and {perceptual.path.name} differ in {what} ({first}, {second}): blend two "
                "renderers that were trained for one scale and one kernel basis"
            )
    network = BlendedRenderer(fidelity.network, perceptual.network, texture)
    names = [checkpoint.path.stem for checkpoint in (fidelity, perceptual)]
    card = {
        "kind": "renderer",
        "network": type(network).__name__,
        "architecture": network.architecture,
        "scale": fidelity.scale,
        "basis": fidelity.basis.digest,
        "parameters": sum(p.numel() for p in network.parameters()),
        "blend": dict(zip(("fidelity", "perceptual"), names, strict=True)),
    }
    return Checkpoint(network.eval(), fidelity.basis, card, Path(" to ".join(names)))
