"""Sources of HR images: a user's folder, the photographs bundled with scikit-image, or arrays.

Every source hands out 8-bit RGB arrays ``[H, W, 3]``. Only headers are read when a source is opened; pixels are decoded
when first asked for (:mod:`sr_env.photos.decode`) and kept within a memory budget.
"""

from __future__ import annotations

import importlib.util
import operator
import os
import threading
import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_env.photos.decode import ACCEPTED, Pixels, Shape, inspect, read_image, reason
from sr_env.utils.checks import MissingFileError, UsageError, check_choice

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
"""File name endings a folder is searched for, in any case."""

PICTURE_ENDINGS = (*EXTENSIONS, ".gif", ".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpx")
"""Endings of all pictures that are read."""

OTHER_ENDINGS = (
    *(".jxl", ".jfif", ".jpe", ".apng", ".ico", ".psd", ".svg"),
    *(".tga", ".pnm", ".ppm", ".pgm", ".pbm", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2"),
)
"""Endings of pictures that are not read."""

DEFAULT_MEMORY_BUDGET = 2 * 1024**3
"""Bytes of decoded pictures that one source keeps, unless told otherwise."""

TRAIN_PHOTOS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "coins.png",
    "grass.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
)
"""Bundled photographs to train on; the two of the motorcycle are one scene, so they stay on one side."""

TEST_PHOTOS = ("chelsea.png", "coffee.png", "rocket.jpg")
"""Bundled photographs held out."""

SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": TRAIN_PHOTOS,
    "test": TEST_PHOTOS,
    "all": TRAIN_PHOTOS + TEST_PHOTOS,
}
"""Parts of the bundled photographs."""

_NAMED = 20  # skipped files that a message names


class PhotoSource(ABC):
    """A fixed, ordered collection of HR images: subclass it to bring your own.

    Attributes:
        names: One name per image, for messages and ``info``.
        shapes: (H, W) in pixels of each image, as ``__getitem__`` will give it.
    """

    names: tuple[str, ...]
    shapes: tuple[Shape, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    @abstractmethod
    def __getitem__(self, index: int) -> Pixels:
        """Image ``index`` as uint8 RGB ``[H, W, 3]``; may be read-only and shared, so copy before writing.

        Raises:
            IndexError: ``index`` is outside ``[-len(self), len(self))``.
        """

    def __iter__(self) -> Iterator[Pixels]:
        """All images in order."""
        return (self[index] for index in range(len(self)))

    @cached_property
    def shape_array(self) -> NDArray[np.int64]:
        """``shapes`` as int64 ``[N, 2]``, so that many crop positions are drawn at once."""
        return np.asarray(self.shapes, dtype=np.int64).reshape(-1, 2)


class ArrayPhotos(PhotoSource):
    """Images that are in memory already.

    Args:
        images: uint8 RGB arrays ``[H, W, 3]`` of any sizes; kept by reference, handed out read-only.

    Raises:
        UsageError: There is none, or one is no uint8 ``[H, W, 3]`` array.
    """

    def __init__(self, images: Sequence[NDArray[np.uint8]]) -> None:
        if len(images) == 0:
            raise UsageError("no photos: the list is empty; give at least one uint8 RGB array [H, W, 3]")
        views = []
        for number, image in enumerate(images):
            array = np.asarray(image)
            if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
                raise UsageError(
                    f"photo {number} is {array.dtype} with shape {list(array.shape)}; give uint8 RGB arrays [H, W, 3]"
                )
            views.append(_read_only(array))
        self._images = tuple(views)
        self.names = tuple(f"array{number}" for number in range(len(views)))
        self.shapes = tuple((view.shape[0], view.shape[1]) for view in views)

    def __getitem__(self, index: int) -> Pixels:
        """Image ``index``, read-only."""
        return self._images[index]

    def __repr__(self) -> str:
        return f"ArrayPhotos({len(self)} photos)"


def _read_only(array: Pixels) -> Pixels:
    view = array.view()
    view.flags.writeable = False
    return view


class _FileSource(PhotoSource):
    """Files decoded on demand, the latest used kept within ``memory_budget`` bytes. Safe to share between threads."""

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        *,
        min_size: int,
        memory_budget: int,
        max_photos: int | None = None,
        unreadable: Sequence[str] = (),
    ) -> None:
        self.root, self.memory_budget = root, memory_budget
        kept: list[tuple[str, Shape]] = []
        skipped = list(unreadable)
        for name in names:
            if max_photos is not None and len(kept) == max_photos:
                break
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # Pillow's own name no file
                    shape = inspect(root / name)
            except Exception as error:  # see read_image
                skipped.append(f"{name} ({reason(error)})")
                continue
            if min(shape) < min_size:
                skipped.append(f"{name} ({shape[1]}x{shape[0]}, the short side is under {min_size})")
            else:
                kept.append((name, shape))
        listed = ", ".join(skipped[:_NAMED])
        if len(skipped) > _NAMED:
            listed += f" and {len(skipped) - _NAMED} more"
        if not kept:
            detail = f"; skipped: {listed}" if skipped else ""
            raise UsageError(
                f"no usable photo in '{root}' or below; needed are {ACCEPTED} files of at least {max(min_size, 1)} "
                f"pixels a side{detail}"
            )
        if skipped:
            warnings.warn(f"skipped {len(skipped)} unusable file(s) in '{root}': {listed}", UserWarning, stacklevel=3)
        self.names = tuple(name for name, _ in kept)
        self.shapes = tuple(shape for _, shape in kept)
        self._forget()

    def _forget(self) -> None:
        self._cache: OrderedDict[int, Pixels] = OrderedDict()
        self._lock = threading.Lock()
        self.cached_bytes = 0

    def __getitem__(self, index: int) -> Pixels:
        """Image ``index``, read-only (shared with the cache).

        Raises:
            IndexError: There is no such image.
            UsageError: The file is damaged inside, which its header did not show, or has changed since it was opened.
            MissingFileError: The file is gone.
        """
        index = range(len(self))[operator.index(index)]
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
        # Decoded outside the lock, so that threads decode side by side.
        photo = read_image(self.root / self.names[index])
        if photo.shape[:2] != self.shapes[index]:
            raise UsageError(
                f"the image '{self.root / self.names[index]}' has changed since it was opened; open it again"
            )
        photo.flags.writeable = False
        with self._lock:
            if index not in self._cache and photo.nbytes <= self.memory_budget:
                self._cache[index] = photo
                self.cached_bytes += photo.nbytes
                while self.cached_bytes > self.memory_budget:
                    self.cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return photo

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the pixels and the lock: the copy decodes again."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_cache", "_lock", "cached_bytes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def __repr__(self) -> str:
        return f"{type(self).__name__}('{self.root}', {len(self)} photos)"


class PhotoFolder(_FileSource):
    """All pictures in a folder and its subfolders, in sorted order; hidden files and folders are left out.

    Names are paths relative to the folder. Files that are broken, cut short or too small are skipped, with one warning
    that names them (the first 20). WebP and TIFF files are decoded for that. Damage in the middle of a JPEG or BMP file
    cannot be seen without decoding and shows later, if at all, as a ``UsageError``.

    Args:
        path: The folder.
        min_size: Pixels the short side must have.
        memory_budget: Bytes of decoded pictures to keep (least recently used go first). If all fit, each is decoded
            once.
        max_photos: Take only the first so many usable pictures.

    Raises:
        MissingFileError: There is no such folder.
        UsageError: The path is empty or no folder, holds no usable picture, or a number is out of range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        min_size: int = 0,
        memory_budget: int = DEFAULT_MEMORY_BUDGET,
        max_photos: int | None = None,
    ) -> None:
        if not os.fspath(path):
            raise UsageError("the path of the photo folder is empty: give a folder, such as '.', or 'bundled'")
        root = Path(path).expanduser().absolute()  # still right after a change of the working directory
        _check_numbers(min_size, memory_budget)
        if max_photos is not None and max_photos < 1:
            raise UsageError(f"max_photos is {max_photos}; give 1 or more, or None for all")
        try:
            exists = root.exists()
        except OSError as error:
            raise UsageError(f"photos {str(path)[:80]!r} cannot be looked up: {error.strerror}") from error
        if not exists:
            raise MissingFileError(f"no photo folder at '{root}'; give a folder with {ACCEPTED} files")
        if not root.is_dir():
            raise UsageError(f"'{root}' is a file; give a folder with {ACCEPTED} files")
        names, unreadable = list_files(root)
        super().__init__(
            root,
            names,
            min_size=min_size,
            memory_budget=memory_budget,
            max_photos=max_photos,
            unreadable=unreadable,
        )


def list_files(root: Path, endings: tuple[str, ...] = EXTENSIONS) -> tuple[list[str], list[str]]:
    """Relative names of the picture files below ``root``, sorted, and a line for each folder that cannot be listed.

    Hidden files and folders are left out; links to folders are followed, each folder once.
    """
    names: list[str] = []
    unreadable: list[str] = []
    visited = set()

    def note(error: OSError) -> None:
        unreadable.append(f"{error.filename} ({error.strerror})")

    for folder, folders, files in os.walk(root, followlinks=True, onerror=note):
        real = os.path.realpath(folder)
        if real in visited:  # a link that leads back up
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(folder).relative_to(root)
        names += [
            (relative / name).as_posix()
            for name in files
            if not name.startswith(".") and name.lower().endswith(endings)
        ]
    return sorted(names), sorted(unreadable)


class BundledPhotos(_FileSource):
    """The real photographs that scikit-image installs (its drawings, charts, scans and micrographs are left out).

    Seven to train on (``TRAIN_PHOTOS``, four of them gray) and three in colour held out (``TEST_PHOTOS``), 300 to 512
    pixels on the short side. Nothing is downloaded.

    Args:
        split: ``"train"``, ``"test"`` or ``"all"``.
        min_size: Pixels the short side must have; smaller ones are skipped with a warning.
        memory_budget: Bytes of decoded pictures to keep.

    Raises:
        UsageError: The split is unknown, or no photograph is large enough.
        MissingFileError: scikit-image or its photographs are not installed.
    """

    def __init__(self, split: str = "all", *, min_size: int = 0, memory_budget: int = DEFAULT_MEMORY_BUDGET) -> None:
        check_choice("split of the bundled photos", split, SPLITS)
        _check_numbers(min_size, memory_budget)
        package = importlib.util.find_spec("skimage")  # located, not imported: only its files are needed
        root = Path(package.origin).parent / "data" if package is not None and package.origin else None
        if root is None or not all((root / name).is_file() for name in SPLITS[split]):
            raise MissingFileError(
                f"the bundled photos are not in '{root or 'skimage/data'}'; install scikit-image again, "
                f"or give a folder with {ACCEPTED} files"
            )
        super().__init__(root, SPLITS[split], min_size=min_size, memory_budget=memory_budget)
        self.split = split

    def __repr__(self) -> str:
        return f"BundledPhotos('{self.split}', {len(self)} photos)"


def hold_out(photos: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split a folder's photos: the same ones for every seed and every script, so that none is ever trained on.

    Args:
        photos: How many there are.
        count: How many are held out.

    Returns:
        Indices to train on, ascending, and indices held out.
    """
    order = np.random.default_rng(0).permutation(photos)
    return np.sort(order[count:]), order[:count]


def _check_numbers(min_size: int, memory_budget: int) -> None:
    if not isinstance(min_size, Real) or not min_size >= 0:
        raise UsageError(f"min_size is {min_size!r}; give 0 or more pixels")
    if not isinstance(memory_budget, Real) or not memory_budget >= 0:
        raise UsageError(f"memory_budget is {memory_budget!r}; give 0 or more bytes, such as 2_000_000_000")


def open_photos(
    source: str | os.PathLike[str] | PhotoSource | Sequence[NDArray[np.uint8]] | None = None,
    *,
    split: str = "all",
    min_size: int = 0,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> PhotoSource:
    """Make a photo source out of what a user may give.

    Args:
        source: ``None`` or ``"bundled"`` (``BundledPhotos``), a folder's path (``PhotoFolder``; a folder called bundled
            is written ``"./bundled"``), a list of uint8 RGB arrays or a stack of them (``ArrayPhotos``), or a source,
            which is returned as it is.
        split: Part of the bundled photos; everything else has no parts and is taken whole.
        min_size: Pixels the short side must have. Smaller files are skipped with a warning; a smaller array, or image
            of a given source, is an error.
        memory_budget: Bytes of decoded pictures to keep, for folders and the bundled photos.

    Returns:
        The source, with at least one image.

    Raises:
        MissingFileError: There is no such folder.
        UsageError: It holds nothing usable, an image is too small, or an argument is of an unknown kind.
    """
    check_choice("split of the bundled photos", split, SPLITS)
    if source is None or (isinstance(source, str) and source == "bundled"):
        return BundledPhotos(split, min_size=min_size, memory_budget=memory_budget)
    if isinstance(source, str | os.PathLike):
        return PhotoFolder(source, min_size=min_size, memory_budget=memory_budget)
    if isinstance(source, np.ndarray):  # one image or a stack [N, H, W, 3]
        source = ArrayPhotos(list(source) if source.ndim == 4 else [source])
    elif isinstance(source, list | tuple):
        source = ArrayPhotos(source)
    elif not isinstance(source, PhotoSource):
        raise UsageError(
            f"photos cannot be a {type(source).__name__}; give 'bundled', the path of a folder, a list of uint8 RGB "
            "arrays [H, W, 3], or a PhotoSource"
        )
    if len(source) == 0:
        raise UsageError(f"{source!r} holds no photo; give a source with at least one")
    check_sizes(source, np.arange(len(source)), min_size)
    return source


def check_sizes(source: PhotoSource, indices: NDArray[np.integer[Any]], size: int) -> None:
    """Raise :class:`UsageError` where a photo among ``indices`` has a side under ``size``."""
    small = np.flatnonzero((source.shape_array[indices] < size).any(axis=1))
    if small.size:
        index = int(indices[small[0]])
        height, width = source.shapes[index]
        raise UsageError(
            f"photo '{source.names[index]}' is {width}x{height}, smaller than the {size}x{size} needed; "
            "choose smaller patches or larger photos"
        )
