"""What a file says beside its pixels arrives in every format that has a place for it; what is lost is said."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from sr_env.photos import PhotoFolder, Picture, read_picture, suited, write_picture

XMP = (
    b'<?xpacket begin="" id="x"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description '
    b'tiff:Orientation="%d" exif:PixelXDimension="40" dc:rights="somebody\'s">'
    b"<exif:PixelYDimension>24</exif:PixelYDimension></rdf:Description></rdf:RDF></x:xmpmeta>"
)
IPTC = b"\x1c\x02\x00\x00\x02\x00\x04\x1c\x02\x78\x00\x07Caption"  # an odd number of bytes
TEXT = (("Title", "a street"), ("Comment", "größer als Latin: 街"))
PIXELS = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)


def say(path: Path) -> dict[str, Any]:
    """What Pillow finds in a file."""
    with Image.open(path) as image:
        image.load()
        return dict(image.info)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_everything_arrives(tmp_path: Path, suffix: str, deep: bool) -> None:
    pixels = PIXELS.astype(np.uint16) * 257 if deep else PIXELS
    whole = Picture(pixels, xmp=XMP % 1, iptc=IPTC, text=TEXT, dpi=(300.0, 240.0))
    path = tmp_path / f"a{suffix}"
    fitting = suited(whole, suffix)
    write_picture(path, fitting)
    again = read_picture(path)
    assert again.xmp == XMP % 1
    assert again.notes == ()
    assert again.iptc == (None if suffix == ".webp" else IPTC)
    assert again.text == {".png": TEXT, ".jpg": TEXT[1:]}.get(suffix, ())
    if suffix == ".webp":  # which has a place for it in its EXIF block alone
        with Image.open(path) as image:
            assert image.getexif()[282] == 300
            assert image.getexif()[283] == 240
    else:
        assert again.dpi == pytest.approx((300, 240), abs=0.01)
    lost = {"PNG": (), "JPG": ("Title",), "WEBP": ("Title", "Comment", "IPTC"), "TIF": ("Title", "Comment")}
    for name in ("Title", "Comment", "IPTC"):
        told = any(name in note and "no place" in note for note in fitting.notes)
        assert told == (name in lost[suffix[1:].upper()])


def test_other_programs_find_it(tmp_path: Path) -> None:
    whole = Picture(PIXELS, xmp=XMP % 1, iptc=IPTC, text=TEXT, dpi=(300.0, 300.0))
    for suffix in (".png", ".jpg", ".tif"):
        write_picture(tmp_path / f"a{suffix}", suited(whole, suffix))
    assert say(tmp_path / "a.jpg")["photoshop"][0x0404] == IPTC
    assert say(tmp_path / "a.jpg")["dpi"] == (300, 300)
    assert say(tmp_path / "a.jpg")["comment"].decode() == TEXT[1][1]
    assert say(tmp_path / "a.png")["Title"] == "a street"
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tags = file.pages[0].tags
        assert tags[700].value == XMP % 1
        assert tags[33723].value == IPTC
        assert (tags[282].value, tags[296].value) == ((300, 1), 2)


@pytest.mark.parametrize("kind", ["numbers", "Photoshop"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_iptc_as_other_programs_put_it_into_tiff(tmp_path: Path, kind: str, order: str) -> None:
    whole = IPTC + bytes(-len(IPTC) % 4)
    if kind == "numbers":  # of four bytes, as Adobe's do
        count = len(whole) // 4
        tag = (33723, "I", count, struct.unpack(f"{order}{count}I", whole), True)
    else:
        block = b"8BIM\x04\x0b\0\0\0\0\0\x03url\0" + b"8BIM\x04\x04\x03abc" + struct.pack(">I", len(whole)) + whole
        tag = (34377, "B", len(block), block, True)
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, byteorder=order, photometric="rgb", metadata=None, extratags=[tag])
    assert read_picture(tmp_path / "a.tif").iptc == whole


def test_the_size_in_xmp_is_the_pictures(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", Picture(np.zeros((96, 160), np.uint8), xmp=XMP % 1))
    xmp = say(tmp_path / "a.png")["xmp"]
    assert b'exif:PixelXDimension="160"' in xmp
    assert b"<exif:PixelYDimension>96<" in xmp


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_orientation_that_only_xmp_states(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    image = Image.fromarray(PIXELS[:16])
    if suffix == ".png":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP % 6)
        image.save(path, pnginfo=info)
    elif suffix == ".tif":
        tag = (700, "B", len(XMP % 6), XMP % 6, True)
        tifffile.imwrite(path, PIXELS[:16], photometric="rgb", metadata=None, extratags=[tag])
    else:
        image.save(path, xmp=XMP % 6, quality=100, **({"lossless": True} if suffix == ".webp" else {"subsampling": 0}))
    picture = read_picture(path)
    assert picture.pixels.shape == (40, 16, 3)
    want = np.rot90(PIXELS[:16], -1)
    assert np.abs(picture.pixels.astype(int) - want).mean() < (8 if suffix == ".jpg" else 1e-9)
    # Whoever turned it again would turn it too far. (Of a TIFF, Pillow takes the statement out.)
    assert picture.xmp == (XMP % 1).replace(*((b'tiff:Orientation="1"', b"") if suffix == ".tif" else (b"", b"")))
    assert PhotoFolder(tmp_path).shapes == ((40, 16),)


def test_damaged_blocks_are_left_out_and_said(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type iptc", "\niptc\n 4\nno hex")
    Image.fromarray(PIXELS).save(tmp_path / "a.png", pnginfo=info)
    picture = read_picture(tmp_path / "a.png")
    assert picture.iptc is None
    assert picture.notes == ("its IPTC is damaged and was left out",)
    long = suited(Picture(PIXELS, xmp=b"x" * 70000, iptc=b"y" * 70000), ".jpg")
    assert (long.xmp, long.iptc) == (None, None)
    assert all("too long for JPEG" in note for note in long.notes)
    write_picture(tmp_path / "a.jpg", long)
