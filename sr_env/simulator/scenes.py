"""What passes through the simulator: scenes, their reconstructions, and the episodes played on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from sr_env.degradation import Kernels
from sr_env.metrics import Prepared
from sr_env.utils.checks import UsageError


@dataclass(frozen=True)
class Truth:
    """What is known of B scenes because they were made: what was photographed, and how it was blurred.

    Attributes:
        hr: HR patches, float32 in [0, 1], [B, 3, P, P].
        kernels: The true kernels.
        code: True kernel codes, [B, L].
        prepared: What the metrics need of HR alone, computed once for all reconstructions of the scenes.
    """

    hr: Tensor
    kernels: Kernels
    code: Tensor
    prepared: Mapping[str, Prepared]

    def repeat(self, times: int) -> Truth:
        """Every scene's ``times`` times in a row."""
        hr, code = (x.repeat_interleave(times, 0) for x in (self.hr, self.code))
        prepared = {name: reference.repeat(times) for name, reference in self.prepared.items()}
        return Truth(hr, self.kernels.repeat(times), code, prepared)

    def updated(self, rows: Tensor, new: Truth) -> Truth:
        """The same with that of the scenes at ``rows``, int64 [R], replaced by that of ``new`` ones, [R]."""
        hr, code = (_put(getattr(self, name), rows, getattr(new, name)) for name in ("hr", "code"))
        prepared = {
            name: replace(old, data=tree_map(lambda a, b: _put(a, rows, b), old.data, new.prepared[name].data))
            for name, old in self.prepared.items()
        }
        return Truth(hr, updated_kernels(self.kernels, rows, new.kernels), code, prepared)


@dataclass(frozen=True)
class Scenes:
    """A batch of B scenes: what the agents see, and what is known of it.

    Attributes:
        lr: LR images, float32 multiples of 1/255, [B, 3, p, p].
        photo: Index of each photo in the source, int64 [B].
        corner: Top and left of each crop in the photo's pixels, int64 [B, 2].
        truth: What LR was made from; None of photographs as they are. ``hr``, ``kernels`` and ``code`` are its own,
            and raise :class:`~sr_env.utils.checks.UsageError` where there is none.
    """

    lr: Tensor
    photo: np.ndarray
    corner: np.ndarray
    truth: Truth | None = None

    @property
    def hr(self) -> Tensor:
        """HR patches, float32 in [0, 1], [B, 3, P, P]."""
        return self._known("HR").hr

    @property
    def kernels(self) -> Kernels:
        """The true kernels."""
        return self._known("true kernel").kernels

    @property
    def code(self) -> Tensor:
        """True kernel codes, [B, L]."""
        return self._known("true code").code

    @property
    def prepared(self) -> Mapping[str, Prepared]:
        """What the metrics need of HR; nothing where there is none, and no metric that needs it."""
        return {} if self.truth is None else self.truth.prepared

    def with_prepared(self, prepared: Mapping[str, Prepared]) -> Scenes:
        """The same with what other metrics need of HR; unchanged where there is none."""
        return self if self.truth is None else replace(self, truth=replace(self.truth, prepared=prepared))

    def _known(self, what: str) -> Truth:
        if self.truth is None:
            raise UsageError(f"photographs as they are (lr_photos) have no {what}: give photos to make scenes with one")
        return self.truth

    def repeat(self, times: int) -> Scenes:
        """Every scene ``times`` times in a row, for several actions on each; nothing is computed again."""
        truth = None if self.truth is None else self.truth.repeat(times)
        lr = self.lr.repeat_interleave(times, 0)
        return Scenes(lr, self.photo.repeat(times), self.corner.repeat(times, 0), truth)

    def updated(self, rows: Tensor, new: Scenes) -> Scenes:
        """The same with the scenes at ``rows``, int64 [R], replaced by ``new`` ones, [R]."""
        photo, corner = self.photo.copy(), self.corner.copy()
        where = rows.cpu().numpy()
        photo[where], corner[where] = new.photo, new.corner
        known = None if self.truth is None or new.truth is None else self.truth.updated(rows, new.truth)
        return Scenes(_put(self.lr, rows, new.lr), photo, corner, known)


def updated_kernels(kernels: Kernels, rows: Tensor, new: Kernels) -> Kernels:
    """The same with the kernels at ``rows``, int64 [R], replaced by ``new`` ones; taps only where both have them."""
    return kernels.map(lambda old, put: _put(old, rows, put), new)


def _put(values: Tensor, rows: Tensor, new: Tensor) -> Tensor:
    return values.index_copy(0, rows, new)


@dataclass(frozen=True)
class Result:
    """Reconstructions of a batch of scenes, and what they are worth.

    Attributes:
        sr: SR images rounded to 8 bit, float32 in [0, 1], [B, 3, P, P].
        code: Kernel codes they were rendered with, [B, L]; the mean kernel's for a bicubic enlargement.
        score: Weighted sum of the metrics, higher is better, [B].
        terms: Each metric's raw value, [B].
        values: Values of the controls beside the code, [B].
    """

    sr: Tensor
    code: Tensor
    score: Tensor
    terms: Mapping[str, Tensor]
    values: Mapping[str, Tensor] = field(default_factory=dict)

    def repeat(self, times: int) -> Result:
        """Every reconstruction ``times`` times in a row."""
        sr, code, score = (x.repeat_interleave(times, 0) for x in (self.sr, self.code, self.score))
        terms, values = (
            {name: x.repeat_interleave(times, 0) for name, x in columns.items()}
            for columns in (self.terms, self.values)
        )
        return Result(sr, code, score, terms, values)

    def updated(self, rows: Tensor, new: Result) -> Result:
        """The same with the reconstructions at ``rows``, int64 [R], replaced by ``new`` ones, [R]."""
        sr, code, score = (_put(getattr(self, name), rows, getattr(new, name)) for name in ("sr", "code", "score"))
        terms, values = (
            {name: _put(x, rows, others[name]) for name, x in columns.items()}
            for columns, others in ((self.terms, new.terms), (self.values, new.values))
        )
        return Result(sr, code, score, terms, values)


@dataclass(frozen=True)
class Episode:
    """The running episodes of a batch of sub-environments.

    Attributes:
        scenes: Their scenes.
        reference: The reconstructions that rewards are compared with.
        current: What the last actions made; the reference before the first.
        action: What was chosen so far, as an action, [B, A]; the reference's before the first.
        reward: The last rewards, float64 [B]; NaN before the first action.
        steps: Actions taken, int64 [B].
    """

    scenes: Scenes
    reference: Result
    current: Result
    action: Tensor
    reward: Tensor
    steps: np.ndarray

    @classmethod
    def begin(cls, scenes: Scenes, reference: Result, action: Tensor) -> Episode:
        """Before the first action."""
        count = len(scenes.lr)
        nothing = torch.full((count,), torch.nan, dtype=torch.float64, device=action.device)
        return cls(scenes, reference, reference, action, nothing, np.zeros(count, dtype=np.int64))

    def updated(self, rows: Tensor, new: Episode) -> Episode:
        """The same with the episodes at ``rows``, int64 [R], replaced by ``new`` ones, [R]."""
        steps = self.steps.copy()
        steps[rows.cpu().numpy()] = new.steps
        return Episode(
            self.scenes.updated(rows, new.scenes),
            self.reference.updated(rows, new.reference),
            self.current.updated(rows, new.current),
            _put(self.action, rows, new.action),
            _put(self.reward, rows, new.reward),
            steps,
        )


def not_finite(result: Result, before: Result) -> UsageError:
    """The error where a reward is NaN or infinite, which a learner would carry into its weights."""
    if not result.sr.isfinite().all():
        return UsageError("the reward is not finite: the renderer's SR has NaN or infinite values, check its weights")
    wrong = [
        f"{name} is {float(values[~values.isfinite()][0])}"
        for each in (result, before)
        for name, values in each.terms.items()
        if not values.isfinite().all()
    ]
    return UsageError(f"the reward is not finite: {', '.join(dict.fromkeys(wrong))}, mend the metric or leave it out")
