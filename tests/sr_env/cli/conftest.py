"""A folder of pictures, and the command as a function that returns its records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from sr_env.cli import upscale
from sr_env.cli.upscale import Settings


@pytest.fixture
def photo(random_photos: list[np.ndarray]) -> np.ndarray:
    return random_photos[0][:24, :36]


@pytest.fixture
def folder(tmp_path: Path, photo: np.ndarray) -> Path:
    """Three sound pictures, one of them in a subfolder."""
    path = tmp_path / "in"
    (path / "sub").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "sub/c.webp"):
        Image.fromarray(photo).save(path / name)
    return path


@pytest.fixture
def settings(tmp_path: Path, tiny_renderer: Path, tiny_predictor: Path) -> Callable[..., Settings]:
    def create(*inputs: Any, **options: Any) -> Settings:
        defaults = {"out": tmp_path / "out", "model": str(tiny_renderer), "predictor": str(tiny_predictor)}
        return Settings(tuple(map(str, inputs)), **(defaults | {"device": "cpu", "precision": "fp32"} | options))

    return create


@pytest.fixture
def run(settings: Callable[..., Settings]) -> Callable[..., list[upscale.Record]]:
    return lambda *inputs, **options: upscale.upscale(settings(*inputs, **options), Console(quiet=True))
