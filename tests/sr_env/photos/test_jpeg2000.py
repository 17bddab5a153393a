"""JPEG 2000 keeps its depth, colour profile and metadata, or is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, features

from sr_env.photos import read_picture
from sr_env.utils.checks import UsageError

pytestmark = pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow has no JPEG 2000")


def random(channels: int, top: int = 255) -> np.ndarray:
    dtype = np.uint8 if top == 255 else np.uint16
    return np.random.default_rng(channels).integers(0, top, (40, 52, channels), dtype=dtype, endpoint=True)


def box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["a.jp2", "a.j2k"])
def test_eight_bits_are_exact(tmp_path: Path, channels: int, name: str) -> None:
    pixels = random(channels)
    pixels = pixels[:, :, 0] if channels == 1 else pixels
    Image.fromarray(pixels).save(tmp_path / name)
    np.testing.assert_array_equal(read_picture(tmp_path / name).pixels, pixels)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [12, 16])
def test_deep_samples_are_exact(tmp_path: Path, channels: int, bits: int) -> None:
    pixels = random(channels, 2**bits - 1)
    # Encoders count from the middle of the range: 12 bits about the middle of 16 are 12 bits, once the header says so.
    written = pixels + np.uint16(2**15 - 2 ** (bits - 1))
    order = written[:, :, [2, 1, 0, 3][:channels]] if channels > 1 else written
    cv2.imwrite(str(tmp_path / "a.jp2"), order, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
    data = bytearray((tmp_path / "a.jp2").read_bytes())
    at = data.index(b"\xff\x4f\xff\x51") + 42
    data[at : at + 3 * channels : 3] = bytes([bits - 1] * channels)
    data[data.index(b"ihdr") + 14] = bits - 1
    (tmp_path / "a.jp2").write_bytes(data)
    picture = read_picture(tmp_path / "a.jp2")
    assert picture.pixels.dtype == np.uint16
    want = np.rint(pixels / (2**bits - 1) * 65535)
    np.testing.assert_array_equal(picture.pixels, want[:, :, 0] if channels == 1 else want)


def test_profile_and_metadata_are_kept(tmp_path: Path) -> None:
    Image.fromarray(random(3)).save(tmp_path / "a.jp2")
    data = (tmp_path / "a.jp2").read_bytes()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a maker"
    at = data.index(b"jp2h") - 4
    end = at + int.from_bytes(data[at : at + 4], "big")
    size = data[at + 8 : at + 30]  # the box ihdr
    header = box(b"jp2h", size + box(b"colr", b"\2\0\0" + profile))
    blocks = {
        bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): b"<x:xmpmeta tiff:Orientation='6'/>",
        bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"): b"\x1c\x02\x78\0\3abc",
        b"JpgTiffExif->JP2": exif.tobytes().removeprefix(b"Exif\0\0"),
    }
    extra = b"".join(box(b"uuid", name + block) for name, block in blocks.items())
    (tmp_path / "a.jp2").write_bytes(data[:at] + header + extra + data[end:])
    picture = read_picture(tmp_path / "a.jp2")
    np.testing.assert_array_equal(picture.pixels, np.rot90(random(3), -1))
    assert picture.icc == profile
    assert picture.xmp == b"<x:xmpmeta tiff:Orientation='1'/>"
    assert picture.iptc == b"\x1c\x02\x78\0\3abc"
    kept = Image.Exif()
    kept.load(picture.exif or b"")
    assert (kept[0x010F], kept[0x0112]) == ("a maker", 1)
    assert picture.notes == ()


def test_what_is_not_decoded_is_refused(tmp_path: Path) -> None:
    Image.fromarray(random(1)[:, :, 0]).save(tmp_path / "a.j2k")
    data = bytearray((tmp_path / "a.j2k").read_bytes())
    at = data.index(b"\xff\x4f\xff\x51")
    data[at + 42] = 3
    (tmp_path / "a.j2k").write_bytes(data)
    with pytest.raises(UsageError, match=r"a\.j2k.*of 4 bits a channel"):
        read_picture(tmp_path / "a.j2k")
    data[at + 42] = 128 + 7
    (tmp_path / "a.j2k").write_bytes(data)
    with pytest.raises(UsageError, match=r"of -8 bits"):
        read_picture(tmp_path / "a.j2k")
    Image.fromarray(random(3)).save(tmp_path / "b.jp2")
    data = bytearray((tmp_path / "b.jp2").read_bytes())
    data[data.index(b"ihdr") + 7] = 8  # of the height
    (tmp_path / "b.jp2").write_bytes(data)
    with pytest.raises(UsageError, match=r"its header says \(52, 8\), its codestream \(52, 40\)"):
        read_picture(tmp_path / "b.jp2")
    deep = np.zeros((40, 52, 3), np.uint16)
    cv2.imwrite(str(tmp_path / "c.jp2"), deep)
    data = bytearray((tmp_path / "c.jp2").read_bytes())
    place = data.index(b"colr") + 4
    assert data[place] == 1
    data[place + 3 : place + 7] = (18).to_bytes(4, "big")  # sYCC
    (tmp_path / "c.jp2").write_bytes(data)
    with pytest.raises(UsageError, match="more than 8 bits is not supported"):
        read_picture(tmp_path / "c.jp2")


def test_damage_is_named(tmp_path: Path) -> None:
    Image.fromarray(random(3)).save(tmp_path / "a.jp2")
    data = (tmp_path / "a.jp2").read_bytes()
    for cut in (20, 60, 90, 120):
        (tmp_path / "b.jp2").write_bytes(data[:cut])
        with pytest.raises(UsageError, match=r"b\.jp2"):
            read_picture(tmp_path / "b.jp2")
