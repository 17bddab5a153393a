"""What is trained on: photographs, the same reduced, and drawings, each with its share of the patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from blindsr_pretrain.drawings import Drawings
from blindsr_pretrain.settings import DataSettings, TrainingSettings
from sr_env.photos import DEFAULT_MEMORY_BUDGET, PhotoSource, Pixels, Subset, hold_out, open_photos
from sr_env.utils.checks import UsageError

#: Drawings to train on, and their side in pixels where patches are no larger.
_DRAWINGS, _DRAWING_SIDE = 384, 320
#: Drawings held out.
_HELD_OUT_DRAWINGS = 12
#: Photographs are reduced by a factor between these.
_REDUCTIONS = (2.0, 3.0)


def split_photos(settings: DataSettings) -> tuple[PhotoSource, np.ndarray, PhotoSource]:
    """Open the photos and hold some out.

    Returns:
        The source to train on, the indices in it that may be trained on, and the held-out photos.

    Raises:
        UsageError: No such folder, or too few photos to hold out any.
    """
    if settings.data == "bundled":
        train = open_photos("bundled", split="train", min_size=settings.patch_size)
        return train, np.arange(len(train)), open_photos("bundled", split="test")
    source = open_photos(settings.data, min_size=settings.patch_size)
    count = settings.validation_photos
    if len(source) < 2 * count:
        raise UsageError(
            f"{settings.data!r} holds {len(source)} usable photos, too few to hold {count} out: "
            "add photos or lower --validation-photos"
        )
    kept, left = hold_out(len(source), count)
    return source, kept, Subset(source, left)


def held_out_photos(data: str, count: int) -> PhotoSource:
    """The photos of a source that training never sees, as long as all are as large as its patches.

    Args:
        data: Folder of HR photos, or "bundled".
        count: How many training holds out; 0 takes all of a folder that nothing was trained on.

    Raises:
        UsageError: No such folder, or too few photos to hold out any.
    """
    return open_photos(data) if count == 0 else split_photos(DataSettings(data=data, validation_photos=count))[2]


def held_out_drawings(settings: TrainingSettings) -> Drawings | None:
    """Drawings that are never trained on; None where there are none among what is trained on."""
    return unseen_drawings() if settings.drawings > 0 else None


def unseen_drawings() -> Drawings:
    """The drawings that are held out."""
    return Drawings(_HELD_OUT_DRAWINGS, _DRAWING_SIDE, first=_DRAWINGS)


class ReducedPhotos(PhotoSource):
    """Photographs made smaller by 2 to 3, each by a factor of its own: sharper than what a camera gives.

    Args:
        photos: The photographs.
        indices: Those of them that may be used; one too small for ``min_size`` after a halving is left out, and no
            factor goes beyond what that size allows.
        min_size: Pixels that the short side keeps.
        memory_budget: Bytes of reduced pictures to keep; beyond that each is made anew whenever it is asked for.
    """

    def __init__(
        self,
        photos: PhotoSource,
        indices: np.ndarray,
        min_size: int,
        memory_budget: int = DEFAULT_MEMORY_BUDGET,
    ) -> None:
        low, high = _REDUCTIONS
        indices = np.asarray(indices)
        most = np.minimum(high, photos.shape_array[indices].min(1) / min_size)
        self.indices = indices[most >= low]
        wished = low + (high - low) * np.random.default_rng(0).random(len(indices))
        factors = np.minimum(wished, most)[most >= low]
        shapes = np.maximum(np.rint(photos.shape_array[self.indices] / factors[:, None]).astype(int), min_size)
        self.photos, self.left = photos, memory_budget
        self.names = tuple(f"{photos.names[int(index)]}, reduced" for index in self.indices)
        self.shapes = tuple((int(height), int(width)) for height, width in shapes)
        self._kept: dict[int, Pixels] = {}

    def __getitem__(self, index: int) -> Pixels:
        """Picture ``index``, reduced bicubically with antialiasing."""
        number = range(len(self))[index]
        if (kept := self._kept.get(number)) is not None:
            return kept
        height, width = self.shapes[number]
        photo = Image.fromarray(self.photos[int(self.indices[number])])
        reduced = np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC))
        if reduced.nbytes <= self.left:
            self.left -= reduced.nbytes
            self._kept[number] = reduced
        return reduced


class JoinedPhotos(PhotoSource):
    """Several sources, one after the other, as one."""

    def __init__(self, sources: Sequence[PhotoSource]) -> None:
        self.sources = tuple(sources)
        self.names = tuple(name for source in sources for name in source.names)
        self.shapes = tuple(shape for source in sources for shape in source.shapes)
        self._ends = np.cumsum([len(source) for source in sources])

    def __getitem__(self, index: int) -> Pixels:
        """Picture ``index`` of all."""
        number = range(len(self))[index]
        which = int(np.searchsorted(self._ends, number, side="right"))
        return self.sources[which][number - int(self._ends[which]) + len(self.sources[which])]


@dataclass(frozen=True)
class Diet:
    """Pictures to cut patches from.

    Attributes:
        pictures: All of them.
        chances: Chance of each to be what a patch is cut from, float64 [N], of sum 1; 0 for held-out photos.
    """

    pictures: PhotoSource
    chances: np.ndarray


def make_diet(settings: TrainingSettings, photos: PhotoSource, indices: np.ndarray) -> Diet:
    """Join the photos with what the settings want beside them.

    Args:
        settings: Their ``reduced`` and ``drawings`` are shares of the patches.
        photos: Source of the HR photos.
        indices: Those of them that may be trained on.

    Raises:
        UsageError: Reduced photos are asked for, and all are too small for it.
    """
    size = settings.patch_size
    parts: list[tuple[PhotoSource, np.ndarray, float]] = [(photos, indices, 1 - settings.reduced - settings.drawings)]
    if settings.reduced > 0:
        reduced = ReducedPhotos(photos, indices, size)
        if len(reduced) == 0:
            raise UsageError(
                f"reduced is {settings.reduced}, and no photo to train on has {int(_REDUCTIONS[0] * size)} pixels on "
                f"its short side, which patches of {size} need: give 0, larger photos or a smaller --patch-size"
            )
        parts.append((reduced, np.arange(len(reduced)), settings.reduced))
    if settings.drawings > 0:
        drawings = Drawings(_DRAWINGS, max(size, _DRAWING_SIDE))
        parts.append((drawings, np.arange(len(drawings)), settings.drawings))
    chances = [_chances(source, used, size, share) for source, used, share in parts]
    return Diet(JoinedPhotos([source for source, _, _ in parts]), np.concatenate(chances))


def _chances(source: PhotoSource, used: np.ndarray, size: int, share: float) -> np.ndarray:
    """Between uniform, which repeats the pixels of small photos, and by area, which hardly shows small photos."""
    chances = np.zeros(len(source))
    chances[used] = (source.shape_array[used] - size + 1).prod(1) ** 0.5
    return share * chances / chances.sum()
