"""Returns by hand, what the critics are fitted to, and the memory of episodes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from blindsr_agents.hinge_ddpg import REWARD_CLIP, squash
from blindsr_agents.iterative import EpisodeBatch, EpisodeMemory, IterativeHinge, n_step_returns

Make = Callable[..., IterativeHinge]
Stir = Callable[[IterativeHinge], None]
Steps = Callable[[IterativeHinge], EpisodeBatch]


@pytest.mark.parametrize(
    ("n", "start", "expected"),
    [
        # Rewards 1, 2, 4, 8; gamma 0.5: sum, the step after it, discount of what follows.
        (1, 0, (1.0, 1, 0.5)),
        (1, 3, (8.0, 4, 0.0)),
        (2, 1, (2 + 0.5 * 4, 3, 0.25)),
        (3, 2, (4 + 0.5 * 8, 4, 0.0)),
        (4, 0, (1 + 0.5 * 2 + 0.25 * 4 + 0.125 * 8, 4, 0.0)),
    ],
)
def test_n_step_returns_by_hand(n: int, start: int, expected: tuple[float, int, float]) -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0, 8.0], [0.0, 0.0, 0.0, 0.0]])
    sums, ends, discounts = n_step_returns(rewards, torch.tensor([start, start]), n, 0.5)
    assert (sums[0].item(), ends[0].item(), discounts[0].item()) == expected
    assert sums[1] == 0


def test_monte_carlo_targets_are_the_rest_of_the_episode(make: Make, stir: Stir, some_steps: Steps) -> None:
    agent = make(n_steps=None)
    stir(agent)  # whatever the critics say
    expected = [math.asinh(total / 2) for total in (0.75, -0.25, 0.25)]
    assert agent.targets(some_steps(agent)).tolist() == pytest.approx(expected, abs=1e-6)


def test_one_step_targets_bootstrap_with_the_averages(make: Make, stir: Stir, some_steps: Steps) -> None:
    agent = make(n_steps=1, discount=0.9)
    stir(agent)
    batch = some_steps(agent)
    later = batch.states[[0, 1], [1, 2]]
    ahead = agent.critic_target(agent.actor_target, later, agent.actor_target(later)).min(0).values
    first, second = (0.9 * 2 * math.sinh(min(max(v, -REWARD_CLIP), REWARD_CLIP)) for v in ahead.tolist())
    assert abs(first) > 1e-3
    expected = squash(torch.tensor([1.0 + first, -0.5 + second, 0.25]), 2.0)
    torch.testing.assert_close(agent.targets(batch), expected)


def test_two_critics_and_pessimism_one_are_twins(make: Make) -> None:
    values = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    assert make().value(values).tolist() == [0.5, -2.0]
    assert make(pessimism=0.0).value(values).tolist() == [0.75, 0.5]


def test_memory_keeps_the_latest_episodes() -> None:
    memory = EpisodeMemory(4, 2, 1, 1, (0.0, 4.0), "width")
    for number in range(3):
        rewards = torch.full((2, 2), float(number))
        memory.add(torch.zeros(2, 2, 1), torch.zeros(2, 2, 1), rewards, np.array([0.1, 3.9]))
    assert memory.columns["rewards"][:, 0].tolist() == [2, 2, 1, 1]
    assert memory.columns["groups"].tolist() == [0, 7, 0, 7]
    other = EpisodeMemory(4, 3, 1, 1, (0.0, 4.0), "width")
    with pytest.raises(ValueError, match="the memory kept states"):
        other.load_state(memory.state())
    with pytest.raises(ValueError, match="keeps nothing"):
        EpisodeMemory(0, 2, 1, 1, (0.0, 4.0), "width")
