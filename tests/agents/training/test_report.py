"""What a run says of itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from blindsr_agents.evaluation.scene_sets import FixedScenes
from blindsr_agents.evaluation.scores import Scores
from blindsr_agents.training import verdict

from sr_env.metrics import create_metric
from sr_env.simulator import Simulator, SimulatorSettings

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


def test_verdict_compares_with_the_best_constant() -> None:
    base = np.full((3, 8), -0.3)
    scores = {"pretrained actor": Scores({"score": base}), "trained actor": Scores({"score": base + 0.02 + SCATTER})}
    for constant, said in ((0.005, "better than"), (0.02, "not measurably better than"), (0.04, "WORSE than")):
        told = verdict({**scores, "best constant": Scores({"score": base + constant})}, {}, (), 2560)
        assert f"standard error 0.0038), and {said} the best constant action ({0.02 - constant:+.4f} reward, " in told
        assert "which took 2560 renderings" in told


def test_verdict_names_the_widths_that_lose() -> None:
    base = np.full((3, 8), -0.3)
    after = base + np.array([[-0.03], [0.09], [-0.001]]) + SCATTER  # the last loss is within two standard errors
    scores = {"pretrained actor": Scores({"score": base}), "trained actor": Scores({"score": after})}
    assert "; it LOSES at kernel width 0.2." in verdict(scores, {}, (0.2, 1.3, 2.6))
    assert "LOSES" not in verdict({**scores, "trained actor": Scores({"score": base + 0.1})}, {}, (0.2, 1.3, 2.6))


def test_the_crops_that_are_shown_are_the_ones_that_were_measured(
    tiny_settings: dict[str, Any], random_photos: list[np.ndarray]
) -> None:
    simulator = Simulator(SimulatorSettings.from_kwargs({**tiny_settings, "photos": random_photos[:3]}))
    scenes = FixedScenes(simulator, 14, (0.2, 2.6), seed=0)  # more than a batch
    taken = scenes.take(np.array([1, 0]), np.array([13, 2]))
    for row, (batch, place) in enumerate(((scenes.batches[2.6][1], 1), (scenes.batches[0.2][0], 2))):
        assert np.array_equal(taken.lr[row], batch.lr[place])
        assert np.array_equal(taken.hr[row], batch.hr[place])
