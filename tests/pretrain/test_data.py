"""What is trained on and what is held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from blindsr_pretrain.amnet import AMNetSettings
from blindsr_pretrain.data import (
    ReducedPhotos,
    held_out_drawings,
    held_out_photos,
    make_diet,
    split_photos,
    unseen_drawings,
)

from sr_env.photos import open_photos
from sr_env.utils.checks import UsageError


def test_held_out_photos_are_never_trained_on(settings: AMNetSettings) -> None:
    source, indices, held_out = split_photos(settings)
    kept = [photo.tobytes() for photo in held_out]
    assert len(held_out) == 2
    assert len(indices) == 3
    assert not any(source[int(i)].tobytes() in kept for i in indices)
    again = split_photos(replace(settings, seed=5))
    np.testing.assert_array_equal(again[1], indices)


def test_what_is_held_out_keeps_its_names(settings: AMNetSettings) -> None:
    source, indices, held_out = split_photos(settings)
    again = held_out_photos(settings.data, 2)
    assert again.names == held_out.names
    assert set(again.names) == set(source.names) - {source.names[int(index)] for index in indices}
    assert held_out_photos(settings.data, 0).names == source.names
    drawings = held_out_drawings(replace(settings, drawings=0.1))
    assert drawings is not None
    assert drawings.names == unseen_drawings().names
    assert not set(drawings.names) & set(make_diet(replace(settings, drawings=0.1), source, indices).pictures.names)


def test_bundled_split() -> None:
    source, indices, held_out = split_photos(AMNetSettings(data="bundled", patch_size=64))
    assert len(indices) == len(source) > 5
    names = {source.names[int(i)] for i in indices}
    assert len(held_out) > 1
    assert names.isdisjoint(held_out.names)


def test_too_few_photos(settings: AMNetSettings, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds 5 usable photos, too few to hold 3 out"):
        split_photos(replace(settings, validation_photos=3))
    with pytest.raises(FileNotFoundError):
        split_photos(replace(settings, data=str(tmp_path / "nowhere")))


def test_photos_are_drawn_between_uniform_and_by_area(settings: AMNetSettings) -> None:
    source, indices, _ = split_photos(settings)
    diet = make_diet(settings, source, indices)
    height, width = source.shape_array[indices].T - 63
    np.testing.assert_allclose(diet.chances[indices], np.sqrt(height * width) / np.sqrt(height * width).sum())
    assert diet.chances.sum() == pytest.approx(1)
    assert np.count_nonzero(diet.chances) == len(indices)


def test_shares_of_reduced_photos_and_drawings(settings: AMNetSettings) -> None:
    source, indices, _ = split_photos(settings)
    diet = make_diet(replace(settings, reduced=0.25, drawings=0.4), source, indices)
    kinds = np.array(["reduced" if "reduced" in name else "photo" for name in diet.pictures.names])
    kinds[-384:] = "drawing"
    assert diet.chances[kinds == "photo"].sum() == pytest.approx(0.35)
    assert diet.chances[kinds == "reduced"].sum() == pytest.approx(0.25)
    assert diet.chances[kinds == "drawing"].sum() == pytest.approx(0.4)
    assert all(diet.pictures[index].shape[:2] == diet.pictures.shapes[index] for index in (0, 5, 6, -1))
    # What is held out is not in there by the back door: no reduced copy of it, and no held-out drawing.
    kept = {source.names[int(index)] for index in indices}
    assert {name.removesuffix(", reduced") for name in diet.pictures.names if "reduced" in name} <= kept
    held_out = held_out_drawings(replace(settings, drawings=0.4))
    assert held_out is not None
    assert set(held_out.names).isdisjoint(diet.pictures.names)
    assert held_out_drawings(settings) is None


def test_reduced_photos_are_between_a_half_and_a_third_and_sharper() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (320, 400, 3)).astype(np.uint8)
    smooth = cv2.GaussianBlur(photo, (0, 0), 2.0)
    source = open_photos([smooth, smooth[:150], smooth[:, :260]])
    reduced = ReducedPhotos(source, np.arange(3), 100)
    assert list(reduced.indices) == [0, 2]  # of 150 rows a half is under 100
    for number, (height, width) in enumerate(reduced.shapes):
        whole = source.shapes[reduced.indices[number]]
        assert min(height, width) >= 100
        for ratio in (whole[0] / height, whole[1] / width):
            assert 1.98 <= ratio <= 3.02
        picture = reduced[number]
        assert picture.shape == (height, width, 3)
        assert (
            np.abs(np.diff(picture.astype(float), axis=1)).mean()
            > 1.5 * np.abs(np.diff(smooth.astype(float), axis=1)).mean()
        )
        assert abs(picture.mean() - smooth.mean()) < 0.5
    np.testing.assert_array_equal(ReducedPhotos(source, np.arange(3), 100, memory_budget=0)[0], reduced[0])


def test_photos_too_small_to_be_reduced(settings: AMNetSettings) -> None:
    source, indices, _ = split_photos(settings)
    with pytest.raises(UsageError, match=r"reduced is 0\.1, and no photo to train on has 256 pixels on its short side"):
        make_diet(replace(settings, reduced=0.1, patch_size=128), source, indices)
