"""Environments whose action holds more than the code: spaces, scalar against vector, what is told and shown."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sr_env import BlindSREnv, BlindSRIterativeVectorEnv, BlindSRVecEnv, BlindSRVectorEnv
from sr_env.utils.checks import UsageError

ALL = ("code", "sharpen", "blend")


@pytest.fixture
def small(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    return tiny_settings | {"reference": "predictor", "blend_renderer": tiny_settings["renderer"]}


def test_the_registered_environment_sharpens(small: dict[str, Any]) -> None:
    env = gym.make("BlindSRControls-v0", **small)
    envs = gym.make_vec("BlindSRControls-v0", 2, vectorization_mode="vector_entry_point", **small)
    assert env.action_space == gym.spaces.Box(-1, 1, (11,), np.float32)
    assert envs.single_action_space == env.action_space
    blending = gym.make("BlindSRControls-v0", controls=ALL, **small)
    assert blending.action_space == gym.spaces.Box(-1, 1, (12,), np.float32)
    env.reset(seed=0)
    with pytest.raises(UsageError, match=r"give \(11,\), one kernel code, one number for sharpen"):
        env.step(np.zeros(10, np.float32))


def test_scalar_and_vector_environments_agree(small: dict[str, Any]) -> None:
    vector = BlindSRVectorEnv(4, controls=ALL, autoreset_mode="Disabled", **small)
    scalars = [BlindSREnv(controls=ALL, **small) for _ in range(4)]
    vector.reset(seed=3)
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 12)).astype(np.float32)
    rewards, infos = vector.step(actions)[1::3]
    for row, env in enumerate(scalars):
        env.reset(seed=3 + row)
        _, reward, _, _, info = env.step(actions[row])
        assert reward == pytest.approx(rewards[row], abs=1e-3)
        for name in ("sharpen", "blend", "code", "action_true"):
            np.testing.assert_allclose(info[name], infos[name][row], atol=1e-4)


def test_sharpening_is_seen_in_the_picture_and_in_the_reward(small: dict[str, Any]) -> None:
    env = BlindSREnv(controls=("code", "sharpen"), **small)
    contrast = []
    for value in (-1, 0, 1):
        _, info = env.reset(seed=0)
        action = env.simulator.episode.action[0].numpy().copy()
        action[10] = value
        reward = env.step(action)[1]
        assert (reward == 0) == (value == 0)
        contrast.append(np.abs(np.diff(env.sr.astype(float), axis=0)).mean())
        assert "sharpen" not in info  # of the reference, which chooses nothing
    assert contrast == sorted(contrast)


def test_corrections_move_every_number_of_the_action(small: dict[str, Any]) -> None:
    envs = BlindSRIterativeVectorEnv(2, controls=("code", "sharpen"), correction=0.5, **small)
    observations, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(observations)
    np.testing.assert_array_equal(observations["code"][:, 10], 0)
    for expected in (0.4, 0.8, 1.0):
        observations, *_, infos = envs.step(np.full((2, 11), 0.8, np.float32))
        np.testing.assert_allclose(observations["code"][:, 10], expected, atol=1e-6)
        np.testing.assert_allclose(infos["sharpen"], 4 * expected, atol=1e-6)


def test_episodes_that_begin_apart_keep_their_values(small: dict[str, Any]) -> None:
    envs = BlindSRIterativeVectorEnv(2, controls=ALL, autoreset_mode="Disabled", **small)
    envs.reset(seed=0)
    envs.step(np.full((2, 12), 0.5, np.float32))
    envs.reset(options={"reset_mask": np.array([True, False])})
    values = envs.simulator.episode.current.values
    assert values["sharpen"].tolist() == [0.0, 1.0]
    assert values["blend"].tolist() == [0.0, 0.3125]


def test_stable_baselines_is_told_the_values(small: dict[str, Any]) -> None:
    env = BlindSRVecEnv(BlindSRVectorEnv(2, controls=ALL, actions_per_scene=2, **small))
    env.reset()
    assert env.action_space.shape == (12,)
    infos = env.step(np.full((2, 12), -1, np.float32))[3]
    assert [(info["sharpen"], info["blend"]) for info in infos] == [(-1.0, -0.25)] * 2
    env.close()


def test_the_panel_shows_the_values_in_rows_that_are_there_before(small: dict[str, Any]) -> None:
    plain, env = (BlindSREnv("rgb_array", controls=controls, **small) for controls in (("code",), ALL))
    frames = {}
    for name, each in (("plain", plain), ("controls", env)):
        each.reset(seed=0)
        frames[name] = each.render()
    env.step(np.full(12, 0.7, np.float32))
    after = env.render()
    assert after is not None and frames["controls"] is not None and frames["plain"] is not None  # noqa: PT018
    assert after.shape == frames["controls"].shape
    assert not np.array_equal(frames["controls"], frames["plain"])
