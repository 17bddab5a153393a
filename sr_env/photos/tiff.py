"""The layouts of TIFF that Pillow decodes wrongly or not at all: channels in planes, over 8 bits of colour, and floats.

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
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

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
_FLOAT = 3  # of SampleFormat
#: Of floating-point samples: the share that may lie outside 0..1, which sharpening brings about.
_OUTSIDE = 0.01


def to_8_bit(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """uint16 over the full range -> uint8, rounded."""
    return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


class AnyTiff(TiffImageFile):
    """A TIFF whose samples Pillow cannot decode and :func:`decode_unusual` can, or refuses by name."""

    def _setup(self) -> None:
        try:
            super()._setup()
        except (SyntaxError, KeyError):  # of samples or compressions that Pillow does not know
            width, height = self.tag_v2[256], self.tag_v2[257]
            self._size, self._mode, self.tile = (width, height), "RGB", []
            (x, y), unit = (self.tag_v2.get(tag) or 0 for tag in (282, 283)), self.tag_v2.get(296, 2)
            if unit in (2, 3):
                self.info["dpi"] = (x * (2.54 if unit == 3 else 1), y * (2.54 if unit == 3 else 1))
            if 34675 in self.tag_v2:
                self.info["icc_profile"] = self.tag_v2[34675]


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
        self.floating = formats == {_FLOAT}
        if self.floating:
            self._check_floating()
        elif formats - {1, 4}:  # unsigned, or undefined
            raise ValueError("signed samples have no known range; save it with 8 or 16 bits, unsigned")
        elif self.bits > 16:
            raise ValueError(f"{self.bits}-bit samples have no known range; save it with 8 or 16 bits")
        if len(set(bits)) > 1:
            raise ValueError(f"channels of {', '.join(map(str, bits))} bits are not supported; save it with 8 or 16")
        if self.photometric == _YCBCR and self.compression not in _JPEG:
            raise ValueError("YCbCr without JPEG compression is not supported; save it as RGB")
        if self.planar and self.photometric not in (*_BILEVEL_OR_GRAY, _RGB, _CMYK):
            raise ValueError("planes of this colour space are not supported; save it with interleaved channels")
        if self.planar and self.bits not in (8, 16) and not self.floating:
            raise ValueError(f"planes of {self.bits} bits are not supported; save it with 8 or 16")

    def _check_floating(self) -> None:
        if self.bits not in (32, 64):
            raise ValueError(f"floating-point samples of {self.bits} bits are not supported; save it with 32")
        if self.photometric not in (1, _RGB):
            raise ValueError("floating-point samples of this colour space are not supported; save it as gray or RGB")
        if self.compression not in _OF_OPENCV:
            raise ValueError("floating-point samples in this compression are not supported; save it with LZW or none")

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
    if layout.floating:
        directory[339] = (_FLOAT,) * samples
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


def _opencv(image: Image.Image, path: Path, layout: Layout, plane: int | None = None) -> NDArray[Any]:
    """A page or plane in its depth, its colour in OpenCV's order (blue, green, red, alpha)."""
    samples = cv2.imdecode(np.frombuffer(extracted(image, path, layout, plane), np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.dtype.itemsize * 8 != layout.bits or (samples.dtype.kind == "f") != layout.floating:
        raise ValueError(f"its samples of {layout.bits} bits cannot be decoded; copy or save it again")
    return samples


def _plane(image: Image.Image, path: Path, layout: Layout, number: int) -> NDArray[Any]:
    if layout.floating:
        return _opencv(image, path, layout, number)
    with Image.open(io.BytesIO(extracted(image, path, layout, number)), formats=("TIFF",)) as plane:
        plane.load()
        samples = np.asarray(plane)
    return samples.astype(np.uint16 if layout.bits == 16 else np.uint8)


def decode_unusual(image: Image.Image, path: Path, notes: list[str]) -> NDArray[Any] | Image.Image | None:
    """Decode a page that Pillow would get wrong.

    Args:
        image: The opened TIFF, at the page, not loaded.
        path: Its file.
        notes: What could not be kept is added here, a line each.

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
        samples = _opencv(image, path, layout)[:, :, [2, 1, 0, 3][:kept]]
    elif layout.floating and layout.photometric == _RGB and layout.samples in (3, 4):
        samples = _opencv(image, path, layout)[:, :, [2, 1, 0, 3][:kept]]
    elif layout.floating and layout.samples == 1:
        samples = _opencv(image, path, layout, 0)
    elif layout.bits == 16 and layout.samples == 1 and layout.photometric in _BILEVEL_OR_GRAY:
        samples = _plane(image, path, layout, 0)
    elif getattr(image, "tile", None):
        return None
    else:
        raise ValueError("samples of this kind are not supported; save it as RGB with 8 or 16 bits")
    if layout.floating:
        samples = _from_floats(samples, notes)
    if layout.photometric == _CMYK:
        return Image.fromarray(samples if layout.bits == 8 else to_8_bit(samples), "CMYK")
    if layout.photometric == 0:  # white is zero
        colour = samples if samples.ndim == 2 else samples[:, :, :1]
        colour[...] = np.iinfo(samples.dtype).max - colour
    return unmultiplied(samples) if layout.alpha == 1 else samples


def _from_floats(samples: NDArray[Any], notes: list[str]) -> NDArray[np.uint16]:
    """Floating-point samples in 0..1 -> uint16 over the full range, rounded."""
    low, high = float(samples.min()), float(samples.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("some of its floating-point samples are not finite; save it with 8 or 16 bits")
    if low < 0 or high > 1:
        outside = float(((samples < 0) | (samples > 1)).mean())
        if outside > _OUTSIDE:
            raise ValueError(
                f"its floating-point samples lie in {low:g}..{high:g}: scale them to 0..1, or save it with 16 bits"
            )
        notes.append(f"{outside:.2%} of its samples lay outside 0..1 (in {low:g}..{high:g}) and were cut")
    notes.append("its floating-point samples were read as 16 bits, 0..1 as black to white")
    return np.rint(np.clip(samples, 0, 1) * 65535).astype(np.uint16)


def unmultiplied(samples: NDArray[Any]) -> NDArray[Any]:
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
