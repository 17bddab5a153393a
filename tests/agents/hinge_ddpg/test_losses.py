"""Critic losses against hand-derived values, and what rewards are made into."""

from __future__ import annotations

import math

import pytest
import torch
from blindsr_agents.hinge_ddpg import CRITIC_LOSSES, REWARD_CLIP, contrast, critic_loss, squash

GAMMA = 0.9


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Q = (2, -1), r = (1, -3), gamma = 0.9. Hinge terms max(0, -gamma Q) = (0, 0.9); r - Q = (-1, -2).
        ("printed", ((0 - 1) + (0.9 - 2)) / 2),
        ("hinge_l2", ((0 + 1) + (0.9 + 4)) / 2),
        ("hinge_l1", ((0 + 1) + (0.9 + 2)) / 2),
        ("hinge_margin", (0 + 0) / 2),  # 1 - 1.9 * 2 < 0; -3 + 1.9 < 0
        ("mse", (1 + 4) / 2),
    ],
)
def test_losses_by_hand(name: str, expected: float) -> None:
    q, r = torch.tensor([2.0, -1.0]), torch.tensor([1.0, -3.0])
    assert critic_loss(name)(q, r, GAMMA).item() == pytest.approx(expected, abs=1e-6)


def test_margin_by_hand() -> None:
    assert critic_loss("hinge_margin")(torch.tensor([0.5]), torch.tensor([2.0]), GAMMA).item() == pytest.approx(1.05)


@pytest.mark.parametrize("reward", [-5.0, 0.0, 7.0])
def test_printed_gradient_ignores_the_reward(reward: float) -> None:
    q = torch.tensor([-2.0, -0.1, 0.1, 3.0], requires_grad=True)
    (critic_loss("printed")(q, torch.full_like(q, reward), GAMMA) * len(q)).backward()
    assert q.grad is not None
    assert q.grad.tolist() == pytest.approx([-1 - GAMMA, -1 - GAMMA, -1, -1])


@pytest.mark.parametrize(
    ("reward", "minimum"), [(1.5, 1.5), (0.0, 0.0), (-0.2, 0.0), (-0.44, 0.0), (-1.0, -1.0 + GAMMA / 2)]
)
def test_hinge_l2_minimum(reward: float, minimum: float) -> None:
    grid = torch.linspace(-3, 3, 6001)
    values = torch.stack([critic_loss("hinge_l2")(q, torch.tensor(reward), GAMMA) for q in grid])
    assert grid[values.argmin()].item() == pytest.approx(minimum, abs=2e-3)


@pytest.mark.parametrize("reward", [2.0, -1.0])
def test_hinge_l1_minimum_is_the_reward(reward: float) -> None:
    grid = torch.linspace(-3, 3, 6001)
    values = torch.stack([critic_loss("hinge_l1")(q, torch.tensor(reward), GAMMA) for q in grid])
    assert grid[values.argmin()].item() == pytest.approx(reward, abs=2e-3)


def test_contrast_by_hand() -> None:
    # Two scenes with two actions. Differences from the scene's mean: wanted (1, -1) and (3, -3), of rms sqrt(5).
    wanted = torch.tensor([[6.0, 4.0, 0.0, -6.0]])
    assert contrast(wanted + torch.tensor([[5.0, 5.0, -7.0, -7.0]]), wanted, 2) == 0  # the scene's own level is free
    told = torch.tensor([[2.0, 2.0, 0.0, -6.0]])  # the first scene's difference is missed: off by 1 / sqrt(5)
    assert contrast(told, wanted, 2).item() == pytest.approx(0.5 * (2 * 0.2) / 4)


def test_targets_are_squashed_and_clipped() -> None:
    values = squash(torch.tensor([0.0, 2.0, -2.0, 1e9, -1e9]), 2.0)
    linear = math.log(1 + math.sqrt(2))  # asinh(1)
    expected = [0, linear, -linear, REWARD_CLIP, -REWARD_CLIP]
    assert values.tolist() == pytest.approx(expected, abs=1e-6)


def test_every_loss_has_a_name() -> None:
    assert tuple(CRITIC_LOSSES) == ("printed", "hinge_l2", "hinge_l1", "hinge_margin", "mse")
