"""The Gymnasium environments, scalar and vector: contracts, seeding, agreement, autoreset."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import sr_env
from sr_env import (
    BlindSREnv,
    BlindSRIterativeVectorEnv,
    BlindSRVectorEnv,
)
from sr_env.utils import torchvision_compat  # noqa: F401

from stable_baselines3.common.env_checker import check_env as sb3_check_env  # isort: skip

IDS = ("BlindSR-v0", "BlindSRIterative-v0")


@pytest.fixture
def small(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    return tiny_settings | {"patch_size": 160}  # Stable-Baselines3's checker wants images of 36 pixels at least


@pytest.fixture
def strict() -> Iterator[None]:
    """Any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.usefixtures("strict")
def test_gymnasiums_checker_finds_nothing(env_id: str, small: dict[str, Any]) -> None:
    env = gym.make(env_id, render_mode="rgb_array", **small)
    check_env(env.unwrapped)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.usefixtures("strict")
def test_sb3s_checker_finds_nothing(env_id: str, small: dict[str, Any]) -> None:
    sb3_check_env(gym.make(env_id, **small).unwrapped)


def test_importing_ours_first_registers_without_a_warning() -> None:
    code = "import sr_env, gymnasium as gym; print('BlindSR-v0' in gym.registry)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("True", "")


def test_entry_point_registers_without_importing_ours() -> None:
    assert any(point.value.startswith("sr_env") for point in entry_points(group="gymnasium.envs"))
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "import sys, gymnasium as gym\n"
        "assert 'torch' not in sys.modules, 'registration must stay light'\n"
        "for name in ('BlindSR-v0', 'BlindSRIterative-v0'): assert name in gym.registry, name\n"
        "warnings.simplefilter('default')\n"
        "env = gym.make('BlindSR-v0', device='cpu'); print(env.reset(seed=0)[0].shape)\n"
        "print(gym.make('sr_env:BlindSR-v0', device='cpu').reset(seed=0)[0].shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["(48, 48, 3)", "(48, 48, 3)"]


@pytest.mark.parametrize("env_id", IDS)
def test_spec_survives_json_and_env_survives_pickle(env_id: str, small: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"renderer": small["renderer"], "predictor": small["predictor"], "device": "cpu"}
    env = gym.make(env_id, patch_size=64, widths=(0.5, 2.0), reward={"psnr": 1.0, "ssim": 5.0}, **settings)
    assert env.spec is not None
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert json.loads(env.spec.to_json())["kwargs"] == json.loads(again.spec.to_json())["kwargs"]  # type: ignore[union-attr]
    action = env.action_space.sample() * 0
    first, second = (e.reset(seed=3)[1]["score_reference"] for e in (env, again))
    assert first == second
    copy = pickle.loads(pickle.dumps(env))  # in the middle of an episode
    assert copy.step(action)[1] == env.step(action)[1]


def test_limits_never_cut_an_episode_short(small: dict[str, Any]) -> None:
    assert gym.spec("BlindSR-v0").max_episode_steps == 1
    env = gym.make("BlindSRIterative-v0", max_steps=7, **small)
    env.reset(seed=0)
    flags = [env.step(np.zeros(10, np.float32))[2:4] for _ in range(7)]
    assert flags == [(False, False)] * 6 + [(True, False)]


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


def test_two_processes_with_one_seed_agree_bit_for_bit(small: dict[str, Any]) -> None:
    code = (
        "import sys, numpy as np, gymnasium as gym, torch; torch.set_num_threads(1)\n"
        "settings = {'patch_size': 64, 'device': 'cpu', 'reward': {'psnr': 1, 'lpips': 9}}\n"
        "env = gym.make('BlindSR-v0', renderer=sys.argv[1], **settings)\n"
        "rng = np.random.default_rng(0); env.reset(seed=5)\n"
        "for _ in range(4):\n"
        "    print(env.step(rng.uniform(-1, 1, 10).astype(np.float32))[1].hex(), env.reset()[0].sum())\n"
    )
    command = [sys.executable, "-c", code, small["renderer"]]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(runs[0].splitlines()) == 4


def test_forked_workers_run_after_the_parent_has_used_torchs_threads(small: dict[str, Any]) -> None:
    code = (
        "import sys, numpy as np, torch, gymnasium as gym\n"
        "torch.set_num_threads(2); torch.rand(512, 512) @ torch.rand(512, 512)\n"
        "settings = {'patch_size': 64, 'device': 'cpu', 'renderer': sys.argv[1]}\n"
        "env = gym.make('BlindSR-v0', **settings); env.reset(seed=0); env.step(np.zeros(10, np.float32))\n"
        "envs = gym.make_vec('BlindSR-v0', num_envs=2, vectorization_mode='async', **settings)\n"
        "envs.reset(seed=0); print(envs.step(np.zeros((2, 10), np.float32))[1].shape); envs.close()\n"
    )
    command = [sys.executable, "-c", code, small["renderer"]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "(2,)"


def test_info_tells_every_term(small: dict[str, Any]) -> None:
    env = BlindSREnv(reward={"psnr": 1.0, "ssim": 10.0}, **small)
    _, info = env.reset(seed=0)
    assert {"code_true", "action_true", "kernel_width", "kernel_angle", "photo", "crop"} <= set(info)
    assert "psnr" not in info
    _, reward, _, _, info = env.step(np.zeros(10, np.float32))
    gain = info["psnr"] - info["psnr_reference"] + 10 * (info["ssim"] - info["ssim_reference"])
    assert reward == pytest.approx(gain, abs=1e-3)
    assert reward == pytest.approx(info["score"] - info["score_reference"], abs=1e-4)
    assert info["code"].shape == (10,)


def test_vector_autoreset_happens_in_the_same_step(small: dict[str, Any]) -> None:
    env = BlindSRVectorEnv(3, **small)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    first, told = env.reset(seed=0)
    second, _, terminations, truncations, infos = env.step(np.zeros((3, 10), np.float32))
    assert terminations.all()
    assert not truncations.any()
    np.testing.assert_array_equal(infos["final_obs"], first)
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


def test_the_panel_keeps_its_shape(small: dict[str, Any]) -> None:
    env = BlindSREnv(render_mode="rgb_array", **small)
    with pytest.raises(RuntimeError, match="reset"):
        env.render()
    env.reset(seed=0)
    before = env.render()
    env.step(np.zeros(10, np.float32))
    after = env.render()
    assert before is not None
    assert after is not None
    assert before.shape == after.shape
    assert before.dtype == np.uint8
    assert not np.array_equal(before, after)
    with pytest.raises(ValueError, match="unknown render_mode 'ansi'"):
        BlindSREnv(render_mode="ansi", **small)


def test_human_mode_without_a_display_only_says_so(
    small: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setattr(matplotlib, "get_backend", lambda: "agg")
    env = BlindSREnv(render_mode="human", **small)
    assert "rgb_array" in caplog.text
    env.reset(seed=0)
    assert env.render() is None
    env.close()
    env.close()


def test_public_names_exist() -> None:
    for name in sr_env.__all__:
        assert getattr(sr_env, name) is not None
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = sr_env.nothing_such


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
