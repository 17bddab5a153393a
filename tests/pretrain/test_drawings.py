"""Pictures made by a program: the same by number, unlike each other, with hard edges and all kinds in turn."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from blindsr_pretrain.drawings import KINDS, Drawings, draw


def test_a_number_names_a_picture() -> None:
    first, again = Drawings(14, 96), Drawings(4, 96, first=10)
    np.testing.assert_array_equal(first[10], again[0])
    np.testing.assert_array_equal(first[-1], again[3])
    assert first.names[10:] == again.names
    digests = {hashlib.sha256(first[number].tobytes()).hexdigest() for number in range(14)}
    assert len(digests) == 14
    with pytest.raises(IndexError):
        first[14]


@pytest.mark.parametrize("number", range(2 * len(KINDS)))
def test_every_kind_has_edges(number: int) -> None:
    picture = draw(number, 128)
    assert picture.shape == (128, 128, 3)
    assert picture.dtype == np.uint8
    steps = np.abs(np.diff(picture.astype(int), axis=1)).max(2)
    assert 0.005 < (steps > 40).mean() < 0.6  # edges, and areas between them
    assert Drawings(1, 128, first=number).names[0] == f"{list(KINDS)[number % len(KINDS)]} {number}"
