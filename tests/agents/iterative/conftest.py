"""A small IterativeHinge, and steps to judge it by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from blindsr_agents.iterative import EpisodeBatch, IterativeHinge

from sr_env.envs.vector import BlindSRIterativeVectorEnv
from sr_env.models import load_predictor

Make = Callable[..., IterativeHinge]
STEPS = 3


@pytest.fixture(autouse=True)
def own_generator() -> Iterator[None]:
    """The agent seeds torch's global generator, which no other test is to notice."""
    with torch.random.fork_rng():
        yield


@pytest.fixture
def make(tiny_settings: dict[str, Any], tiny_predictor: Path) -> Make:
    """Builds a small agent on four sub-environments of three steps, two to a scene."""

    def build(env_changes: dict[str, Any] | None = None, **changes: Any) -> IterativeHinge:
        common = {**tiny_settings, "reference": "predictor", "max_steps": STEPS, "actions_per_scene": 2}
        env = BlindSRIterativeVectorEnv(4, **{**common, **(env_changes or {})})
        small: dict[str, Any] = {
            "buffer_size": 96,
            "learning_starts": 12,
            "batch_size": 16,
            "gradient_steps": 2,
            "warmup_updates": 2,
            "critics": 2,
            "hidden": 32,
        }
        return IterativeHinge(env, load_predictor(tiny_predictor), **{**small, **changes})

    return build


@pytest.fixture
def stir() -> Callable[[IterativeHinge], None]:
    """Gives the actors a last layer, and the critics prospects, that are not zero."""
    return _stir


@pytest.fixture
def some_steps() -> Callable[[IterativeHinge], EpisodeBatch]:
    """Makes one step of each of three episodes, with rewards 1, -0.5 and 0.25 and scale 2."""
    return _some_steps


def _stir(agent: IterativeHinge) -> None:
    for layer in (
        agent.actor.head[-1],
        agent.actor_target.head[-1],
        agent.critic.prospects[-1],
        agent.critic_target.prospects[-1],
    ):
        torch.nn.init.normal_(layer.weight, std=0.3)  # type: ignore[arg-type]


def _some_steps(agent: IterativeHinge) -> EpisodeBatch:
    generator = torch.Generator().manual_seed(3)
    states = torch.rand(STEPS, STEPS, agent.actor.state_size, generator=generator)
    states[..., -STEPS:] = torch.eye(STEPS)
    actions = torch.rand(STEPS, STEPS, 10, generator=generator) - 0.5
    rewards = torch.tensor([[1.0, -0.5, 0.25]]).repeat(STEPS, 1)
    return EpisodeBatch(states, actions, rewards, torch.full((STEPS,), 2.0), torch.arange(STEPS))
