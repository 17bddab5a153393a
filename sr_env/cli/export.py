"""Write a renderer or a kernel predictor as an ONNX file, for ONNX Runtime and whatever else reads ONNX.

blindsr export amnet_x4 -o amnet_x4.onnx
blindsr export --texture 0.5 -o between.onnx
blindsr upscale photo.jpg -o larger.png --model amnet_x4.onnx
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from sr_env.models import Checkpoint, load_predictor, load_renderer, read_card
from sr_env.models.onnx import export_onnx
from sr_env.upscale import load_textures
from sr_env.utils.checks import FileInTheWayError, UsageError
from sr_env.utils.files import check_writable


@dataclass
class Settings:
    """Export a network as ONNX.

    Attributes:
        out: The .onnx file to write.
        model: Renderer or predictor: a name such as amnet_x4, or a .safetensors file.
        texture: In the place of a model: the x4 renderer between 0, faithful (AMNet), and 1, textured (AMGAN).
        clean: With a texture, the two that know of blur alone.
        force: Overwrite it where it is there.
    """

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    model: tyro.conf.Positional[str | None] = None
    texture: float | None = None
    clean: bool = False
    force: bool = False


def _load(settings: Settings) -> Checkpoint[Any]:
    if (settings.model is None) == (settings.texture is None):
        raise UsageError(
            f"model {settings.model} and --texture {settings.texture}: name a model such as amnet_x4, or give a texture"
        )
    if settings.model is None:
        assert settings.texture is not None
        return load_textures(4, settings.texture, clean=settings.clean)
    load = load_renderer if read_card(settings.model)["kind"] == "renderer" else load_predictor
    return load(settings.model)


def main(settings: Settings) -> None:
    """Export, and say how near ONNX Runtime comes to torch.

    Raises:
        MissingFileError: No such network; lists the released ones.
        FileInTheWayError: The file is there.
        UsageError: A package is missing, or not one of a model and a texture is given.
        ValueError: The result differs from torch.
        OSError: The file cannot be written.
    """
    if settings.out.exists() and not settings.force:
        raise FileInTheWayError(f"{str(settings.out)!r} is there: give another --out, or --force to overwrite it")
    checkpoint = _load(settings)
    check_writable(settings.out.parent)
    for size, difference in export_onnx(checkpoint, settings.out).items():
        print(f"{size} pixels: largest difference to torch {difference:.1e}")
    print(f"{settings.out}: {settings.out.stat().st_size / 1e6:.1f} MB")
