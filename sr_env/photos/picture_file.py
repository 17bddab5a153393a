"""Pictures between files and arrays, with what they carry: depth, gray, alpha, colour profile and EXIF.

:mod:`sr_env.photos.decode` gives networks the 8-bit RGB they are trained on; a user's picture must come back as it was
sent.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from sr_env.photos.decode import decode_samples, on_white, open_image, to_8_bit
from sr_env.utils.checks import UsageError, check_choice

#: File name endings that are written, and their formats.
FORMATS: Mapping[str, str] = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
#: The longest side that a format can store, and the most bytes.
_LONGEST = {"JPEG": 65500, "WEBP": 16383}
_TIFF_BYTES = 2**32 - 2**24
#: Tags of a TIFF that say how its samples lie, or hold what is kept elsewhere; the others are the picture's EXIF.
_LAYOUT = frozenset((*range(254, 267), *range(273, 282), *range(284, 294), 297, 301, *range(317, 348))) | frozenset(
    (*range(512, 533), 559, 700, 33723, 34377, 34675, 37724)
)
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_ROWS = 64  # encoded at once


@dataclass(frozen=True)
class Picture:
    """A picture and what its file said of it.

    Attributes:
        pixels: uint8 or uint16 (over the full range): gray ``[H, W]``, gray and alpha ``[H, W, 2]``, RGB
            ``[H, W, 3]`` or RGBA ``[H, W, 4]``; upright.
        icc: Colour profile.
        exif: EXIF block, its orientation 1 (upright); no thumbnail.
        notes: What could not be kept, one line each.
    """

    pixels: NDArray[Any]
    icc: bytes | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = ()


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Read a picture in its own depth and channels (of several frames the first).

    Args:
        path: A JPEG, PNG, WebP, TIFF or BMP file, whatever its name says.

    Raises:
        MissingFileError: There is no such file.
        UsageError: It is no picture, is broken or cut short, has over ``sr_env.photos.MAX_PIXELS`` pixels, or holds
            samples of unknown range; the message names the file.
    """
    path = Path(path)
    notes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, of damaged tags, name no file
        with open_image(path) as image:
            pixels = decode_samples(image, path)
            icc = image.info.get("icc_profile")
            if icc and not _sound(icc):
                icc = None
                notes.append("its colour profile is damaged or for CMYK and was left out")
            try:
                exif = _upright_exif(image)
            except Exception:  # as many types as ways to damage it; the picture itself is fine
                exif = None
                notes.append("its EXIF block is damaged and was left out")
    return Picture(pixels, icc or None, exif, tuple(notes))


def _sound(icc: bytes) -> bool:
    """Whether a profile is whole and describes RGB or gray (CMYK has become RGB by now)."""
    whole = len(icc) >= 128 and icc[36:40] == b"acsp" and 128 <= int.from_bytes(icc[:4], "big") <= len(icc)
    return whole and icc[16:20] in (b"RGB ", b"GRAY")


def _upright_exif(image: Image.Image) -> bytes | None:
    exif = image.getexif()
    for tag in list(exif):
        if tag in _LAYOUT and (image.format == "TIFF" or tag == ExifTags.Base.Orientation):
            del exif[tag]
    if not exif:
        return None
    exif[ExifTags.Base.Orientation] = 1
    block = exif.tobytes()
    Image.Exif().load(block)
    return block


def suited(picture: Picture, suffix: str) -> Picture:
    """The picture as the format of a file name ending can hold it, with notes of what it cannot.

    JPEG and WebP have 8 bits; JPEG has no transparency (it is composited on white); WebP has no gray, and TIFF none
    of 16 bits with alpha, so that a profile for gray no longer fits.

    Raises:
        UsageError: An unknown ending, naming those that can be written.
    """
    check_choice("picture format", suffix, FORMATS)
    kind = FORMATS[suffix]
    pixels, icc, notes = picture.pixels, picture.icc, list(picture.notes)
    if pixels.dtype == np.uint16 and kind in ("JPEG", "WEBP"):
        pixels = to_8_bit(pixels)
        notes.append(f"{kind} has 8 bits, 16 were rounded")
    if kind == "JPEG" and pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        pixels = on_white(pixels)
        pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
        notes.append("JPEG has no transparency, white was put behind it")
    coloured = kind == "WEBP"
    if kind == "TIFF" and pixels.dtype == np.uint16 and pixels.ndim == 3 and pixels.shape[2] == 2:
        pixels, coloured = pixels[:, :, [0, 0, 0, 1]], True  # few programs read gray with alpha of 16 bits
    if coloured and icc is not None and icc[16:20] == b"GRAY":
        icc = None
        notes.append(f"gray becomes RGB in {kind}, its colour profile was left out")
    return replace(picture, pixels=pixels, icc=icc, notes=tuple(notes))


def check_size(suffix: str, height: int, width: int, bytes_per_pixel: int) -> None:
    """Raise :class:`UsageError` where a format cannot store a picture of this size, naming one that can."""
    kind = FORMATS[suffix]
    longest = _LONGEST.get(kind)
    if longest is not None and max(height, width) > longest:
        raise UsageError(f"{kind} stores up to {longest} pixels a side, not {width}x{height}: write PNG or TIFF")
    if kind == "TIFF" and height * width * bytes_per_pixel > _TIFF_BYTES:
        raise UsageError(f"TIFF stores up to 4 GB, too little for {width}x{height}: write PNG")


def encoding_memory(suffix: str, pixels: int, channels: int, depth: int) -> int:
    """Bytes that :func:`write_picture` takes beside the array of so many pixels, samples and bytes a sample."""
    kind = FORMATS[suffix]
    if kind == "TIFF" or (kind == "PNG" and depth == 2):
        return 0
    if kind == "WEBP":  # measured: 11 without alpha, 33 with
        return (40 if channels in (2, 4) else 16) * pixels
    return 0 if channels in (1, 4) else 4 * pixels  # Pillow stores RGB in four bytes


def write_picture(path: str | os.PathLike[str], picture: Picture, *, quality: int = 95) -> None:
    """Write a picture in the format of the path's ending (not atomically).

    Args:
        path: The file; ``FORMATS`` lists the endings.
        picture: As :func:`suited` made it for this ending. Pixel dimensions in its EXIF block are set to its own.
        quality: Of JPEG (without chroma subsampling) and WebP, 1 to 100; WebP at 100 is lossless.

    Raises:
        OSError: The file cannot be written.
        UsageError: The format cannot store the picture.
    """
    path = Path(path)
    check_choice("picture format", path.suffix.lower(), FORMATS)
    kind = FORMATS[path.suffix.lower()]
    pixels = picture.pixels
    check_size(path.suffix.lower(), pixels.shape[0], pixels.shape[1], pixels[0, 0].nbytes)
    exif = None if picture.exif is None else _resized(picture.exif, pixels.shape[0], pixels.shape[1])
    if kind == "TIFF":
        _write_tiff(path, pixels, picture.icc, exif)
        return
    if kind == "PNG" and pixels.dtype == np.uint16:
        _write_png(path, pixels, picture.icc, exif)
        return
    options: dict[str, Any] = {}
    if kind == "JPEG":
        options = {"quality": quality, "subsampling": 0}
    elif kind == "WEBP":
        options = {"quality": quality, "lossless": quality == 100, "exact": True}
    if picture.icc:
        options["icc_profile"] = picture.icc
    if exif is not None:
        block = exif.tobytes()
        if kind != "JPEG" or len(block) < 65533:  # one segment; longer blocks come from other formats only
            options["exif"] = block
    mode = _MODES[1 if pixels.ndim == 2 else pixels.shape[2]]
    Image.frombuffer(mode, (pixels.shape[1], pixels.shape[0]), np.ascontiguousarray(pixels), "raw", mode, 0, 1).save(
        path, kind, **options
    )


def _resized(block: bytes, height: int, width: int) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block)
    details = exif.get_ifd(ExifTags.IFD.Exif)
    for tag, value in ((ExifTags.Base.ExifImageWidth, width), (ExifTags.Base.ExifImageHeight, height)):
        if tag in details:
            details[tag] = value
    return exif


def _strips(pixels: NDArray[Any], byte_order: Literal["<", ">"]) -> Iterator[NDArray[Any]]:
    """Strips of rows [n, W, C] in a byte order, copied."""
    rows = pixels.reshape(*pixels.shape[:2], -1)
    for start in range(0, len(rows), _ROWS):
        yield rows[start : start + _ROWS].astype(rows.dtype.newbyteorder(byte_order))


def _write_png(path: Path, pixels: NDArray[Any], icc: bytes | None, exif: Image.Exif | None) -> None:
    """PNG of 16 bits, which Pillow writes for gray alone and OpenCV without profile and EXIF; row by row."""
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
        if exif is not None:
            chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
        packer = zlib.compressobj()
        for strip in _strips(pixels, ">"):
            samples = strip.reshape(len(strip), -1).view(np.uint8)
            lines = np.ones((len(samples), samples.shape[1] + 1), np.uint8)  # filter 1: minus the pixel to the left
            lines[:, 1:] = samples
            lines[:, 1 + step :] -= samples[:, :-step]
            chunk(b"IDAT", packer.compress(lines.tobytes()))
        chunk(b"IDAT", packer.flush())
        chunk(b"IEND", b"")


def _write_tiff(path: Path, pixels: NDArray[Any], icc: bytes | None, exif: Image.Exif | None) -> None:
    """TIFF, deflated.

    Pillow writes 16 bits for gray alone, OpenCV neither profile nor EXIF, and tifffile no EXIF or GPS directory: it
    leaves out tags 34665 and 34853 even where they are given to it (2026.3.3).
    """
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    directory = ImageFileDirectory_v2()
    if exif is not None:
        for tag in exif:
            inner = dict(exif.get_ifd(tag)) if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) else None
            directory[tag] = exif[tag] if inner is None else _without_links(inner)
    count = -(-height // _ROWS)
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
    if icc:
        tags[34675] = icc
    for tag, value in tags.items():
        directory[tag] = value
    for tag in (273, 279):  # where the strips begin and how long they are: known last, but their room is
        directory.tagtype[tag] = 4
        directory[tag] = (0,) * count
    header = b"II*\0" + struct.pack("<I", 8)
    lengths = []
    with path.open("wb") as file:
        file.write(header + directory.tobytes(8))
        for strip in _strips(pixels, "<"):
            strip[:, 1:] -= strip[:, :-1].copy()
            data = zlib.compress(strip.tobytes())
            lengths.append(len(data))
            file.write(data)
        directory[273] = tuple(np.cumsum([0, *lengths[:-1]]).tolist())  # from the end of the directory
        directory[279] = tuple(lengths)
        file.seek(0)
        file.write(header + directory.tobytes(8))


def _without_links(details: dict[int, Any]) -> dict[int, Any]:
    """EXIF entries without the offset of the interoperability directory, which would point anywhere."""
    return {tag: value for tag, value in details.items() if tag != ExifTags.IFD.Interop}
