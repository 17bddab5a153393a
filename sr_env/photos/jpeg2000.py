"""JPEG 2000: what Pillow does not say of a file, and the depths that it does not keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_CODESTREAM = b"\xff\x4f\xff\x51"  # its two first markers, always these
_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_IPTC = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
_EXIF = b"JpgTiffExif->JP2"
#: The enumerated colour space whose samples are taken as they lie.
_SRGB = 16


@dataclass(frozen=True)
class Codestream:
    """What the codestream's header says.

    Attributes:
        size: Width and height.
        bits: Of each channel, negative where its samples are signed.
        reduced: Whether a channel has fewer samples than the picture has pixels.
    """

    size: tuple[int, int]
    bits: tuple[int, ...]
    reduced: bool


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and content of each box; stops where they are damaged."""
    at = 0
    while at + 8 <= len(data):
        length, kind, start = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8]), 8
        if length == 1:
            length, start = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        end = len(data) if length == 0 else at + length
        if end < at + start or end > len(data):
            return
        yield kind, data[at + start : end]
        at = end


def _codestream(data: memoryview) -> Codestream:
    head = bytes(data[: 42 + 3 * 256])
    if head[:4] != _CODESTREAM:
        raise ValueError("its codestream is damaged")
    right, low, left, top = (int.from_bytes(head[at : at + 4], "big") for at in (8, 12, 16, 20))
    channels = head[42 : 42 + 3 * int.from_bytes(head[40:42], "big")]
    bits = tuple((value & 127) + 1 if value < 128 else -((value & 127) + 1) for value in channels[::3])
    return Codestream((right - left, low - top), bits, any(value != 1 for value in channels[1::3] + channels[2::3]))


def complete(image: Image.Image, path: Path) -> None:
    """Put what the file's boxes say into ``image.info``: colour profile, EXIF, XMP and IPTC, and :class:`Codestream`.

    Raises:
        ValueError: There is no codestream, or it is of another size than the file's header says.
    """
    data = memoryview(path.read_bytes())
    stream = data if data[:4] == _CODESTREAM else None
    for kind, content in _boxes(data) if data[:12] == _SIGNATURE else ():
        if kind == b"jp2c" and stream is None:
            stream = content
        elif kind == b"jp2h":
            for inner, colour in _boxes(content):
                if inner == b"colr" and "colour space" not in image.info:  # the first counts
                    image.info["colour space"] = int.from_bytes(colour[3:7], "big") if colour[0] == 1 else None
                    if colour[0] == 2:
                        image.info["icc_profile"] = bytes(colour[3:])
        elif kind == b"uuid":
            name, block = bytes(content[:16]), bytes(content[16:])
            if name == _XMP:
                image.info["xmp"] = block
            elif name == _EXIF:
                image.info["exif"] = b"Exif\0\0" + block.removeprefix(b"Exif\0\0")
            elif name == _IPTC:
                image.info["photoshop"] = {0x0404: block}
    if stream is None:
        raise ValueError("it has no codestream")
    header = _codestream(stream)
    if header.size != image.size:
        raise ValueError(f"its header says {image.size}, its codestream {header.size}")
    image.info["codestream"] = header


def deep_jpeg2000(image: Image.Image, path: Path) -> tuple[NDArray[Any], int] | None:
    """The samples of an opened picture of more than 8 bits, which Pillow rounds to 8 or scales wrongly.

    Returns:
        None where Pillow is right; else uint16 gray ``[H, W]``, RGB or RGBA ``[H, W, C]``, and how many bits they have.

    Raises:
        ValueError: It is of a kind that is not decoded, or damaged.
    """
    stream: Codestream = image.info["codestream"]
    bits = stream.bits[0]
    if len(set(stream.bits)) > 1 or not 8 <= bits <= 16:
        raise ValueError(f"JPEG 2000 of {', '.join(map(str, stream.bits))} bits a channel is not supported")
    if bits == 8:
        return None
    if image.mode == "I;16":
        image.load()
        return np.asarray(image) >> (16 - bits), bits
    if image.mode not in ("RGB", "RGBA") or stream.reduced or image.info.get("colour space") not in (None, _SRGB):
        raise ValueError("JPEG 2000 of this colour and more than 8 bits is not supported; save it as RGB")
    deep = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16 or deep.shape != (*image.size[::-1], len(stream.bits)):
        raise ValueError("its colour of more than 8 bits cannot be decoded")
    return deep[:, :, [2, 1, 0, 3][: deep.shape[2]]], bits
