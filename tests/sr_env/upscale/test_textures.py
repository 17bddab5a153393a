"""From faithful to textured: the upscaler's pictures, its tiles, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_env import Upscaler
from sr_env.models import available_checkpoints, read_card
from sr_env.upscale import defaults
from sr_env.utils.checks import UsageError

#: As they are released: the fixture replaces them.
RELEASED = (defaults.TEXTURES, defaults.CLEAN_TEXTURES)


def upscaler(**options: Any) -> Upscaler:
    return Upscaler(device="cpu", precision="fp32", kernel_width=1.3, **options)


def test_released_renderers_fit_each_other() -> None:
    for scale, names in (pair for pairs in RELEASED for pair in pairs.items()):
        assert set(names) <= set(available_checkpoints("renderer"))
        cards = [read_card(name) for name in names]
        assert [card["scale"] for card in cards] == [scale, scale]
        assert cards[0]["basis"] == cards[1]["basis"]


def test_pictures_lie_between_the_renderers(textures: tuple[Path, Path], photo: np.ndarray) -> None:
    ends = [upscaler(model=path)(photo) for path in textures]
    up = upscaler(texture=0)
    assert (up.model, up.texture, up.scale) == ("tiny_renderer to tiny_textured", 0.0, 4)
    np.testing.assert_array_equal(up(photo), ends[0])
    up.texture = 1
    np.testing.assert_array_equal(up(photo), ends[1])
    up.texture = 0.25
    floats = [upscaler(model=path)(photo / 255) for path in textures]
    assert np.abs(floats[1] - floats[0]).mean() > 0.02
    inside = (np.minimum(*floats) > 0) & (np.maximum(*floats) < 1)  # nothing was clamped
    assert inside.mean() > 0.5
    np.testing.assert_allclose(up(photo / 255)[inside], (0.75 * floats[0] + 0.25 * floats[1])[inside], atol=1e-5)


def test_tiles_leave_no_seam(textures: tuple[Path, Path], photo: np.ndarray) -> None:
    whole = upscaler(texture=0.5).upscale(photo)
    tiled = upscaler(texture=0.5, max_memory=3e6).upscale(photo)
    assert tiled.tiles > whole.tiles
    assert np.abs(tiled.pixels.astype(int) - whole.pixels).max() <= 1


def test_two_pictures_at_once_take_more_memory(textures: tuple[Path, Path], photo: np.ndarray) -> None:
    tiles = [upscaler(max_memory=2e6, **one).upscale(photo).tiles for one in ({"model": textures[0]}, {"texture": 0.5})]
    assert tiles[1] > tiles[0]


def test_refused(textures: tuple[Path, Path]) -> None:
    for options, message in (
        ({"texture": float("nan")}, r"texture nan: give 0 \(faithful\) to 1 \(textured\)"),
        ({"texture": -1}, "texture -1: give 0"),
        ({"texture": 2.0}, r"texture 2\.0: give 0"),
        ({"texture": 0.5, "scale": 2}, "for x2 there is no perceptual renderer yet, leave out .* or take scale 4"),
        ({"texture": 0.5, "scale": 3}, "for x3 there is no perceptual renderer yet"),
        ({"texture": 0.5, "scale": 5}, "unknown scale 5"),
        ({"texture": 0.5, "model": "amnet_x4"}, r"texture 0\.5 .* leave it out, or the model 'amnet_x4'"),
    ):
        with pytest.raises(UsageError, match=message):
            upscaler(**options)
    one = upscaler(model=textures[0])
    assert one.texture is None
    with pytest.raises(UsageError, match=r"is one model, make an Upscaler\(texture=0\.5\)"):
        one.texture = 0.5
