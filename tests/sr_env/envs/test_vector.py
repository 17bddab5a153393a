"""The vector environments: agreement with the scalar ones, seeding, autoreset, what they tell and show."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import vector as wrappers

from sr_env import BlindSREnv, BlindSRIterativeEnv, BlindSRIterativeVectorEnv, BlindSRVectorEnv
from sr_env.utils.checks import UsageError

ZEROS = np.zeros((3, 10), np.float32)


def test_reward_difference_of_scalar_and_vector_is_under_a_thousandth(small: dict[str, Any]) -> None:
    count, rounds = 10, 5
    vector = BlindSRVectorEnv(count, **small)
    scalars = [BlindSREnv(**small) for _ in range(count)]
    rng = np.random.default_rng(0)
    observations, _ = vector.reset(seed=7)
    firsts = [env.reset(seed=7 + index)[0] for index, env in enumerate(scalars)]
    for _ in range(rounds):  # 50 episodes
        np.testing.assert_array_equal(observations, np.stack(firsts))
        actions = rng.uniform(-1, 1, (count, 10)).astype(np.float32)
        observations, rewards, terminations, _, _ = vector.step(actions)
        single = [env.step(action)[1] for env, action in zip(scalars, actions, strict=True)]
        np.testing.assert_allclose(rewards, single, atol=1e-3)
        assert terminations.all()
        firsts = [env.reset()[0] for env in scalars]


def test_vector_autoreset_happens_in_the_same_step(small: dict[str, Any]) -> None:
    env = BlindSRVectorEnv(3, **small)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    first, told = env.reset(seed=0)
    second, _, terminations, truncations, infos = env.step(np.zeros((3, 10), np.float32))
    assert terminations.all()
    assert not truncations.any()
    np.testing.assert_array_equal(np.stack(infos["final_obs"]), first)
    np.testing.assert_array_equal(infos["final_info"]["code_true"], told["code_true"])
    assert "psnr" in infos["final_info"]
    assert infos["_final_info"].all()
    assert not np.array_equal(first, second)
    assert "psnr" not in infos
    assert not np.array_equal(infos["code_true"], told["code_true"])


def test_iterative_vector_env(small: dict[str, Any]) -> None:
    env = BlindSRIterativeVectorEnv(2, max_steps=2, **small)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    flags = [env.step(env.action_space.sample())[2].tolist() for _ in range(4)]
    assert flags == [[False, False], [True, True]] * 2


def test_vector_env_from_make_vec_truncates_like_time_limit(small: dict[str, Any]) -> None:
    env = gym.make_vec("BlindSRIterative-v0", 2, vectorization_mode="vector_entry_point", max_episode_steps=2, **small)
    env.reset(seed=0)
    zeros = np.zeros((2, 10), np.float32)
    assert [env.step(zeros)[3].tolist() for _ in range(4)] == [[False, False], [True, True]] * 2


def test_vector_seeds(small: dict[str, Any]) -> None:
    env = BlindSRVectorEnv(2, **small)
    by_list = env.reset(seed=[4, 5])[0]
    np.testing.assert_array_equal(by_list, env.reset(seed=4)[0])
    onwards = env.reset()[0]
    assert not np.array_equal(onwards, by_list)
    with pytest.raises(ValueError, match="3 seeds for 2"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="num_envs 0"):
        BlindSRVectorEnv(0, **small)


def test_actions_that_share_a_scene(small: dict[str, Any]) -> None:
    envs = BlindSRVectorEnv(6, actions_per_scene=3, reference="predictor", **small)
    observations, _ = envs.reset(seed=5)
    assert (observations.reshape(2, 3, -1) == observations.reshape(2, 3, -1)[:, :1]).all()
    assert not np.array_equal(observations[0], observations[3])
    plain, _ = BlindSRVectorEnv(6, reference="predictor", **small).reset(seed=5)
    np.testing.assert_array_equal(observations[[0, 3]], plain[[0, 3]])  # drawn by the first of each three
    rewards = envs.step(np.random.default_rng(0).uniform(-1, 1, (6, 10)).astype(np.float32))[1]
    assert len(set(rewards)) == 6
    told = envs.reset(options={"kernel_width": [0.5, 3.0]})[1]
    assert told["kernel_width"][:, 0].tolist() == pytest.approx([0.5] * 3 + [3.0] * 3)
    with pytest.raises(ValueError, match="actions_per_scene 4 does not divide num_envs 6"):
        BlindSRVectorEnv(6, actions_per_scene=4, **small)


def test_a_vector_env_goes_on_where_it_was_left(small: dict[str, Any]) -> None:
    envs, other = BlindSRVectorEnv(2, **small), BlindSRVectorEnv(2, **small)
    zeros = np.zeros((2, 10), dtype=np.float32)
    envs.reset(seed=3)
    observations = envs.step(zeros)[0]
    state = json.loads(json.dumps(envs.state()))
    other.load_state(state)
    again, _ = other.reset()
    np.testing.assert_array_equal(again, observations)
    np.testing.assert_array_equal(other.step(zeros)[0], envs.step(zeros)[0])
    with pytest.raises(ValueError, match="of 2 environments, not 3"):
        BlindSRVectorEnv(3, **small).load_state(state)


@pytest.mark.parametrize("env_id", ["BlindSR-v0", "BlindSRIterative-v0"])
@pytest.mark.parametrize("mode", [mode.value for mode in AutoresetMode])
def test_episodes_that_end_by_themselves_are_not_truncated(
    env_id: str, mode: str, tiny_settings: dict[str, Any]
) -> None:
    steps = 1 if env_id == "BlindSR-v0" else 3
    kinds = {"vectorization_mode": "vector_entry_point", "autoreset_mode": mode}
    for limit in ({}, {"max_episode_steps": steps}):
        envs = gym.make_vec(env_id, 3, max_steps=3, **kinds, **limit, **tiny_settings)
        envs.reset(seed=0)
        flags = [[flag.tolist() for flag in envs.step(ZEROS)[2:4]] for _ in range(steps)]
        assert flags == [[[False] * 3] * 2] * (steps - 1) + [[[True] * 3, [False] * 3]]


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("iterative", [False, True])
def test_every_autoreset_mode_agrees_with_gymnasiums(
    mode: AutoresetMode, iterative: bool, tiny_settings: dict[str, Any]
) -> None:
    settings = tiny_settings | {"max_steps": 2}
    ours = (BlindSRIterativeVectorEnv if iterative else BlindSRVectorEnv)(3, autoreset_mode=mode, **settings)
    single = BlindSRIterativeEnv if iterative else BlindSREnv
    theirs = gym.vector.SyncVectorEnv([lambda: single(**settings)] * 3, autoreset_mode=mode)
    assert ours.autoreset_mode is ours.metadata["autoreset_mode"] is mode
    assert BlindSRVectorEnv.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP  # the class' own stays
    rng = np.random.default_rng(0)

    def same(a: Any, b: Any) -> None:
        for key in a if isinstance(a, dict) else [...]:
            np.testing.assert_array_equal(a[key], b[key])

    same(ours.reset(seed=5)[0], theirs.reset(seed=5)[0])
    for _ in range(5):
        actions = rng.uniform(-1, 1, (3, 10)).astype(np.float32)
        mine, other = ours.step(actions), theirs.step(actions)
        same(mine[0], other[0])
        np.testing.assert_allclose(mine[1], other[1], atol=1e-3)
        same(mine[2:4][0], other[2])
        same(mine[3], other[3])
        assert ("final_obs" in mine[4]) == ("final_obs" in other[4])
        if "final_obs" in mine[4]:
            for a, b in zip(mine[4]["final_obs"], other[4]["final_obs"], strict=True):
                same(a, b)
        ended = mine[2] | mine[3]
        if mode is AutoresetMode.DISABLED and ended.any():
            again = [envs.reset(options={"reset_mask": ended.copy()}) for envs in (ours, theirs)]
            same(again[0][0], again[1][0])
            np.testing.assert_array_equal(again[0][1]["_code_true"], again[1][1]["_code_true"])


def test_a_mask_begins_some_episodes_and_leaves_the_others(tiny_settings: dict[str, Any]) -> None:
    settings = tiny_settings | {"max_steps": 3, "reward": {"psnr": 1, "ssim": 1}}
    ours = BlindSRIterativeVectorEnv(3, autoreset_mode="Disabled", **settings)
    theirs = gym.vector.SyncVectorEnv(
        [lambda: BlindSRIterativeEnv(**settings)] * 3, autoreset_mode=AutoresetMode.DISABLED
    )
    rng = np.random.default_rng(0)
    masks = [None, [False, True, False], [True, False, True], [False, True, True], [True, False, False], None]
    for envs in (ours, theirs):
        envs.reset(seed=2)
    for mask in masks:
        if mask is not None:
            seeds = [7, 8, 9] if mask[0] and mask[2] else None
            resets = [e.reset(seed=seeds, options={"reset_mask": np.array(mask)}) for e in (ours, theirs)]
            for key in ("lr", "code", "sr"):
                np.testing.assert_array_equal(resets[0][0][key], resets[1][0][key])
            assert resets[0][1]["_kernel_width"].tolist() == mask
            assert "score" not in resets[0][1]
        actions = rng.uniform(-1, 1, (3, 10)).astype(np.float32)
        mine, other = ours.step(actions), theirs.step(actions)
        np.testing.assert_allclose(mine[1], other[1], atol=1e-3)
        np.testing.assert_array_equal(mine[2], other[2])
        np.testing.assert_allclose(mine[4]["ssim"], other[4]["ssim"], atol=1e-5)
    assert mine[2].tolist() == [False, True, True]
    with pytest.raises(RuntimeError, match=r"sub-environments \[1, 2\] have ended.*reset_mask"):
        ours.step(ZEROS)


@pytest.mark.parametrize(
    ("mode", "mask", "told"),
    [
        ("SameStep", [True] * 4, "reset_mask does not go with autoreset_mode 'SameStep'"),
        ("Disabled", [True] * 3, "give 4 booleans"),
        ("Disabled", [1, 1, 1, 1], "give 4 booleans"),
        ("Disabled", [False] * 4, "one of them True"),
        ("Disabled", [True, False, False, False], "share a scene"),
        ("Disabled", [True, True, False, False], "before the first reset"),
    ],
)
def test_wrong_masks_are_named(mode: str, mask: list[Any], told: str, tiny_settings: dict[str, Any]) -> None:
    envs = BlindSRVectorEnv(4, actions_per_scene=2, autoreset_mode=mode, **tiny_settings)
    with pytest.raises(UsageError, match=told):
        envs.reset(options={"reset_mask": np.array(mask)})


@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])  # those that Gymnasium's wrappers of observations take
def test_gymnasiums_observation_wrappers_take_it(mode: str, tiny_settings: dict[str, Any]) -> None:
    plain = BlindSRVectorEnv(3, **tiny_settings)
    flat = wrappers.FlattenObservation(BlindSRVectorEnv(3, autoreset_mode=mode, **tiny_settings))
    np.testing.assert_array_equal(flat.reset(seed=0)[0], plain.reset(seed=0)[0].reshape(3, -1))
    dicts = wrappers.FilterObservation(
        BlindSRIterativeVectorEnv(3, autoreset_mode=mode, **tiny_settings), ["lr", "code"]
    )
    assert set(dicts.reset(seed=0)[0]) == set(dicts.step(ZEROS)[0]) == {"lr", "code"}
    if mode == "NextStep":
        normal = wrappers.NormalizeObservation(BlindSRVectorEnv(3, autoreset_mode=mode, **tiny_settings))
        normal.reset(seed=0)
        assert abs(normal.step(ZEROS)[0].mean()) < 1


def test_after_the_last_step_the_finished_episode_is_shown(
    tiny_settings: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    envs = BlindSRVectorEnv(3, render_mode="rgb_array", **tiny_settings)
    scalar = BlindSREnv(render_mode="rgb_array", **tiny_settings)
    monkeypatch.setitem(sys.modules, "moviepy", ModuleType("moviepy"))  # only writes the file
    video = wrappers.RecordVideo(
        envs, str(tmp_path), step_trigger=lambda step: step == 0, video_length=9, record_first_only=True
    )
    video.reset(seed=4)
    scalar.reset(seed=4)
    for value in (0.2, -0.2):
        video.step(np.full((3, 10), value, np.float32))
        scalar.step(np.full(10, value, np.float32))
        np.testing.assert_array_equal(envs.render()[0], scalar.render())  # type: ignore[index, arg-type]
        np.testing.assert_array_equal(video.recorded_frames[-1], scalar.render())  # type: ignore[arg-type]
        np.testing.assert_array_equal(envs.sr[0], scalar.sr)
        np.testing.assert_array_equal(envs.hr[0], scalar.hr)
        scalar.reset()
    assert len(video.recorded_frames) == 2
    video.recorded_frames.clear()
    envs.reset()
    scalar.reset()
    np.testing.assert_array_equal(envs.render()[0], scalar.render())  # type: ignore[index, arg-type]


def test_seeds_are_told(tiny_settings: dict[str, Any]) -> None:
    envs = BlindSRVectorEnv(3, **tiny_settings)
    envs.reset(seed=7)
    assert envs.np_random_seed == (7, 8, 9)
    expected = [BlindSREnv(**tiny_settings) for _ in range(3)]
    for index, env in enumerate(expected):
        env.reset(seed=7 + index)
    assert [rng.random() for rng in envs.np_random] == [env.np_random.random() for env in expected]
    envs.reset(seed=[1, None, 3])
    assert envs.np_random_seed == (1, 8, 3)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ({"seed": 1.5}, "seed 1.5 is not a whole number"),
        ({"seed": [1, 2, "x"]}, "seed 'x' is not a whole number"),
        ({"options": "photo"}, "reset options 'photo' are no mapping"),
        ({"seed": 3, "options": {"photo": "nope"}}, "unknown photo 'nope'"),
    ],
)
def test_a_wrong_reset_is_named_and_moves_nothing(
    call: dict[str, Any], told: str, tiny_settings: dict[str, Any]
) -> None:
    envs, other = BlindSRVectorEnv(3, **tiny_settings), BlindSRVectorEnv(3, **tiny_settings)
    envs.reset(seed=1)
    other.reset(seed=1)
    with pytest.raises(UsageError, match=told):
        envs.reset(**call)
    np.testing.assert_array_equal(envs.reset()[0], other.reset()[0])


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"num_envs": 2.5}, "num_envs 2.5 is not a whole number"),
        ({"autoreset_mode": "Sometimes"}, "unknown autoreset_mode 'Sometimes'.*NextStep, SameStep, Disabled"),
        ({"max_episode_steps": 0}, "max_episode_steps 0 is not positive"),
        ({"actions_per_scene": "2"}, "actions_per_scene '2' is not a whole number"),
    ],
)
def test_wrong_settings_are_named(setting: dict[str, Any], told: str, tiny_settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=told):
        BlindSRVectorEnv(**{"num_envs": 3} | setting, **tiny_settings)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'frameskip'.*autoreset_mode"):
        BlindSRVectorEnv(frameskip=4, **tiny_settings)


def test_nothing_follows_close_and_render_without_a_mode_warns(tiny_settings: dict[str, Any]) -> None:
    envs = BlindSRVectorEnv(3, **tiny_settings)
    envs.reset(seed=0)
    with pytest.warns(UserWarning, match="without specifying any render mode"):
        assert envs.render() is None
    envs.close()
    with pytest.raises(ClosedEnvironmentError, match="make a new one"):
        envs.step(ZEROS)
