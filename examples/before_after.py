"""Draw the README's first picture: a blurred, reduced photograph, enlarged bicubically and by the shipped model.

python examples/before_after.py --out docs/before_after.jpg
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from sr_env.degradation import Degradation, bicubic_resize
from sr_env.photos import BundledPhotos
from sr_env.upscale import Upscaler
from sr_env.utils.checks import UsageError
from sr_env.utils.files import atomic_write
from sr_env.utils.images import to_images, to_uint8
from sr_env.utils.script import run_script

_GAP, _LABEL = 8, 26


@dataclass
class Settings:
    """Draw a photograph before and after.

    Attributes:
        out: JPEG or PNG to write.
        model: Renderer, by name or path; its scale is the magnification.
        photo: Bundled photo, taken whole.
        kernel_width: Width in HR pixels of the kernel that blurs it; the model is not told.
        crop: Top and left in HR pixels of what is shown.
        size: Height and width in HR pixels of what is shown.
        zoom: Whole factor by which it is shown larger.
    """

    out: Path = Path("docs/before_after.jpg")
    model: str = "amgan_x4"
    photo: str = "chelsea.png"
    kernel_width: float = 1.8
    crop: tuple[int, int] = (40, 100)
    size: tuple[int, int] = (200, 210)
    zoom: int = 2


def reconstruct(settings: Settings) -> list[tuple[str, np.ndarray]]:
    """Labelled pictures of the whole photograph, uint8 [H, W, 3]: the bicubic enlargement, the model's, and HR.

    Raises:
        MissingFileError: No such model.
        UsageError: No such photo, or the crop leaves it.
    """
    photos = BundledPhotos()
    if settings.photo not in photos.names:
        raise UsageError(f"unknown photo {settings.photo!r}: choose one of {', '.join(photos.names)}")
    upscaler = Upscaler(settings.model, device="cpu")
    s = upscaler.scale
    hr = photos[photos.names.index(settings.photo)]
    height, width = (side // s * s for side in hr.shape[:2])
    (top, left), (tall, wide) = settings.crop, settings.size
    if min(top, left) < 0 or min(tall, wide) < 1 or top + tall > height or left + wide > width:
        raise UsageError(f"crop {settings.crop} of size {settings.size} leaves the photo of {height}x{width}: move it")
    hr = np.array(hr[:height, :width])
    degradation = Degradation(s)
    with torch.no_grad():
        lr = degradation(to_images(hr[None]), degradation.build(np.array([settings.kernel_width])))
        enlarged = to_uint8(bicubic_resize(lr, (height, width)).clamp(0, 1))[0]
    result = upscaler.upscale(to_uint8(lr)[0])
    return [
        (f"LR, blurred and reduced x{s}, bicubic", enlarged),
        (f"{settings.model}, predicted width {result.widths[0]:.2f} (true {settings.kernel_width:g})", result.pixels),
        ("original (HR)", hr),
    ]


def main(settings: Settings) -> None:
    """Reconstruct, and put the crops side by side."""
    pictures = reconstruct(settings)
    (top, left), (tall, wide) = settings.crop, settings.size
    cell_height, cell_width = tall * settings.zoom, wide * settings.zoom
    canvas = Image.new("RGB", (len(pictures) * (cell_width + _GAP) - _GAP, cell_height + _LABEL), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (label, pixels) in enumerate(pictures):
        x = number * (cell_width + _GAP)
        crop = Image.fromarray(np.ascontiguousarray(pixels[top : top + tall, left : left + wide]))
        canvas.paste(crop.resize((cell_width, cell_height), Image.Resampling.NEAREST), (x, _LABEL))
        draw.text((x + 2, _LABEL // 2), label, font=ImageFont.load_default(15), fill="black", anchor="lm")
    with atomic_write(settings.out) as temporary:
        canvas.save(temporary, quality=90)
    print(f"{settings.out}: {canvas.width}x{canvas.height}, {settings.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    run_script(Settings, main)
