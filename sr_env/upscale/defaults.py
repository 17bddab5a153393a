"""Which released renderers are taken where none is named: one, or two to lie between."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sr_env.models import (
    BlendedRenderer,
    Checkpoint,
    available_checkpoints,
    blend_renderers,
    check_texture,
    load_renderer,
    read_card,
)
from sr_env.utils.checks import SCALES, UsageError, check_choice

#: Magnification -> the renderer at texture 0, and the one at texture 1: for photographs as people have them.
TEXTURES: Mapping[int, tuple[str, str]] = {4: ("amnet_real_x4", "amgan_real_x4")}
#: The same for clean photographs, of which only the blur is not known.
CLEAN_TEXTURES: Mapping[int, tuple[str, str]] = {4: ("amnet_x4", "amgan_x4")}


def textures(clean: bool = False) -> Mapping[int, tuple[str, str]]:
    """Magnification -> the renderers at texture 0 and 1, of photographs as people have them, or of clean ones."""
    return CLEAN_TEXTURES if clean else TEXTURES


def default_model(scale: int, clean: bool = False) -> str:
    """Name of the renderer taken for a magnification where none is named: for looks at x4, for fidelity at x2 and x3.

    Args:
        scale: Magnification.
        clean: Take one that knows of blur alone, and not one that knows noise and compression too (x4; the others
            know of blur alone).

    Raises:
        UsageError: Unknown scale, naming the valid ones.
    """
    check_choice("scale", scale, SCALES)
    pair = textures(clean).get(scale)
    return f"amnet_l_x{scale}" if pair is None else pair[1]


def load_textures(
    scale: int, texture: float, device: torch.device | str = "cpu", clean: bool = False
) -> Checkpoint[BlendedRenderer]:
    """The renderer between a magnification's two of :func:`textures`.

    Args:
        scale: Magnification.
        texture: From 0, faithful, to 1, textured.
        device: Where it goes.
        clean: As in :func:`default_model`.

    Raises:
        UsageError: The texture is outside [0, 1], or there are no two renderers for this scale.
    """
    check_texture(texture)
    pairs = textures(clean)
    if scale not in pairs:
        raise UsageError(
            f"texture {texture}: for x{scale} there is no perceptual renderer yet, leave out the texture or take "
            f"scale {', '.join(map(str, pairs))}"
        )
    faithful, textured = (load_renderer(name, scale=scale, device=device) for name in pairs[scale])
    return blend_renderers(faithful, textured, texture)


def list_models() -> list[str]:
    """A line for each released renderer: its name, magnification and size, and whether it is the default."""
    lines = []
    for name in available_checkpoints("renderer"):
        card = read_card(name)
        scale = card["scale"]
        names = {default_model(scale, clean=True): ", with --clean", default_model(scale): ""}
        taken = f"  (taken at x{scale} where none is named{names[name]})" if name in names else ""
        lines.append(f"{name:<16}x{scale}  {card['parameters'] / 1e6:.1f} M parameters{taken}")
    return lines
