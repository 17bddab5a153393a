"""What a run says of itself."""

from __future__ import annotations

import numpy as np
import pytest
from blindsr_agents.evaluation.scores import Scores
from blindsr_agents.training import verdict

from sr_env.metrics import create_metric

#: Differences between eight photos, of mean zero and a hundredth in size.
SCATTER = 0.01 * np.resize([1.0, -1.0], (3, 8))


@pytest.mark.parametrize(("gain", "said"), [(0.5, "is better"), (0.0, "not measurably"), (-0.5, "WORSE")])
def test_verdict_says_what_happened(gain: float, said: str) -> None:
    base = np.random.default_rng(0).normal(size=(3, 8))
    after = base + gain + SCATTER
    assert said in verdict({"pretrained actor": Scores({"score": base}), "trained actor": Scores({"score": after})}, {})


def test_verdict_says_what_is_gained_and_what_is_paid() -> None:
    metrics = {name: create_metric(name) for name in ("psnr", "ssim", "lpips")}
    base = {"score": np.full((3, 8), -0.3), "lpips": np.full((3, 8), 0.3), "psnr": np.full((3, 8), 27.0)}
    base["ssim"] = np.full((3, 8), 0.8)
    change = {"score": 0.02, "lpips": -0.02, "psnr": -0.4, "ssim": 0.001}  # SSIM's is within two standard errors
    after = {name: value + change[name] + SCATTER for name, value in base.items()}
    told = verdict({"pretrained actor": Scores(base), "trained actor": Scores(after)}, metrics)
    assert told.startswith("The trained actor is better than the pretrained one on the test photos (+0.0200 reward, ")
    assert told.endswith("; gained: LPIPS 0.3000 → 0.2800; paid: PSNR-Y 27.00 → 26.60 dB.")
