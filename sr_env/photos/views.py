"""Other ways to look at a source of photos: a side of each, some of them, softened ones among them; its fingerprint."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np

from sr_env.photos.decode import Pixels
from sr_env.photos.sources import ArrayPhotos, PhotoSource
from sr_env.utils.checks import UsageError


class Part(PhotoSource):
    """The same side of every photo of a source, cut across its longer side.

    Args:
        source: The photos; those that are too short to be cut count whole as training part.
        size: Pixels that either side of the cut must have.
        held_out: Whether this is the held-out end (a quarter of the photo, or ``size``) or the rest.

    Raises:
        UsageError: The held-out part would be empty.
    """

    def __init__(self, source: PhotoSource, size: int, held_out: bool) -> None:
        self._source, self._places = source, list[tuple[int, slice, slice]]()
        names, shapes = [], []
        for index, (height, width) in enumerate(source.shapes):
            longer = max(height, width)
            cut = longer - max(size, longer // 4) if longer >= 2 * size else longer
            span = slice(cut, longer) if held_out else slice(0, cut)
            if span.start == span.stop:
                continue
            rows, columns = (span, slice(0, width)) if height >= width else (slice(0, height), span)
            self._places.append((index, rows, columns))
            names.append(source.names[index])
            shapes.append((rows.stop - rows.start, columns.stop - columns.start))
        if not names:
            raise UsageError(
                f"no photo is {2 * size} pixels long, so that a part of it could be held out to select actors by: "
                "add larger photos or choose smaller patches"
            )
        self.names, self.shapes = tuple(names), tuple(shapes)

    def __getitem__(self, index: int) -> Pixels:
        """The part of photo ``index``."""
        place, rows, columns = self._places[index]
        return self._source[place][rows, columns]


class Subset(PhotoSource):
    """Some photos of a source.

    Args:
        source: The photos.
        indices: Which of them, in their order.
    """

    def __init__(self, source: PhotoSource, indices: np.ndarray) -> None:
        self._source, self._indices = source, [int(index) for index in indices]
        self.names = tuple(source.names[index] for index in self._indices)
        self.shapes = tuple(source.shapes[index] for index in self._indices)

    def __getitem__(self, index: int) -> Pixels:
        """Photo ``index`` of those chosen."""
        return self._source[self._indices[index]]


class Softened(PhotoSource):
    """Photos of a source as they are, and others of it softened by a Gaussian.

    Photographs differ in their own sharpness, and an actor that has only seen sharp ones asks for too much sharpening
    of a soft scene: trained without, it gained on sharp held-out photographs and lost on Set5.

    Args:
        source: The photos.
        softness: Largest width of the Gaussian in HR pixels; each photo has its own, drawn uniformly by a fixed seed.
        both: Whether every photo is there twice, sharp and softened; else every second one is softened.

    Raises:
        UsageError: The softness is not a positive number.
    """

    def __init__(self, source: PhotoSource, softness: float, both: bool) -> None:
        if not 0 < softness < float("inf"):
            raise UsageError(f"softness {softness} is not a positive number of HR pixels")
        widths = np.random.default_rng(0).uniform(0, softness, len(source))
        plain = [(index, 0.0) for index in range(len(source)) if both or index % 2 == 0]
        soft = [(index, float(widths[index])) for index in range(len(source)) if both or index % 2]
        self._source, self._photos = source, sorted(plain + soft)
        described = [
            (source.names[index], f", softened by {width:.2f}" if width else "") for index, width in self._photos
        ]
        self.names = tuple(name + how for name, how in described)
        self.shapes = tuple(source.shapes[index] for index, _ in self._photos)

    def __getitem__(self, index: int) -> Pixels:
        """Photo ``index``, softened or not."""
        place, width = self._photos[index]
        photo = self._source[place]
        if width < 0.1:  # a single tap
            return photo
        return cv2.GaussianBlur(photo, (0, 0), width).astype(np.uint8, copy=False)


def fingerprint(photos: PhotoSource) -> str:
    """What tells photos from others, wherever they lie: their number, and a digest of their names and sizes.

    Arrays, which have no names of their own, are told by their pixels.
    """
    digest = hashlib.sha256()
    for name, shape in zip(photos.names, photos.shapes, strict=True):
        digest.update(f"{name} {tuple(shape)};".encode(errors="surrogateescape"))
    if isinstance(photos, ArrayPhotos):
        for photo in photos:
            digest.update(photo.tobytes())
    return f"{len(photos)} photos (digest {digest.hexdigest()[:16]})"
