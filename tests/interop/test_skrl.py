"""skrl's PPO, which adds the value of the next observation where an episode was cut by a time limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from torch import nn

pytest.importorskip("skrl")

from skrl.agents.torch.ppo import PPO
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import DeterministicMixin, GaussianMixin, Model
from skrl.trainers.torch import SequentialTrainer

import sr_env  # noqa: F401

STEPS, ENVS = 8, 4


class Policy(GaussianMixin, Model):
    """A Gaussian over actions."""

    def __init__(self, env: Any) -> None:
        spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
        Model.__init__(self, **spaces, device="cpu")
        GaussianMixin.__init__(self, clip_actions=True)
        self.mean = nn.Linear(self.num_observations, self.num_actions)
        self.spread = nn.Parameter(torch.full((self.num_actions,), -2.0))

    def compute(self, inputs: dict[str, Any], role: str) -> tuple[Any, ...]:
        return self.mean(inputs["observations"].float() / 255).tanh(), {"log_std": self.spread}


class Value(DeterministicMixin, Model):
    """A value far from zero, so that it would show in a reward."""

    def __init__(self, env: Any) -> None:
        spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
        Model.__init__(self, **spaces, device="cpu")
        DeterministicMixin.__init__(self)
        self.value = nn.Linear(self.num_observations, 1)
        nn.init.constant_(self.value.bias, 1000.0)

    def compute(self, inputs: dict[str, Any], role: str) -> tuple[Any, ...]:
        return self.value(inputs["observations"].float() / 255), {}


@pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
@pytest.mark.parametrize("env_id", ["BlindSR-v0", "BlindSRIterative-v0"])
def test_time_limit_bootstrap_adds_nothing(env_id: str, mode: str, small: dict[str, Any], tmp_path: Path) -> None:
    made = gym.make_vec(env_id, ENVS, vectorization_mode=mode, max_steps=2, **small)
    env = wrap_env(made, wrapper="gymnasium", verbose=False)
    memory = RandomMemory(memory_size=STEPS, num_envs=ENVS, device="cpu")
    agent = PPO(
        models={"policy": Policy(env), "value": Value(env)},
        memory=memory,
        observation_space=env.observation_space,
        action_space=env.action_space,
        device="cpu",
        cfg={
            "rollouts": STEPS,
            "learning_epochs": 1,
            "time_limit_bootstrap": True,
            "experiment": {"directory": str(tmp_path), "write_interval": 0, "checkpoint_interval": 0},
        },
    )
    before = [parameter.clone() for parameter in agent.policy.parameters()]
    rewards: list[torch.Tensor] = []
    step = env.step

    def noting(actions: torch.Tensor) -> Any:
        result = step(actions)
        rewards.append(result[1].clone())
        return result

    env.step = noting
    SequentialTrainer(
        env=env, agents=agent, cfg={"timesteps": STEPS, "headless": True, "disable_progressbar": True}
    ).train()
    assert any((a != b).any() for a, b in zip(before, agent.policy.parameters(), strict=True))
    torch.testing.assert_close(memory.get_tensor_by_name("rewards"), torch.stack(rewards))
    assert not memory.get_tensor_by_name("truncated").any()
    assert memory.get_tensor_by_name("terminated").any()
    assert torch.stack(rewards).abs().max() < 500
