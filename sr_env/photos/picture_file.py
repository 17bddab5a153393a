"""Pictures between files and arrays, with what they carry: depth, gray, alpha, colour profile and metadata.

:mod:`sr_env.photos.decode` gives networks the 8-bit RGB they are trained on; a user's picture must come back as it was
sent.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from sr_env.photos.decode import decode_samples, on_white, open_image, oriented_shape
from sr_env.photos.encode import TIFF_BYTES, write_png, write_tiff
from sr_env.photos.metadata import (
    Metadata,
    jpeg_options,
    kept_by,
    png_density,
    png_texts,
    read_metadata,
    resized_exif,
    resized_xmp,
    tiff_directory,
)
from sr_env.photos.tiff import pages, to_8_bit, turn_to
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
#: The longest side that a format can store.
_LONGEST = {"JPEG": 65500, "WEBP": 16383}
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Picture:
    """A picture and what its file said of it.

    Attributes:
        pixels: uint8 or uint16 (over the full range): gray ``[H, W]``, gray and alpha ``[H, W, 2]``, RGB
            ``[H, W, 3]`` or RGBA ``[H, W, 4]``; upright.
        icc: Colour profile.
        exif: EXIF block, its orientation 1 (upright); no thumbnail.
        notes: What could not be kept, one line each.
        xmp: XMP packet, its orientation 1.
        iptc: IPTC records.
        text: Keywords and texts; a comment has the keyword ``Comment``.
        dpi: Pixels per inch, horizontally and vertically.
    """

    pixels: NDArray[Any]
    icc: bytes | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = ()
    xmp: bytes | None = None
    iptc: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()
    dpi: tuple[float, float] | None = None

    @property
    def metadata(self) -> Metadata:
        """All but the pixels and notes."""
        return Metadata(**{field.name: getattr(self, field.name) for field in fields(Metadata)})


def list_pages(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """The pages of a TIFF file that are pictures of their own, for :func:`read_picture`; of other files the first.

    Raises:
        MissingFileError: There is no such file.
        UsageError: It is no picture, or its directory is damaged; the message names the file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_image(path) as image:
            return pages(image)[0] if image.format == "TIFF" else (0,)


def read_picture(path: str | os.PathLike[str], page: int | None = None) -> Picture:
    """Read a picture in its own depth and channels (of several frames the first, with a note).

    Args:
        path: A JPEG, PNG, WebP, TIFF, BMP or GIF file; AVIF or JPEG 2000 where Pillow has it; HEIC with the extra
            ``heic``. Whatever its name says.
        page: Of a TIFF: which page, of :func:`list_pages`; None takes the first, with a note where there are more.

    Raises:
        MissingFileError: There is no such file.
        UsageError: It is no picture, is broken or cut short, has over ``sr_env.photos.MAX_PIXELS`` pixels, holds
            samples of unknown range, or needs a package that is not installed; the message names the file.
    """
    path = Path(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, of damaged tags, name no file
        with open_image(path) as image:
            notes = _of_several(image, path, page)
            pixels = decode_samples(image, path, notes)
            metadata, damaged = read_metadata(image)
    return Picture(pixels, notes=(*notes, *damaged), **vars(metadata))


def _deep_avif(image: Image.Image, path: Path) -> bool:
    """Whether an AVIF has 10 or 12 bits, of which Pillow gives 8: a flag in the box of the codec's settings."""
    if image.format != "AVIF":
        return False
    with path.open("rb") as file:
        head = file.read(2**16)
    box = head.find(b"av1C")
    return box >= 0 and bool(head[box + 6] & 0x40)


def _of_several(image: Image.Image, path: Path, page: int | None) -> list[str]:
    """Go to a page or to the first frame, and note what is left out."""
    if image.format == "HEIF":
        return []
    if image.format != "TIFF":
        count = int(getattr(image, "n_frames", 1))
        notes = [f"of its {count} frames the first was taken"] if count > 1 else []
        return notes + (["its samples of more than 8 bits were read as 8"] if _deep_avif(image, path) else [])
    if page is not None:
        turn_to(image, page)
        oriented_shape(image)  # refuses a bomb on a later page, too
        return []
    numbers, copies = pages(image)
    turn_to(image, numbers[0])
    oriented_shape(image)
    notes = [f"of its {len(numbers)} pages the first was taken"] if len(numbers) > 1 else []
    return notes + ([f"{copies} smaller copies or masks in it were left out"] if copies else [])


def suited(picture: Picture, suffix: str) -> Picture:
    """The picture as the format of a file name ending can hold it, with notes of what it cannot.

    JPEG and WebP have 8 bits; JPEG has no transparency (it is composited on white); WebP has no gray, and TIFF none
    of 16 bits with alpha, so that a profile for gray no longer fits. Only PNG has texts, and JPEG one comment.

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
    changes, lost = kept_by(kind, picture.metadata)
    return replace(picture, pixels=pixels, icc=icc, **changes, notes=(*notes, *lost))


def check_size(suffix: str, height: int, width: int, bytes_per_pixel: int) -> None:
    """Raise :class:`UsageError` where a format cannot store a picture of this size, naming one that can."""
    kind = FORMATS[suffix]
    longest = _LONGEST.get(kind)
    if longest is not None and max(height, width) > longest:
        raise UsageError(f"{kind} stores up to {longest} pixels a side, not {width}x{height}: write PNG or TIFF")
    if kind == "TIFF" and height * width * bytes_per_pixel > TIFF_BYTES:
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
    if kind == "TIFF":
        write_pages(path, [picture])
        return
    pixels, metadata = picture.pixels, _resized(picture)
    height, width = pixels.shape[:2]
    check_size(path.suffix.lower(), height, width, pixels[0, 0].nbytes)
    exif = resized_exif(metadata.exif, metadata.dpi if kind == "WEBP" else None, height, width)
    block = None if exif is None else exif.tobytes()
    if kind == "PNG" and pixels.dtype == np.uint16:
        chunks = [] if block is None else [(b"eXIf", block.removeprefix(b"Exif\0\0"))]
        chunks += [] if metadata.dpi is None else [(b"pHYs", png_density(metadata.dpi))]
        write_png(
            path, pixels, picture.icc, [*chunks, *((name, data) for name, data, *_ in png_texts(metadata).chunks)]
        )
        return
    options: dict[str, Any] = {}
    if kind == "PNG":
        options = {"pnginfo": png_texts(metadata), "dpi": metadata.dpi}
    elif kind == "JPEG":
        options = {"quality": quality, "subsampling": 0, **jpeg_options(metadata)}
    elif kind == "WEBP":
        options = {"quality": quality, "lossless": quality == 100, "exact": True, "xmp": metadata.xmp or b""}
    if picture.icc:
        options["icc_profile"] = picture.icc
    if block is not None and (kind != "JPEG" or len(block) < 65533):  # one segment; longer ones are of other formats
        options["exif"] = block
    mode = _MODES[1 if pixels.ndim == 2 else pixels.shape[2]]
    Image.frombuffer(mode, (width, height), np.ascontiguousarray(pixels), "raw", mode, 0, 1).save(path, kind, **options)


def write_pages(path: str | os.PathLike[str], pictures: Iterable[Picture]) -> None:
    """Write a TIFF file of several pages (not atomically); each is written before the next is asked for.

    Args:
        path: The file.
        pictures: The pages, as :func:`suited` made them for TIFF.

    Raises:
        OSError: The file cannot be written.
        UsageError: A page, or all of them together, are too large for a TIFF.
    """

    def page(picture: Picture) -> tuple[NDArray[Any], ImageFileDirectory_v2]:
        height, width = picture.pixels.shape[:2]
        check_size(".tif", height, width, picture.pixels[0, 0].nbytes)
        metadata = _resized(picture)
        return picture.pixels, tiff_directory(metadata, resized_exif(metadata.exif, metadata.dpi, height, width))

    write_tiff(Path(path), map(page, pictures))


def _resized(picture: Picture) -> Metadata:
    """The metadata, with the picture's size in its XMP."""
    xmp = None if picture.xmp is None else resized_xmp(picture.xmp, *picture.pixels.shape[:2])
    return replace(picture.metadata, xmp=xmp)
