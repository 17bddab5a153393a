"""HEIC through pillow-heif: depth, alpha, orientation and colour; and what is said without that package."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_env.photos import PhotoFolder, read_image, read_picture, read_shape
from sr_env.photos.heif import is_heif
from sr_env.utils.checks import UsageError

HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def smooth(height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 127 + 0 * x], axis=2).astype(np.uint8)


def test_the_head_tells_heif_from_avif() -> None:
    assert is_heif(HEAD)
    assert is_heif(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic")
    assert not is_heif(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf")
    assert not is_heif(b"\x89PNG\r\n\x1a\n")
    assert not is_heif(b"")


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(HEAD + bytes(100))
    with pytest.raises(UsageError, match=r"a\.heic'.*pip install 'blindsr-gym\[heic\]'"):
        read_image(tmp_path / "a.heic")
    (tmp_path / "b.png").write_bytes(HEAD + bytes(100))  # folders of HR photos hold none
    with pytest.raises(UsageError, match="not a picture in an accepted format"):
        PhotoFolder(tmp_path)


def test_eight_bits_upright_with_metadata(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a maker"
    heif.from_pillow(Image.fromarray(smooth())).save(
        tmp_path / "a.jpg", quality=-1, chroma=444, matrix_coefficients=0, exif=exif.tobytes(), format="HEIF"
    )  # whatever its name says
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.pixels.dtype == np.uint8
    assert read_shape(tmp_path / "a.jpg") == picture.pixels.shape[:2] == (64, 48)
    assert np.abs(picture.pixels.astype(int) - np.rot90(smooth(), -1)).max() <= 2
    kept = Image.Exif()
    kept.load(picture.exif or b"")
    assert (kept[0x010F], kept[0x0112]) == ("a maker", 1)
    assert picture.notes == ()


@pytest.mark.parametrize(("mode", "channels"), [("L;16", 1), ("RGB;16", 3), ("RGBA;16", 4)])
def test_ten_bits_are_kept(tmp_path: Path, mode: str, channels: int) -> None:
    heif = pytest.importorskip("pillow_heif")
    deep = np.random.default_rng(0).integers(0, 1024, (32, 48, channels)).astype(np.uint16)
    deep[0, 0], deep[0, 1] = 0, 1023
    heif.from_bytes(mode, (48, 32), (deep << 6).tobytes()).save(
        tmp_path / "a.heic", quality=-1, chroma=444, matrix_coefficients=0
    )
    pixels = read_picture(tmp_path / "a.heic").pixels
    assert pixels.dtype == np.uint16
    want = np.rint(deep[:, :, 0] / 1023 * 65535) if channels == 1 else np.rint(deep / 1023 * 65535)
    np.testing.assert_array_equal(pixels, want)


def test_other_pictures_and_colours_are_noted(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    file = heif.from_pillow(Image.fromarray(smooth()))
    file.add_from_pillow(Image.fromarray(255 - smooth()))
    file.save(tmp_path / "a.heic", quality=90, primary_index=1)
    picture = read_picture(tmp_path / "a.heic")
    assert picture.notes == ("of its 2 pictures the main one was taken",)
    assert np.abs(picture.pixels.astype(int) - (255 - smooth())).mean() < 5
    heif.from_pillow(Image.fromarray(smooth())).save(
        tmp_path / "b.heic", color_primaries=9, transfer_characteristics=16
    )
    assert read_picture(tmp_path / "b.heic").notes == (
        "its colour was taken for sRGB, and is not (primaries 9, brightness curve 16)",
    )


def test_damage_is_named(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(smooth(200, 300))).save(tmp_path / "a.heic")
    data = (tmp_path / "a.heic").read_bytes()
    for number, cut in enumerate((30, len(data) // 2, len(data) - 100)):
        (tmp_path / f"{number}.heic").write_bytes(data[:cut])
        with pytest.raises(UsageError, match=rf"{number}\.heic"):
            read_image(tmp_path / f"{number}.heic")
