"""Tiles of a picture: where they lie, how many fit the memory, and how they are put together without a trace.

All tiles of a picture have the same shape. They overlap by what the renderer sees, and only what no tile border has
touched is kept; where the kernel varies over the picture, neighbours pass into each other over a ramp.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_env.utils.checks import MIN_LR_SIZE, UsageError

#: The fewest LR pixels a side that a tile must bring forward, for the work not to be all overlap.
_LEAST_CORE = 16


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis, in LR pixels.

    Attributes:
        length: Of the picture.
        size: Of every tile.
        starts: Of each tile.
        cuts: Between tile i-1 and i, in the middle of what they share.
        ramp: Pixels around a cut over which one passes into the other.
    """

    length: int
    size: int
    starts: tuple[int, ...]
    cuts: tuple[int, ...]
    ramp: int

    @classmethod
    def cut(cls, length: int, number: int, size: int, ramp: int) -> Axis:
        """Spread ``number`` tiles evenly."""
        starts = tuple(i * (length - size) // max(1, number - 1) for i in range(number))
        cuts = tuple((before + size + after) // 2 for before, after in itertools.pairwise(starts))
        return cls(length, size, starts, cuts, ramp)

    def span(self, tile: int) -> tuple[int, int]:
        """First LR pixel that a tile contributes to, and the one after the last."""
        first = 0 if tile == 0 else self.cuts[tile - 1] - self.ramp // 2
        last = self.length if tile == len(self.starts) - 1 else self.cuts[tile] + self.ramp // 2
        return first, last

    def weights(self, tile: int, scale: int) -> Tensor:
        """What a tile counts at each SR pixel of its span; the tiles' weights add up to one everywhere."""
        first, last = self.span(tile)
        weights = torch.ones(scale * (last - first))
        if self.ramp:
            rise = (torch.arange(scale * self.ramp) + 0.5) / (scale * self.ramp)
            if tile > 0:
                weights[: len(rise)] = rise
            if tile < len(self.starts) - 1:
                weights[-len(rise) :] = rise.flip(0)
        return weights


def plan_tiles(
    shape: tuple[int, int, int, int],
    *,
    scale: int,
    margin: int,
    ramp: int,
    largest: int,
    bytes_per_pixel: float,
    max_memory: float,
) -> tuple[Axis, Axis, int]:
    """The tiles that take the least work of those that fit the memory.

    Args:
        shape: Of the pictures, [B, H, W, C] in LR pixels.
        scale: Magnification.
        margin: LR pixels by which a tile overlaps what is kept of it, on every side.
        ramp: LR pixels over which neighbours pass into each other; 0 for hard cuts.
        largest: LR pixels of a tile's side at most.
        bytes_per_pixel: That rendering takes per LR pixel of a tile.
        max_memory: Bytes for the tiles and the strip of finished ones.

    Returns:
        Tiles of rows and of columns, and how many go through the renderer at once.

    Raises:
        UsageError: The memory is too little for a single tile.
    """
    count, height, width, channels = shape
    per_row = 4 * count * channels * scale**2 * width  # the strip of finished tiles
    sides = []
    for length in (height, width):
        most = max(1, (length - 2 * margin) // max(_LEAST_CORE, ramp))  # ramps within a tile must not meet
        numbers = np.arange(1, most + 1)
        sizes = np.where(numbers == 1, length, -(-(length - 2 * margin) // numbers) + 2 * margin)
        sides.append((numbers, sizes))
    (ny, tall), (nx, wide) = sides
    area = tall[:, None] * wide[None]
    memory = area * bytes_per_pixel + tall[:, None] * per_row
    fits = (memory <= max_memory) & (tall <= largest)[:, None] & (wide <= largest)[None]
    if not fits.any():
        raise UsageError(
            f"{width}x{height} pixels need {memory.min() / 1e6:.0f} MB for a tile, over the limit of "
            f"{max_memory / 1e6:.0f} MB: raise max_memory"
        )
    work = np.where(fits, ny[:, None] * nx[None] * area, np.iinfo(np.int64).max)
    best = np.unravel_index(np.argmin(work), work.shape)
    i, j = int(best[0]), int(best[1])
    left = max_memory - float(tall[i] * per_row)
    rows = Axis.cut(height, int(ny[i]), int(tall[i]), ramp)
    columns = Axis.cut(width, int(nx[j]), int(wide[j]), ramp)
    return rows, columns, max(1, int(left / (float(area[i, j]) * bytes_per_pixel)))


class Strip:
    """Collects a row of tiles and writes what is finished of it to the picture, so that only a strip is held in float.

    Args:
        out: The SR pictures to fill, [B, s*H, s*W, C].
        scale: Magnification s.
        rows: The tiles' rows.
        width: Of the padded LR pictures.
    """

    def __init__(self, out: NDArray[Any], scale: int, rows: Axis, width: int) -> None:
        self.out, self.scale, self.rows = out, scale, rows
        longest = max(last - first for first, last in map(rows.span, range(len(rows.starts))))
        self.buffer = torch.zeros(len(out), out.shape[3], scale * longest, scale * width)
        self.first = 0  # LR row of the buffer's top
        self.row = 0

    def add(self, image: int, tile: Tensor, columns: Axis, column: int) -> None:
        """Add a tile [C, s*h, s*w] of the present row."""
        s = self.scale
        top, bottom = self.rows.span(self.row)
        left, right = columns.span(column)
        y, x = s * (top - self.rows.starts[self.row]), s * (left - columns.starts[column])
        part = tile[:, y : y + s * (bottom - top), x : x + s * (right - left)]
        if columns.ramp or self.rows.ramp:
            part = part * columns.weights(column, s) * self.rows.weights(self.row, s)[:, None]
        self.buffer[image, :, s * (top - self.first) : s * (bottom - self.first), s * left : s * right] += part

    def finish(self, row: int) -> None:
        """End a row of tiles: round and write what no later row will touch."""
        s = self.scale
        following = self.rows.span(row + 1)[0] if row + 1 < len(self.rows.starts) else self.rows.length
        ready = s * (following - self.first)
        held = s * (self.rows.span(row)[1] - self.first)
        _, height, width, _ = self.out.shape
        end = min(s * self.first + ready, height)
        target = self.out[:, s * self.first : end]
        for start in range(0, target.shape[1], 256):  # in pieces: a copy of the strip would double it
            piece = self.buffer[:, :, start : min(start + 256, target.shape[1]), :width]
            target[:, start : start + 256] = from_float(piece, self.out.dtype).transpose(0, 2, 3, 1)
        self.buffer[:, :, : held - ready] = self.buffer[:, :, ready:held].clone()
        self.buffer[:, :, held - ready :] = 0
        self.first, self.row = following, row + 1


def batches(items: list[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    """Items in lists of at most ``size``."""
    return (items[start : start + size] for start in range(0, len(items), size))


def padded(stack: NDArray[Any]) -> NDArray[Any]:
    """[B, H, W, C] with both sides at least the 8 pixels that the networks take."""
    missing = [max(0, MIN_LR_SIZE - side) for side in stack.shape[1:3]]
    return np.pad(stack, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)), mode="edge") if any(missing) else stack


def to_float(windows: NDArray[Any], device: torch.device) -> Tensor:
    """uint8, uint16 or float [B, h, w, C] -> float32 [B, C, h, w] in [0, 1]."""
    tensor = torch.from_numpy(windows.astype(np.float32)).to(device).permute(0, 3, 1, 2)
    return tensor / np.iinfo(windows.dtype).max if windows.dtype.kind == "u" else tensor


def from_float(images: Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    """float32 -> the dtype, clamped to [0, 1] and rounded where it is an integer's full range."""
    images = images.clamp(0, 1)
    if dtype.kind == "u":
        images = (images * np.iinfo(dtype).max).round()
    return images.numpy().astype(dtype)
