"""What a picture carries survives being written and read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from sr_env.photos import Picture, check_size, read_picture, suited, write_picture
from sr_env.utils.checks import UsageError

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_lossless_round_trips(tmp_path: Path, dtype: type, channels: int, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (150, 37, channels), dtype=dtype, endpoint=True)
    pixels = pixels[:, :, 0] if channels == 1 else pixels
    path = tmp_path / f"a{suffix}"
    picture = suited(Picture(pixels, SRGB), suffix)
    write_picture(path, picture)
    assert Image.open(path).info["icc_profile"] == SRGB
    again = read_picture(path)
    if (suffix, channels, dtype) == (".tif", 2, np.uint16):  # which decoders do not know
        np.testing.assert_array_equal(again.pixels, pixels[:, :, [0, 0, 0, 1]])
        return
    assert again.pixels.dtype == dtype
    np.testing.assert_array_equal(again.pixels, pixels)
    if channels in (1, 3) or (channels == 4 and (suffix, dtype) != (".tif", np.uint8)):  # another's decoder agrees
        other = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        other = other if channels == 1 else other[:, :, [2, 1, 0, 3][:channels]]
        np.testing.assert_array_equal(other, pixels)


def test_gray_profiles_do_not_fit_colour() -> None:
    gray = suited(Picture(np.zeros((8, 8), np.uint8), SRGB[:16] + b"GRAY" + SRGB[20:]), ".webp")
    assert gray.icc is None
    assert "gray becomes RGB in WEBP" in gray.notes[0]


def test_a_size_that_a_format_cannot_store_is_refused() -> None:
    with pytest.raises(UsageError, match="16383 pixels a side, not 16384x1: write PNG"):
        check_size(".webp", 1, 16384, 3)
