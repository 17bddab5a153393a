"""What a run says of itself."""

from __future__ import annotations

import numpy as np
import pytest
from blindsr_agents.evaluation.scores import Scores
from blindsr_agents.training import verdict


@pytest.mark.parametrize(("gain", "said"), [(0.5, "is better"), (0.0, "not measurably"), (-0.5, "WORSE")])
def test_verdict_says_what_happened(gain: float, said: str) -> None:
    base = np.random.default_rng(0).normal(size=(3, 8))
    scatter = 0.01 * np.random.default_rng(1).normal(size=(3, 8))
    scatter -= scatter.mean()
    scores = {"pretrained actor": Scores({"score": base}), "trained actor": Scores({"score": base + gain + scatter})}
    assert said in verdict(scores)
