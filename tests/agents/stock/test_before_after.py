"""What any algorithm is judged by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from blindsr_agents.evaluation.scores import Scores
from blindsr_agents.stock import BeforeAfter, HeldOutScenes, LearningSettings

from sr_env import load_predictor
from sr_env.utils.checks import UsageError


def test_held_out_reward_counts_from_the_reference(settings: dict[str, Any]) -> None:
    chosen = LearningSettings(**settings | {"reference": "predictor"})
    held_out = chosen.held_out()
    assert isinstance(held_out, HeldOutScenes)
    predictor = load_predictor(settings["predictor"]).network
    same = held_out.score(predictor.act)
    assert same.values["score"].shape == (2, 4)
    assert held_out.reward(same) == pytest.approx(0, abs=1e-5)
    other = held_out.score(lambda images: np.full((len(images), 10), 0.9, np.float32))
    assert abs(held_out.reward(other)) > 1e-3


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [([1.0, 1.1, 0.9], "better"), ([-1.0, -1.1, -0.9], "WORSE"), ([1.0, -1.0, 0.3], "not measurably better")],
)
def test_verdicts(gains: list[float], verdict: str) -> None:
    before, after = Scores({"score": np.zeros((2, 3))}), Scores({"score": np.tile(gains, (2, 1))})
    outcome = BeforeAfter(before, after, 1.0, 1.0 + float(np.mean(gains)), 10, 1.0)
    assert outcome.standard_error == pytest.approx(np.std(gains, ddof=1) / np.sqrt(3))
    assert outcome.verdict.startswith(verdict)
    assert verdict in outcome.sentence("x")


def test_any_algorithm_is_judged_in_a_few_lines(settings: dict[str, Any]) -> None:
    """A search of one's own: no more than an actor and a function that changes what it does."""
    chosen = LearningSettings(**settings)
    best = np.zeros(10, np.float32)

    def act(images: np.ndarray) -> np.ndarray:
        return np.tile(best, (len(images), 1))

    def learn() -> int:
        best[:] = 0.5
        return 12

    held_out = chosen.held_out()
    result = BeforeAfter.of(held_out, act, learn)
    assert result.reward_before == held_out.reward(held_out.score(lambda lr: np.zeros((len(lr), 10), np.float32)))
    assert result.reward_after == held_out.reward(held_out.score(act))
    assert result.steps == 12
    assert result.sentence("mine").startswith("mine: held-out reward ")


@pytest.mark.parametrize("name", ["steps", "test_crops"])
def test_numbers_that_leave_nothing_to_do_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} 0 is not positive"):
        LearningSettings(**{name: 0})
