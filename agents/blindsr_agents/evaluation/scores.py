"""What a method reached on fixed scenes, and the one rule by which it is called better or worse than another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sr_env.simulator import reward_title as reward_title

#: Standard errors that a gain must exceed to count: one chance in twenty of being wrong, where errors are Gaussian.
_ERRORS = 2.0


@dataclass(frozen=True)
class Scores:
    """Values of a method on fixed scenes: ``score`` and every metric, each [widths, N photos or crops]."""

    values: Mapping[str, np.ndarray]

    def per_width(self, name: str) -> np.ndarray:
        """Means over the photos, [widths]."""
        return self.values[name].mean(1)

    def gain(self, other: Scores, name: str = "score") -> np.ndarray:
        """Mean score (or metric) over another's, [widths]."""
        return self.per_width(name) - other.per_width(name)

    def standard_error(self, other: Scores, name: str = "score") -> float:
        """Standard error of the mean gain over another; a photo, which is seen at every width, counts as one sample."""
        gains = (self.values[name] - other.values[name]).mean(0)
        return float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else float("nan")

    def losses(self, other: Scores, name: str = "score") -> list[int]:
        """Indices of the widths at which the mean is below another's, by more than two standard errors there."""
        found = []
        for place, (own, others) in enumerate(zip(self.values[name], other.values[name], strict=True)):
            here, there = Scores({name: own[None]}), Scores({name: others[None]})
            if here.differs(there, name) and own.mean() < others.mean():
                found.append(place)
        return found

    def differs(self, other: Scores, name: str = "score") -> bool:
        """Whether the mean gain over another counts: whether it is more than two of its standard errors."""
        return _counts(float(self.gain(other, name).mean()), self.standard_error(other, name))


def _counts(gain: float, standard_error: float | None) -> bool:
    return standard_error is not None and abs(gain) > _ERRORS * standard_error


def verdict(gain: float, standard_error: float | None, other: str) -> str:
    """Whether a method is better than another, for the middle of a sentence.

    Args:
        gain: Its mean score over the other's.
        standard_error: Of that gain; None or NaN where it is unknown, so that nothing can be said.
        other: What it is compared with.

    Returns:
        "better than ...", "WORSE than ..." or, within two standard errors, "not measurably better than ...".
    """
    if not _counts(gain, standard_error):
        return f"not measurably better than {other}"
    return f"{'better' if gain > 0 else 'WORSE'} than {other}"
