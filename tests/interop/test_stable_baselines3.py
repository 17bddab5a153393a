"""Stable-Baselines3's own ways to make vector environments, in processes too, and its algorithms' replay."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import sr_env  # noqa: F401
from sr_env.utils import torchvision_compat  # noqa: F401

from stable_baselines3 import DDPG  # isort: skip
from stable_baselines3.common.env_util import make_vec_env  # isort: skip
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv  # isort: skip


@pytest.mark.parametrize("env_id", ["BlindSR-v0", "BlindSRIterative-v0"])
def test_ddpg_stores_no_time_limits(env_id: str, small: dict[str, Any]) -> None:
    env = make_vec_env(env_id, 2, seed=0, env_kwargs={**small, "max_steps": 2, "patch_size": 160})  # its CNN wants 36
    policy = "MlpPolicy" if env_id == "BlindSR-v0" else "MultiInputPolicy"
    arch = {"net_arch": [16]}
    model = DDPG(policy, env, buffer_size=64, learning_starts=4, batch_size=4, policy_kwargs=arch, seed=0, device="cpu")
    model.learn(16)
    assert model.replay_buffer is not None
    assert not model.replay_buffer.timeouts.any()
    assert model.replay_buffer.dones[: model.replay_buffer.pos].mean() == (1 if env_id == "BlindSR-v0" else 0.5)


def test_processes_give_what_one_process_gives(small: dict[str, Any]) -> None:
    settings = {name: value for name, value in small.items() if name != "photos"}

    def run(kind: type[VecEnv], **options: Any) -> tuple[np.ndarray, np.ndarray]:
        env = kind([lambda: gym.make("sr_env:BlindSR-v0", **settings)] * 2, **options)  # type: ignore[call-arg]
        env.seed(3)
        env.reset()
        observations, rewards, dones, _ = env.step(np.full((2, 10), 0.1, np.float32))
        assert dones.all()
        env.close()
        return np.asarray(observations), rewards

    first, second = run(DummyVecEnv), run(SubprocVecEnv, start_method="fork")
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_allclose(first[1], second[1], atol=1e-4)
