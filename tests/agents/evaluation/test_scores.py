"""Scores are means over photos, and a gain counts from two standard errors on."""

from __future__ import annotations

import numpy as np
import pytest
from blindsr_agents.evaluation.scores import Scores, reward_title, verdict


def test_scores_are_means_over_photos() -> None:
    before = Scores({"score": np.array([[1.0, 3.0, 5.0], [0.0, 0.0, 0.0]]), "psnr": np.full((2, 3), 30.0)})
    gains = np.array([[0.5, 0.7, 1.5], [0.1, -0.1, 0.3]])
    after = Scores({"score": before.values["score"] + gains, "psnr": np.full((2, 3), 31.0)})
    np.testing.assert_allclose(before.per_width("score"), [3, 0])
    np.testing.assert_allclose(after.per_width("psnr"), [31, 31])
    np.testing.assert_allclose(after.gain(before), [0.9, 0.1])
    # Three samples, each the mean over the widths: 0.3, 0.3, 0.9.
    assert after.standard_error(before) == pytest.approx(0.2)


def test_one_photo_has_no_standard_error() -> None:
    one = Scores({"score": np.zeros((3, 1))})
    assert np.isnan(one.standard_error(one))


@pytest.mark.parametrize(
    ("gain", "error", "said"),
    [
        (0.5, 0.2, "better than it"),
        (-0.5, 0.2, "WORSE than it"),
        (0.5, 0.0, "better than it"),
        (0.4, 0.2, "not measurably better than it"),
        (-0.4, 0.2, "not measurably better than it"),
        (0.0, 0.0, "not measurably better than it"),
        (9.0, None, "not measurably better than it"),
        (9.0, float("nan"), "not measurably better than it"),
    ],
)
def test_verdict_asks_for_two_standard_errors(gain: float, error: float | None, said: str) -> None:
    assert verdict(gain, error, "it") == said


def test_reward_title() -> None:
    assert reward_title({"psnr": 1.0, "lpips": 20}) == "psnr + 20 lpips"
    assert reward_title({"lpips": 0.5}) == "0.5 lpips"
