"""What a picture file says beside its pixels: EXIF, XMP, IPTC, text, comments and resolution, and the colour profile.

Every format keeps them elsewhere; here they are taken from where each has them, and given the shape that each wants.
"""

from __future__ import annotations

import os
import re
import struct
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

#: Tags of a TIFF that say how its samples lie, or hold what is kept elsewhere; the others are the picture's EXIF.
_LAYOUT = frozenset((*range(254, 267), *range(273, 282), *range(284, 294), 297, 301, *range(317, 348))) | frozenset(
    (*range(512, 533), 559, 700, 33723, 34377, 34675, 37724)
)
#: What a segment of a JPEG file holds at most, behind its two bytes of length.
_SEGMENT = 65533
_XMP_HEADER, _PHOTOSHOP_HEADER = b"http://ns.adobe.com/xap/1.0/\0", b"Photoshop 3.0\0"
_IPTC = 0x0404  # its number among Photoshop's resources
#: Texts of a PNG that hold other blocks.
_BLOCKS = ("XML:com.adobe.xmp", "Raw profile type ")
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>)\s*)[1-8]")
_XMP_SIDES = tuple(
    re.compile(rb"((?:exif:Pixel" + axis + rb"Dimension|tiff:Image" + name + rb")(?:\s*=\s*[\"']|>)\s*)\d+")
    for axis, name in ((b"Y", b"Length"), (b"X", b"Width"))
)


@dataclass(frozen=True)
class Metadata:
    """What a file says beside its pixels.

    Attributes:
        icc: Colour profile.
        exif: EXIF block, its orientation 1 (upright); no thumbnail.
        xmp: XMP packet, its orientation 1.
        iptc: IPTC records.
        text: Keywords and texts of a PNG; a JPEG's comment is one of the keyword ``Comment``.
        dpi: Pixels per inch, horizontally and vertically.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()
    dpi: tuple[float, float] | None = None


def read_metadata(image: Image.Image) -> tuple[Metadata, list[str]]:
    """The metadata of an opened and decoded picture, and notes of what is damaged and was left out."""
    notes = []
    icc = image.info.get("icc_profile")
    if icc and not _sound(icc):
        if icc[16:20] != b"CMYK":  # which has been converted through it
            notes.append("its colour profile is damaged or for another colour space and was left out")
        icc = None
    found: dict[str, Any] = {}
    readers = (("EXIF block", "exif", _exif), ("XMP", "xmp", _xmp), ("IPTC", "iptc", _iptc), ("text", "text", _text))
    for what, name, read in (*readers, ("resolution", "dpi", _dpi)):
        try:
            found[name] = read(image)
        except Exception:  # as many types as ways to damage it; the picture itself is fine
            notes.append(f"its {what} is damaged and was left out")
    if b"HasExtendedXMP" in (found.get("xmp") or b""):
        notes.append("the second part of its XMP was left out")
    return Metadata(icc or None, **found), notes


def _sound(icc: bytes) -> bool:
    """Whether a profile is whole and describes RGB or gray (CMYK has become RGB by now)."""
    whole = len(icc) >= 128 and icc[36:40] == b"acsp" and 128 <= int.from_bytes(icc[:4], "big") <= len(icc)
    return whole and icc[16:20] in (b"RGB ", b"GRAY")


def _exif(image: Image.Image) -> bytes | None:
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


def _raw_profile(image: Image.Image, kind: str) -> bytes | None:
    """A block that ImageMagick and others write into a PNG as text: a line with its name, one with its length, hex."""
    text = image.info.get(f"Raw profile type {kind}")
    return bytes.fromhex("".join(text.split("\n")[3:])) if text else None


def _xmp(image: Image.Image) -> bytes | None:
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or _raw_profile(image, "xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    return _XMP_ORIENTATION.sub(rb"\g<1>1", bytes(xmp)) if xmp else None


def _iptc(image: Image.Image) -> bytes | None:
    if image.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        value = tags.get(33723)
        if isinstance(value, int):  # written as numbers of four bytes, of which Pillow gives the first; bytes are meant
            value = bytes(tags._tagdata[33723])
        return value or _resources(tags.get(34377) or b"").get(_IPTC)
    if image.format == "PNG":
        block = _raw_profile(image, "iptc") or b""
        return _resources(block).get(_IPTC) if block.startswith(b"8BIM") else block or None
    found = image.info.get("photoshop", {}).get(_IPTC)
    return found if isinstance(found, bytes) and found else None


def _resources(block: bytes) -> dict[int, bytes]:
    """Photoshop's resources by their numbers."""
    found, at = {}, 0
    while block[at : at + 4] == b"8BIM":
        number = int.from_bytes(block[at + 4 : at + 6], "big")
        at += 6 + (block[at + 6] + 2) // 2 * 2  # behind the name, which is padded to an even length
        size = int.from_bytes(block[at : at + 4], "big")
        found[number] = block[at + 4 : at + 4 + size]
        at += 4 + (size + 1) // 2 * 2
    return found


def _resource(number: int, data: bytes) -> bytes:
    return b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + b"\0" * (len(data) % 2)


def _text(image: Image.Image) -> tuple[tuple[str, str], ...]:
    if image.format == "PNG":
        return tuple(item for item in image.text.items() if not item[0].startswith(_BLOCKS))  # type: ignore[attr-defined]
    comment: Any = image.info.get("comment")
    if isinstance(comment, bytes):
        try:
            comment = comment.decode()
        except UnicodeDecodeError:
            comment = comment.decode("latin-1")
    return (("Comment", comment.rstrip("\0")),) if comment else ()


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    if image.format == "TIFF" and ExifTags.Base.XResolution not in image.tag_v2:  # type: ignore[attr-defined]
        return None  # Pillow would say 1
    dpi = image.info.get("dpi")
    x, y = (float(value) for value in dpi) if dpi else (0.0, 0.0)
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None


# ------------------------------------------------------------------------------------------------- as formats want it


def kept_by(kind: str, metadata: Metadata) -> tuple[dict[str, Any], list[str]]:
    """What a format has no place for: the fields of :class:`Metadata` to change, and a note for each."""
    changes: dict[str, Any] = {}
    notes = []
    texts = metadata.text
    if kind == "JPEG":
        texts = tuple((key, text) for key, text in texts if key == "Comment")[:1]
        texts = texts if texts and len(texts[0][1].encode()) <= _SEGMENT else ()
        for name, room, header in (("xmp", _SEGMENT - len(_XMP_HEADER), "XMP"), ("iptc", _SEGMENT - 32, "IPTC")):
            if len(getattr(metadata, name) or b"") > room:
                changes[name] = None
                notes.append(f"its {header} is too long for JPEG and was left out")
    elif kind != "PNG":
        texts = ()
    if texts != metadata.text:
        lost = ", ".join(key for key, _ in metadata.text if key not in dict(texts))
        changes["text"] = texts
        notes.append(f"{kind} has no place for its text, which was left out: {lost}")
    if kind == "WEBP" and metadata.iptc:
        changes["iptc"] = None
        notes.append("WEBP has no place for IPTC, which was left out")
    return changes, notes


def resized_exif(block: bytes | None, dpi: tuple[float, float] | None, height: int, width: int) -> Image.Exif | None:
    """An EXIF block that states a picture's size, and its resolution where that is given and no block states it."""
    exif = Image.Exif()
    if block is not None:
        exif.load(block)
        details = exif.get_ifd(ExifTags.IFD.Exif)
        for tag, value in ((ExifTags.Base.ExifImageWidth, width), (ExifTags.Base.ExifImageHeight, height)):
            if tag in details:
                details[tag] = value
    if dpi is not None and ExifTags.Base.XResolution not in exif:
        exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution] = dpi
        exif[ExifTags.Base.ResolutionUnit] = 2  # inch
    return exif if len(exif) else None


def stamped(block: bytes | None, maker: str) -> bytes:
    """An EXIF block that names what the picture was processed with."""
    exif = Image.Exif()
    if block is not None:
        exif.load(block)
    exif[ExifTags.Base.ProcessingSoftware] = maker
    return exif.tobytes()


def read_stamp(path: str | os.PathLike[str]) -> str | None:
    """What the EXIF block of a picture file says that it was processed with; None where it says nothing, or is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:  # not a PNG's own getexif, which decodes all of it to look for a late chunk
                stamp = Image.Image.getexif(image).get(ExifTags.Base.ProcessingSoftware)
    except Exception:  # as many types as ways to damage it
        return None
    return stamp if isinstance(stamp, str) else None


def resized_xmp(xmp: bytes, height: int, width: int) -> bytes:
    """An XMP packet that states a picture's size where it stated one."""
    for pattern, side in zip(_XMP_SIDES, (height, width), strict=True):
        xmp = pattern.sub(rb"\g<1>%d" % side, xmp)
    return xmp


def png_texts(metadata: Metadata) -> PngImagePlugin.PngInfo:
    """Chunks of a PNG for texts, XMP and IPTC."""
    info = PngImagePlugin.PngInfo()
    for key, text in metadata.text:
        info.add_text(key, text)
    if metadata.xmp:
        info.add_itxt("XML:com.adobe.xmp", metadata.xmp)
    if metadata.iptc:
        block = _resource(_IPTC, metadata.iptc).hex()
        lines = [block[start : start + 72] for start in range(0, len(block), 72)]
        info.add_text("Raw profile type iptc", "\n".join(("\niptc", f"{len(block) // 2:8d}", *lines, "")), zip=True)
    return info


def png_density(dpi: tuple[float, float]) -> bytes:
    """The chunk pHYs."""
    return struct.pack(">IIB", *(round(value / 0.0254) for value in dpi), 1)


def jpeg_options(metadata: Metadata) -> Mapping[str, Any]:
    """Pillow's options for a JPEG's XMP, IPTC, comment and resolution."""
    options: dict[str, Any] = {}
    if metadata.xmp:
        options["xmp"] = metadata.xmp
    if metadata.iptc:
        block = _PHOTOSHOP_HEADER + _resource(_IPTC, metadata.iptc)
        options["extra"] = b"\xff\xed" + struct.pack(">H", len(block) + 2) + block
    if metadata.text:
        options["comment"] = metadata.text[0][1].encode()
    if metadata.dpi is not None and max(metadata.dpi) < 65535.5:
        options["dpi"] = metadata.dpi
    return options


def tiff_directory(metadata: Metadata, exif: Image.Exif | None) -> ImageFileDirectory_v2:
    """Tags of a TIFF for everything but its samples."""
    directory = ImageFileDirectory_v2()
    for tag in exif or ():
        assert exif is not None
        inner = dict(exif.get_ifd(tag)) if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) else None
        directory[tag] = exif[tag] if inner is None else _without_links(inner.items())
    for tag, kind, value in ((700, 1, metadata.xmp), (33723, 7, metadata.iptc), (34675, 7, metadata.icc)):
        if value:
            directory.tagtype[tag] = kind
            directory[tag] = value
    return directory


def _without_links(details: Iterable[tuple[int, Any]]) -> dict[int, Any]:
    """EXIF entries without the offset of the interoperability directory, which would point anywhere."""
    return {tag: value for tag, value in details if tag != ExifTags.IFD.Interop}
