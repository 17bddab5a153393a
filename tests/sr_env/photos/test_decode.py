"""Every kind of picture file decodes to the right pixels, and bad ones are named."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from sr_env.photos import (
    PhotoFolder,
    decode,
    read_image,
    read_picture,
)
from sr_env.photos.picture_file import _deep_avif


def smooth(height: int, width: int) -> np.ndarray:
    """A picture that survives JPEG nearly unharmed."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 127 + 0 * x], axis=2).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.tif", "a.TIFF"])
def test_lossless_formats_are_exact(tmp_path: Path, rgb: np.ndarray, name: str) -> None:
    Image.fromarray(rgb).save(tmp_path / name)
    out = read_image(tmp_path / name)
    assert out.dtype == np.uint8
    assert out.flags.c_contiguous
    assert out.flags.writeable
    np.testing.assert_array_equal(out, rgb)


def test_webp_and_compressed_tiff(tmp_path: Path, rgb: np.ndarray) -> None:
    Image.fromarray(rgb).save(tmp_path / "a.webp", lossless=True)
    Image.fromarray(rgb).save(tmp_path / "a.tif", compression="tiff_deflate")
    np.testing.assert_array_equal(read_image(tmp_path / "a.webp"), rgb)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), rgb)


def test_gray_palette_and_bilevel(tmp_path: Path, rgb: np.ndarray) -> None:
    gray = rgb[:, :, 0]
    Image.fromarray(gray).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png"), np.dstack([gray] * 3))

    palette = Image.fromarray(rgb).quantize(16)
    palette.save(tmp_path / "palette.png")
    table = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), table[np.asarray(palette)])

    Image.fromarray(gray > 127).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png")[:, :, 1], np.where(gray > 127, 255, 0))


def test_transparency_is_composited_on_white(tmp_path: Path, rgb: np.ndarray) -> None:
    alpha = np.random.default_rng(2).integers(0, 256, rgb.shape[:2], dtype=np.uint8)
    alpha[0], alpha[1] = 0, 255
    Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / "a.png")
    out = read_image(tmp_path / "a.png")
    weight = alpha[:, :, None] / 255.0
    assert np.abs(out - (rgb * weight + 255 * (1 - weight))).max() <= 0.5 + 1e-9
    assert (out[0] == 255).all()
    np.testing.assert_array_equal(out[1], rgb[1])

    see_through = Image.fromarray(np.zeros((4, 4), np.uint8), mode="P")
    see_through.putpalette([9, 9, 9])
    see_through.save(tmp_path / "p.png", transparency=0)
    assert (read_image(tmp_path / "p.png") == 255).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_is_scaled_over_the_full_range(tmp_path: Path, suffix: str, channels: int) -> None:
    deep = np.random.default_rng(3).integers(0, 65536, (16, 24, channels), dtype=np.uint16)
    deep[0, 0], deep[0, 1] = 0, 65535
    if channels == 4:
        deep[:, :, 3] = 65535
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), deep[:, :, 0] if channels == 1 else deep)  # BGR(A)
    want = np.rint(deep / 257.0).astype(np.uint8)
    want = np.repeat(want, 3, axis=2) if channels == 1 else want[:, :, 2::-1]
    np.testing.assert_array_equal(read_image(path), want)


def test_16_bit_gray_alpha(tmp_path: Path) -> None:
    deep = np.full((4, 4, 4), 30000, np.uint16)
    deep[:, :, 3] = 32768
    cv2.imwrite(str(tmp_path / "a.png"), deep)
    want = round((30000 / 257) * 0.50001 + 255 * 0.49999)
    assert np.abs(read_image(tmp_path / "a.png").astype(int) - want).max() <= 1


def test_cmyk_jpeg(tmp_path: Path) -> None:
    image = Image.fromarray(smooth(32, 48))
    image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100, subsampling=0)
    assert Image.open(tmp_path / "cmyk.jpg").mode == "CMYK"
    out = read_image(tmp_path / "cmyk.jpg")
    assert out.shape == (32, 48, 3)
    assert np.abs(out.astype(int) - smooth(32, 48)).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(smooth(24, 40)).save(path, exif=exif)
    with Image.open(path) as image:
        want = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    source = PhotoFolder(tmp_path)
    assert source.shapes == (((40, 24) if orientation >= 5 else (24, 40)),)
    np.testing.assert_array_equal(source[0], want)


def test_orientation_of_16_bit_colour(tmp_path: Path) -> None:
    deep = (smooth(24, 40).astype(np.uint16) * 257)[:, :, ::-1]
    ok, data = cv2.imencode(".png", deep)
    assert ok
    exif = Image.Exif()
    exif[0x0112] = 6
    block = b"eXIf" + exif.tobytes()[6:]
    chunk = (len(block) - 4).to_bytes(4, "big") + block + zlib.crc32(block).to_bytes(4, "big")
    raw = data.tobytes()
    (tmp_path / "a.png").write_bytes(raw[:33] + chunk + raw[33:])  # right after the header chunk
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(smooth(24, 40), -1))


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.png"):
        read_image(tmp_path / "nothing.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"text\.png.*accepted format \(jpg, jpeg, png, webp, tif, tiff and bmp; gif"):
        read_image(tmp_path / "text.png")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match=r"empty\.jpg"):
        read_image(tmp_path / "empty.jpg")
    with pytest.raises(ValueError, match="cannot read"):
        read_image(tmp_path)


def test_pixel_limit(tmp_path: Path, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(rgb).save(tmp_path / "a.png")
    monkeypatch.setattr(decode, "MAX_PIXELS", rgb.shape[0] * rgb.shape[1])
    read_image(tmp_path / "a.png")
    monkeypatch.setattr(decode, "MAX_PIXELS", rgb.shape[0] * rgb.shape[1] - 1)
    with pytest.raises(ValueError, match=r"a\.png.*30x20 is over the limit"):
        read_image(tmp_path / "a.png")


def test_huge_header_is_refused_without_decoding(tmp_path: Path) -> None:
    Image.new("1", (20000, 10000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb\.png.*megapixels"):
        read_image(tmp_path / "bomb.png")


def cmyk_profile(labs: np.ndarray) -> bytes:
    """An ICC profile that gives each of the 16 combinations of full inks a colour, float Lab [16, 3].

    Between them it is linear in Lab. The order is that of C, M, Y, K as binary digits, K the last.
    """
    steps = np.stack([labs[:, 0] / 100 * 65280, (labs[:, 1] + 128) * 256, (labs[:, 2] + 128) * 256], 1)
    identity = np.array([0, 65535], ">u2").tobytes()
    matrix = np.array([65536, 0, 0, 0, 65536, 0, 0, 0, 65536], ">i4").tobytes()
    table = b"mft2" + bytes([0, 0, 0, 0, 4, 3, 2, 0]) + matrix + np.array([2, 2], ">u2").tobytes()
    table += 4 * identity + np.rint(steps).astype(">u2").tobytes() + 3 * identity
    white = b"XYZ " + bytes(4) + np.array([63190, 65536, 54061], ">i4").tobytes()
    name = b"desc" + bytes(4) + (5).to_bytes(4, "big") + b"inks\0" + bytes(78)
    parts, at = [], 128 + 4 + 12 * 3
    directory = (3).to_bytes(4, "big")
    for tag, data in ((b"desc", name), (b"wtpt", white), (b"A2B0", table)):
        data += bytes(-len(data) % 4)
        directory += tag + at.to_bytes(4, "big") + len(data).to_bytes(4, "big")
        parts.append(data)
        at += len(data)
    header = bytearray(128)
    header[0:4], header[8:12], header[12:24] = at.to_bytes(4, "big"), b"\x02\x40\0\0", b"prtrCMYKLab "
    header[36:40], header[68:80] = b"acsp", np.array([63190, 65536, 54061], ">i4").tobytes()
    return bytes(header) + directory + b"".join(parts)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_is_converted_through_its_profile(tmp_path: Path, suffix: str) -> None:
    """An ink that prints as a middle gray, which taking it for the complement of red would make cyan."""
    inks = np.arange(16)[:, None] >> np.array([3, 2, 1, 0]) & 1
    labs = np.zeros((16, 3))
    labs[:, 0] = 100 * np.prod(np.where(inks, np.array([0.5, 1, 1, 0]), 1), 1)  # only C and K print
    picture = np.zeros((16, 16, 4), np.uint8)
    picture[:, 8:, 0] = 255
    options = {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
    path = tmp_path / f"a{suffix}"
    Image.fromarray(picture, "CMYK").save(path, icc_profile=cmyk_profile(labs), **options)
    out = read_image(path)
    gray = round(255 * (1.055 * ((0.5 * 100 + 16) / 116) ** (3 / 2.4) - 0.055))  # of L* = 50 in sRGB: 119
    assert np.abs(out[:, :8].astype(int) - 255).max() <= 2
    assert np.abs(out[:, 8:].astype(int) - gray).max() <= 3
    carried = read_picture(path)
    np.testing.assert_array_equal(carried.pixels, out)
    assert carried.icc is None
    assert carried.notes == ("CMYK became sRGB through its colour profile",)


def test_cmyk_without_a_sound_profile_is_said(tmp_path: Path) -> None:
    image = Image.fromarray(smooth(16, 16)).convert("CMYK")
    image.save(tmp_path / "a.tif")
    assert read_picture(tmp_path / "a.tif").notes[0].endswith("since it has no colour profile")
    image.save(tmp_path / "b.jpg", icc_profile=cmyk_profile(np.zeros((16, 3)))[:300])
    assert "its colour profile is damaged" in read_picture(tmp_path / "b.jpg").notes[0]
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels, smooth(16, 16))


def test_gif(tmp_path: Path, rgb: np.ndarray) -> None:
    frames = [Image.fromarray(picture).quantize(32) for picture in (rgb, 255 - rgb)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], comment=b"a comment")
    picture = read_picture(tmp_path / "a.gif")
    np.testing.assert_array_equal(picture.pixels, np.asarray(frames[0].convert("RGB")))
    assert picture.notes == ("of its 2 frames the first was taken",)
    assert picture.text == (("Comment", "a comment"),)
    with pytest.raises(ValueError, match="no usable photo"):  # 256 colours are nothing to train on
        PhotoFolder(tmp_path)


@pytest.mark.skipif("avif" not in features.get_supported(), reason="this Pillow has no AVIF")
def test_avif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth(24, 40)).save(tmp_path / "a.avif", quality=100, subsampling="4:4:4", exif=exif)
    picture = read_picture(tmp_path / "a.avif")
    assert np.abs(picture.pixels.astype(int) - np.rot90(smooth(24, 40), -1)).max() <= 3
    assert picture.notes == ()
    data = bytearray((tmp_path / "a.avif").read_bytes())
    data[data.index(b"av1C") + 6] |= 0x40  # says that it has 10 bits, of which Pillow writes none
    (tmp_path / "b.avif").write_bytes(data)
    with Image.open(tmp_path / "a.avif") as image:
        assert not _deep_avif(image, tmp_path / "a.avif")
        assert _deep_avif(image, tmp_path / "b.avif")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path, rgb: np.ndarray) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png.*a pipe or a device"):
        read_image(tmp_path / "a.png")
    Image.fromarray(rgb).save(tmp_path / "b.png")
    with pytest.warns(UserWarning, match=r"a\.png \(.*pipe"):
        assert PhotoFolder(tmp_path).names == ("b.png",)


def test_a_link_to_nothing_is_named_with_its_aim(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(FileNotFoundError, match=r"a\.png', a link to '.*gone\.png'"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.webp", "a.tif"])
def test_damage_inside_is_found_on_opening_a_folder(tmp_path: Path, rgb: np.ndarray, name: str) -> None:
    """Training would end in the middle otherwise."""
    Image.fromarray(rgb).save(tmp_path / "b.png")
    Image.fromarray(np.tile(rgb, (10, 10, 1))).save(
        tmp_path / name, **({} if "webp" in name else {"compression": "tiff_deflate"})
    )
    data = bytearray((tmp_path / name).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = b"\xff" * 200
    (tmp_path / name).write_bytes(data)
    with pytest.warns(UserWarning, match=rf"skipped 1 unusable file.*{name}"):
        assert PhotoFolder(tmp_path).names == ("b.png",)
