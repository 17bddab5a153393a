"""A console that keeps what is printed, and the settings of a small benchmark."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from evaluate import Settings
from PIL import Image
from rich.console import Console


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=300)


@pytest.fixture
def settings(tmp_path: Path, tiny_renderer: Path, tiny_predictor: Path, random_photos: list[np.ndarray]) -> Settings:
    for name, images in (("Set5", random_photos[:2]), ("Own", random_photos[2:3])):
        (tmp_path / "bench" / name).mkdir(parents=True)
        for number, image in enumerate(images):
            # Sides that the scale does not divide: what is left over is cut off.
            Image.fromarray(image[:125, :130]).save(tmp_path / "bench" / name / f"{number}.png")
    return Settings(
        bench_dir=tmp_path / "bench",
        sets=("Set5", "Own"),
        renderers=(str(tiny_renderer),),
        predictor=str(tiny_predictor),
        peers=(),
        widths=(0.5, 2.0),
        metrics=("psnr", "ssim"),
        device="cpu",
    )
