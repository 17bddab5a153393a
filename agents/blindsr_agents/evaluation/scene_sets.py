"""Fixed scenes on which actors are compared, and selection on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blindsr_agents.evaluation.scores import Scores
from sr_env.photos import PhotoSource
from sr_env.simulator import UNIFORMS_PER_SCENE, Result, Scenes, Simulator
from sr_env.utils.checks import MIN_LR_SIZE, UsageError
from sr_env.utils.finished import Take, anew
from sr_env.utils.images import to_images

#: Rows that every comparison of actors has.
BICUBIC, PRETRAINED, TRUE_KERNEL = "bicubic", "pretrained actor", "true kernel"
#: Scenes scored in one batch.
_BATCH = 12
#: HR pixels of whole photos scored in one batch.
_PIXELS = 2**19
#: Scenes -> their reconstruction.
Method = Callable[[Scenes], Result]
#: Index of a condition, indices of photos or crops [B], and what makes their scenes.
Placed = tuple[int, np.ndarray, Callable[[], Scenes]]


def acting(simulator: Simulator, actor: Callable[[Tensor], Tensor]) -> Method:
    """The method that renders an actor's code; the actor takes LR images and gives actions."""
    return lambda scenes: simulator.evaluate(scenes, actor(scenes.lr).clamp(-1, 1))


def true_kernel(simulator: Simulator) -> Method:
    """The method that renders with the true kernel's code."""
    return lambda scenes: simulator.score(scenes, simulator.render(scenes.lr, scenes.code), scenes.code)


class SceneSet(ABC):
    """Fixed scenes on which methods are compared: N photos or crops, each blurred with each of several widths.

    Of photographs as they are (``lr_photos``) there are N photos or crops, once.

    Args:
        simulator: Degrades, renders and scores.
        widths: Kernel widths in HR pixels; none for photographs as they are.
        count: N.

    Attributes:
        simulator: As given.
        widths: As given.
        conditions: The widths, or None alone for photographs as they are: one row of the scores each.
        count: As given.

    Raises:
        UsageError: There is no width, or one twice, or one for photographs that are not blurred.
    """

    def __init__(self, simulator: Simulator, widths: Sequence[float], count: int) -> None:
        self.simulator, self.widths, self.count = simulator, tuple(widths), count
        if simulator.without_hr:
            if self.widths:
                raise UsageError(f"kernel widths {self.widths} blur nothing in lr_photos, which stay as they are")
        elif not self.widths or len(set(self.widths)) < len(self.widths):
            raise UsageError(f"kernel widths {self.widths} must be at least one, each given once")
        self.conditions: tuple[float | None, ...] = self.widths or (None,)

    def by_width(self, values: Iterable[float]) -> dict[str, float]:
        """Values, one per condition, by the width as text; nothing of photographs as they are."""
        return {f"{width:g}": float(value) for width, value in zip(self.widths, values, strict=False)}

    @abstractmethod
    def placed(self) -> Iterator[Placed]:
        """All batches of scenes: index of the condition, indices of the photos or crops, and what makes them."""

    def parts(self) -> Iterator[tuple[int, np.ndarray, Scenes]]:
        """All scenes in batches, each with the index of its condition and the indices of its N photos or crops."""
        return ((row, places, make()) for row, places, make in self.placed())

    def score(self, method: Method) -> Scores:
        """Scores and metrics of a method on every scene."""
        return self.score_all({"": method})[""]

    @torch.no_grad()  # not inference mode, in which a method could not search by gradient
    def score_all(
        self, methods: Mapping[str, Method], done: Callable[[], object] | None = None, take: Take = anew
    ) -> dict[str, Scores]:
        """Scores and metrics of several methods, batch by batch, so that no scene is made twice.

        Args:
            methods: The methods by name.
            done: Called after every batch of every method.
            take: Scores a batch by a method, or gives what was found before; scenes that it asks for none of are not
                made.
        """
        values: dict[str, dict[str, np.ndarray]] = {name: {} for name in methods}
        for row, places, make in self.placed():
            scenes = cache(make)
            for name, method in methods.items():
                part = f"condition {row}/from {places[0]}/{name}"
                for column, value in take(part, partial(_values, method, scenes)).items():
                    table = values[name].setdefault(column, np.full((len(self.conditions), self.count), np.nan))
                    table[row, places] = value
                if done is not None:
                    done()
        return {name: Scores(columns) for name, columns in values.items()}

    def acting(self, actor: Callable[[Tensor], Tensor]) -> Method:
        """The method that renders an actor's code."""
        return acting(self.simulator, actor)


def _values(method: Method, scenes: Callable[[], Scenes]) -> dict[str, list[float]]:
    """Score and metrics of every scene."""
    result = method(scenes())
    return {name: value.double().tolist() for name, value in {"score": result.score, **result.terms}.items()}


class FixedScenes(SceneSet):
    """The same crops of a simulator's photos, blurred with each of several widths.

    Args:
        simulator: Draws and scores.
        crops: Crops in all, taken in turn from the photos (all of them where there are fewer photos).
        widths: Kernel widths in HR pixels; none for photographs as they are.
        seed: Seed of the crops' places.

    Attributes:
        batches: Per condition, the scenes in batches.
    """

    def __init__(self, simulator: Simulator, crops: int, widths: Sequence[float], seed: int) -> None:
        super().__init__(simulator, widths, crops)
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(simulator.photos)) if crops < len(simulator.photos) else None
        self._photos = np.arange(crops) % len(simulator.photos) if order is None else order[:crops]
        self._uniforms = rng.random((crops, UNIFORMS_PER_SCENE))
        rows = [np.arange(start, min(start + _BATCH, crops)) for start in range(0, crops, _BATCH)]
        self.batches: dict[float | None, list[Scenes]] = {
            width: [self.take(np.full(len(part), condition), part) for part in rows]
            for condition, width in enumerate(self.conditions)
        }

    def take(self, conditions: np.ndarray, crops: np.ndarray) -> Scenes:
        """Some of the scenes in one batch, by the indices of their conditions and crops, each [B]."""
        chosen: dict[str, Any] = {"photo": self._photos[crops].tolist()}
        if self.widths:
            chosen["kernel_width"] = [self.widths[condition] for condition in conditions]
        return self.simulator.draw(self._uniforms[crops], chosen)

    def placed(self) -> Iterator[Placed]:
        """The crops in turn, width by width."""
        for row, batches in enumerate(self.batches.values()):
            for number, scenes in enumerate(batches):
                places = np.arange(number * _BATCH, number * _BATCH + len(scenes.lr))
                yield row, places, partial(_same, scenes)


class WholeScenes(SceneSet):
    """Whole photographs, blurred with each of several widths, or as they are.

    Photos of one shape share a batch. A photo's HR image and what the metrics need of it are held once for all widths.

    Args:
        simulator: Degrades and scores.
        widths: Kernel widths in HR pixels; none for photographs as they are.
        photos: The photos; None takes the simulator's.
        max_photos: The first so many; None takes all.
        max_side: Longest side in HR pixels (of SR, where there is no HR) that a photo keeps, around its centre; None
            keeps all. Either way the sides of HR are cut to multiples of the scale, around the centre too.
        keep: Hold all scenes in memory, for several calls of ``score``; else they are made anew for each.

    Attributes:
        photos: The photos.
        names: Names of those that are scored.

    Raises:
        UsageError: A limit is too small, or a photo is.
    """

    def __init__(
        self,
        simulator: Simulator,
        widths: Sequence[float],
        photos: PhotoSource | None = None,
        max_photos: int | None = None,
        max_side: int | None = None,
        keep: bool = True,
    ) -> None:
        self.photos = simulator.photos if photos is None else photos
        smallest = MIN_LR_SIZE * simulator.scale
        if max_photos is not None and max_photos < 1:
            raise UsageError(f"max_photos {max_photos} leaves no photo: give 1 or more")
        if max_side is not None and max_side < smallest:
            raise UsageError(f"max_side {max_side} is under {smallest} pixels, eight of the LR image: give more")
        super().__init__(simulator, widths, min(len(self.photos), max_photos or len(self.photos)))
        self.names = self.photos.names[: self.count]
        shapes = self.photos.shape_array[: self.count] * (simulator.scale if simulator.without_hr else 1)
        shapes = np.minimum(shapes, max_side or np.iinfo(np.int64).max) // simulator.scale * simulator.scale
        if shapes.min() < smallest:
            name, found = self.names[int(shapes.min(1).argmin())], int(shapes.min())
            told = f"{found}, enlarged," if simulator.without_hr else found
            raise UsageError(f"photo {name!r} has {told} pixels on one side, {smallest} are needed: leave it out")
        self._shapes = shapes
        self._kept: list[Placed] | None = None
        self._chunks: list[np.ndarray] = []
        for shape in np.unique(shapes, axis=0):
            alike = np.flatnonzero((shapes == shape).all(1))
            size = max(1, _PIXELS // int(shape.prod()))
            self._chunks += [alike[start : start + size] for start in range(0, len(alike), size)]
        if keep:
            self._kept = [(width, places, partial(_same, scenes)) for width, places, scenes in self.parts()]

    @property
    def part_count(self) -> int:
        """Number of batches that :meth:`parts` gives."""
        return len(self._chunks) * len(self.conditions)

    def placed(self) -> Iterator[Placed]:
        """The photos shape by shape."""
        if self._kept is not None:
            yield from self._kept
            return
        for photos in self._chunks:
            first: list[Scenes] = []
            for row in range(len(self.conditions)):
                yield row, photos, partial(self._make, photos, self.conditions[row], first)

    def _make(self, photos: np.ndarray, kernel_width: float | None, first: list[Scenes]) -> Scenes:
        """Photos of one shape at a width; the first made of them give the others HR and what the metrics need of it."""
        simulator = self.simulator
        height, width = self._shapes[photos[0]] // (simulator.scale if kernel_width is None else 1)
        corner = (self.photos.shape_array[photos] - (height, width)) // 2
        cut = first[0].hr if first else self._crops(photos, corner, height, width)
        if kernel_width is None:
            return Scenes(cut, photos, corner)
        kernels = simulator.degradation.build(np.full(len(photos), kernel_width), device=simulator.device)
        scenes = simulator.degrade(cut, kernels, photos, corner)
        if not first:
            first.append(scenes)
        return scenes.with_prepared(first[0].prepared)

    def _crops(self, photos: np.ndarray, corner: np.ndarray, height: int, width: int) -> Tensor:
        """Parts [B, 3, H, W] of photos, from their corners on."""
        crops = [
            self.photos[index][top : top + height, left : left + width]
            for index, (top, left) in zip(photos, corner, strict=True)
        ]
        return to_images(np.stack(crops), self.simulator.device)


def _same(scenes: Scenes) -> Scenes:
    return scenes
