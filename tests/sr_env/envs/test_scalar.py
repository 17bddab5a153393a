"""The scalar environments: contracts, seeding, what they tell and show, what they refuse."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ClosedEnvironmentError
from gymnasium.utils.env_checker import check_env

from sr_env import BlindSREnv, BlindSRIterativeEnv, BlindSRVectorEnv, create_metric
from sr_env.utils import torchvision_compat  # noqa: F401
from sr_env.utils.checks import UsageError
from sr_env.utils.images import to_images

from stable_baselines3.common.env_checker import check_env as sb3_check_env  # isort: skip

IDS = ("BlindSR-v0", "BlindSRIterative-v0")
ALL_IDS = (*IDS, "BlindSRControls-v0")
ZERO = np.zeros(10, np.float32)


@pytest.fixture
def strict() -> Iterator[None]:
    """Any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("env_id", ALL_IDS)
@pytest.mark.usefixtures("strict")
def test_gymnasiums_checker_finds_nothing(env_id: str, small: dict[str, Any]) -> None:
    env = gym.make(env_id, render_mode="rgb_array", **small)
    check_env(env.unwrapped)


@pytest.mark.parametrize("env_id", ALL_IDS)
@pytest.mark.usefixtures("strict")
def test_sb3s_checker_finds_nothing(env_id: str, small: dict[str, Any]) -> None:
    sb3_check_env(gym.make(env_id, **small).unwrapped)


@pytest.mark.parametrize("env_id", ALL_IDS)
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


def test_an_iterative_episode_ends_after_max_steps(small: dict[str, Any]) -> None:
    env = gym.make("BlindSRIterative-v0", max_steps=7, **small)
    env.reset(seed=0)
    flags = [env.step(np.zeros(10, np.float32))[2:4] for _ in range(7)]
    assert flags == [(False, False)] * 6 + [(True, False)]


def test_two_processes_with_one_seed_agree_bit_for_bit(small: dict[str, Any]) -> None:
    code = (
        "import sys, numpy as np, gymnasium as gym, torch; torch.set_num_threads(1)\n"
        "settings = {'patch_size': 64, 'device': 'cpu', 'reward': {'psnr': 1, 'lpips': 9}}\n"
        "env = gym.make('sr_env:BlindSR-v0', renderer=sys.argv[1], **settings)\n"
        "rng = np.random.default_rng(0); env.reset(seed=5)\n"
        "for _ in range(4):\n"
        "    print(env.step(rng.uniform(-1, 1, 10).astype(np.float32))[1].hex(), env.reset()[0].sum())\n"
    )
    command = [sys.executable, "-c", code, small["renderer"]]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(runs[0].splitlines()) == 4


@pytest.mark.parametrize("parent", ["env = make(); env.reset(seed=0); env.step(np.zeros(10, np.float32))", "pass"])
def test_forked_workers_run_after_the_parent_has_used_torchs_threads(parent: str, small: dict[str, Any]) -> None:
    code = (
        "import sys, numpy as np, torch, gymnasium as gym\n"
        "from gymnasium.vector import AsyncVectorEnv\n"
        "import sr_env.utils.torchvision_compat\n"
        "from stable_baselines3.common.vec_env import SubprocVecEnv\n"
        "torch.set_num_threads(2); torch.rand(512, 512) @ torch.rand(512, 512)\n"
        "settings = {'patch_size': 64, 'device': 'cpu', 'renderer': sys.argv[1]}\n"
        "make = lambda: gym.make('sr_env:BlindSR-v0', **settings)\n"
        f"{parent}\n"
        "envs = SubprocVecEnv([make] * 2, start_method='fork')\n"
        "envs.reset(); print(envs.step(np.zeros((2, 10), np.float32))[1].shape); envs.close()\n"
        "envs = AsyncVectorEnv([make] * 2, context='fork')\n"
        "envs.reset(seed=0); print(envs.step(np.zeros((2, 10), np.float32))[1].shape); envs.close()\n"
        "print(torch.get_num_threads())\n"
    )
    command = [sys.executable, "-c", code, small["renderer"]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["(2,)", "(2,)", "2"]


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


@pytest.mark.parametrize("steps", [1, 3, 64])
@pytest.mark.parametrize("env_id", IDS)
def test_an_episode_that_ends_by_itself_is_not_truncated(
    env_id: str, steps: int, tiny_settings: dict[str, Any]
) -> None:
    made = gym.make(env_id, max_steps=steps, **tiny_settings)
    direct = (BlindSREnv if env_id == "BlindSR-v0" else BlindSRIterativeEnv)(max_steps=steps, **tiny_settings)
    count = 1 if env_id == "BlindSR-v0" else steps
    for env in (made, direct):
        env.reset(seed=0)
        flags = [env.step(ZERO)[2:4] for _ in range(count)]
        assert flags == [(False, False)] * (count - 1) + [(True, False)]


def test_pictures_are_within_reach(tiny_settings: dict[str, Any]) -> None:
    env = BlindSREnv(info_images=True, reward={"psnr": 1.0}, **tiny_settings)
    _, info = env.reset(seed=0)
    assert "sr" not in info
    reference = create_metric("psnr", border=4)(to_images(env.sr[None]), to_images(env.hr[None]))
    assert float(reference) == pytest.approx(info["psnr_reference"], abs=1e-4)
    _, _, _, _, info = env.step(ZERO)
    assert (info["sr"].shape, info["sr"].dtype) == ((64, 64, 3), np.uint8)
    np.testing.assert_array_equal(info["sr"], env.sr)
    psnr = create_metric("psnr", border=4)(to_images(env.sr[None]), to_images(env.hr[None]))
    assert float(psnr) == pytest.approx(info["psnr"], abs=1e-4)
    plain = BlindSREnv(**tiny_settings)
    plain.reset(seed=0)
    assert set(info) - set(plain.step(ZERO)[4]) == {"sr"}


def test_a_module_can_be_the_renderer(tiny_settings: dict[str, Any]) -> None:
    class Enlarge(torch.nn.Module):
        """Bicubic, brighter by the code's first number."""

        scale = 4
        code_length = 10
        receptive_radius = 2

        def forward(self, lr: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
            large = torch.nn.functional.interpolate(lr, scale_factor=4, mode="bicubic")
            return large + 0.01 * code[:, :1, None, None]

    env = gym.make("BlindSR-v0", **tiny_settings | {"renderer": Enlarge()})
    env.reset(seed=0)
    _, _, _, _, info = env.step(ZERO)
    simulator = env.unwrapped.simulator  # type: ignore[attr-defined]
    scenes = simulator.scenes
    expected = Enlarge()(scenes.lr, torch.from_numpy(info["code"])[None]).clamp(0, 1)
    np.testing.assert_allclose(env.unwrapped.sr / 255, expected[0].permute(1, 2, 0).numpy(), atol=0.51 / 255)  # type: ignore[attr-defined]


@pytest.mark.parametrize("make", [BlindSREnv, BlindSRIterativeEnv, partial(BlindSRVectorEnv, 2)])
def test_a_metric_that_needs_larger_patches_is_refused_at_once(make: Any, tiny_settings: dict[str, Any]) -> None:
    for changes in ({"reward": {"piq.multi_scale_ssim": 1}}, {"info_metrics": ["piq.multi_scale_ssim"]}):
        with pytest.raises(UsageError, match=r"multi_scale_ssim with border 4 needs images of .* 169x169 .*use larger"):
            make(**tiny_settings | changes)


def test_an_unknown_keyword_is_pythons_own_error(tiny_settings: dict[str, Any]) -> None:
    for make in (BlindSREnv, lambda **settings: gym.make("BlindSR-v0", **settings)):
        with pytest.raises(TypeError, match=r"unexpected keyword argument 'frameskip'.*renderer.*render_mode"):
            make(frameskip=1, **tiny_settings)


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (np.zeros((1, 10), np.float32), r"action shape \(1, 10\) does not fit: give \(10,\)"),
        ([[0.0], [0.0, 1.0]], r"the action is no array: give float32 \(10,\)"),
        (np.zeros(10, np.complex64), "complex64 are no real numbers"),
        (np.array(["0"] * 10), "are no real numbers"),
        (np.zeros(10, bool), "bool are no real numbers"),
        (np.full(10, np.nan, np.float32), "nan is outside"),
    ],
)
def test_wrong_actions_are_named(action: np.ndarray, told: str, tiny_settings: dict[str, Any]) -> None:
    env = BlindSREnv(**tiny_settings)
    env.reset(seed=0)
    with pytest.raises(UsageError, match=told):
        env.step(action)
    assert env.step(ZERO)[2]


def test_nothing_follows_close(tiny_settings: dict[str, Any]) -> None:
    env = BlindSREnv(**tiny_settings)
    env.reset(seed=0)
    env.close()
    env.close()
    with pytest.raises(ClosedEnvironmentError, match="make a new one"):
        env.step(ZERO)
    with pytest.raises(ClosedEnvironmentError, match="make a new one"):
        env.reset()


def test_render_without_a_mode_warns(tiny_settings: dict[str, Any]) -> None:
    env = BlindSREnv(**tiny_settings)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="without specifying any render mode"):
        assert env.render() is None


@pytest.mark.parametrize("env_id", ALL_IDS)
def test_torchs_default_type_changes_nothing(env_id: str, tiny_settings: dict[str, Any]) -> None:
    settings = tiny_settings | {"reward": {"psnr": 1, "lpips": 1, "consistency": 0.1}, "reference": "predictor"}
    rewards = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            env = gym.make(env_id, **settings)
            env.reset(seed=0)
            rewards.append(env.step(np.full(env.action_space.shape, 0.1, np.float32))[1])
        finally:
            torch.set_default_dtype(torch.float32)
    assert rewards[0] == rewards[1]


def test_only_processes_that_hold_an_environment_lose_threads(small: dict[str, Any]) -> None:
    code = (
        "import os, sys, torch, sr_env\n"
        "torch.set_num_threads(2)\n"
        "import sr_env.simulator\n"
        "def told(make):\n"
        "    sys.stdout.flush()\n"
        "    if os.fork() == 0:\n"
        "        if make: sr_env.BlindSREnv(device='cpu', renderer=sys.argv[1])\n"
        "        print(torch.get_num_threads(), flush=True); os._exit(0)\n"
        "    os.wait()\n"
        "sr_env.BlindSREnv(device='cpu', renderer=sys.argv[1]); print(torch.get_num_threads())\n"
        "told(False); told(True)\n"
    )
    command = [sys.executable, "-c", code, small["renderer"]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["2", "2", "1"]
