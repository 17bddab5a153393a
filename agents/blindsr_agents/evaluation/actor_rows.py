"""The rows and tables of a comparison of trained actors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from blindsr_agents.evaluation.oracle import headroom
from blindsr_agents.evaluation.scores import Scores, reward_title
from sr_env.metrics import MetricInfo


@dataclass
class ActorRow:
    """What a method reached, the mean over its seeds; lists have a number per kernel width, or one without widths.

    Attributes:
        seeds: Checkpoints that were measured; 0 for a method that was not trained.
        gain: Mean score above the pretrained actor's.
        standard_error: Of the mean gain over all widths.
        spread: Standard deviation over the seeds of that mean gain; None under two seeds.
        share: Share of the oracle's gain; None where there is no oracle or nothing to gain.
        share_error: Its bootstrap standard error.
        values: Metric -> means over the images.
        spreads: Metric -> standard deviation over the seeds of the mean over all widths; empty under two seeds.
        over_constant: Label of the best constant action in the table, the mean score above its, and the standard error
            of that; None where there is none, or this is it, or was not trained.
    """

    seeds: int
    gain: list[float]
    standard_error: float | None
    spread: float | None
    share: float | None
    share_error: float | None
    values: dict[str, list[float]]
    spreads: dict[str, float]
    over_constant: tuple[str, float, float | None] | None = None


@dataclass
class Comparison:
    """One table: a renderer, a reward, a set."""

    renderer: str
    reward: dict[str, float]
    set: str
    images: int
    widths: list[float]
    rows: dict[str, ActorRow]
    columns: dict[str, MetricInfo]

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.set} ({self.images} images), {title_of(self.renderer, self.reward)}"


@dataclass
class Comparisons:
    """Everything that was measured.

    Attributes:
        about: Settings, command, commit, hardware.
        skipped: A line for everything that is not at hand.
        tables: One per renderer, reward and set.
    """

    about: dict[str, Any]
    skipped: list[str]
    tables: list[Comparison] = field(default_factory=list)


def mean_scores(runs: Sequence[Scores]) -> Scores:
    """The mean over the seeds of a method, scene by scene."""
    return Scores({name: np.mean([run.values[name] for run in runs], axis=0) for name in runs[0].values})


def make_row(runs: Sequence[Scores], pretrained: Scores, oracle: Scores | None = None, seeds: int = 0) -> ActorRow:
    """The row of a method.

    Args:
        runs: Its scores, one per seed.
        pretrained: The pretrained actor's, on the same scenes.
        oracle: The oracle's, if there is one.
        seeds: Seeds it was trained with; 0 for a method that was not trained.
    """
    mean = mean_scores(runs)
    metrics = [name for name in mean.values if name != "score"]
    share, share_error = headroom(mean, pretrained, oracle) if oracle is not None else (float("nan"), float("nan"))
    several = len(runs) > 1

    def spread(values: Sequence[np.ndarray]) -> float:
        return float(np.std([value.mean() for value in values], ddof=1))

    return ActorRow(
        seeds=seeds,
        gain=mean.gain(pretrained).tolist(),
        standard_error=finite(mean.standard_error(pretrained)),
        spread=spread([run.gain(pretrained) for run in runs]) if several else None,
        share=finite(share),
        share_error=finite(share_error),
        values={name: mean.per_width(name).tolist() for name in metrics},
        spreads={name: spread([run.values[name] for run in runs]) for name in metrics} if several else {},
    )


def title_of(renderer: str, reward: Mapping[str, float]) -> str:
    """A renderer and a reward, for people."""
    return f"{Path(renderer).stem}, reward {reward_title(reward)}"


def finite(value: float) -> float | None:
    """The number, or None in place of one that JSON cannot hold."""
    return value if np.isfinite(value) else None
