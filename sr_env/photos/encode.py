"""PNG of 16 bits and TIFF, which no library at hand writes with all that a picture carries; both strip by strip."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from sr_env.utils.checks import UsageError

#: Bytes of a TIFF file at most.
TIFF_BYTES = 2**32 - 2**24
_ROWS = 64  # encoded at once


def _strips(pixels: NDArray[Any], byte_order: Literal["<", ">"]) -> Iterator[NDArray[Any]]:
    """Strips of rows [n, W, C] in a byte order, copied."""
    rows = pixels.reshape(*pixels.shape[:2], -1)
    for start in range(0, len(rows), _ROWS):
        yield rows[start : start + _ROWS].astype(rows.dtype.newbyteorder(byte_order))


def write_png(path: Path, pixels: NDArray[Any], icc: bytes | None, chunks: Iterable[tuple[bytes, bytes]]) -> None:
    """PNG of 16 bits, which Pillow writes for gray alone and OpenCV without profile and EXIF.

    Args:
        path: The file.
        pixels: uint16 ``[H, W]`` or ``[H, W, C]``.
        icc: Colour profile.
        chunks: Names and contents of further chunks.
    """
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    step = channels * pixels.itemsize
    with path.open("wb") as file:

        def chunk(name: bytes, data: bytes) -> None:
            file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))

        file.write(b"\x89PNG\r\n\x1a\n")
        colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, colour, 0, 0, 0))
        if icc:
            chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc))
        for name, data in chunks:
            chunk(name, data)
        packer = zlib.compressobj()
        for strip in _strips(pixels, ">"):
            samples = strip.reshape(len(strip), -1).view(np.uint8)
            lines = np.ones((len(samples), samples.shape[1] + 1), np.uint8)  # filter 1: minus the pixel to the left
            lines[:, 1:] = samples
            lines[:, 1 + step :] -= samples[:, :-step]
            chunk(b"IDAT", packer.compress(lines.tobytes()))
        chunk(b"IDAT", packer.flush())
        chunk(b"IEND", b"")


def write_tiff(path: Path, pages: Iterable[tuple[NDArray[Any], ImageFileDirectory_v2]]) -> None:
    """TIFF of one or more pages, deflated; each page is written before the next is asked for.

    Pillow writes 16 bits for gray alone, OpenCV neither profile nor EXIF, and tifffile no EXIF or GPS directory: it
    leaves out tags 34665 and 34853 even where they are given to it (2026.3.3).

    Args:
        path: The file.
        pages: uint8 or uint16 pixels ``[H, W]`` or ``[H, W, C]`` of each page, and its tags but for its samples.

    Raises:
        UsageError: All pages together are too large for a TIFF.
    """
    with path.open("wb") as file:
        file.write(b"II*\0\0\0\0\0")
        link = 4  # where the offset of the next page's directory goes
        for pixels, directory in pages:
            start = file.seek(0, 2)
            start += file.write(b"\0" * (start % 2))  # directories begin at even places
            _tag(directory, pixels)
            count = len(directory[273])
            file.write(directory.tobytes(start))
            lengths = []
            for strip in _strips(pixels, "<"):
                strip[:, 1:] -= strip[:, :-1].copy()
                data = zlib.compress(strip.tobytes())
                lengths.append(len(data))
                if file.tell() + len(data) > TIFF_BYTES:
                    raise UsageError("TIFF stores up to 4 GB, too little for these pages: write PNG")
                file.write(data)
            assert len(lengths) == count
            directory[273] = tuple(np.cumsum([0, *lengths[:-1]]).tolist())  # from the end of the directory
            directory[279] = tuple(lengths)
            file.seek(start)
            file.write(directory.tobytes(start))
            file.seek(link)
            file.write(struct.pack("<I", start))
            link = start + 2 + 12 * len(directory)
            del pixels  # or it would be held while the next page is made


def _tag(directory: ImageFileDirectory_v2, pixels: NDArray[Any]) -> None:
    """Add the tags that say how the samples lie."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    tags: dict[int, Any] = {
        256: width,
        257: height,
        258: (8 * pixels.itemsize,) * channels,
        259: 8,  # deflate
        262: 1 if channels < 3 else 2,  # black is zero, RGB
        277: channels,
        278: _ROWS,
        284: 1,  # the channels of a pixel side by side
        317: 2,  # minus the pixel to the left
    }
    if channels in (2, 4):
        tags[338] = 2  # alpha, not multiplied in
    for tag, value in tags.items():
        directory[tag] = value
    for tag in (273, 279):  # where the strips begin and how long they are: known last, but their room is
        directory.tagtype[tag] = 4
        directory[tag] = (0,) * -(-height // _ROWS)
