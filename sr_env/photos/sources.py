"""Sources of HR images: a user's folder, the photographs bundled with scikit-image, or arrays; and crops out of them.

Every source hands out 8-bit RGB arrays ``[H, W, 3]``. Only headers are read when a source is opened; pixels are decoded
when first asked for and kept within a memory budget. Decoding follows what a viewer shows: the EXIF orientation is
applied, transparency is composited on white, gray and palette pictures become RGB, CMYK is converted without a colour
profile (embedded ICC profiles are ignored throughout), 16 bits are rounded to 8 over the full range, and of several
frames the first counts.
"""

from __future__ import annotations

import importlib.util
import operator
import os
import threading
import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
"""File name endings a folder is searched for, in any case."""

MAX_PIXELS = 80_000_000
"""A larger picture is refused: its header may be a decompression bomb, and decoded it would take over 240 MB."""

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

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
_ACCEPTED = "jpg, jpeg, png, webp, tif, tiff and bmp"
_DEEP_COLOUR = ("RGB;16", "RGBA;16", "LA;16")

Pixels = NDArray[np.uint8]
Shape = tuple[int, int]


# ------------------------------------------------------------------------------------------------------ one file


def read_image(path: str | os.PathLike[str]) -> Pixels:
    """Decode one picture (jpg, png, webp, tiff or bmp, whatever its name says).

    Args:
        path: The file.

    Returns:
        uint8 RGB ``[H, W, 3]``, upright, writable, contiguous.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no picture, is broken or truncated, has over ``MAX_PIXELS`` pixels, or holds float or 32-bit
            samples, whose range is unknown; the message names the file.
    """
    with open_image(path) as image:
        return _decode(image, Path(path))


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open a picture for decoding: its header is read, and whatever goes wrong in the block is reported by file.

    Args:
        path: The file.

    Yields:
        Pillow's image, not yet decoded.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As :func:`read_image`.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no image at '{path}'; give the path of a {_ACCEPTED.replace(' and ', ' or ')} file")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            _oriented_shape(image)  # refuses a bomb before anything is decoded
            yield image
    except Exception as error:  # decoders raise a dozen unrelated types on damaged bytes
        raise ValueError(f"cannot read the image '{path}': {_reason(error)}") from error


def read_shape(path: str | os.PathLike[str]) -> Shape:
    """(H, W) of a picture once upright, from its header alone.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no picture, or has over ``MAX_PIXELS`` pixels.
    """
    with open_image(path) as image:
        return _oriented_shape(image)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"over the limit of {MAX_PIXELS // 10**6} megapixels"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a picture in an accepted format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8, from the header alone (where damaged: 1)."""
    try:
        if image.format == "PNG":
            # PngImageFile.getexif decodes the whole picture to look for a late chunk; writers put it before the pixels.
            if "exif" not in image.info and "Raw profile type exif" not in image.info:
                return 1
            exif = Image.Image.getexif(image)
        else:
            exif = image.getexif()
        value = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # the picture itself may well be fine
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _oriented_shape(image: Image.Image) -> Shape:
    """(H, W) once upright, known from the header; refuses a picture beyond the pixel limit."""
    width, height = image.size
    if image.format == "TIFF":  # releases of Pillow differ in whether `size` is upright already, the tags do not
        tags = image.tag_v2  # type: ignore[attr-defined]
        width, height = tags[ExifTags.Base.ImageWidth], tags[ExifTags.Base.ImageLength]
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} is over the limit of {MAX_PIXELS // 10**6} megapixels")
    return (width, height) if _orientation(image) >= 5 else (height, width)


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def to_8_bit(samples: NDArray[Any]) -> Pixels:
    """uint16 over the full range -> uint8, rounded."""
    return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _to_16_bit(samples: NDArray[Any], bits: int) -> NDArray[np.uint16]:
    if bits == 16:
        return samples.astype(np.uint16, copy=False)
    top = 2**bits - 1
    return ((samples.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)


def decode_samples(image: Image.Image, path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decode what :func:`open_image` opened in the file's own depth and channels, upright.

    A palette becomes RGB, or RGBA where an entry is transparent; CMYK becomes RGB without a colour profile.

    Args:
        image: The opened picture.
        path: Its file.

    Returns:
        uint8, or uint16 over the full range where the file has more than 8 bits: gray ``[H, W]``, gray and alpha
        ``[H, W, 2]``, RGB ``[H, W, 3]`` or RGBA ``[H, W, 4]``; writable, contiguous.

    Raises:
        Exception: Of any type, where the data are damaged or of an unsupported kind; :func:`open_image` turns it into
            a ValueError.
    """
    # Pillow turns TIFF upright by itself while loading; what is left to do must be asked for before that.
    orientation = 1 if image.format == "TIFF" else _orientation(image)
    bits = int(image.tag_v2.get(ExifTags.Base.BitsPerSample, (16,))[0]) if image.format == "TIFF" else 16  # type: ignore[attr-defined]
    rawmode = _rawmode(image)
    image.load()  # raises on damaged or truncated data
    samples: NDArray[Any]
    if image.mode.startswith("I;16"):
        samples = _to_16_bit(np.asarray(image), bits)
    elif rawmode.startswith(_DEEP_COLOUR):
        # Pillow would keep the high byte only, which darkens by half a level; OpenCV keeps all 16 bits.
        deep = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        if deep is None or deep.dtype != np.uint16 or deep.ndim != 3:
            raise ValueError(f"this kind of 16-bit colour ({rawmode}) is not supported")
        samples = deep[:, :, [2, 3] if rawmode.startswith("LA") else [2, 1, 0, 3][: deep.shape[2]]]
    elif image.mode in ("I", "F"):
        raise ValueError("32-bit and floating-point samples have no known range; save it with 8 or 16 bits")
    elif image.has_transparency_data:
        samples = np.asarray(image.convert("LA" if image.mode in ("L", "LA", "La") else "RGBA"))
    else:
        samples = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    return np.array(_upright(samples, orientation), order="C")


def _decode(image: Image.Image, path: Path) -> Pixels:
    samples = decode_samples(image, path)
    pixels = to_8_bit(samples) if samples.dtype == np.uint16 else samples.astype(np.uint8, copy=False)
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.shape[2] in (2, 4):
        pixels = on_white(pixels)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def on_white(pixels: Pixels) -> Pixels:
    """Composite on white: uint8 ``[H, W, C + 1]``, the last channel alpha -> uint8 ``[H, W, C]``."""
    weight = pixels[:, :, -1:].astype(np.uint16)
    return ((pixels[:, :, :-1] * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)


def _rawmode(image: Image.Image) -> str:
    """How the samples lie in the file, such as ``"RGB;16B"``; empty where the format does not say."""
    tiles = getattr(image, "tile", [])
    args = tiles[0][3] if tiles else None
    return str(args[0] if isinstance(args, tuple) and args else args or "")


def _looks_whole(image: Image.Image, path: Path) -> bool:
    """Whether the file's end is where its format says, without decoding. Checks the bytes and checksums of a PNG."""
    length = path.stat().st_size
    with path.open("rb") as file:
        if image.format in ("JPEG", "MPO"):
            file.seek(max(0, length - 64))
            return b"\xff\xd9" in file.read()  # end of image; inside the data ff is always followed by 00
        if image.format == "WEBP":
            return int.from_bytes(file.read(8)[4:], "little") + 8 <= length
        if image.format == "BMP":
            return int.from_bytes(file.read(6)[2:], "little") <= length
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        offsets, counts = tags.get(273) or tags.get(324) or (), tags.get(279) or tags.get(325) or ()
        return bool(offsets) and all(a + b <= length for a, b in zip(offsets, counts, strict=False))
    image.verify()  # PNG
    return True


def _inspect(path: Path) -> Shape:
    """(H, W) of a picture that can most likely be decoded; raises any exception where it cannot."""
    with Image.open(path, formats=_FORMATS) as image:
        shape = _oriented_shape(image)
        whole = _looks_whole(image, path)
    if (
        not whole
    ):  # a few sound files carry bytes behind their end or wrong sizes in their header: let the decoder judge
        with Image.open(path, formats=_FORMATS) as image:
            _decode(image, path)
    return shape


# ------------------------------------------------------------------------------------------------------- sources


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
        ValueError: There is none, or one is no uint8 ``[H, W, 3]`` array.
    """

    def __init__(self, images: Sequence[NDArray[np.uint8]]) -> None:
        if len(images) == 0:
            raise ValueError("no photos: the list is empty; give at least one uint8 RGB array [H, W, 3]")
        views = []
        for number, image in enumerate(images):
            array = np.asarray(image)
            if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
                raise ValueError(
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
                    shape = _inspect(root / name)
            except Exception as error:  # see read_image
                skipped.append(f"{name} ({_reason(error)})")
                continue
            if min(shape) < min_size:
                skipped.append(f"{name} ({shape[1]}x{shape[0]}, the short side is under {min_size})")
            else:
                kept.append((name, shape))
        if not kept:
            detail = f"; skipped: {', '.join(skipped)}" if skipped else ""
            raise ValueError(
                f"no usable photo in '{root}' or below; needed are {_ACCEPTED} files of at least {max(min_size, 1)} "
                f"pixels a side{detail}"
            )
        if skipped:
            warnings.warn(
                f"skipped {len(skipped)} unusable file(s) in '{root}': {', '.join(skipped)}", UserWarning, stacklevel=3
            )
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
            ValueError: The file is damaged inside, which its header did not show, or has changed since it was opened.
            FileNotFoundError: The file is gone.
        """
        index = range(len(self))[operator.index(index)]
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
        # Decoded outside the lock, so that threads decode side by side.
        photo = read_image(self.root / self.names[index])
        if photo.shape[:2] != self.shapes[index]:
            raise ValueError(
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
    that names each. Damage in the middle of a file (other than PNG) cannot be seen without decoding and shows later, if
    at all, as a ``ValueError``.

    Args:
        path: The folder.
        min_size: Pixels the short side must have.
        memory_budget: Bytes of decoded pictures to keep (least recently used go first). If all fit, each is decoded
            once.
        max_photos: Take only the first so many usable pictures.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is no folder, holds no usable picture, or a number is out of range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        min_size: int = 0,
        memory_budget: int = DEFAULT_MEMORY_BUDGET,
        max_photos: int | None = None,
    ) -> None:
        root = Path(path).expanduser().absolute()  # still right after a change of the working directory
        _check_numbers(min_size, memory_budget)
        if max_photos is not None and max_photos < 1:
            raise ValueError(f"max_photos is {max_photos}; give 1 or more, or None for all")
        if not root.exists():
            raise FileNotFoundError(f"no photo folder at '{root}'; give a folder with {_ACCEPTED} files")
        if not root.is_dir():
            raise ValueError(f"'{root}' is a file; give a folder with {_ACCEPTED} files")
        names, unreadable = list_files(root)
        super().__init__(
            root,
            names,
            min_size=min_size,
            memory_budget=memory_budget,
            max_photos=max_photos,
            unreadable=unreadable,
        )


def list_files(root: Path) -> tuple[list[str], list[str]]:
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
            if not name.startswith(".") and name.lower().endswith(EXTENSIONS)
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
        ValueError: The split is unknown, or no photograph is large enough.
        FileNotFoundError: scikit-image or its photographs are not installed.
    """

    def __init__(self, split: str = "all", *, min_size: int = 0, memory_budget: int = DEFAULT_MEMORY_BUDGET) -> None:
        splits = {"train": TRAIN_PHOTOS, "test": TEST_PHOTOS, "all": TRAIN_PHOTOS + TEST_PHOTOS}
        if split not in splits:
            raise ValueError(f"unknown split '{split}' of the bundled photos; choose one of {', '.join(splits)}")
        _check_numbers(min_size, memory_budget)
        package = importlib.util.find_spec("skimage")  # located, not imported: only its files are needed
        root = Path(package.origin).parent / "data" if package is not None and package.origin else None
        if root is None or not all((root / name).is_file() for name in splits[split]):
            raise FileNotFoundError(
                f"the bundled photos are not in '{root or 'skimage/data'}'; install scikit-image again, "
                f"or give a folder with {_ACCEPTED} files"
            )
        super().__init__(root, splits[split], min_size=min_size, memory_budget=memory_budget)
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
    if min_size < 0:
        raise ValueError(f"min_size is {min_size}; give 0 or more pixels")
    if memory_budget < 0:
        raise ValueError(f"memory_budget is {memory_budget}; give 0 or more bytes")


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
        FileNotFoundError: There is no such folder.
        ValueError: It holds nothing usable, an image is too small, or an argument is of an unknown kind.
    """
    if source is None or (isinstance(source, str) and source == "bundled"):
        return BundledPhotos(split, min_size=min_size, memory_budget=memory_budget)
    if isinstance(source, str | os.PathLike):
        return PhotoFolder(source, min_size=min_size, memory_budget=memory_budget)
    if isinstance(source, np.ndarray):  # one image or a stack [N, H, W, 3]
        source = ArrayPhotos(list(source) if source.ndim == 4 else [source])
    elif isinstance(source, list | tuple):
        source = ArrayPhotos(source)
    elif not isinstance(source, PhotoSource):
        raise ValueError(
            f"photos cannot be a {type(source).__name__}; give 'bundled', the path of a folder, a list of uint8 RGB "
            "arrays [H, W, 3], or a PhotoSource"
        )
    if len(source) == 0:
        raise ValueError(f"{source!r} holds no photo; give a source with at least one")
    _check_sizes(source, np.arange(len(source)), min_size)
    return source


# --------------------------------------------------------------------------------------------------------- crops


def _check_sizes(source: PhotoSource, indices: NDArray[np.integer[Any]], size: int) -> None:
    """Raise where a photo among ``indices`` has a side under ``size``."""
    small = np.flatnonzero((source.shape_array[indices] < size).any(axis=1))
    if small.size:
        index = int(indices[small[0]])
        height, width = source.shapes[index]
        raise ValueError(
            f"photo '{source.names[index]}' is {width}x{height}, smaller than the {size}x{size} needed; "
            "choose smaller patches or larger photos"
        )


def _check_crops(source: PhotoSource, indices: NDArray[Any], size: int) -> NDArray[Any]:
    indices = np.asarray(indices)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"indices are {indices.dtype} of shape {list(indices.shape)}; give integers of shape [B]")
    if indices.size and not (indices.min() >= 0 and indices.max() < len(source)):
        raise ValueError(
            f"photo index {indices[(indices < 0) | (indices >= len(source))][0]} is outside 0..{len(source) - 1}"
            f"; the source has {len(source)} photos"
        )
    if size < 1:
        raise ValueError(f"the crop size is {size}; give 1 or more pixels")
    _check_sizes(source, indices, size)
    return indices


def crops(
    source: PhotoSource,
    indices: NDArray[np.integer[Any]],
    tops: NDArray[np.integer[Any]],
    lefts: NDArray[np.integer[Any]],
    size: int,
    *,
    out: Pixels | None = None,
) -> Pixels:
    """Cut squares out of photos at given places.

    Args:
        source: The photos.
        indices: Integers ``[B]``: which photo.
        tops: Integers ``[B]``: first row, in ``0 .. H - size``.
        lefts: Integers ``[B]``: first column, in ``0 .. W - size``.
        size: Side of the squares in pixels.
        out: Array to fill, uint8 ``[B, size, size, 3]``; a new one where absent.

    Returns:
        uint8 RGB ``[B, size, size, 3]``: ``out`` where given.

    Raises:
        ValueError: An index, position, size or ``out`` does not fit.
    """
    indices = _check_crops(source, indices, size)
    tops, lefts = np.asarray(tops), np.asarray(lefts)
    if tops.shape != indices.shape or lefts.shape != indices.shape:
        raise ValueError(
            f"tops {list(tops.shape)} and lefts {list(lefts.shape)} must have the shape of indices, "
            f"{list(indices.shape)}"
        )
    corners = np.stack([tops, lefts], axis=1)
    outside = np.flatnonzero(((corners < 0) | (corners > source.shape_array[indices] - size)).any(axis=1))
    if outside.size:
        first = outside[0]
        height, width = source.shapes[int(indices[first])]
        raise ValueError(
            f"a {size}x{size} crop at row {tops[first]}, column {lefts[first]} leaves photo "
            f"'{source.names[int(indices[first])]}' of {width}x{height}; keep it inside"
        )
    shape = (len(indices), size, size, 3)
    if out is None:
        out = np.empty(shape, np.uint8)
    elif out.shape != shape or out.dtype != np.uint8:
        raise ValueError(f"out is {out.dtype} of shape {list(out.shape)}; give uint8 of shape {list(shape)}")
    # Photos differ in size, so copying goes one by one: photo after photo, so that each is decoded at most once a call.
    photo_index, photo = -1, None
    for place in np.argsort(indices, kind="stable").tolist():
        if photo is None or indices[place] != photo_index:
            photo_index = int(indices[place])
            photo = source[photo_index]
        top, left = tops[place], lefts[place]
        out[place] = photo[top : top + size, left : left + size]
    return out


def random_crops(
    source: PhotoSource,
    indices: NDArray[np.integer[Any]],
    rng: np.random.Generator,
    size: int,
    *,
    share: slice = slice(None),
    out: Pixels | None = None,
) -> Pixels:
    """Cut one square out of each photo named, at places drawn uniformly.

    Args:
        source: The photos.
        indices: Integers ``[B]``: which photo.
        rng: Draws the places: all rows, then all columns.
        size: Side of the squares in pixels.
        share: The part of the batch to cut, where several processes share one; places are drawn for all of it.
        out: Array to fill, uint8 ``[B, size, size, 3]``; a new one where absent.

    Returns:
        uint8 RGB ``[B, size, size, 3]``: ``out`` where given.

    Raises:
        ValueError: An index, the size or ``out`` does not fit.
    """
    indices = _check_crops(source, indices, size)
    room = source.shape_array[indices] - size + 1
    tops, lefts = rng.integers(room[:, 0]), rng.integers(room[:, 1])
    return crops(source, indices[share], tops[share], lefts[share], size, out=out)


def augment(images: Pixels, ways: NDArray[np.bool_]) -> Pixels:
    """Turn and mirror each square picture in one of the 8 ways.

    Args:
        images: ``[B, S, S, C]``, any dtype; left untouched.
        ways: Booleans ``[3, B]``: upside down, mirrored, transposed (in this order).

    Returns:
        A new array of the same shape.

    Raises:
        ValueError: The pictures are not square, or the ways do not fit.
    """
    if images.ndim != 4 or images.shape[1] != images.shape[2] or ways.shape != (3, len(images)):
        raise ValueError(
            f"images have shape {list(images.shape)} and ways {list(ways.shape)}; give squares [B, S, S, C] and [3, B]"
        )
    upside_down, mirrored, transposed = ways
    result = np.array(images, order="C")
    # A pixel as one element: moving three bytes at once is four times faster than one by one.
    pixels = result.view(np.dtype((np.void, result.itemsize * result.shape[3])))[..., 0]
    pixels[upside_down] = pixels[upside_down, ::-1]
    pixels[mirrored] = pixels[mirrored, :, ::-1]
    pixels[transposed] = pixels[transposed].swapaxes(1, 2)
    return result
