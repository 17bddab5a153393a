"""Decoding one picture file.

It follows what a viewer shows: the orientation that EXIF or XMP states is applied, transparency is composited on white,
gray and palette pictures become RGB, CMYK is converted to sRGB through its embedded profile (other embedded profiles
are ignored), 16 bits and floats are rounded to 8 over the full range, and of several frames the first counts.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, features

from sr_env.photos.heif import deep_heif, heif_notes, is_heif, open_heif
from sr_env.photos.jpeg2000 import complete, deep_jpeg2000
from sr_env.photos.tiff import AnyTiff, decode_unusual, pages, to_8_bit, unmultiplied
from sr_env.utils.checks import MissingFileError, UsageError

MAX_PIXELS = 80_000_000
"""A larger picture is refused: its header may be a decompression bomb, and decoded it would take over 240 MB."""

ACCEPTED = "jpg, jpeg, png, webp, tif, tiff and bmp"
"""The kinds that folders of HR photos are searched for, for messages. (Others are read where they are named.)"""

_LIMIT = f"the limit of {MAX_PIXELS // 10**6} megapixels: reduce it or cut it into parts"
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
_NAMED_FORMATS = ("GIF", *(name for name, part in (("AVIF", "avif"), ("JPEG2000", "jpg_2000")) if features.check(part)))
_DEEP_COLOUR = ("RGB;16", "RGBA;16", "LA;16")

Pixels = NDArray[np.uint8]
Shape = tuple[int, int]


def read_image(path: str | os.PathLike[str]) -> Pixels:
    """Decode one picture, whatever its name says.

    It may be a jpg, png, webp, tiff, bmp or gif; an avif or JPEG 2000, where Pillow has them; or a heic, with the extra
    ``heic``.

    Args:
        path: The file.

    Returns:
        uint8 RGB ``[H, W, 3]``, upright, writable, contiguous.

    Raises:
        MissingFileError: There is no such file.
        UsageError: It is no picture, is broken or truncated, has over ``MAX_PIXELS`` pixels, holds samples whose range
            is unknown (32 bits, or floats outside 0..1), or needs a package that is not installed; the message names
            the file.
    """
    with open_image(path) as image:
        return _decode(image, Path(path))


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open a picture for decoding: its header is read, and whatever goes wrong in the block is reported by file.

    Args:
        path: The file.

    Yields:
        Pillow's image, not yet decoded.

    Raises:
        MissingFileError: There is no such file.
        UsageError: As :func:`read_image`.
    """
    path = Path(path)
    check_regular(path)
    try:
        with _opened(path, (*_FORMATS, *_NAMED_FORMATS)) as image:
            oriented_shape(image)  # refuses a bomb before anything is decoded
            yield image
    except Exception as error:  # decoders raise a dozen unrelated types on damaged bytes
        which = f" ({ACCEPTED}; {', '.join(_NAMED_FORMATS).lower()} and heic)"
        unknown = isinstance(error, Image.UnidentifiedImageError)
        raise UsageError(f"cannot read the image '{path}': {reason(error)}{which if unknown else ''}") from error


def _opened(path: Path, formats: tuple[str, ...]) -> Image.Image:
    """What Pillow opens of these formats, any TIFF among them, and HEIF where there are others than those of HR photos.

    Raises:
        Exception: Of any type, where it is none of them or damaged.
    """
    with path.open("rb") as file:
        head = file.read(64)
    if formats != _FORMATS and is_heif(head):
        return open_heif(path)
    try:
        image = Image.open(path, formats=formats)
    except Image.UnidentifiedImageError:
        if head[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            raise
        return AnyTiff(path)
    if image.format == "JPEG2000":
        complete(image, path)
    return image


def check_regular(path: Path) -> None:
    """Raise where there is no file, or one that reading may wait for or never end with: a pipe or a device.

    Raises:
        MissingFileError: There is no such file.
        UsageError: It is no regular file.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise UsageError(f"cannot read the image '{path}': {error.strerror}") from error
        link = f", a link to '{os.readlink(path)}'," if path.is_symlink() else ""
        raise MissingFileError(
            f"no image at '{path}'{link}; give the path of a {ACCEPTED.replace(' and ', ' or ')} file"
        ) from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a folder is refused by the system
        raise UsageError(f"cannot read the image '{path}': it is a pipe or a device, no regular file")


def read_shape(path: str | os.PathLike[str]) -> Shape:
    """(H, W) of a picture once upright, from its header alone.

    Raises:
        MissingFileError: There is no such file.
        UsageError: It is no picture, or has over ``MAX_PIXELS`` pixels.
    """
    with open_image(path) as image:
        return oriented_shape(image)


def reason(error: Exception) -> str:
    """Why a picture could not be decoded, without its name."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"over {_LIMIT}"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a picture in an accepted format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _orientation(image: Image.Image) -> int:
    """Orientation 1..8 that EXIF states, or XMP where EXIF does not, from the header alone (where damaged: 1)."""
    try:
        if image.format == "PNG":
            # PngImageFile.getexif decodes the whole picture to look for a late chunk; writers put it before the pixels.
            if not {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"} & set(image.info):
                return 1
            exif = Image.Image.getexif(image)
        else:
            exif = image.getexif()
        value = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # the picture itself may well be fine
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def oriented_shape(image: Image.Image) -> Shape:
    """(H, W) once upright, known from the header; refuses a picture beyond the pixel limit."""
    width, height = image.size
    if image.format == "TIFF":  # releases of Pillow differ in whether `size` is upright already, the tags do not
        tags = image.tag_v2  # type: ignore[attr-defined]
        width, height = tags[ExifTags.Base.ImageWidth], tags[ExifTags.Base.ImageLength]
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} is over {_LIMIT}")
    return (width, height) if _orientation(image) >= 5 else (height, width)


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _to_16_bit(samples: NDArray[Any], bits: int) -> NDArray[np.uint16]:
    if bits == 16:
        return samples.astype(np.uint16, copy=False)
    top = 2**bits - 1
    return ((samples.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)


def decode_samples(
    image: Image.Image, path: Path, notes: list[str] | None = None
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decode what :func:`open_image` opened in the file's own depth and channels, upright.

    A palette becomes RGB, or RGBA where an entry is transparent; CMYK becomes sRGB (:func:`cmyk_to_rgb`).

    Args:
        image: The opened picture, of a TIFF at the page in question.
        path: Its file.
        notes: What could not be kept is added here, a line each.

    Returns:
        uint8, or uint16 over the full range where the file has more than 8 bits or floats: gray ``[H, W]``, gray and
        alpha ``[H, W, 2]``, RGB ``[H, W, 3]`` or RGBA ``[H, W, 4]``; writable, contiguous.

    Raises:
        Exception: Of any type, where the data are damaged or of an unsupported kind; :func:`open_image` turns it into
            a UsageError.
    """
    notes = [] if notes is None else notes
    orientation = _orientation(image)
    if image.mode == "CMYK":
        notes.append(cmyk_note(image.info.get("icc_profile")))
    samples: NDArray[Any] | Image.Image | None = None
    if image.format == "TIFF":
        samples = decode_unusual(image, path, notes)
    elif image.format == "HEIF":
        notes += heif_notes(image)
        if (deep := deep_heif(image, path)) is not None:
            samples = _to_16_bit(*deep[:2])
            samples = unmultiplied(samples) if deep[2] else samples
    elif image.format == "JPEG2000" and (wide := deep_jpeg2000(image, path)) is not None:
        samples = _to_16_bit(*wide)
    if samples is None:
        # Pillow turns TIFF upright by itself while loading; what is left to do must be asked for before that.
        orientation = 1 if image.format == "TIFF" else orientation
        samples = _loaded(image, path)
    elif isinstance(samples, Image.Image):
        samples = np.asarray(cmyk_to_rgb(samples, image.info.get("icc_profile")))
    return np.array(_upright(samples, orientation), order="C")


def _loaded(image: Image.Image, path: Path) -> NDArray[Any]:
    """Decode with Pillow, or deep colour of a PNG with OpenCV."""
    bits = int(image.tag_v2.get(ExifTags.Base.BitsPerSample, (16,))[0]) if image.format == "TIFF" else 16  # type: ignore[attr-defined]
    rawmode = _rawmode(image)
    image.load()  # raises on damaged or truncated data
    if image.mode.startswith("I;16"):
        return _to_16_bit(np.asarray(image), bits)
    if rawmode.startswith(_DEEP_COLOUR):
        # Pillow would keep the high byte only, which darkens by half a level; OpenCV keeps all 16 bits.
        deep = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        if deep is None or deep.dtype != np.uint16 or deep.ndim != 3:
            raise ValueError(f"this kind of 16-bit colour ({rawmode}) is not supported")
        return deep[:, :, [2, 3] if rawmode.startswith("LA") else [2, 1, 0, 3][: deep.shape[2]]]
    if image.mode in ("I", "F"):
        raise ValueError("32-bit and floating-point samples have no known range; save it with 8 or 16 bits")
    if image.mode == "CMYK":
        return np.asarray(cmyk_to_rgb(image, image.info.get("icc_profile")))
    if image.has_transparency_data:
        return np.asarray(image.convert("LA" if image.mode in ("L", "LA", "La") else "RGBA"))
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def _cmyk_transform(profile: bytes | None) -> ImageCms.ImageCmsTransform | None:
    """From the CMYK of a profile to sRGB; None without a sound profile of CMYK."""
    if not profile:
        return None
    try:
        return ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            "CMYK",
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError):  # damaged, or for another colour space
        return None


def cmyk_to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert CMYK to sRGB through its profile, or without one by taking each ink for the complement of its colour."""
    transform = _cmyk_transform(profile)
    return image.convert("RGB") if transform is None else ImageCms.applyTransform(image, transform) or image


def cmyk_note(profile: bytes | None) -> str:
    """How :func:`cmyk_to_rgb` converts with this profile, in words."""
    if _cmyk_transform(profile) is not None:
        return "CMYK became sRGB through its colour profile"
    missing = "its colour profile is damaged" if profile else "it has no colour profile"
    return f"CMYK became RGB with each ink as the complement of its colour, since {missing}"


def _decode(image: Image.Image, path: Path) -> Pixels:
    samples = decode_samples(image, path)
    pixels = to_8_bit(samples) if samples.dtype == np.uint16 else samples.astype(np.uint8, copy=False)
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.shape[2] in (2, 4):
        pixels = on_white(pixels)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def on_white(pixels: Pixels) -> Pixels:
    """Composite on white: uint8 ``[H, W, C + 1]``, the last channel alpha -> uint8 ``[H, W, C]``."""
    weight = pixels[:, :, -1:].astype(np.uint16)
    return ((pixels[:, :, :-1] * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)


def _rawmode(image: Image.Image) -> str:
    """How the samples lie in the file, such as ``"RGB;16B"``; empty where the format does not say."""
    tiles = getattr(image, "tile", [])
    args = tiles[0][3] if tiles else None
    return str(args[0] if isinstance(args, tuple) and args else args or "")


def _looks_whole(image: Image.Image, path: Path) -> bool:
    """Whether the file's end is where its format says, without decoding. Checks the bytes and checksums of a PNG."""
    length = path.stat().st_size
    with path.open("rb") as file:
        if image.format in ("JPEG", "MPO"):
            file.seek(max(0, length - 64))
            return b"\xff\xd9" in file.read()  # end of image; inside the data ff is always followed by 00
        if image.format == "WEBP":
            return int.from_bytes(file.read(8)[4:], "little") + 8 <= length
        if image.format == "BMP":
            return int.from_bytes(file.read(6)[2:], "little") <= length
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        offsets, counts = tags.get(273) or tags.get(324) or (), tags.get(279) or tags.get(325) or ()
        return bool(offsets) and all(a + b <= length for a, b in zip(offsets, counts, strict=False))
    image.verify()  # PNG
    return True


def inspect(path: Path) -> Shape:
    """(H, W) of a picture that can most likely be decoded; raises any exception where it cannot."""
    check_regular(path)
    with _opened(path, _FORMATS) as image:
        shape = oriented_shape(image)
        kind, whole = image.format, _looks_whole(image, path)
    # Damage inside a WebP or TIFF, and a TIFF's layout, show in decoding alone. A few sound files of other formats
    # carry bytes behind their end or wrong sizes in their header: there, too, the decoder judges.
    if not whole or kind in ("WEBP", "TIFF"):
        with _opened(path, _FORMATS) as image:
            _decode(image, path)
    return shape


def is_whole(path: Path) -> bool:
    """Whether a file can be decoded to its end, all pages of a TIFF; one over ``MAX_PIXELS`` is judged by its end."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # results may be larger than what is accepted
    try:
        check_regular(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                if image.format == "PNG" or image.size[0] * image.size[1] > MAX_PIXELS:
                    return _looks_whole(image, path)
                for page in pages(image)[0] if image.format == "TIFF" else (0,):
                    image.seek(page)
                    decode_samples(image, path)
    except Exception:  # decoders raise a dozen unrelated types on damaged bytes
        return False
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return True
