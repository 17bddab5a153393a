"""Draw photographs as people have them, enlarged bicubically, by default, and with --clean.

python examples/real_photographs.py --out docs/real_photographs.jpg

They come with scikit-image and matplotlib: a photograph from the web, a portrait reduced and saved at JPEG quality 60,
and one with noise. None of them was trained on, and there is no sharp original of the first.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import skimage
from blindsr_agents.evaluation.contact_sheet import SheetRow, draw_sheets
from PIL import Image

from sr_env.upscale import Upscaler
from sr_env.utils.files import atomic_write
from sr_env.utils.script import run_script

_SIDE = 96


@dataclass
class Settings:
    """Draw photographs as people have them.

    Attributes:
        out: JPEG or PNG to write.
        seed: Of the noise.
    """

    out: Path = Path("docs/real_photographs.jpg")
    seed: int = 0


def photographs(seed: int) -> dict[str, np.ndarray]:
    """Small photographs by their titles, uint8 [96, 96, 3]."""
    web = Image.open(Path(skimage.__file__).parent / "data" / "rocket.jpg")
    portrait = Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    portrait.thumbnail((200, 240), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    portrait.save(file, "JPEG", quality=60)
    compressed = Image.open(file)
    face = Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png").resize((200, 200))
    noise = np.random.default_rng(seed).normal(0, 10, (200, 200, 3))
    noisy = Image.fromarray(np.clip(np.asarray(face.convert("RGB")) + noise, 0, 255).astype(np.uint8))
    found = {
        "from the web": (web, (285, 100)),
        "JPEG of quality 60": (compressed, (55, 25)),
        "noise of 10 grey levels": (noisy, (55, 5)),
    }
    return {
        title: np.asarray(image.convert("RGB").crop((left, top, left + _SIDE, top + _SIDE)))
        for title, (image, (left, top)) in found.items()
    }


def main(settings: Settings) -> None:
    """Enlarge each in three ways and put them side by side."""
    default, clean = Upscaler(device="cpu"), Upscaler(clean=True, device="cpu")
    rows = []
    for title, pixels in photographs(settings.seed).items():
        large = (_SIDE * default.scale, _SIDE * default.scale)
        bicubic = np.asarray(Image.fromarray(pixels).resize(large, Image.Resampling.BICUBIC))
        made = default.upscale(pixels)
        noise, quality = (float(made.levels[name][0]) for name in ("noise", "quality"))
        shown = {
            "bicubic": bicubic,
            "blindsr upscale": made.pixels,
            "blindsr upscale --clean": clean.upscale(pixels).pixels,
        }
        rows.append(SheetRow(f"{title}; seen: noise {noise:.1f}, JPEG quality {quality:.0f}", shown))
    (sheet,) = draw_sheets(rows, zoom=1)
    with atomic_write(settings.out) as temporary:
        sheet.save(temporary, quality=90)
    print(f"{settings.out}: {sheet.width}x{sheet.height}, {settings.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    run_script(Settings, main)
