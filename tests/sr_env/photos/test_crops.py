"""Crops come from where they should and follow the generator."""

from __future__ import annotations

import numpy as np
import pytest

from sr_env.photos import (
    ArrayPhotos,
    augment,
    centre_crops,
    crops,
    random_crops,
)


def grid_source() -> ArrayPhotos:
    """Pixels tell where they come from: (row, column, photo)."""
    images = []
    for number, (height, width) in enumerate([(20, 30), (40, 25), (16, 16)]):
        rows, columns = np.mgrid[0:height, 0:width]
        images.append(np.stack([rows, columns, np.full_like(rows, number)], axis=2).astype(np.uint8))
    return ArrayPhotos(images)


def test_crops_come_from_where_they_should() -> None:
    source = grid_source()
    indices, tops, lefts = np.array([1, 0, 1, 2]), np.array([24, 4, 0, 0]), np.array([9, 14, 3, 0])
    result = crops(source, indices, tops, lefts, 16)
    for place in range(4):
        np.testing.assert_array_equal(result[place, 0, 0], [tops[place], lefts[place], indices[place]])
        np.testing.assert_array_equal(result[place, -1, -1], [tops[place] + 15, lefts[place] + 15, indices[place]])
    out = np.zeros_like(result)
    assert crops(source, indices, tops, lefts, 16, out=out) is out
    np.testing.assert_array_equal(out, result)
    assert crops(source, indices[:0], tops[:0], lefts[:0], 16).shape == (0, 16, 16, 3)


def test_centre_crops_lie_in_the_middle_and_fit_the_smallest() -> None:
    source = grid_source()
    result = centre_crops(source, 100, 3)
    assert result.shape == (3, 15, 15, 3)
    np.testing.assert_array_equal(result[:, 0, 0], [[2, 7, 0], [12, 5, 1], [0, 0, 2]])
    np.testing.assert_array_equal(centre_crops(source, 8)[0, -1, -1], [6 + 7, 11 + 7, 0])


def test_random_crops_are_seeded_and_reach_every_place() -> None:
    source = grid_source()
    indices = np.random.default_rng(0).integers(3, size=4000)
    first = random_crops(source, indices, np.random.default_rng(5), 16)
    np.testing.assert_array_equal(first, random_crops(source, indices, np.random.default_rng(5), 16))
    assert (first != random_crops(source, indices, np.random.default_rng(6), 16)).any()
    half = random_crops(source, indices, np.random.default_rng(5), 16, share=slice(1, None))
    np.testing.assert_array_equal(first[1:], half)
    np.testing.assert_array_equal(first[:, 0, 0, 2], indices)
    assert set(first[indices == 0, 0, 0, 0]) == set(range(5))
    assert set(first[indices == 0, 0, 0, 1]) == set(range(15))
    assert set(first[indices == 1, 0, 0, 0]) == set(range(25))
    assert (first[indices == 2, 0, 0, :2] == 0).all()


def test_crops_refuse() -> None:
    source, rng, zero = grid_source(), np.random.default_rng(0), np.zeros(1, int)
    with pytest.raises(ValueError, match="'array2' is 16x16, smaller than the 17x17"):
        random_crops(source, np.array([0, 2]), rng, 17)
    with pytest.raises(ValueError, match=r"index 3 is outside 0\.\.2"):
        random_crops(source, np.array([0, 3]), rng, 8)
    with pytest.raises(ValueError, match="index -1"):
        random_crops(source, np.array([-1]), rng, 8)
    with pytest.raises(ValueError, match="float64"):
        random_crops(source, np.zeros(2), rng, 8)
    with pytest.raises(ValueError, match="crop size is 0"):
        random_crops(source, zero, rng, 0)
    with pytest.raises(ValueError, match="row 13, column 0 leaves photo 'array0'"):
        crops(source, zero, np.array([13]), zero, 8)
    with pytest.raises(ValueError, match="tops"):
        crops(source, zero, np.zeros(2, int), zero, 8)
    with pytest.raises(ValueError, match="out is uint8"):
        crops(source, zero, zero, zero, 8, out=np.zeros((1, 9, 9, 3), np.uint8))


def test_augment_gives_all_eight_ways_evenly() -> None:
    tile = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    turned = [np.rot90(tile, turns) for turns in range(4)]
    ways = [*turned, *(image[:, ::-1] for image in turned)]
    batch = np.repeat(tile[None], 800, axis=0)
    drawn = np.random.default_rng(1).random((3, 800)) < 0.5
    result = augment(batch, drawn)
    counts = [sum(bool((image == way).all()) for image in result) for way in ways]
    assert sum(counts) == 800
    assert min(counts) > 60
    assert (batch == tile).all()
    np.testing.assert_array_equal(result[:3], augment(batch[:3], drawn[:, :3]))
    floats = augment(batch.astype(np.float32), drawn)
    np.testing.assert_array_equal(result, floats)
    with pytest.raises(ValueError, match="squares"):
        augment(np.zeros((2, 4, 5, 3), np.uint8), np.zeros((3, 2), bool))
    with pytest.raises(ValueError, match=r"\[3, B\]"):
        augment(np.zeros((2, 4, 4, 3), np.uint8), np.zeros((3, 1), bool))
