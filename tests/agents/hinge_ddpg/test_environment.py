"""The environments that HingeDDPG takes, and those that it refuses with one clear error."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from blindsr_agents.hinge_ddpg import HingeDDPG

from sr_env.degradation import load_basis
from sr_env.envs.sb3 import BlindSRVecEnv
from sr_env.envs.vector import BlindSRIterativeVectorEnv, BlindSRVectorEnv
from sr_env.models import AMNet, KernelPredictor, load_predictor, save_checkpoint
from sr_env.utils.checks import UsageError

from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack  # isort: skip

Make = Callable[..., HingeDDPG]


def test_learns_from_gym_make(centred: dict[str, Any], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = gym.make("sr_env:BlindSR-v0", **centred)
    agent = HingeDDPG(env=env, buffer_size=32, learning_starts=2, batch_size=4, gradient_steps=1, seed=0, device="cpu")
    agent.learn(6)
    assert agent.num_timesteps == 6
    agent.save(tmp_path / "agent.zip")
    loaded = HingeDDPG.load(tmp_path / "agent.zip", device="cpu")
    observation = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(loaded.predict(observation)[0], agent.predict(observation)[0])
    again = HingeDDPG.load(tmp_path / "agent.zip", env=env, device="cpu")
    again.learn(4, reset_num_timesteps=False)
    assert again.num_timesteps == 10


def test_refuses_the_iterative_environment(centred: dict[str, Any]) -> None:
    env = BlindSRVecEnv(BlindSRIterativeVectorEnv(2, **centred))
    with pytest.raises(ValueError, match=r"for BlindSRIterative-v0 IterativeHinge"):
        HingeDDPG(env=env)


def test_refuses_a_predictor_of_another_basis(centred: dict[str, Any], tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "o.safetensors", KernelPredictor(channels=8), load_basis("anisotropic"), 4, {})
    env = BlindSRVecEnv(BlindSRVectorEnv(2, **centred))
    with pytest.raises(ValueError, match="kernel basis"):
        HingeDDPG(env=env, predictor=path)


def test_refuses_no_environment() -> None:
    with pytest.raises(UsageError, match="needs an environment"):
        HingeDDPG()


def test_refuses_observations_that_are_not_one_rgb_image(centred: dict[str, Any]) -> None:
    vector = BlindSRVecEnv(BlindSRVectorEnv(2, **centred))
    single = gym.make("sr_env:BlindSR-v0", **centred)
    wrong = {
        r"shape \(48, 16, 16\)|shape \(16, 16, 12\)|shape \(12, 16, 16\)": VecFrameStack(vector, 4),
        r"shape \((1, 16, 16|16, 16, 1)\)": gym.wrappers.GrayscaleObservation(single, keep_dim=True),
        r"shape \(16, 16\)": gym.wrappers.GrayscaleObservation(single),
        r"shape \(4, 16, 16, 3\)": gym.wrappers.FrameStackObservation(single, 4),
        r"shape \(768,\)": gym.wrappers.FlattenObservation(single),
    }
    for shape, env in wrong.items():
        with pytest.raises(UsageError, match=rf"one RGB image.*{shape}"):
            HingeDDPG(env=env)


def test_refuses_environments_of_others() -> None:
    class Other(gym.Env[np.ndarray, np.ndarray]):
        observation_space = gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)
        action_space = gym.spaces.Box(-1, 1, (10,))

    with pytest.raises(UsageError, match="learns in BlindSR-v0"):
        HingeDDPG(env=DummyVecEnv([Other]))


@pytest.mark.parametrize("reference", ["bicubic", "none"])
def test_warns_of_rewards_that_are_not_centred(make: Make, centred: dict[str, Any], reference: str) -> None:
    with pytest.warns(UserWarning, match=r'not centred.*give reference="predictor"'):
        make({"reference": reference})
    agent = make()
    other = BlindSRVecEnv(BlindSRVectorEnv(4, **{**centred, "reference": reference}))
    with pytest.warns(UserWarning, match="not centred"):
        agent.set_env(other)


def test_centred_rewards_warn_of_nothing(make: Make) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        make()


def test_set_env_reads_how_scenes_are_shared(make: Make, centred: dict[str, Any]) -> None:
    """Each sub-environment must act on its own scene's code, and the memory draw the scene's own actions."""
    agent = make({"actions_per_scene": 4}, learning_starts=1000)
    agent.set_env(BlindSRVecEnv(BlindSRVectorEnv(4, **centred)))
    assert agent.actions_per_scene == agent.memory.times == 1
    agent.learn(8)
    seen = agent.memory.observations[:2].reshape(-1, 3, 16, 16)
    assert len(np.unique(seen.reshape(8, -1), axis=0)) == 8
    agent.policy.set_training_mode(False)
    means, _ = agent.predict(seen)
    np.testing.assert_allclose(agent.memory.actions[:2].reshape(8, -1), means, atol=5 * agent.config.noise_limit)
    for row, described in zip(seen, agent.memory.descriptions[:2].reshape(8, -1), strict=True):
        own = agent.critic.describe(agent.memory.to_torch(row[None])).numpy()[0]
        np.testing.assert_allclose(described, own, atol=1e-5)


def test_set_env_refuses_what_the_memory_does_not_fit(make: Make, centred: dict[str, Any]) -> None:
    agent = make({"actions_per_scene": 2}, learning_starts=1000)
    agent.learn(8)
    with pytest.raises(UsageError, match=r"2 action.*gives 4"):
        agent.set_env(BlindSRVecEnv(BlindSRVectorEnv(4, actions_per_scene=4, **centred)))
    with pytest.raises(UsageError, match=r"for 4 sub-environments.*has 6"):
        agent.set_env(BlindSRVecEnv(BlindSRVectorEnv(6, actions_per_scene=2, **centred)))
    agent.set_env(BlindSRVecEnv(BlindSRVectorEnv(4, actions_per_scene=2, **centred)))
    assert agent.actions_per_scene == 2


def test_set_env_refuses_a_renderer_of_another_basis(make: Make, centred: dict[str, Any], tmp_path: Path) -> None:
    basis = load_basis("anisotropic")
    renderer = save_checkpoint(tmp_path / "r.safetensors", AMNet(scale=4, channels=8, blocks=1), basis, 4, {})
    predictor = save_checkpoint(tmp_path / "p.safetensors", KernelPredictor(channels=8), basis, 4, {})
    changes = {"kernels": "anisotropic", "renderer": str(renderer), "predictor": str(predictor)}
    with pytest.raises(UsageError, match="kernel basis"):
        make().set_env(BlindSRVecEnv(BlindSRVectorEnv(4, **{**centred, **changes})))


def test_a_checkpoint_of_another_basis_is_refused_before_any_measuring(
    centred: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_checkpoint(tmp_path / "o.safetensors", KernelPredictor(channels=8), load_basis("anisotropic"), 4, {})
    monkeypatch.setattr("blindsr_agents.hinge_ddpg.agent.measured_noise_shape", lambda *_: pytest.fail("measured"))
    with pytest.raises(UsageError, match="kernel basis"):
        HingeDDPG(env=BlindSRVecEnv(BlindSRVectorEnv(2, **centred)), predictor=load_predictor(path))
