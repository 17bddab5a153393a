"""Photo sources: folders name what they skip, caches keep to their budget, and what is no source is refused."""

from __future__ import annotations

import os
import pickle
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_env.photos import (
    ArrayPhotos,
    BundledPhotos,
    PhotoFolder,
    PhotoSource,
    decode,
    open_photos,
    random_crops,
    read_image,
    sources,
)
from sr_env.utils.checks import UsageError


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


# --------------------------------------------------------------------------------------------------------------- folder


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


def test_a_message_names_twenty_of_many_bad_files(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    for number in range(300):
        (tmp_path / f"t{number:03d}.png").write_text("no picture")
    with pytest.warns(UserWarning, match=r"skipped 300 .*t019\.png .* and 280 more") as caught:
        PhotoFolder(tmp_path)
    assert len(str(caught[0].message)) < 2000 + len(str(tmp_path))
    (tmp_path / "p0.png").unlink()
    with pytest.raises(UsageError, match="and 280 more") as refused:
        PhotoFolder(tmp_path)
    assert len(str(refused.value)) < 2000 + len(str(tmp_path))


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


@pytest.mark.parametrize(
    "setting", [{"min_size": -1}, {"memory_budget": -1}, {"max_photos": 0}, {"memory_budget": "2G"}]
)
def test_settings_out_of_range(tmp_path: Path, setting: dict[str, int]) -> None:
    fill(tmp_path, 1)
    with pytest.raises(ValueError, match=next(iter(setting))):
        PhotoFolder(tmp_path, **setting)


def test_opening_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    Image.fromarray(smooth(40, 40)).save(tmp_path / "a.jpg")
    monkeypatch.setattr(decode, "_decode", lambda *_: pytest.fail("decoded while opening"))
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


# ---------------------------------------------------------------------------------------------------------------- cache


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []

    def counting(path: str | os.PathLike[str]) -> np.ndarray:
        calls.append(Path(path).name)
        return read_image(path)

    monkeypatch.setattr(sources, "read_image", counting)
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


# ------------------------------------------------------------------------------------------------- bundled, open_photos


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
    with pytest.raises(UsageError, match="path of the photo folder is empty"):
        open_photos("")
    for source in (None, tmp_path, [np.zeros((8, 8, 3), np.uint8)]):
        with pytest.raises(UsageError, match=r"'nope': choose one of train, test, all"):
            open_photos(source, split="nope")


def test_own_source() -> None:
    class Flat(PhotoSource):
        names = ("flat",)
        shapes = ((16, 20),)

        def __getitem__(self, index: int) -> np.ndarray:
            return np.full((16, 20, 3), 7, np.uint8)

    source = open_photos(Flat(), min_size=16)
    assert (random_crops(source, np.zeros(4, int), np.random.default_rng(0), 16) == 7).all()
