"""The replay memory: what it keeps, scales and draws."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from blindsr_agents.hinge_ddpg import HingeDDPG

Make = Callable[..., HingeDDPG]
Remember = Callable[..., None]


def test_memory_is_bounded_keeps_the_latest_and_no_next_observation(make: Make, remember: Remember) -> None:
    memory = make(buffer_size=16).memory
    assert not hasattr(memory, "next_observations")
    image_bytes = 3 * 16 * 16
    assert memory.nbytes == 16 * (image_bytes + 4 * (memory.descriptions.shape[-1] + 10 + 1 + 1 + 1) + 1)
    for number in range(7):  # four scenes each: rows 0 to 2 are written twice
        remember(memory, np.full((4, 3, 16, 16), number, np.uint8), np.zeros((4, 10)), np.full(4, number))
    assert memory.rewards[:, 0].tolist() == [4, 5, 6, 3]
    fresh = memory.fresh()
    assert fresh is not None
    assert len(fresh.rewards) == 16
    assert memory.fresh() is None


@pytest.mark.parametrize(
    ("normalisation", "expected"), [("none", (1.0, 1.0)), ("all", (3.0, 3.0)), ("width", (1.0, 5.0))]
)
def test_rewards_are_scaled_per_width(
    make: Make, remember: Remember, normalisation: str, expected: tuple[float, float]
) -> None:
    memory = make(buffer_size=128, normalisation=normalisation).memory
    images = np.zeros((4, 3, 16, 16), np.uint8)
    for _ in range(32):  # widths 0.3 and 3.9 are in the first and last of eight ranges of 0.2 .. 4.0
        remember(memory, images, np.zeros((4, 10)), np.array([1.0, -1.0, 5.0, -5.0]), (0.3, 0.3, 3.9, 3.9))
    memory.measure_scales()
    assert (memory.scales[0], memory.scales[-1]) == expected
    batch = memory.draw(64, np.random.default_rng(0), images=False)
    assert torch.equal(batch.scales, torch.where(batch.rewards.abs() < 2, *expected))


def test_rewards_are_scaled_per_scene(make: Make, remember: Remember) -> None:
    memory = make(buffer_size=128, normalisation="scene", env_changes={"actions_per_scene": 2}).memory
    images = np.zeros((4, 3, 16, 16), np.uint8)
    for _ in range(32):
        remember(memory, images, np.zeros((4, 10)), np.array([3.0, -3.0, 0.0, 0.01]), (1.0, 1.0, 3.9, 3.9))
    memory.measure_scales()
    batch = memory.draw(64, np.random.default_rng(0), images=False)
    floor = 0.1 * 0.005  # a tenth of the median magnitude at width 3.9, which is the mean of 0 and 0.01
    small = max(0.01 / math.sqrt(2), floor)
    expected = torch.where(batch.rewards.abs() > 1, 3.0, small)
    torch.testing.assert_close(batch.scales, expected)
    with pytest.raises(ValueError, match="several actions on a scene"):
        make(normalisation="scene")


def test_drawn_scenes_come_with_all_actions_tried_on_them(make: Make, remember: Remember) -> None:
    memory = make(buffer_size=128, env_changes={"actions_per_scene": 2}).memory
    images = np.zeros((4, 3, 16, 16), np.uint8)
    for number in range(8):
        remember(memory, images, np.zeros((4, 10)), 4 * number + np.arange(4.0))
    drawn = memory.draw(64, np.random.default_rng(0), images=False).rewards.reshape(-1, 2)
    assert len(drawn) == 32
    assert torch.equal(drawn[:, 1], drawn[:, 0] + 1)
    assert set((drawn[:, 0] % 4).tolist()) == {0, 2}  # a scene is 0 and 1 or 2 and 3


def test_memory_wants_descriptions_first(make: Make) -> None:
    memory = make().memory
    zeros = np.zeros((4, 3, 16, 16), np.uint8)
    with pytest.raises(RuntimeError, match="announce"):
        memory.add(zeros, zeros, np.zeros((4, 10)), np.zeros(4), np.ones(4), [{"kernel_width": 1.0}] * 4)


@pytest.mark.parametrize("actions_per_scene", [1, 2])
def test_memory_keeps_each_scene_with_its_description(make: Make, actions_per_scene: int) -> None:
    agent = make(env_changes={"actions_per_scene": actions_per_scene})
    agent.learn(16)
    memory = agent.memory
    batch = memory.draw(32, np.random.default_rng(0), images=True)
    assert batch.observations is not None
    torch.testing.assert_close(batch.descriptions, agent.critic.describe(batch.observations), atol=1e-5, rtol=1e-4)


def test_memory_refuses_longer_episodes(make: Make) -> None:
    memory = make().memory
    zeros = np.zeros((4, 3, 16, 16), np.uint8)
    memory.announce(memory.descriptions[0])
    with pytest.raises(ValueError, match="one step"):
        memory.add(zeros, zeros, np.zeros((4, 10)), np.zeros(4), np.zeros(4), [{}] * 4)
