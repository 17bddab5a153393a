"""Fixed scenes on which actors are compared, photos split into what is trained on and what selects, and selection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sr_env.photos import PhotoSource, Pixels
from sr_env.simulator import UNIFORMS_PER_SCENE, Result, Scenes, Simulator

#: Scenes scored in one batch.
_BATCH = 12
#: Scenes -> their reconstruction.
Method = Callable[[Scenes], Result]


class Part(PhotoSource):
    """The same side of every photo of a source, cut across its longer side.

    Args:
        source: The photos; those that are too short to be cut count whole as training part.
        size: Pixels that either side of the cut must have.
        held_out: Whether this is the held-out end (a quarter of the photo, or ``size``) or the rest.

    Raises:
        ValueError: The held-out part would be empty.
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
            raise ValueError(
                f"no photo is {2 * size} pixels long, so that a part of it could be held out to select actors by: "
                "add larger photos or choose smaller patches"
            )
        self.names, self.shapes = tuple(names), tuple(shapes)

    def __getitem__(self, index: int) -> Pixels:
        """The part of photo ``index``."""
        place, rows, columns = self._places[index]
        return self._source[place][rows, columns]


class FixedScenes:
    """The same crops of a simulator's photos, blurred with each of several widths.

    Args:
        simulator: Draws and scores.
        crops: Crops in all, taken in turn from the photos (all of them where there are fewer photos).
        widths: Kernel widths in HR pixels.
        seed: Seed of the crops' places.

    Attributes:
        widths: The widths.
        batches: Per width, the scenes in batches.
    """

    def __init__(self, simulator: Simulator, crops: int, widths: Sequence[float], seed: int) -> None:
        self.simulator, self.widths, self.crops = simulator, tuple(widths), crops
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(simulator.photos)) if crops < len(simulator.photos) else None
        photos = [int(order[i]) if order is not None else i % len(simulator.photos) for i in range(crops)]
        uniforms = rng.random((crops, UNIFORMS_PER_SCENE))
        self.batches: dict[float, list[Scenes]] = {
            width: [
                simulator.draw(
                    uniforms[start : start + _BATCH],
                    {"photo": photos[start : start + _BATCH], "kernel_width": width},
                )
                for start in range(0, crops, _BATCH)
            ]
            for width in self.widths
        }

    @torch.inference_mode()
    def score(self, method: Method) -> Scores:
        """Scores and metrics of a method on every scene."""
        columns: dict[str, list[list[np.ndarray]]] = {}
        for batches in self.batches.values():
            row: dict[str, list[np.ndarray]] = {}
            for scenes in batches:
                result = method(scenes)
                for name, value in {"score": result.score, **result.terms}.items():
                    row.setdefault(name, []).append(value.double().cpu().numpy())
            for name, values in row.items():
                columns.setdefault(name, []).append(values)
        return Scores({name: np.stack([np.concatenate(row) for row in rows]) for name, rows in columns.items()})

    def acting(self, actor: Callable[[Tensor], Tensor]) -> Method:
        """The method that renders an actor's code."""
        return lambda scenes: self.simulator.evaluate(scenes, actor(scenes.lr).clamp(-1, 1))


@dataclass(frozen=True)
class Scores:
    """Values of a method on fixed scenes: ``score`` and every metric, each [widths, crops]."""

    values: Mapping[str, np.ndarray]

    def per_width(self, name: str) -> np.ndarray:
        """Means over the crops, [widths]."""
        return self.values[name].mean(1)

    def gain(self, other: Scores) -> np.ndarray:
        """Mean score over another's, [widths]."""
        return self.per_width("score") - other.per_width("score")

    def standard_error(self, other: Scores) -> float:
        """Standard error of the mean gain over another; a crop, which is seen at every width, counts as one sample."""
        gains = (self.values["score"] - other.values["score"]).mean(0)
        return float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else float("nan")


class Selection:
    """Keeps the best actor on held-out scenes: the highest mean gain of those that lose at no kernel width.

    The pretrained actor, with gain zero, is the first best.

    Args:
        scenes: The held-out scenes.
        pretrained: LR images -> actions.
    """

    def __init__(self, scenes: FixedScenes, pretrained: Callable[[Tensor], Tensor]) -> None:
        self.scenes = scenes
        self.pretrained = scenes.score(scenes.acting(pretrained))
        self.best_gain, self.best_step = 0.0, 0
        self.best: dict[str, Tensor] | None = None
        self.history: list[tuple[int, list[float]]] = [(0, [0.0] * len(scenes.widths))]

    def consider(self, actor: torch.nn.Module, step: int) -> np.ndarray:
        """Score an actor (a module: LR images -> actions); returns its gain per width."""
        gain = self.scenes.score(self.scenes.acting(actor)).gain(self.pretrained)
        self.history.append((step, gain.tolist()))
        if gain.min() >= 0 and gain.mean() > self.best_gain:
            self.best_gain, self.best_step = float(gain.mean()), step
            self.best = {name: value.detach().cpu().clone() for name, value in actor.state_dict().items()}
        return gain

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "best_gain": self.best_gain,
            "best_step": self.best_step,
            "best": self.best,
            "history": [(step, list(gain)) for step, gain in self.history],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        self.best_gain, self.best_step, self.best = state["best_gain"], state["best_step"], state["best"]
        self.history = [(step, list(gain)) for step, gain in state["history"]]
