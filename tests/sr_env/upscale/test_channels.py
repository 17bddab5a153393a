"""Colour that nobody sees changes nothing, and a picture without colour gets none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sr_env.upscale.channels import fill_hidden, is_gray


def disc(beneath: Any, channels: int = 4, dtype: type = np.uint8) -> np.ndarray:
    """A disc with a soft rim on full transparency, beneath which lies some colour."""
    y, x = np.mgrid[0:40, 0:52]
    alpha = np.clip(14.5 - np.hypot(y - 20, x - 26), 0, 1)[:, :, None]
    colour = np.stack([0.2 + x / 80, 0.9 - y / 60, 0.4 + 0 * x], 2)[:, :, : channels - 1]
    top = np.iinfo(dtype).max
    pixels = np.rint(np.concatenate([colour, alpha], 2) * top).astype(dtype)
    pixels[:, :, :-1] = np.where(pixels[:, :, -1:] == 0, beneath, pixels[:, :, :-1])
    return pixels


@pytest.mark.parametrize(("channels", "dtype"), [(4, np.uint8), (2, np.uint8), (4, np.uint16)])
@pytest.mark.parametrize("options", [{}, {"spatially_varying": True}, {"kernel_width": 2.0}])
def test_hidden_colour_changes_nothing(make: Any, options: Any, channels: int, dtype: type) -> None:
    up = make(**options)
    top = np.iinfo(dtype).max
    noise = np.random.default_rng(0).integers(0, top, (40, 52, channels - 1), dtype=dtype)
    results = [up(disc(beneath, channels, dtype)) for beneath in (0, top, noise)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    assert (results[0][:, :, -1] == 0).any()
    assert results[0][80, 104, -1] == top


def test_the_rim_keeps_its_own_colour(make: Any) -> None:
    """On every ground the result is that of a picture whose colour goes on beneath."""
    up = make(kernel_width=1.0)
    pixels = np.full((24, 24, 4), (200, 90, 40, 255), np.uint8)
    pixels[:, 12:, 3] = 0
    further = up(np.ascontiguousarray(pixels[:, :, :3]))
    pixels[:, 12:, :3] = 0
    np.testing.assert_array_equal(up(pixels)[:, :, :3], further)


def test_the_nearest_visible_colour_is_taken() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, 9, 30, 4), dtype=np.uint8)
    pixels[:, :, 10:, 3] = 0
    pixels[:, :, :10, 3] |= 1
    filled = fill_hidden(pixels)
    assert filled is not pixels
    np.testing.assert_array_equal(filled[:, :, :10], pixels[:, :, :10])
    np.testing.assert_array_equal(filled[:, :, 10:, :3], np.repeat(pixels[:, :, 9:10, :3], 20, 2))
    pixels[0, :, :, 3] = 0
    filled = fill_hidden(pixels)
    assert (filled[0] == 0).all()  # nothing is visible
    np.testing.assert_array_equal(filled[1, :, 10:, :3], np.repeat(pixels[1, :, 9:10, :3], 20, 1))
    assert fill_hidden(pixels[..., :3]).base is pixels  # nothing can be hidden
    opaque = pixels | np.array([0, 0, 0, 255], np.uint8)
    assert fill_hidden(opaque) is opaque


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("alpha", [False, True])
def test_gray_stays_gray(make: Any, photo: np.ndarray, dtype: type, alpha: bool) -> None:
    up = make(max_memory=6e6)
    gray = photo[:, :, :1].astype(np.float64) / 255
    pixels = np.concatenate([gray, gray, gray, *([1 - gray] if alpha else [])], 2)
    pixels = pixels.astype(dtype) if dtype is np.float32 else np.rint(pixels * np.iinfo(dtype).max).astype(dtype)
    result = up.upscale(pixels)
    assert result.tiles > 1
    np.testing.assert_array_equal(result.pixels[:, :, 0], result.pixels[:, :, 1])
    np.testing.assert_array_equal(result.pixels[:, :, 0], result.pixels[:, :, 2])
    # As the same picture of one channel gives.
    one = up(np.ascontiguousarray(pixels[:, :, [0, 3]] if alpha else pixels[:, :, 0]))
    np.testing.assert_allclose(result.pixels[:, :, 0], one[:, :, 0] if alpha else one, rtol=0, atol=1e-6)
    pixels[5, 5, 0] = 0 if pixels[5, 5, 0] else 1
    tinted = up(pixels)
    assert (tinted[:, :, 0] != tinted[:, :, 1]).any()  # the untrained renderer's own colours


def test_gray_among_colour(make: Any, photo: np.ndarray) -> None:
    up = make()
    gray = np.repeat(photo[:, :, :1], 3, 2)
    batch = torch.from_numpy(np.stack([photo, gray])).permute(0, 3, 1, 2) / 255
    result = up(batch)
    assert (result[1] == result[1, :1]).all()
    assert not (result[0] == result[0, :1]).all()
    pil = np.asarray(up(Image.fromarray(gray)))
    assert (pil == pil[:, :, :1]).all()
    assert is_gray(np.stack([photo, gray])).tolist() == [False, True]
