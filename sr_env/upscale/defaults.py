"""Which released renderers are taken where none is named: one, or two to lie between."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sr_env.models import BlendedRenderer, Checkpoint, blend_renderers, check_texture, load_renderer
from sr_env.models.controls import PARTNERS
from sr_env.utils.checks import SCALES, UsageError, check_choice

#: Magnification -> the renderer at texture 0, and the one at texture 1.
TEXTURES: Mapping[int, tuple[str, str]] = {4: (PARTNERS["amgan_x4"], "amgan_x4")}


def default_model(scale: int) -> str:
    """Name of the renderer taken for a magnification where none is named: for looks at x4, for fidelity at x2 and x3.

    Raises:
        UsageError: Unknown scale, naming the valid ones.
    """
    check_choice("scale", scale, SCALES)
    return "amgan_x4" if scale == 4 else f"amnet_l_x{scale}"


def load_textures(scale: int, texture: float, device: torch.device | str = "cpu") -> Checkpoint[BlendedRenderer]:
    """The renderer between a magnification's two of ``TEXTURES``.

    Args:
        scale: Magnification.
        texture: From 0, faithful, to 1, textured.
        device: Where it goes.

    Raises:
        UsageError: The texture is outside [0, 1], or there are no two renderers for this scale.
    """
    check_texture(texture)
    if scale not in TEXTURES:
        raise UsageError(
            f"texture {texture}: for x{scale} there is no perceptual renderer yet, leave out the texture or take "
            f"scale {', '.join(map(str, TEXTURES))}"
        )
    faithful, textured = (load_renderer(name, scale=scale, device=device) for name in TEXTURES[scale])
    return blend_renderers(faithful, textured, texture)
