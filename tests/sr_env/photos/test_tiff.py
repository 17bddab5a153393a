"""Every layout of TIFF is decoded as another's decoder does, or refused; and all pages come and go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from sr_env.photos import Picture, list_pages, read_image, read_picture, write_pages, write_picture
from sr_env.utils.checks import UsageError

HEIGHT, WIDTH = 40, 52


def layouts() -> Iterator[tuple[str, int, dict[str, Any]]]:
    """dtype, channels and options of tifffile."""
    for dtype in ("uint8", "uint16", "uint32", "int16", "float32"):
        for channels in (1, 2, 3, 4):
            for planar in ("contig", "separate")[: 1 if channels == 1 else 2]:
                for tile in (None, (16, 16)):
                    for compression, predictor in ((None, None), ("deflate", True), ("lzma", None)):
                        if predictor and dtype == "float32":
                            continue
                        options: dict[str, Any] = {
                            "photometric": "rgb" if channels >= 3 else "minisblack",
                            "planarconfig": None if channels == 1 else planar,
                            "extrasamples": ["unassalpha"] if channels in (2, 4) else None,
                            "byteorder": ">" if predictor else "<",
                            "bigtiff": compression is None,
                        }
                        options |= {"tile": tile, "compression": compression, "predictor": predictor}
                        yield dtype, channels, options | ({} if tile else {"rowsperstrip": 7})


def write(path: Path, pixels: np.ndarray, **options: Any) -> np.ndarray:
    """Write with tifffile, and give what it reads itself, channels last."""
    planes = options.get("planarconfig") == "separate"
    tifffile.imwrite(path, np.moveaxis(pixels, 2, 0) if planes else pixels, metadata=None, **options)
    own = tifffile.imread(path)
    return np.moveaxis(own, 0, 2) if planes else own


def test_every_layout_is_right_or_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    right, refused = set(), set()
    for dtype, channels, options in layouts():
        if dtype == "float32":
            pixels = rng.random((HEIGHT, WIDTH, channels), np.float32)
        else:
            pixels = rng.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, channels), dtype=dtype)
        want = write(tmp_path / "a.tif", pixels[:, :, 0] if channels == 1 else pixels, **options)
        layout = (dtype, channels, options["planarconfig"], options["compression"])
        try:
            picture = read_picture(tmp_path / "a.tif")
        except UsageError:
            refused.add(layout)
            continue
        if dtype == "float32":
            want = np.rint(want * 65535).astype(np.uint16)
            assert picture.notes[0] == "its floating-point samples were read as 16 bits, 0..1 as black to white"
        assert picture.pixels.dtype == want.dtype, (layout, options)
        np.testing.assert_array_equal(picture.pixels, want, str((layout, options)))
        right.add(layout)
    assert not right & refused  # neither tiles, byte order nor BigTIFF make a difference
    assert {layout[0] for layout in right} == {"uint8", "uint16", "float32"}
    assert {layout[1:] for layout in right if layout[0] == "float32"} == {
        *((channels, "separate", None) for channels in (2, 3, 4)),
        *((1, None, None), (3, "contig", None), (4, "contig", None)),
    }
    # Refused of these: gray and alpha of 16 bits side by side, and what Pillow or OpenCV cannot decompress.
    assert {layout for layout in refused if layout[0].startswith("uint") and layout[0] != "uint32"} == {
        *(("uint16", 2, "contig", kind) for kind in (None, "deflate", "lzma")),
        *(("uint16", channels, "contig", "lzma") for channels in (3, 4)),
    }


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_multiplied_and_meaningless_fourth_channels(tmp_path: Path, planar: str) -> None:
    """Alpha multiplied into the colour is divided out again; a fourth channel that is no alpha does not count."""
    rng = np.random.default_rng(1)
    for dtype in (np.uint8, np.uint16):
        top = np.iinfo(dtype).max
        alpha = rng.integers(top // 2, top, (HEIGHT, WIDTH, 1)).astype(dtype)
        alpha[:5] = 0
        colour = rng.integers(0, top, (HEIGHT, WIDTH, 3)).astype(dtype)
        multiplied = np.rint(colour * (alpha / top)).astype(dtype)
        pixels = np.concatenate([multiplied, alpha], 2)
        write(tmp_path / "a.tif", pixels, photometric="rgb", planarconfig=planar, extrasamples=["assocalpha"])
        got = read_picture(tmp_path / "a.tif").pixels
        np.testing.assert_array_equal(got[:, :, 3:], alpha)
        assert np.abs(got[5:, :, :3].astype(int) - colour[5:]).max() <= 2  # half a level was lost, alpha is over a half
        if (planar, dtype) == ("separate", np.uint8):
            continue  # Pillow cannot open it
        write(tmp_path / "b.tif", pixels, photometric="rgb", planarconfig=planar, extrasamples=["unspecified"])
        np.testing.assert_array_equal(read_picture(tmp_path / "b.tif").pixels, multiplied)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_white_may_be_zero(tmp_path: Path, dtype: type, compression: str | None) -> None:
    pixels = np.random.default_rng(2).integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH), dtype=dtype)
    write(tmp_path / "a.tif", pixels, photometric="miniswhite", compression=compression)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels, np.iinfo(dtype).max - pixels)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cmyk(tmp_path: Path, dtype: type, planar: str) -> None:
    top = np.iinfo(dtype).max
    inks = np.random.default_rng(3).integers(0, top, (HEIGHT, WIDTH, 4)).astype(dtype)
    write(tmp_path / "a.tif", inks, photometric="separated", planarconfig=planar)
    want = 255 * (1 - inks[:, :, :3] / top) * (1 - inks[:, :, 3:] / top)
    assert np.abs(read_image(tmp_path / "a.tif") - want).max() <= 1.6  # inks and colours are rounded


def test_colour_spaces_that_are_not_decoded(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", np.zeros((HEIGHT, WIDTH, 3), np.uint8), photometric="ycbcr")
    with pytest.raises(UsageError, match="YCbCr without JPEG"):
        read_picture(tmp_path / "a.tif")
    write(tmp_path / "b.tif", np.zeros((HEIGHT, WIDTH), np.int8), photometric="minisblack")
    with pytest.raises(UsageError, match=r"signed samples"):
        read_picture(tmp_path / "b.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_every_layout_is_turned_upright(tmp_path: Path, dtype: type, planar: str, orientation: int) -> None:
    pixels = np.random.default_rng(4).integers(0, np.iinfo(dtype).max, (6, 9, 3), dtype=dtype)
    turn = (274, "H", 1, orientation, True)
    write(tmp_path / "a.tif", pixels, photometric="rgb", planarconfig=planar, extratags=[turn])
    ways = {1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.swapaxes(0, 1)}
    ways |= {6: np.rot90(pixels, -1), 7: pixels[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(pixels)}
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels, ways[orientation])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_compressed_with_a_predictor_or_turned(tmp_path: Path, dtype: type, channels: int) -> None:
    pixels = np.random.default_rng(6).random((6, 9, channels)).astype(dtype)
    want = np.rint(pixels * 65535)
    options = [cv2.IMWRITE_TIFF_COMPRESSION, 5, cv2.IMWRITE_TIFF_PREDICTOR, 3]
    cv2.imwrite(str(tmp_path / "a.tif"), pixels[:, :, [2, 1, 0, 3][:channels] if channels > 1 else 0], options)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels, want if channels > 1 else want[:, :, 0])
    layout: dict[str, Any] = {"photometric": "rgb" if channels > 1 else "minisblack"}
    layout |= {"extrasamples": ["unassalpha"] if channels == 4 else None, "extratags": [(274, "H", 1, 6, True)]}
    write(tmp_path / "b.tif", pixels if channels > 1 else pixels[:, :, 0], **layout)
    turned = np.rot90(want, -1)
    np.testing.assert_array_equal(read_picture(tmp_path / "b.tif").pixels, turned if channels > 1 else turned[:, :, 0])


def test_floats_outside_their_range(tmp_path: Path) -> None:
    pixels = np.full((HEIGHT, WIDTH, 3), 0.5, np.float32)
    pixels[0, 0], pixels[0, 1] = -0.1, 1.25
    write(tmp_path / "a.tif", pixels, photometric="rgb")
    picture = read_picture(tmp_path / "a.tif")
    assert picture.pixels[0, :3, 0].tolist() == [0, 65535, 32768]
    assert picture.notes[0] == "0.10% of its samples lay outside 0..1 (in -0.1..1.25) and were cut"
    for number, (factor, message) in enumerate(((255, r"-25\.5\.\.318\.75: scale them"), (np.nan, "not finite"))):
        write(tmp_path / f"{number}.tif", pixels * np.float32(factor), photometric="rgb")
        with pytest.raises(UsageError, match=message):
            read_picture(tmp_path / f"{number}.tif")


def test_floats_that_are_not_decoded_are_named(tmp_path: Path) -> None:
    half = np.zeros((HEIGHT, WIDTH, 3), np.float16)
    write(tmp_path / "a.tif", half, photometric="rgb")
    with pytest.raises(UsageError, match="floating-point samples of 16 bits"):
        read_picture(tmp_path / "a.tif")
    write(tmp_path / "b.tif", np.zeros((HEIGHT, WIDTH, 2), np.float32), photometric="minisblack", planarconfig="contig")
    with pytest.raises(UsageError, match="samples of this kind"):
        read_picture(tmp_path / "b.tif")


def test_a_plane_that_is_cut_short_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", np.zeros((HEIGHT, WIDTH, 3), np.uint16), photometric="rgb", planarconfig="separate")
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:-200])
    with pytest.raises(UsageError, match=r"a\.tif.*cut short"):
        read_picture(tmp_path / "a.tif")


def test_pages_of_every_kind(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    shapes: list[tuple[tuple[int, ...], Any]] = [((70, 90, 3), np.uint8), ((33, 21), np.uint16)]
    shapes += [((65, 30, 4), np.uint8), ((20, 30, 3), np.uint16)]
    stack = [rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype) for shape, dtype in shapes]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for number, pixels in enumerate(stack):
            rgb = pixels.ndim == 3
            extra = ["unassalpha"] if rgb and pixels.shape[2] == 4 else None
            file.write(
                pixels,
                photometric="rgb" if rgb else "minisblack",
                extrasamples=extra,
                description=f"page {number}",
                compression="deflate",
                metadata=None,
            )
            if number == 1:  # a smaller copy, which is no page of its own
                file.write(pixels[::2, ::2], photometric="minisblack", subfiletype=1, metadata=None)
    assert list_pages(tmp_path / "a.tif") == (0, 1, 3, 4)
    pictures = [read_picture(tmp_path / "a.tif", page) for page in (0, 1, 3, 4)]
    for picture, pixels in zip(pictures, stack, strict=True):
        np.testing.assert_array_equal(picture.pixels, pixels)
        assert picture.notes == ()
    first = read_picture(tmp_path / "a.tif")
    np.testing.assert_array_equal(first.pixels, stack[0])
    assert first.notes == ("of its 4 pages the first was taken", "1 smaller copies or masks in it were left out")
    write_pages(tmp_path / "b.tif", pictures)
    with tifffile.TiffFile(tmp_path / "b.tif") as again:
        assert len(again.pages) == 4
        for number, pixels in enumerate(stack):
            np.testing.assert_array_equal(again.pages[number].asarray(), pixels)
            assert again.pages[number].tags[270].value == f"page {number}"


def test_the_pixel_limit_holds_on_every_page(tmp_path: Path) -> None:
    small, bomb = Image.new("1", (8, 8)), Image.new("1", (20000, 10000))
    small.save(tmp_path / "a.tif", save_all=True, append_images=[bomb], compression="group4")
    assert read_picture(tmp_path / "a.tif", 0).pixels.shape == (8, 8)
    with pytest.raises(UsageError, match=r"20000x10000 is over the limit"):
        read_picture(tmp_path / "a.tif", 1)


def test_other_formats_have_one_page(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 200, 90)]
    for name in ("a.png", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=50, lossless=True)
        assert list_pages(tmp_path / name) == (0,)
        picture = read_picture(tmp_path / name)
        assert picture.notes == ("of its 3 frames the first was taken",)
        assert (picture.pixels == 10).all()
    write_picture(tmp_path / "b.tif", Picture(np.zeros((8, 8), np.uint8)))
    assert list_pages(tmp_path / "b.tif") == (0,)
