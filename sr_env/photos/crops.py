"""Squares cut out of photos, at given places or at random, and turned."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_env.photos.decode import Pixels
from sr_env.photos.sources import PhotoSource, check_sizes


def _check_crops(source: PhotoSource, indices: NDArray[Any], size: int) -> NDArray[Any]:
    indices = np.asarray(indices)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"indices are {indices.dtype} of shape {list(indices.shape)}; give integers of shape [B]")
    if indices.size and not (indices.min() >= 0 and indices.max() < len(source)):
        raise ValueError(
            f"photo index {indices[(indices < 0) | (indices >= len(source))][0]} is outside 0..{len(source) - 1}"
            f"; the source has {len(source)} photos"
        )
    if size < 1:
        raise ValueError(f"the crop size is {size}; give 1 or more pixels")
    check_sizes(source, indices, size)
    return indices


def crops(
    source: PhotoSource,
    indices: NDArray[np.integer[Any]],
    tops: NDArray[np.integer[Any]],
    lefts: NDArray[np.integer[Any]],
    size: int,
    *,
    out: Pixels | None = None,
) -> Pixels:
    """Cut squares out of photos at given places.

    Args:
        source: The photos.
        indices: Integers ``[B]``: which photo.
        tops: Integers ``[B]``: first row, in ``0 .. H - size``.
        lefts: Integers ``[B]``: first column, in ``0 .. W - size``.
        size: Side of the squares in pixels.
        out: Array to fill, uint8 ``[B, size, size, 3]``; a new one where absent.

    Returns:
        uint8 RGB ``[B, size, size, 3]``: ``out`` where given.

    Raises:
        ValueError: An index, position, size or ``out`` does not fit.
    """
    indices = _check_crops(source, indices, size)
    tops, lefts = np.asarray(tops), np.asarray(lefts)
    if tops.shape != indices.shape or lefts.shape != indices.shape:
        raise ValueError(
            f"tops {list(tops.shape)} and lefts {list(lefts.shape)} must have the shape of indices, "
            f"{list(indices.shape)}"
        )
    corners = np.stack([tops, lefts], axis=1)
    outside = np.flatnonzero(((corners < 0) | (corners > source.shape_array[indices] - size)).any(axis=1))
    if outside.size:
        first = outside[0]
        height, width = source.shapes[int(indices[first])]
        raise ValueError(
            f"a {size}x{size} crop at row {tops[first]}, column {lefts[first]} leaves photo "
            f"'{source.names[int(indices[first])]}' of {width}x{height}; keep it inside"
        )
    shape = (len(indices), size, size, 3)
    if out is None:
        out = np.empty(shape, np.uint8)
    elif out.shape != shape or out.dtype != np.uint8:
        raise ValueError(f"out is {out.dtype} of shape {list(out.shape)}; give uint8 of shape {list(shape)}")
    # Photos differ in size, so copying goes one by one: photo after photo, so that each is decoded at most once a call.
    photo_index, photo = -1, None
    for place in np.argsort(indices, kind="stable").tolist():
        if photo is None or indices[place] != photo_index:
            photo_index = int(indices[place])
            photo = source[photo_index]
        top, left = tops[place], lefts[place]
        out[place] = photo[top : top + size, left : left + size]
    return out


def centre_crops(source: PhotoSource, size: int, multiple: int = 1) -> Pixels:
    """Cut a square out of the middle of every photo.

    Args:
        source: The photos.
        size: Side of the squares in pixels at most; the shortest side of the photos where that is less.
        multiple: What divides the side that is taken.

    Returns:
        uint8 RGB ``[B, side, side, 3]``.
    """
    side = min(size, int(source.shape_array.min())) // multiple * multiple
    tops, lefts = ((source.shape_array - side) // 2).T
    return crops(source, np.arange(len(source)), tops, lefts, side)


def random_crops(
    source: PhotoSource,
    indices: NDArray[np.integer[Any]],
    rng: np.random.Generator,
    size: int,
    *,
    share: slice = slice(None),
    out: Pixels | None = None,
) -> Pixels:
    """Cut one square out of each photo named, at places drawn uniformly.

    Args:
        source: The photos.
        indices: Integers ``[B]``: which photo.
        rng: Draws the places: all rows, then all columns.
        size: Side of the squares in pixels.
        share: The part of the batch to cut, where several processes share one; places are drawn for all of it.
        out: Array to fill, uint8 ``[B, size, size, 3]``; a new one where absent.

    Returns:
        uint8 RGB ``[B, size, size, 3]``: ``out`` where given.

    Raises:
        ValueError: An index, the size or ``out`` does not fit.
    """
    indices = _check_crops(source, indices, size)
    room = source.shape_array[indices] - size + 1
    tops, lefts = rng.integers(room[:, 0]), rng.integers(room[:, 1])
    return crops(source, indices[share], tops[share], lefts[share], size, out=out)


def augment(images: Pixels, ways: NDArray[np.bool_]) -> Pixels:
    """Turn and mirror each square picture in one of the 8 ways.

    Args:
        images: ``[B, S, S, C]``, any dtype; left untouched.
        ways: Booleans ``[3, B]``: upside down, mirrored, transposed (in this order).

    Returns:
        A new array of the same shape.

    Raises:
        ValueError: The pictures are not square, or the ways do not fit.
    """
    if images.ndim != 4 or images.shape[1] != images.shape[2] or ways.shape != (3, len(images)):
        raise ValueError(
            f"images have shape {list(images.shape)} and ways {list(ways.shape)}; give squares [B, S, S, C] and [3, B]"
        )
    upside_down, mirrored, transposed = ways
    result = np.array(images, order="C")
    # A pixel as one element: moving three bytes at once is four times faster than one by one.
    pixels = result.view(np.dtype((np.void, result.itemsize * result.shape[3])))[..., 0]
    pixels[upside_down] = pixels[upside_down, ::-1]
    pixels[mirrored] = pixels[mirrored, :, ::-1]
    pixels[transposed] = pixels[transposed].swapaxes(1, 2)
    return result
