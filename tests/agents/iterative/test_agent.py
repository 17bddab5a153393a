"""IterativeHinge: learning, resumption, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.iterative import IterativeHinge, IterativeHingeConfig
from torch import Tensor

from sr_env.envs.vector import BlindSRVectorEnv
from sr_env.models import load_predictor
from sr_env.simulator import Result, Scenes, Simulator

Make = Callable[..., IterativeHinge]


def same(one: IterativeHinge, other: IterativeHinge) -> bool:
    return all(
        torch.equal(value, getattr(other, name).state_dict()[key])
        for name in ("actor", "actor_target", "critic", "critic_target")
        for key, value in getattr(one, name).state_dict().items()
    )


def toy(simulator: Simulator, better: float) -> Callable[[Scenes, Tensor], Result]:
    """A score that is best where the first component is ``better`` above the predictor's."""
    assert simulator.predictor is not None
    network = simulator.predictor.network

    def evaluate(scenes: Scenes, actions: Tensor) -> Result:
        with torch.no_grad():
            off = (actions - network(scenes.lr))[:, 0] - better
        return Result(scenes.hr, simulator.basis.to_code(actions), -off.square(), {})

    return evaluate


@pytest.mark.parametrize("n_steps", [1, 2])
def test_training_raises_the_return(make: Make, monkeypatch: pytest.MonkeyPatch, n_steps: int) -> None:
    agent = make(
        {"max_steps": 2, "patch_size": 32},
        **{"n_steps": n_steps, "buffer_size": 2000, "batch_size": 64, "gradient_steps": 5, "anchor": 0.0},
        **{"learning_rate": 3e-3, "actor_learning_rate": 5e-3, "noise": 1e9, "tau": 0.05, "dropout": 0.0},
        **{"warmup_updates": 40, "learning_starts": 64, "noise_limit": 0.15},
    )
    monkeypatch.setattr(agent.env.simulator, "evaluate", toy(agent.env.simulator, 0.3))
    agent.learn(240)
    first, last = np.mean(agent.returns[:6]), np.mean(agent.returns[-6:])
    assert last > first + 0.04
    states = agent.memory.columns["states"][:, 0]
    with torch.no_grad():
        move = agent.actor.correction * agent.actor_target(states)[:, 0].mean()
    assert 0.05 < move < 0.45  # towards 0.3, also without noise


def test_warm_up_trains_the_critics_alone(make: Make) -> None:
    agent = make(warmup_updates=1000)
    actor = {name: value.clone() for name, value in agent.actor.state_dict().items()}
    critic = agent.critic.state_dict()["landscapes.scene.weight"].clone()
    agent.learn(36)
    assert agent.updates > 0
    assert all(torch.equal(value, actor[name]) for name, value in agent.actor.state_dict().items())
    assert not torch.equal(agent.critic.state_dict()["landscapes.scene.weight"], critic)


def test_what_is_pretrained_stays(make: Make, tiny_predictor: Path) -> None:
    agent = make(actor_learning_rate=1e-2)
    agent.learn(48)
    assert any(parameter.abs().max() > 0 for parameter in agent.actor.head[-1].parameters())
    for name, value in load_predictor(tiny_predictor).network.state_dict().items():
        assert torch.equal(agent.actor.pretrained.state_dict()[name], value)
        assert torch.equal(agent.actor_target.pretrained.state_dict()[name], value)


def test_two_runs_with_one_seed_agree(make: Make) -> None:
    agents = []
    for seed in (0, 0, 1):
        agents.append(make(seed=seed))
        agents[-1].learn(36)
    assert same(agents[0], agents[1])
    assert not same(agents[0], agents[2])


def test_state_round_trip(make: Make, tmp_path: Path) -> None:
    agent = make()
    agent.learn(36)
    agent.save_state(tmp_path / "state.pt", {"best": 1.5, "none": None})
    other = make(seed=7)
    assert other.load_state(tmp_path / "state.pt") == {"best": 1.5, "none": None}
    assert (other.steps, other.updates, other.returns) == (agent.steps, agent.updates, agent.returns)
    agent.learn(48)
    torch.manual_seed(99)  # both draw dropout from the global generator, whose state comes with the file
    other.load_state(tmp_path / "state.pt")
    other.learn(48)
    assert same(agent, other)
    assert agent.returns == other.returns
    assert agent.correlation == other.correlation


def test_damaged_or_foreign_state_is_one_clear_error(make: Make, tmp_path: Path) -> None:
    agent = make()
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        agent.load_state(tmp_path / "absent.pt")
    agent.save_state(tmp_path / "state.pt")
    with pytest.raises(ValueError, match="cannot resume"):
        make(critics=3).load_state(tmp_path / "state.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_steps": 4}, r"n_steps 4 is outside 1\.\.3"),
        ({"discount": 1.1}, "discount 1.1"),
        ({"noise": 0.0}, "noise 0.0"),
        ({"loss": "huber"}, "'huber'"),
        ({"normalisation": "some"}, "'some'"),
        ({"env_changes": {"reference": "bicubic"}}, "reference='predictor'"),
        ({"env_changes": {"predictor": "predictor_x4"}}, "that predictor"),
    ],
)
def test_bad_settings_are_named(make: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_refuses_the_environment_of_one_step(tiny_settings: dict[str, Any], tiny_predictor: Path) -> None:
    env = BlindSRVectorEnv(2, **tiny_settings, reference="predictor")
    with pytest.raises(ValueError, match="use BlindSRIterative-v0"):
        IterativeHinge(env, load_predictor(tiny_predictor))  # type: ignore[arg-type]


def test_a_config_and_changes_are_one_setting(make: Make) -> None:
    config = IterativeHingeConfig(discount=0.5, critics=3)
    agent = make(config=config, discount=0.25, critics=2)
    assert (agent.config.discount, agent.config.critics, config.discount) == (0.25, 2, 0.5)
    with pytest.raises(TypeError, match="discont"):
        make(discont=1.0)
