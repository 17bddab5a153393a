"""The layouts of TIFF that Pillow decodes wrongly or not at all: channels in planes, and more than 8 bits of colour.

TIFF is a container: samples may lie side by side or in planes, in strips or tiles, in many widths and compressions.
What is decoded here is decoded rightly, and the rest is refused. A page or plane in question is first copied into a
TIFF of its own in memory, so that every decoder sees the same one.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

_BILEVEL_OR_GRAY, _RGB, _CMYK, _YCBCR = (0, 1), 2, 5, 6
_JPEG = (6, 7)
#: What OpenCV decompresses: none, LZW, deflate twice, PackBits. (It prints what it cannot do.)
_OF_OPENCV = (1, 5, 8, 32946, 32773)
_PLANES = 2  # of PlanarConfiguration: one plane per channel
#: Copied into a TIFF of one page or plane: how its samples are compressed, cut up and ordered.
_COPIED = (259, 266, 278, 317, 322, 323, 347)
_STRIPS, _TILES = (273, 279), (324, 325)
#: NewSubfileType: a smaller copy of another page, or its mask.
_REDUCED, _MASK = 1, 4


def to_8_bit(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """uint16 over the full range -> uint8, rounded."""
    return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


class Layout:
    """How the samples of a TIFF page lie, from its tags.

    Args:
        image: The opened TIFF, at the page in question.

    Raises:
        ValueError: The page is of a kind that is not decoded, naming it.
    """

    def __init__(self, image: Image.Image) -> None:
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        self.tags = tags
        self.compression = tags.get(259, 1)
        self.samples = tags.get(277, 3 if self.compression in _JPEG and tags.get(262) in (_RGB, _YCBCR) else 1)
        self.photometric = tags.get(262, 0)
        self.extra = tuple(tags.get(338, ()))
        self.planar = tags.get(284, 1) == _PLANES and self.samples > 1
        bits = tuple(tags.get(258, (1,)))
        self.bits = int(bits[0])
        formats = set(tags.get(339, (1,)))
        if formats - {1, 4}:  # unsigned, or undefined
            kind = "floating-point" if 3 in formats else "signed"
            raise ValueError(f"{kind} samples have no known range; save it with 8 or 16 bits, unsigned")
        if self.bits > 16:
            raise ValueError(f"{self.bits}-bit samples have no known range; save it with 8 or 16 bits")
        if len(set(bits)) > 1:
            raise ValueError(f"channels of {', '.join(map(str, bits))} bits are not supported; save it with 8 or 16")
        if self.photometric == _YCBCR and self.compression not in _JPEG:
            raise ValueError("YCbCr without JPEG compression is not supported; save it as RGB")
        if self.planar and self.photometric not in (*_BILEVEL_OR_GRAY, _RGB, _CMYK):
            raise ValueError("planes of this colour space are not supported; save it with interleaved channels")
        if self.planar and self.bits not in (8, 16):
            raise ValueError(f"planes of {self.bits} bits are not supported; save it with 8 or 16")

    @property
    def alpha(self) -> int | None:
        """0 where there is alpha, 1 where the colour is multiplied by it; None without alpha."""
        colours = {_RGB: 3, _CMYK: 4}.get(self.photometric, 1)
        if self.samples <= colours:
            return None
        if not self.extra:  # which is wrong, and what some programs write
            return 0 if self.samples == colours + 1 else None
        return {1: 1, 2: 0, 999: 0}.get(self.extra[0])


def extracted(image: Image.Image, path: Path, layout: Layout, plane: int | None = None) -> bytes:
    """A page as RGB or RGBA, or a plane of it as gray, as a TIFF of its own, not turned; whatever the samples mean.

    Args:
        image: The opened TIFF, at the page.
        path: Its file.
        layout: Its layout.
        plane: Which channel; None takes the page.

    Raises:
        ValueError: The file ends before its samples do.
    """
    tags = layout.tags
    parts = _STRIPS if 273 in tags else _TILES
    offsets, counts = (tuple(tags.get(tag, ())) for tag in parts)
    if plane is not None:
        share = len(offsets) // layout.samples
        offsets, counts = (values[plane * share : (plane + 1) * share] for values in (offsets, counts))
    if not offsets or len(offsets) != len(counts):
        raise ValueError("the table of its samples is damaged")
    whole = path.stat().st_size
    if any(first + count > whole for first, count in zip(offsets, counts, strict=True)):
        raise ValueError("the file is cut short")
    directory = ImageFileDirectory_v2(tags.prefix + (b"*\0" if tags.prefix == b"II" else b"\0*") + bytes(4))
    for tag in (256, 257, *_COPIED):
        if tag in tags:
            directory.tagtype[tag] = {16: 4}.get(tags.tagtype[tag], tags.tagtype[tag])  # numbers of BigTIFF's 8 bytes
            directory[tag] = tags[tag]
    samples = 1 if plane is not None else layout.samples
    directory[258] = (layout.bits,) * samples
    directory[262] = 1 if plane is not None else _RGB  # decoders leave these samples as they are
    directory[277], directory[284] = samples, 1
    if samples > 3:
        directory[338] = (2,) * (samples - 3)
    for tag in parts:
        directory.tagtype[tag] = 4
        directory[tag] = (0,) * len(offsets)
    first = 8 + len(directory.tobytes(8))
    places = np.cumsum([first, *counts[:-1]]).tolist()
    directory[parts[1]] = counts
    # Pillow counts the offsets of strips from the end of the directory, those of tiles from the file's beginning.
    directory[parts[0]] = tuple(place - first for place in places) if parts is _STRIPS else tuple(places)
    header = tags.prefix + struct.pack("<HI" if tags.prefix == b"II" else ">HI", 42, 8)
    result = io.BytesIO()
    result.write(header + directory.tobytes(8))
    with path.open("rb") as file:
        for start, count in zip(offsets, counts, strict=True):
            file.seek(start)
            result.write(file.read(count))
    return result.getvalue()


def _plane(image: Image.Image, path: Path, layout: Layout, number: int) -> NDArray[Any]:
    with Image.open(io.BytesIO(extracted(image, path, layout, number)), formats=("TIFF",)) as plane:
        plane.load()
        samples = np.asarray(plane)
    return samples.astype(np.uint16 if layout.bits == 16 else np.uint8)


def decode_unusual(image: Image.Image, path: Path) -> NDArray[Any] | Image.Image | None:
    """Decode a page that Pillow would get wrong.

    Args:
        image: The opened TIFF, at the page, not loaded.
        path: Its file.

    Returns:
        None where Pillow is right; an image of CMYK; or uint8 or uint16 samples, gray ``[H, W]`` or ``[H, W, C]`` as
        :func:`~sr_env.photos.decode.decode_samples` gives them, but not turned upright.

    Raises:
        ValueError: It is of a kind that is not decoded, or its file is damaged.
    """
    layout = Layout(image)
    colours = {_RGB: 3, _CMYK: 4}.get(layout.photometric, 1)
    kept = colours if layout.alpha is None or layout.photometric == _CMYK else colours + 1
    if layout.planar:
        samples = np.stack([_plane(image, path, layout, number) for number in range(kept)], axis=2)
        samples = samples[:, :, 0] if kept == 1 else samples
    elif layout.bits == 16 and layout.photometric in (_RGB, _CMYK):
        if layout.compression not in _OF_OPENCV:
            raise ValueError("16-bit colour in this compression is not supported; save it with LZW or deflate")
        # Pillow would keep the high byte only, which darkens by half a level; OpenCV keeps all 16 bits.
        deep = cv2.imdecode(np.frombuffer(extracted(image, path, layout), np.uint8), cv2.IMREAD_UNCHANGED)
        if deep is None or deep.dtype != np.uint16 or deep.ndim != 3:
            raise ValueError("its 16-bit colour cannot be decoded; copy or save it again")
        samples = deep[:, :, [2, 1, 0, 3][:kept]]
    elif layout.bits == 16 and layout.samples == 1 and layout.photometric in _BILEVEL_OR_GRAY:
        samples = _plane(image, path, layout, 0)
    else:
        return None
    if layout.photometric == _CMYK:
        return Image.fromarray(samples if layout.bits == 8 else to_8_bit(samples), "CMYK")
    if layout.photometric == 0:  # white is zero
        colour = samples if samples.ndim == 2 else samples[:, :, :1]
        colour[...] = np.iinfo(samples.dtype).max - colour
    return _unmultiplied(samples) if layout.alpha == 1 else samples


def _unmultiplied(samples: NDArray[Any]) -> NDArray[Any]:
    """Colour that was multiplied by alpha, divided by it again, rounded; 0 where alpha is."""
    top = np.iinfo(samples.dtype).max
    alpha = samples[:, :, -1:].astype(np.uint64)
    colour = (samples[:, :, :-1].astype(np.uint64) * top + alpha // 2) // np.maximum(alpha, 1)
    result = samples.copy()
    result[:, :, :-1] = np.where(alpha > 0, np.minimum(colour, top), 0).astype(samples.dtype)
    return result


def turn_to(image: Image.Image, page: int) -> None:
    """Go to a page of an opened TIFF. (Pillow keeps the last colour profile that it saw on a page without one.)"""
    image.seek(page)
    if 34675 not in image.tag_v2:  # type: ignore[attr-defined]
        image.info.pop("icc_profile", None)


def pages(image: Image.Image) -> tuple[tuple[int, ...], int]:
    """The pages of an opened TIFF that are pictures of their own, and how many others are smaller copies or masks."""
    numbers = []
    count = int(getattr(image, "n_frames", 1))
    for number in range(count):
        image.seek(number)
        kind = image.tag_v2.get(ExifTags.Base.NewSubfileType, 0)  # type: ignore[attr-defined]
        if not kind & (_REDUCED | _MASK):
            numbers.append(number)
    turn_to(image, 0)
    return (tuple(numbers), count - len(numbers)) if numbers else ((0,), count - 1)
