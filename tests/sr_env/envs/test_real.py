"""BlindSRReal-v0, and photographs as they are in the other environments: no HR anywhere."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import sr_env  # noqa: F401  # registers the environments
from sr_env.envs.scalar import BlindSREnv, BlindSRIterativeEnv, BlindSRRealEnv
from sr_env.envs.vector import BlindSRRealVectorEnv, BlindSRVectorEnv
from sr_env.simulator import Simulator, SimulatorSettings
from sr_env.utils.checks import UsageError

#: What only HR, or whoever blurred it, can tell.
_TRUTH = {"code_true", "action_true", "kernel_width", "kernel_angle"}
_ZERO = np.zeros(18, np.float32)


@pytest.fixture
def settings(tiny_real: dict[str, str], random_photos: list[np.ndarray]) -> dict[str, Any]:
    """A small BlindSRReal-v0: LR crops of 32 pixels."""
    return {"lr_photos": random_photos, "patch_size": 128, "device": "cpu", **tiny_real}


def test_gymnasium_finds_nothing_wrong(settings: dict[str, Any]) -> None:
    env = gym.make("BlindSRReal-v0", **settings)
    check_env(env.unwrapped, skip_render_check=True)


def test_scenes_are_crops_that_nothing_is_done_to(settings: dict[str, Any], random_photos: list[np.ndarray]) -> None:
    env = gym.make("BlindSRReal-v0", **settings)
    lr, info = env.reset(seed=0)
    (top, left), photo = info["crop"], random_photos[info["photo"]]
    np.testing.assert_array_equal(lr, photo[top : top + 32, left : left + 32])
    fixed, info = env.reset(options={"photo": 1, "crop": (7, 9)})
    np.testing.assert_array_equal(fixed, random_photos[1][7:39, 9:41])
    assert set(info) == {"niqe_reference", "consistency_reference", "score_reference", "photo", "crop"}
    assert env.action_space.shape == (18,)


def test_rewards_are_the_scores_above_the_predictors(settings: dict[str, Any]) -> None:
    env = BlindSRRealEnv(info_metrics=["brisque"], **settings)
    lr, info = env.reset(seed=1)
    _, reward, terminated, truncated, after = env.step(_ZERO)
    assert (terminated, truncated) == (True, False)
    assert not _TRUTH & (info.keys() | after.keys())
    assert after["brisque"] > -100
    score = 0.1 * after["consistency"] - after["niqe"]
    assert after["score"] == pytest.approx(score, rel=1e-5)
    assert reward == pytest.approx(score - info["score_reference"], abs=1e-4)
    predictor = env.simulator.predictor
    assert predictor is not None
    env.reset(seed=1)
    assert env.step(predictor.network.act(lr))[1] == pytest.approx(0, abs=1e-4)
    assert env.sr.shape == (128, 128, 3)
    with pytest.raises(UsageError, match="have no HR: give photos"):
        _ = env.hr


def test_vector_and_iterative_go_the_same_way(settings: dict[str, Any]) -> None:
    envs = BlindSRRealVectorEnv(4, actions_per_scene=2, **settings)
    seen, infos = envs.reset(seed=3)
    alone, info = BlindSRRealEnv(**settings).reset(seed=3)
    np.testing.assert_array_equal(seen[0], alone)
    np.testing.assert_array_equal(seen[0], seen[1])
    assert infos["niqe_reference"][0] == pytest.approx(info["niqe_reference"], abs=1e-4)
    _, rewards, _, _, infos = envs.step(np.stack([_ZERO, _ZERO + 0.1] * 2))
    assert np.isfinite(rewards).all()
    assert not _TRUTH & infos["final_info"].keys()

    iterative = BlindSRIterativeEnv(
        kernels="real", reward={"niqe": 1.0, "consistency": 0.1}, reference="predictor", max_steps=2, **settings
    )
    observation, _ = iterative.reset(seed=3)
    np.testing.assert_array_equal(observation["lr"], alone)
    first, second = (iterative.step(_ZERO + 0.5 * sign) for sign in (1, -1))
    assert first[0]["sr"].shape == (32, 32, 3)
    assert second[2]


def test_some_episodes_begin_again_and_others_go_on(settings: dict[str, Any]) -> None:
    envs = BlindSRRealVectorEnv(3, autoreset_mode="Disabled", **settings)
    before, _ = envs.reset(seed=0)
    after, _ = envs.reset(options={"reset_mask": np.array([False, True, False])})
    assert [(a == b).all() for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_stable_baselines3_sees_no_truth_either(settings: dict[str, Any]) -> None:
    from sr_env.envs.sb3 import BlindSRVecEnv

    env = BlindSRVecEnv(BlindSRRealVectorEnv(2, **settings))
    env.reset()
    _, rewards, dones, infos = env.step(np.stack([_ZERO, _ZERO]))
    assert dones.all()
    assert np.isfinite(rewards).all()
    assert not _TRUTH & infos[0].keys()


@pytest.mark.parametrize("option", [{"kernel_width": 1.0}, {"kernel_angle": 0.0}, {"kernel": np.ones((3, 3))}])
def test_kernel_options_are_refused(option: dict[str, Any], settings: dict[str, Any]) -> None:
    for env in (BlindSRRealEnv(**settings), BlindSRRealVectorEnv(2, **settings)):
        with pytest.raises(UsageError, match=r"reset option kernel.* blurs nothing in photographs as they are"):
            env.reset(options=option)


@pytest.mark.parametrize("given", [{"reward": {"niqe": 1, "lpips": 1}}, {"info_metrics": ["lpips"]}])
def test_metrics_that_need_hr_are_refused(given: dict[str, Any], settings: dict[str, Any]) -> None:
    told = r"metric 'lpips' compares with HR.*take one of niqe, brisque, piq.brisque, piq.total_variation.*pyiqa.musiq"
    with pytest.raises(UsageError, match=told):
        BlindSRRealEnv(**settings | given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"photos": "my_photos"}, "photos and lr_photos are both given"),
        ({"widths": (0.2, 2.0)}, r"widths \(0.2, 2.0\) blur nothing"),
        ({"lr_photos": " "}, "lr_photos ' ' names no folder"),
        ({"lr_photos": [np.zeros((40, 20, 3), np.uint8)]}, "is 20x40, smaller than the 32x32 needed"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    given: dict[str, Any], told: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=told):
        BlindSRRealEnv(**settings | given)


def test_a_function_of_sr_alone_pays(settings: dict[str, Any]) -> None:
    def contrast(sr: np.ndarray) -> np.ndarray:
        return np.asarray(sr.std((1, 2, 3)))

    env = BlindSRRealEnv(**settings | {"reward": {contrast: 1.0}, "reference": "none"})
    env.reset(seed=0)
    assert env.step(_ZERO)[1] == pytest.approx(env.sr[4:-4, 4:-4].std(), abs=1e-3)


def test_the_codes_of_blind_sr_go_with_photographs_too(
    tiny_settings: dict[str, Any], random_photos: list[np.ndarray]
) -> None:
    given = {name: value for name, value in tiny_settings.items() if name != "photos"}
    env = BlindSREnv(lr_photos=random_photos, reward={"brisque": 1.0}, **given | {"patch_size": 128})
    lr, info = env.reset(seed=0)
    assert (lr.shape, env.action_space.shape) == ((32, 32, 3), (10,))
    assert "code_true" not in info


def test_consistency_is_told_where_it_is_not_paid(settings: dict[str, Any]) -> None:
    paid = Simulator(SimulatorSettings(**settings, kernels="real", reward={"brisque": 1.0, "consistency": 1.0}))
    told = Simulator(
        SimulatorSettings(**settings, kernels="real", reward={"brisque": 1.0}, info_metrics=("consistency",))
    )
    scenes = paid.draw(np.random.default_rng(0).random((2, 6)))
    a, b = (simulator.evaluate(scenes, torch.zeros(2, 18)) for simulator in (paid, told))
    torch.testing.assert_close(a.terms["consistency"], b.terms["consistency"])
    torch.testing.assert_close(a.score, b.score + a.terms["consistency"])


def test_the_panel_shows_what_there_is(settings: dict[str, Any]) -> None:
    env = BlindSRRealEnv(render_mode="rgb_array", **settings)
    env.reset(seed=0)
    before = env.render()
    env.step(_ZERO)
    after = env.render()
    assert before is not None
    assert after is not None
    assert before.shape == after.shape
    assert (before != after).any()
    envs = BlindSRVectorEnv(1, render_mode="rgb_array", kernels="real", reward={"brisque": 1}, **settings)
    envs.reset(seed=0)
    assert envs.render() is not None
