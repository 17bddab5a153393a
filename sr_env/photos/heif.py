"""HEIF pictures (HEIC, as telephones write them), through the optional package pillow-heif.

It is not registered with Pillow, so that nothing changes for other programs in the process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_env.utils.checks import UsageError

#: Brands of HEVC's pictures, and of the container that they share with AVIF.
_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_AVIF = (b"avif", b"avis")
#: Of an nclx profile: what sRGB may be said to be (BT.709, unspecified; sRGB, BT.601's like it).
_PRIMARIES, _TRANSFERS = (1, 2), (1, 2, 6, 13)


def is_heif(head: bytes) -> bool:
    """Whether a file that begins with these 64 bytes is HEIF, and not AVIF."""
    if head[4:8] != b"ftyp" or head[8:12] not in _BRANDS:
        return False
    brands = head[16 : int.from_bytes(head[:4], "big")]
    return not any(brands[at : at + 4] in _AVIF for at in range(0, len(brands), 4))


def open_heif(path: Path) -> Image.Image:
    """Open a HEIF file: Pillow's image of 8 bits, upright, not decoded.

    Raises:
        UsageError: pillow-heif is not installed.
        SyntaxError: The file is damaged.
    """
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise UsageError("HEIC needs the package pillow-heif: pip install 'blindsr-gym[heic]'") from error
    image: Image.Image = HeifImageFile(str(path))
    return image


def deep_heif(image: Image.Image, path: Path) -> tuple[NDArray[Any], int, bool] | None:
    """The samples of a HEIF file of more than 8 bits, of which Pillow's image has 8.

    Returns:
        None where it has 8 bits; else uint16 ``[H, W]`` or ``[H, W, C]``, how many bits they have, and whether their
        colour is multiplied by alpha.
    """
    bits = int(image.info["bit_depth"])
    if bits <= 8:
        return None
    from pillow_heif import open_heif

    file = open_heif(str(path), convert_hdr_to_8bit=False, hdr_to_16bit=False)
    return np.asarray(file), bits, bool(file.premultiplied_alpha)


def heif_notes(image: Image.Image) -> list[str]:
    """What of a HEIF file is not kept: other pictures in it, and colour that is described without a profile."""
    count = int(getattr(image, "n_frames", 1))
    notes = [f"of its {count} pictures the main one was taken"] if count > 1 else []
    colour = image.info.get("nclx_profile") or {}
    primaries, transfer = (int(colour.get(name, 2)) for name in ("color_primaries", "transfer_characteristics"))
    if "icc_profile" not in image.info and (primaries not in _PRIMARIES or transfer not in _TRANSFERS):
        notes.append(f"its colour was taken for sRGB, and is not (primaries {primaries}, brightness curve {transfer})")
    return notes
