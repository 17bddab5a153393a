"""Write a renderer or a kernel predictor as an ONNX file, for ONNX Runtime and whatever else reads ONNX.

blindsr export amnet_x4 -o amnet_x4.onnx
blindsr upscale photo.jpg -o larger.png --model amnet_x4.onnx
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sr_env.models import load_predictor, load_renderer, read_card
from sr_env.models.onnx import export_onnx
from sr_env.utils.checks import FileInTheWayError
from sr_env.utils.files import check_writable


@dataclass
class Settings:
    """Export a network as ONNX.

    Attributes:
        model: Renderer or predictor: a name such as amnet_x4, or a .safetensors file.
        out: The .onnx file to write.
        force: Overwrite it where it is there.
    """

    model: tyro.conf.Positional[str]
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    force: bool = False


def main(settings: Settings) -> None:
    """Export, and say how near ONNX Runtime comes to torch.

    Raises:
        MissingFileError: No such network; lists the released ones.
        FileInTheWayError: The file is there.
        UsageError: A package is missing.
        ValueError: The result differs from torch.
        OSError: The file cannot be written.
    """
    if settings.out.exists() and not settings.force:
        raise FileInTheWayError(f"{str(settings.out)!r} is there: give another --out, or --force to overwrite it")
    load = load_renderer if read_card(settings.model)["kind"] == "renderer" else load_predictor
    checkpoint = load(settings.model)
    check_writable(settings.out.parent)
    for size, difference in export_onnx(checkpoint, settings.out).items():
        print(f"{size} pixels: largest difference to torch {difference:.1e}")
    print(f"{settings.out}: {settings.out.stat().st_size / 1e6:.1f} MB")
