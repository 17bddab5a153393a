"""Views of photo sources: parts are disjoint, a subset is what was chosen, softened photos are softer and seeded."""

from __future__ import annotations

import numpy as np
import pytest

from sr_env.photos import ArrayPhotos, Part, Softened, Subset


def noise(count: int = 3, size: tuple[int, int] = (96, 160)) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def test_parts_do_not_overlap_and_cover_the_photo() -> None:
    source = ArrayPhotos([*noise(2, (100, 150)), *noise(1, (200, 100)), *noise(1, (70, 80))])
    train, held = Part(source, 64, held_out=False), Part(source, 64, held_out=True)
    assert (len(train), len(held)) == (4, 3)  # the last is too short to be cut, and trains
    for index in range(3):
        axis = 1 if index < 2 else 0
        np.testing.assert_array_equal(np.concatenate((train[index], held[index]), axis=axis), source[index])
        assert min(held.shapes[index]) >= 64 <= min(train.shapes[index])
    assert train.shapes == tuple(photo.shape[:2] for photo in train)
    with pytest.raises(ValueError, match="128 pixels long"):
        Part(ArrayPhotos(noise(1, (70, 80))), 64, held_out=True)


def test_a_subset_keeps_the_order_asked_for() -> None:
    source = ArrayPhotos([*noise(2, (40, 50)), *noise(1, (30, 20))])
    chosen = Subset(source, np.array([2, 0]))
    assert (chosen.names, chosen.shapes) == (("array2", "array0"), ((30, 20), (40, 50)))
    np.testing.assert_array_equal(chosen[0], source[2])
    np.testing.assert_array_equal(chosen[1], source[0])


def test_softened_photos_are_the_photos_and_softer_ones() -> None:
    source = ArrayPhotos(noise(4))
    twice, alternating = Softened(source, 2.0, both=True), Softened(source, 2.0, both=False)
    assert (len(twice), len(alternating)) == (8, 4)
    assert twice.shapes == tuple(photo.shape[:2] for photo in twice)
    for index in range(4):
        np.testing.assert_array_equal(twice[2 * index], source[index])
        name = twice.names[2 * index + 1]
        assert (twice[2 * index + 1].std() < source[index].std()) == (float(name.rpartition(" ")[2]) >= 0.1)
    assert twice[1].std() < 0.5 * source[0].std()  # the first photo's width is 1.27
    for index in (0, 2):
        np.testing.assert_array_equal(alternating[index], source[index])
    np.testing.assert_array_equal(alternating[1], twice[3])  # the same width in training and selection
    with pytest.raises(ValueError, match="softness -1"):
        Softened(source, -1, both=True)
