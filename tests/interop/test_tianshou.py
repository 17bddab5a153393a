"""Tianshou's collector over environments of its own and ours."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("tianshou")

from tianshou.algorithm import DDPG
from tianshou.algorithm.modelfree.ddpg import ContinuousDeterministicPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv

import sr_env  # noqa: F401


class Actor(nn.Module):
    """Images to actions."""

    max_action = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(10)

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[torch.Tensor, Any]:
        return self.layer(torch.as_tensor(np.asarray(obs)).flatten(1).float() / 255).tanh(), state

    def get_output_dim(self) -> int:
        return 10


class Critic(nn.Module):
    """Images and actions to values."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(1)

    def forward(self, obs: Any, act: Any, info: Any = None) -> torch.Tensor:
        images = torch.as_tensor(np.asarray(obs)).flatten(1).float() / 255
        return self.layer(torch.cat((images, torch.as_tensor(act).float()), 1))


def test_ddpg_collects_and_learns(small: dict[str, Any]) -> None:
    envs = DummyVectorEnv([lambda: gym.make("BlindSR-v0", **small) for _ in range(3)])
    space = envs.action_space[0]
    actor, critic = Actor(), Critic()
    image = np.zeros((1, 16, 16, 3), np.uint8)
    critic(image, actor(image)[0])
    algorithm = DDPG(
        policy=ContinuousDeterministicPolicy(actor=actor, action_space=space, exploration_noise="default"),
        policy_optim=AdamOptimizerFactory(lr=1e-3),
        critic=critic,
        critic_optim=AdamOptimizerFactory(lr=1e-3),
    )
    buffer = VectorReplayBuffer(60, 3)
    collector: Collector[CollectStats] = Collector(algorithm, envs, buffer, exploration_noise=True)
    collector.reset()
    stats = collector.collect(n_step=30)
    assert stats.n_collected_steps == stats.n_collected_episodes == 30
    assert buffer.terminated[:].sum() == len(buffer) == 30
    assert not buffer.truncated[:].any()
    before = [parameter.clone() for parameter in actor.parameters()]
    from tianshou.utils.torch_utils import policy_within_training_step, torch_train_mode

    with policy_within_training_step(algorithm.policy), torch_train_mode(algorithm):
        algorithm.update(buffer=buffer, sample_size=16)
    assert any((a != b).any() for a, b in zip(before, actor.parameters(), strict=True))
