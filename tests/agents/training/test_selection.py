"""Selection: which actor is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from blindsr_agents.evaluation.scene_sets import FixedScenes
from blindsr_agents.evaluation.scores import Scores
from blindsr_agents.training import Selection

from sr_env.models import KernelPredictor
from sr_env.simulator import Simulator, SimulatorSettings


def test_selection_takes_gains_only_where_no_width_loses(
    tiny_settings: dict[str, Any], random_photos: list[np.ndarray]
) -> None:
    changes = {"reference": "predictor", "photos": random_photos[:3]}
    simulator = Simulator(SimulatorSettings.from_kwargs({**tiny_settings, **changes}))
    scenes = FixedScenes(simulator, 4, (0.2, 2.6), seed=0)
    assert scenes.batches[0.2][0].photo.tolist() == [0, 1, 2, 0]
    network = KernelPredictor(channels=8, hidden=16).eval()
    selection = Selection(scenes, network)
    assert selection.consider(network, 1).tolist() == [0, 0]
    assert selection.best is None
    base = selection.pretrained.values["score"]

    def pretend(gains: list[float]) -> None:
        scenes.score = lambda method: Scores({"score": base + np.array(gains)[:, None]})  # type: ignore[method-assign]

    pretend([1.0, -0.01])
    selection.consider(network, 2)
    assert selection.best is None
    pretend([0.2, 0.1])
    selection.consider(network, 3)
    assert selection.best is not None
    assert (selection.best_step, selection.best_gain) == (3, pytest.approx(0.15))
    pretend([0.1, 0.1])
    selection.consider(network, 4)
    assert selection.best_step == 3
    other = Selection.__new__(Selection)
    other.load_state(selection.state())
    assert other.best_step == 3
    assert len(other.history) == 5
