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

    def gain(self, other: Scores) -> np.ndarray:
        """Mean score over another's, [widths]."""
        return self.per_width("score") - other.per_width("score")

    def standard_error(self, other: Scores) -> float:
        """Standard error of the mean gain over another; a photo, which is seen at every width, counts as one sample."""
        gains = (self.values["score"] - other.values["score"]).mean(0)
        return float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else float("nan")


def verdict(gain: float, standard_error: float | None, other: str) -> str:
    """Whether a method is better than another, for the middle of a sentence.

    Args:
        gain: Its mean score over the other's.
        standard_error: Of that gain; None or NaN where it is unknown, so that nothing can be said.
        other: What it is compared with.

    Returns:
        "better than ...", "WORSE than ..." or, within two standard errors, "not measurably better than ...".
    """
    if standard_error is None or not abs(gain) > _ERRORS * standard_error:
        return f"not measurably better than {other}"
    return f"{'better' if gain > 0 else 'WORSE'} than {other}"
