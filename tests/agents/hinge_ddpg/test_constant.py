"""Where the actor begins: the offset that is best for all scenes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from blindsr_agents.hinge_ddpg import HingeDDPG
from blindsr_agents.hinge_ddpg.constant import best_offset

Make = Callable[..., HingeDDPG]
NOWHERE = torch.zeros(5)


def worth(moves: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A parabola that is highest at 0.6 in the first direction, under noise twice its size."""
    return 0.6 * moves[:, 0] - 0.5 * moves.square().sum(1) + 0.4 * torch.randn(len(moves), generator=generator)


def test_the_offset_is_the_top_of_the_parabola() -> None:
    generator = torch.Generator().manual_seed(0)
    moves = torch.randn(1200, 5, generator=generator)
    found = best_offset(moves, worth(moves, generator), NOWHERE)
    assert found[0] == pytest.approx(0.6, abs=0.1)
    assert found[1:].abs().max() < 0.05  # nothing is to be had there


def test_directions_that_tell_nothing_are_left_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    moves, values = torch.randn(400, 5, generator=generator), torch.randn(400, generator=generator)
    assert (best_offset(moves, values, NOWHERE) == 0).sum() >= 4
    assert best_offset(moves, torch.zeros(400), NOWHERE).tolist() == [0] * 5


def test_it_goes_no_further_at_once_than_was_tried() -> None:
    moves = torch.randn(400, 5, generator=torch.Generator().manual_seed(2))
    before = torch.tensor([2.0, 0, 0, 0, 0])
    slopes = torch.tensor([1.0, -1, 0, 0, 0])
    found = best_offset(moves, moves @ slopes + 0.01 * moves[:, 4].sin(), before)
    assert found[:2].tolist() == [3, -1]
    assert best_offset(moves[:1], torch.ones(1), NOWHERE).isfinite().all()


def test_the_actor_begins_there_and_is_held_there(make: Make) -> None:
    agent = make(constant_steps=32, anchor=1.0)
    agent.learn(32)  # all of it for the offset: nothing is learned yet
    assert agent._n_updates == 0
    critic, offset = agent.critic, agent.critic.offset
    assert offset.abs().max() > 0
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8))
    with torch.no_grad():
        described = critic.describe(images)
        moved = torch.tanh(critic.pretrained.head(critic.split(described)[0]) + offset)
        torch.testing.assert_close(critic.begun(described), moved, rtol=0, atol=1e-5)
        for actor in (agent.actor, agent.actor_target):
            torch.testing.assert_close(actor(images), moved, rtol=0, atol=1e-6)
    agent.policy.set_training_mode(False)
    batch = agent.memory.everything()
    assert agent._climb(batch, agent._moving(agent.actor))["distance"].item() < 1e-6
    settled = offset.clone()
    agent.learn(16, reset_num_timesteps=False)
    assert agent._n_updates > 0
    assert torch.equal(offset, settled)


def test_without_steps_for_it_the_actor_begins_as_it_was(make: Make) -> None:
    agent = make(learning_starts=1000)
    agent.learn(32)
    described = agent.memory.everything().descriptions
    assert not agent.critic.offset.any()
    assert torch.equal(agent.critic.begun(described), agent.critic.split(described)[1])
