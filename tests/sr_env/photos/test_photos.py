"""Photo sources: every kind of file decodes to the right pixels, bad ones are named, crops follow the generator."""

from __future__ import annotations

import os
import pickle
import threading
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from sr_env.photos import (
    ArrayPhotos,
    BundledPhotos,
    PhotoFolder,
    PhotoSource,
    augment,
    crops,
    open_photos,
    random_crops,
    read_image,
)
from sr_env.photos import sources as photos


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """A picture that survives JPEG nearly unharmed."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 127 + 0 * x], axis=2).astype(np.uint8)


def fill(folder: Path, count: int = 3, size: tuple[int, int] = (40, 50)) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"p{number}.png")
    return images


# ------------------------------------------------------------------------------------------------------------ decoding


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


def test_float_tiff_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ValueError, match=r"f\.tif.*floating-point"):
        read_image(tmp_path / "f.tif")


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.png"):
        read_image(tmp_path / "nothing.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"text\.png.*accepted format"):
        read_image(tmp_path / "text.png")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match=r"empty\.jpg"):
        read_image(tmp_path / "empty.jpg")
    with pytest.raises(ValueError, match="cannot read"):
        read_image(tmp_path)


def test_pixel_limit(tmp_path: Path, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(rgb).save(tmp_path / "a.png")
    monkeypatch.setattr(photos, "MAX_PIXELS", rgb.shape[0] * rgb.shape[1])
    read_image(tmp_path / "a.png")
    monkeypatch.setattr(photos, "MAX_PIXELS", rgb.shape[0] * rgb.shape[1] - 1)
    with pytest.raises(ValueError, match=r"a\.png.*30x20 is over the limit"):
        read_image(tmp_path / "a.png")


def test_huge_header_is_refused_without_decoding(tmp_path: Path) -> None:
    Image.new("1", (20000, 10000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb\.png.*megapixels"):
        read_image(tmp_path / "bomb.png")


# -------------------------------------------------------------------------------------------------------------- folder


def test_folder_is_recursive_sorted_and_leaves_out_hidden(tmp_path: Path, rgb: np.ndarray) -> None:
    for name in ("b.png", "a/z.PNG", "a/b/c.bmp", ".hidden/x.png", "a/.y.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgb).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("ignored without a word")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = PhotoFolder(tmp_path)
    assert source.names == ("a/b/c.bmp", "a/z.PNG", "b.png")
    assert len(source) == 3
    assert source.shapes == ((20, 30),) * 3
    assert PhotoFolder(tmp_path, max_photos=2).names == source.names[:2]


def test_bad_files_are_named_once_in_one_warning(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    Image.fromarray(smooth(200, 300)).save(tmp_path / "cut.jpg")
    for name, source in (("cut.jpg", "cut.jpg"), ("cut.png", "p0.png")):
        data = (tmp_path / source).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    for name, options in (("c.webp", {}), ("c.tif", {}), ("c.bmp", {}), ("d.tif", {"compression": "tiff_lzw"})):
        Image.fromarray(smooth(64, 64)).save(tmp_path / name, **options)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
    data = bytearray((tmp_path / "p1.png").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "flipped.png").write_bytes(bytes(data))
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(smooth(10, 80)).save(tmp_path / "small.png")
    with pytest.warns(UserWarning, match="unusable") as caught:
        source = PhotoFolder(tmp_path, min_size=32)
    assert source.names == ("p0.png", "p1.png")
    assert len(caught) == 1
    message = str(caught[0].message)
    bad = ("cut.jpg", "cut.png", "c.webp", "c.tif", "c.bmp", "d.tif", "flipped.png", "text.png", "small.png")
    for name in bad:
        assert message.count(name) == 1, (name, message)
    assert "80x10" in message
    assert f"skipped {len(bad)} " in message


def test_sound_jpeg_with_bytes_behind_its_end_is_kept(tmp_path: Path) -> None:
    Image.fromarray(smooth(40, 40)).save(tmp_path / "a.jpg")
    with (tmp_path / "a.jpg").open("ab") as file:
        file.write(bytes(5000))
    assert len(PhotoFolder(tmp_path)) == 1


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "only text", "only small"])
def test_unusable_folders(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "set"
    if kind == "file":
        path.write_text("x")
    elif kind != "missing":
        path.mkdir()
        if kind == "only text":
            (path / "a.txt").write_text("x")
        elif kind == "only small":
            fill(path, 1, (8, 8))
    error = FileNotFoundError if kind == "missing" else ValueError
    with pytest.raises(error) as caught:
        PhotoFolder(path, min_size=16)
    assert str(path) in str(caught.value)
    assert "jpg, jpeg, png, webp, tif, tiff and bmp" in str(caught.value)
    assert "\n" not in str(caught.value)
    if kind == "only small":
        assert "p0.png (8x8" in str(caught.value)


@pytest.mark.parametrize("setting", [{"min_size": -1}, {"memory_budget": -1}, {"max_photos": 0}])
def test_settings_out_of_range(tmp_path: Path, setting: dict[str, int]) -> None:
    fill(tmp_path, 1)
    with pytest.raises(ValueError, match=next(iter(setting))):
        PhotoFolder(tmp_path, **setting)


def test_opening_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    Image.fromarray(smooth(40, 40)).save(tmp_path / "a.jpg")
    monkeypatch.setattr(photos, "_decode", lambda *_: pytest.fail("decoded while opening"))
    assert len(PhotoFolder(tmp_path)) == 4


def test_damage_and_change_after_opening_are_named(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    source = PhotoFolder(tmp_path)
    Image.fromarray(smooth(9, 9)).save(tmp_path / "p0.png")
    (tmp_path / "p1.png").unlink()
    with pytest.raises(ValueError, match=r"p0\.png.*changed"):
        source[0]
    with pytest.raises(FileNotFoundError, match=r"p1\.png"):
        source[1]


# --------------------------------------------------------------------------------------------------------------- cache


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []

    def counting(path: str | os.PathLike[str]) -> np.ndarray:
        calls.append(Path(path).name)
        return read_image(path)

    monkeypatch.setattr(photos, "read_image", counting)
    return calls


def test_each_is_decoded_once_where_all_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = fill(tmp_path)
    calls = count_decodes(monkeypatch)
    source = PhotoFolder(tmp_path)
    for _ in range(3):
        for index, image in enumerate(images):
            np.testing.assert_array_equal(source[index], image)
    assert sorted(calls) == ["p0.png", "p1.png", "p2.png"]
    assert source.cached_bytes == 3 * 40 * 50 * 3
    with pytest.raises(ValueError, match="read-only"):
        source[0][:] = 0
    np.testing.assert_array_equal(source[-1], images[2])
    with pytest.raises(IndexError):
        source[3]
    assert len(list(source)) == 3


def test_budget_is_kept_and_least_recently_used_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    one = 40 * 50 * 3
    calls = count_decodes(monkeypatch)
    source = PhotoFolder(tmp_path, memory_budget=2 * one + 1)
    for index in (0, 1, 0, 2, 0, 1):  # 2 drives out 1, 1 drives out 2
        source[index]
        assert source.cached_bytes <= source.memory_budget
    assert calls == ["p0.png", "p1.png", "p2.png", "p1.png"]
    assert source.cached_bytes == sum(image.nbytes for image in source._cache.values()) == 2 * one

    none = PhotoFolder(tmp_path, memory_budget=0)
    assert none[0].shape == (40, 50, 3)
    assert none.cached_bytes == 0
    calls.clear()
    random_crops(none, np.array([2, 0, 2, 0, 2]), np.random.default_rng(0), 8)
    assert sorted(calls) == ["p0.png", "p2.png"]


def test_pickle_leaves_the_pixels_behind(tmp_path: Path) -> None:
    images = fill(tmp_path)
    source = PhotoFolder(tmp_path)
    list(source)
    data = pickle.dumps(source)
    assert len(data) < 2000
    copy = pickle.loads(data)
    assert copy.cached_bytes == 0
    np.testing.assert_array_equal(copy[1], images[1])
    assert copy.names == source.names


def test_threads_share_a_source(tmp_path: Path) -> None:
    images = fill(tmp_path, 6)
    source = PhotoFolder(tmp_path, memory_budget=3 * 40 * 50 * 3)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for index in np.random.default_rng(seed).integers(6, size=60).tolist():
                np.testing.assert_array_equal(source[index], images[index])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert source.cached_bytes == sum(image.nbytes for image in source._cache.values()) <= source.memory_budget


# ----------------------------------------------------------------------------------------------- bundled, open_photos


def test_bundled_splits() -> None:
    train, test, everything = (BundledPhotos(split) for split in ("train", "test", "all"))
    assert not set(train.names) & set(test.names)
    assert everything.names == train.names + test.names
    assert {"motorcycle_left.png", "motorcycle_right.png"} <= set(train.names)  # one scene, one side
    assert len(test) >= 3
    for source in (train, test):
        for photo, shape in zip(source, source.shapes, strict=True):
            assert photo.shape == (*shape, 3)
            assert min(shape) >= 300
    assert all((photo.max(axis=2) != photo.min(axis=2)).mean() > 0.5 for photo in test)  # colour
    with pytest.raises(ValueError, match=r"'validation'.*train, test, all"):
        BundledPhotos("validation")
    with pytest.warns(UserWarning, match=r"chelsea\.png \(451x300"):
        assert BundledPhotos("test", min_size=400).names == ("coffee.png", "rocket.jpg")
    assert pickle.loads(pickle.dumps(train)).names == train.names


def test_open_photos(tmp_path: Path) -> None:
    images = fill(tmp_path)
    assert isinstance(open_photos(None), BundledPhotos)
    assert open_photos("bundled", split="test").names == BundledPhotos("test").names
    for path in (tmp_path, str(tmp_path)):
        folder = open_photos(path, min_size=40, memory_budget=100)
        assert isinstance(folder, PhotoFolder)
        assert folder.memory_budget == 100
    assert open_photos(folder) is folder
    arrays = open_photos(images)
    assert isinstance(arrays, ArrayPhotos)
    np.testing.assert_array_equal(arrays[2], images[2])
    assert len(open_photos(np.stack(images))) == 3
    assert open_photos(images[0]).shapes == ((40, 50),)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(arrays))[1], images[1])


def test_open_photos_refuses(tmp_path: Path) -> None:
    fill(tmp_path)
    with pytest.raises(ValueError, match=r"p0\.png.*50x40.*41x41"):
        open_photos(PhotoFolder(tmp_path), min_size=41)
    with pytest.raises(ValueError, match=r"array0.*8x8"):
        open_photos([np.zeros((8, 8, 3), np.uint8)], min_size=9)
    with pytest.raises(ValueError, match=r"photo 0 is float64 with shape \[8, 8, 3\]"):
        open_photos([np.zeros((8, 8, 3))])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="the list is empty"):
        open_photos([])
    with pytest.raises(ValueError, match="cannot be a int"):
        open_photos(3)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_photos(tmp_path / "nowhere")


def test_own_source() -> None:
    class Flat(PhotoSource):
        names = ("flat",)
        shapes = ((16, 20),)

        def __getitem__(self, index: int) -> np.ndarray:
            return np.full((16, 20, 3), 7, np.uint8)

    source = open_photos(Flat(), min_size=16)
    assert (random_crops(source, np.zeros(4, int), np.random.default_rng(0), 16) == 7).all()


# --------------------------------------------------------------------------------------------------------------- crops


def grid_source() -> ArrayPhotos:
    """Pixels tell where they come from: (row, column, photo)."""
    images = []
    for number, (height, width) in enumerate([(20, 30), (40, 25), (16, 16)]):
        rows, columns = np.mgrid[0:height, 0:width]
        images.append(np.stack([rows, columns, np.full_like(rows, number)], axis=2).astype(np.uint8))
    return ArrayPhotos(images)


def test_crops_come_from_where_they_should() -> None:
    source = grid_source()
    indices, tops, lefts = np.array([1, 0, 1, 2]), np.array([24, 4, 0, 0]), np.array([9, 14, 3, 0])
    result = crops(source, indices, tops, lefts, 16)
    for place in range(4):
        np.testing.assert_array_equal(result[place, 0, 0], [tops[place], lefts[place], indices[place]])
        np.testing.assert_array_equal(result[place, -1, -1], [tops[place] + 15, lefts[place] + 15, indices[place]])
    out = np.zeros_like(result)
    assert crops(source, indices, tops, lefts, 16, out=out) is out
    np.testing.assert_array_equal(out, result)
    assert crops(source, indices[:0], tops[:0], lefts[:0], 16).shape == (0, 16, 16, 3)


def test_random_crops_are_seeded_and_reach_every_place() -> None:
    source = grid_source()
    indices = np.random.default_rng(0).integers(3, size=4000)
    first = random_crops(source, indices, np.random.default_rng(5), 16)
    np.testing.assert_array_equal(first, random_crops(source, indices, np.random.default_rng(5), 16))
    assert (first != random_crops(source, indices, np.random.default_rng(6), 16)).any()
    half = random_crops(source, indices, np.random.default_rng(5), 16, share=slice(1, None))
    np.testing.assert_array_equal(first[1:], half)
    np.testing.assert_array_equal(first[:, 0, 0, 2], indices)
    assert set(first[indices == 0, 0, 0, 0]) == set(range(5))
    assert set(first[indices == 0, 0, 0, 1]) == set(range(15))
    assert set(first[indices == 1, 0, 0, 0]) == set(range(25))
    assert (first[indices == 2, 0, 0, :2] == 0).all()


def test_crops_refuse() -> None:
    source, rng, zero = grid_source(), np.random.default_rng(0), np.zeros(1, int)
    with pytest.raises(ValueError, match="'array2' is 16x16, smaller than the 17x17"):
        random_crops(source, np.array([0, 2]), rng, 17)
    with pytest.raises(ValueError, match=r"index 3 is outside 0\.\.2"):
        random_crops(source, np.array([0, 3]), rng, 8)
    with pytest.raises(ValueError, match="index -1"):
        random_crops(source, np.array([-1]), rng, 8)
    with pytest.raises(ValueError, match="float64"):
        random_crops(source, np.zeros(2), rng, 8)
    with pytest.raises(ValueError, match="crop size is 0"):
        random_crops(source, zero, rng, 0)
    with pytest.raises(ValueError, match="row 13, column 0 leaves photo 'array0'"):
        crops(source, zero, np.array([13]), zero, 8)
    with pytest.raises(ValueError, match="tops"):
        crops(source, zero, np.zeros(2, int), zero, 8)
    with pytest.raises(ValueError, match="out is uint8"):
        crops(source, zero, zero, zero, 8, out=np.zeros((1, 9, 9, 3), np.uint8))


def test_augment_gives_all_eight_ways_evenly() -> None:
    tile = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    turned = [np.rot90(tile, turns) for turns in range(4)]
    ways = [*turned, *(image[:, ::-1] for image in turned)]
    batch = np.repeat(tile[None], 800, axis=0)
    drawn = np.random.default_rng(1).random((3, 800)) < 0.5
    result = augment(batch, drawn)
    counts = [sum(bool((image == way).all()) for image in result) for way in ways]
    assert sum(counts) == 800
    assert min(counts) > 60
    assert (batch == tile).all()
    np.testing.assert_array_equal(result[:3], augment(batch[:3], drawn[:, :3]))
    floats = augment(batch.astype(np.float32), drawn)
    np.testing.assert_array_equal(result, floats)
    with pytest.raises(ValueError, match="squares"):
        augment(np.zeros((2, 4, 5, 3), np.uint8), np.zeros((3, 2), bool))
    with pytest.raises(ValueError, match=r"\[3, B\]"):
        augment(np.zeros((2, 4, 4, 3), np.uint8), np.zeros((3, 1), bool))
