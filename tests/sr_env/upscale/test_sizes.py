"""Any factor and any width: the shapes, the passes, and the pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sr_env.upscale import Size
from sr_env.utils.checks import UsageError


@pytest.mark.parametrize(
    ("size", "shape", "passes", "ending"),
    [
        (Size(4), (400, 800), 1, "x4"),
        (Size(2), (200, 400), 1, "x2"),
        (Size(4, factor=4), (400, 800), 1, "x4"),
        (Size(4, factor=1.5), (150, 300), 1, "x1.5"),
        (Size(4, factor=8), (800, 1600), 2, "x8"),
        (Size(4, factor=16), (1600, 3200), 2, "x16"),
        (Size(2, factor=16), (1600, 3200), 4, "x16"),
        (Size(3, factor=10), (1000, 2000), 3, "x10"),
        (Size(4, width=777), (388, 777), 1, "777px"),
        (Size(4, width=801), (400, 801), 2, "801px"),
    ],
)
def test_shapes_and_passes(size: Size, shape: tuple[int, int], passes: int, ending: str) -> None:
    assert size.of(100, 200) == shape
    assert size.passes(100, 200) == passes
    assert size.ending == ending


def test_the_scale_itself_is_the_upscalers_picture(make: Any, photo: np.ndarray) -> None:
    up = make()
    own, made = up.upscale(photo), Size(4).make(up, photo)
    np.testing.assert_array_equal(made.pixels, own.pixels)
    np.testing.assert_array_equal(Size(4, width=4 * photo.shape[1]).make(up, photo).pixels, own.pixels)
    assert made.tiles == own.tiles


def test_twice_and_reduced_by_the_mean(make: Any, photo: np.ndarray) -> None:
    up, photo = make(), photo[:24, :32]
    once = up.upscale(photo)
    twice = up.upscale(once.pixels)
    calls: list[tuple[int, int]] = []
    made = Size(4, factor=8).make(up, photo, lambda done, total: calls.append((done, total)), lambda pixels: 1e9)
    assert made.pixels.shape == (192, 256, 3)
    expected = twice.pixels.astype(float).reshape(192, 2, 256, 2, 3).mean((1, 3))
    assert np.abs(made.pixels - expected).max() <= 1
    np.testing.assert_array_equal(made.codes, once.codes)
    assert made.tiles == once.tiles + twice.tiles == len(calls)


@pytest.mark.parametrize("channels", [(), (1,), (2,), (3,), (4,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_kind_keeps_its_channels(make: Any, channels: tuple[int, ...], dtype: type) -> None:
    pixels = np.full((16, 20, *channels), np.iinfo(dtype).max // 2, dtype)
    result = Size(4, factor=2.5).make(make(kernel_width=1.3), pixels).pixels
    assert (result.shape, result.dtype) == ((40, 50, *channels), dtype)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 2, "width": 9}, "factor 2 and width 9 are both given"),
        ({"factor": 1}, "factor 1: give more than 1 and at most 16"),
        ({"factor": 16.5}, "at most 16"),
        ({"factor": float("nan")}, "factor nan: give more than 1"),
        ({"width": 0}, "width 0: give a positive number"),
    ],
)
def test_wrong_sizes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Size(4, **options)


def test_widths_that_do_not_enlarge_are_named() -> None:
    for width in (200, 3300):
        with pytest.raises(UsageError, match=f"the picture is 200 pixels wide: .* for width {width}"):
            Size(4, width=width).of(100, 200)
