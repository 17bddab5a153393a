"""What agents leave behind: files of numbers alone."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from blindsr_agents.training import reading_state, save_actor
from safetensors import safe_open

from sr_env.models import load_predictor
from sr_env.utils.checks import UsageError


def test_an_actor_of_a_released_predictor_is_kept_by_what_differs(tmp_path: Path) -> None:
    start = load_predictor("predictor_x4")
    actor = deepcopy(start.network)
    actor.head[-1].bias += 0.1
    path = save_actor(tmp_path / "actor.safetensors", actor, start, {"method": "by hand"})
    with safe_open(path, framework="pt") as file:
        assert [name for name in file.keys() if name.startswith("network.")] == [  # noqa: SIM118  # no mapping
            f"network.head.{len(actor.head) - 1}.bias"
        ]
    again = load_predictor(path, scale=4)
    assert again.card["base"]["name"] == "predictor_x4"
    for name, value in actor.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


def test_a_state_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    torch.save({"policy": Evil()}, tmp_path / "state.pt")
    with pytest.raises(UsageError, match="cannot resume"), reading_state(tmp_path / "state.pt"):
        pass
    assert not (tmp_path / "ran").exists()
