"""Stable-Baselines3's VecEnv over the vector environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_env import (
    BlindSREnv,
    BlindSRIterativeVectorEnv,
    BlindSRVecEnv,
    BlindSRVectorEnv,
)
from sr_env.utils import torchvision_compat  # noqa: F401
from sr_env.utils.checks import UsageError

from stable_baselines3 import PPO  # isort: skip
from stable_baselines3.common.monitor import Monitor  # isort: skip


@pytest.fixture
def small(tiny_renderer: Path, random_photos: list[np.ndarray]) -> dict[str, Any]:
    return {"photos": random_photos, "patch_size": 160, "renderer": str(tiny_renderer), "device": "cpu"}


def test_rewards_and_infos_are_the_vector_envs(small: dict[str, Any]) -> None:
    env, plain = BlindSRVecEnv(BlindSRVectorEnv(3, **small)), BlindSRVectorEnv(3, **small)
    env.seed(11)
    first = env.reset()
    expected, told = plain.reset(seed=11)
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(env.reset_infos[1]["code_true"], told["code_true"][1])
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 10)).astype(np.float32)
    observations, rewards, dones, infos = env.step(actions)
    after, gains, *_ = plain.step(actions)
    np.testing.assert_array_equal(observations, after)
    np.testing.assert_allclose(rewards, gains, atol=1e-6)
    assert dones.all()
    for index, info in enumerate(infos):
        np.testing.assert_array_equal(info["terminal_observation"], first[index])
        assert info["episode"]["r"] == pytest.approx(gains[index])
        assert info["episode"]["l"] == 1
        assert info["TimeLimit.truncated"] is False


def test_iterative_returns_are_summed(small: dict[str, Any]) -> None:
    env = BlindSRVecEnv(BlindSRIterativeVectorEnv(2, max_steps=3, **small))
    env.reset()
    rewards = []
    for _ in range(3):
        observations, reward, dones, infos = env.step(np.full((2, 10), 0.1, np.float32))
        rewards.append(reward)
    assert dones.all()
    assert infos[1]["episode"]["r"] == pytest.approx(float(np.sum(rewards, axis=0)[1]), abs=1e-4)
    assert infos[1]["episode"]["l"] == 3
    assert set(infos[0]["terminal_observation"]) == {"lr", "code", "sr"}
    assert set(observations) == {"lr", "code", "sr"}


def test_sb3_trains_on_it(small: dict[str, Any]) -> None:
    env = BlindSRVecEnv(BlindSRVectorEnv(2, **small))
    model = PPO("CnnPolicy", env, n_steps=4, batch_size=8, n_epochs=1, seed=0, device="cpu")
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(16)
    assert model.num_timesteps == 16
    assert any((a != b).any() for a, b in zip(before, model.policy.parameters(), strict=True))


def test_shared_attributes(small: dict[str, Any]) -> None:
    env = BlindSRVecEnv(BlindSRVectorEnv(2, **small))
    assert env.get_attr("num_envs") == [2, 2]
    assert env.env_is_wrapped(Monitor) == [True, True]
    env.set_attr("render_mode", "rgb_array")
    env.reset()
    assert len(env.env_method("render")) == 2
    assert len(env.get_images()) == 2
    with pytest.raises(ValueError, match="leave indices out"):
        env.set_attr("render_mode", None, indices=0)


def test_each_sub_environment_has_options_of_its_own(small: dict[str, Any]) -> None:
    env = BlindSRVecEnv(BlindSRVectorEnv(3, **small))
    env.seed(5)
    env.reset()
    drawn = env.reset_infos
    env.seed(5)
    env.set_options([{"photo": 4, "crop": (1, 2)}, {}, {"kernel_width": 0.9}])
    env.reset()
    first, second, third = env.reset_infos
    assert (first["photo"], first["crop"].tolist()) == (4, [1, 2])
    assert first["kernel_width"].tolist() == drawn[0]["kernel_width"].tolist()
    assert all(np.array_equal(second[name], drawn[1][name]) for name in ("photo", "crop", "kernel_width"))
    assert third["kernel_width"].tolist() == pytest.approx([0.9, 0.9])
    assert third["photo"] == drawn[2]["photo"]
    env.set_options({"photo": 1})
    env.reset()
    assert [info["photo"] for info in env.reset_infos] == [1, 1, 1]
    for wrong, told in (("photo", "no mapping"), ([{"photo": 0}], "1 options for 3"), ([{}, None, {}], "no mapping")):
        with pytest.raises(UsageError, match=told):
            env.set_options(wrong)
    env.reset()  # nothing of them is kept
    shared = BlindSRVecEnv(BlindSRVectorEnv(2, actions_per_scene=2, **small))
    shared.set_options([{"photo": 1}, {"photo": 2}])
    with pytest.raises(UsageError, match="shares a scene"):
        shared.reset()


def test_images_show_the_finished_episode(small: dict[str, Any]) -> None:
    env = BlindSRVecEnv(BlindSRVectorEnv(2, render_mode="rgb_array", **small))
    scalar = BlindSREnv(render_mode="rgb_array", **small)
    env.seed(3)
    env.reset()
    env.step(np.full((2, 10), 0.3, np.float32))
    scalar.reset(seed=3)
    scalar.step(np.full(10, 0.3, np.float32))
    np.testing.assert_array_equal(env.get_images()[0], scalar.render())  # type: ignore[arg-type]


def test_another_autoreset_is_refused(small: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="autoreset_mode 'NextStep': make the environment with 'SameStep'"):
        BlindSRVecEnv(BlindSRVectorEnv(2, autoreset_mode="NextStep", **small))
