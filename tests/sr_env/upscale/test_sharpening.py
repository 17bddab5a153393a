"""Actors that sharpen: the upscaler does as they say, in one tile or in many, and refuses what it cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sr_env import Upscaler
from sr_env.degradation import quantize, unsharp
from sr_env.models import load_predictor, save_checkpoint, widened
from sr_env.models.controls import SHARPEN_SIGMA
from sr_env.utils.checks import UsageError


def write_actor(path: Path, predictor: Path, logit: float, *controls: str) -> Path:
    """A predictor with one more number, whose tanh's argument is the same for all pictures."""
    wide = widened(load_predictor(predictor), ("code", *controls))
    with torch.no_grad():
        wide.network.head[-1].bias[10:] = logit
    return save_checkpoint(path, wide.network, wide.basis, 4, {"controls": wide.card["controls"]})


@pytest.fixture
def sharpening(tmp_path: Path, tiny_predictor: Path) -> Path:
    return write_actor(tmp_path / "sharp.safetensors", tiny_predictor, 0.5, "sharpen")


def test_the_picture_is_sharpened_as_the_actor_says(make: Any, sharpening: Path, photo: np.ndarray) -> None:
    plain, sharp = make(), make(predictor=sharpening)
    lr = torch.from_numpy(photo).permute(2, 0, 1)[None] / 255
    code = torch.from_numpy(plain.predict(photo))[None]
    np.testing.assert_allclose(sharp.predict(photo), code[0], atol=1e-5)
    with torch.no_grad():
        strength = torch.tensor([4 * np.tanh(0.5)], dtype=torch.float32)
        sr = unsharp(plain.renderer(lr, code), strength, SHARPEN_SIGMA)
    expected = (255 * quantize(sr))[0].permute(1, 2, 0).numpy()
    result = sharp.upscale(photo)
    assert np.abs(result.pixels - expected).max() <= 1
    assert np.abs(result.pixels - plain.upscale(photo).pixels.astype(float)).max() > 8
    assert result.codes.shape == (1, 10)


def test_tiles_leave_no_trace(make: Any, sharpening: Path, random_photos: list[np.ndarray]) -> None:
    up = make(predictor=sharpening)
    whole, tiled = (up.upscale(random_photos[3], max_memory=memory) for memory in (1e9, 2e7))
    assert (whole.tiles, tiled.tiles > 3) == (1, True)
    assert np.abs(whole.pixels.astype(int) - tiled.pixels).max() <= 1


def test_regions_are_sharpened_each(make: Any, sharpening: Path, random_photos: list[np.ndarray]) -> None:
    result = make(predictor=sharpening, spatially_varying=True).upscale(np.tile(random_photos[2], (1, 2, 1)))
    assert result.codes.shape == (result.tiles, 10)
    assert result.tiles > 1


def test_with_a_code_of_ones_own_nothing_is_sharpened(make: Any, sharpening: Path, photo: np.ndarray) -> None:
    code = np.zeros(10, np.float32)
    plain, sharp = (up.upscale(photo, code=code).pixels for up in (make(), make(predictor=sharpening)))
    assert np.abs(plain.astype(int) - sharp).max() <= 1


def test_an_actor_that_blends_is_refused(tiny_renderer: Path, tiny_predictor: Path, tmp_path: Path) -> None:
    actor = write_actor(tmp_path / "blend.safetensors", tiny_predictor, 0.5, "blend")
    with pytest.raises(UsageError, match="gives code, blend and here code, sharpen is taken: use it where controls"):
        Upscaler(tiny_renderer, predictor=actor, device="cpu")
