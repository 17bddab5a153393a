"""Algorithms beside HingeDDPG: what they see, that they learn, and how they are compared."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.evaluation.scores import Scores
from blindsr_agents.stock.algorithms import ALGORITHMS, HYPERPARAMETERS, Agent, FeaturesVecEnv, load_hyperparameters
from blindsr_agents.stock.before_after import HeldOut, LearningSettings, Outcome
from blindsr_agents.stock.features import SceneFeatures
from gymnasium.vector import VectorWrapper

from sr_env import BlindSRIterativeVectorEnv, BlindSRVecEnv, BlindSRVectorEnv, load_predictor

ROOT = Path(__file__).resolve().parents[3]
#: What makes a run short, where an algorithm takes it.
SHORT = {"n_envs": 4, "n_steps": 4, "batch_size": 8, "n_epochs": 2}
SHORT |= {"learning_starts": 8, "buffer_size": 64, "gradient_steps": 2}


def need(algorithm: str) -> None:
    if algorithm == "tqc":
        pytest.importorskip("sb3_contrib", reason="the extra [algorithms] is not installed")


def script(monkeypatch: pytest.MonkeyPatch, folder: str, name: str) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / folder))
    sys.modules.pop(name, None)
    return import_module(name)


@pytest.fixture
def settings(tiny_settings: dict[str, Any], photo_folder: Path) -> dict[str, Any]:
    """Keywords of a script's settings for a small environment."""
    return tiny_settings | {
        "photos": str(photo_folder),
        "test_photos": str(photo_folder),
        "precision": "fp32",
        "test_crops": 4,
        "test_widths": (0.5, 2.0),
    }


# -------------------------------------------------------------------------------------------------------- features


def test_features_are_standardised_and_the_predictors(tiny_predictor: Path) -> None:
    predictor = load_predictor(tiny_predictor).network
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    images[10:] //= 4
    lr = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    describe = SceneFeatures(predictor, lr)
    seen = describe(images)
    assert seen.shape == (20, *describe.space.shape)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-4)
    spread = seen.std(0, ddof=1)
    assert (spread < 1.001).all()
    assert (spread > 0.99).any()
    np.testing.assert_allclose(describe(images[3]), seen[3], atol=1e-4)
    raw = predictor.features(lr).detach().numpy()
    varied = int(raw.std(0).argmax())
    assert np.corrcoef(raw[:, varied], seen[:, varied])[0, 1] == pytest.approx(1, abs=1e-4)
    with pytest.raises(ValueError, match="1 LR image"):
        SceneFeatures(predictor, lr[:1])


def test_features_in_place_of_images(tiny_settings: dict[str, Any]) -> None:
    plain = BlindSRVecEnv(BlindSRVectorEnv(3, **tiny_settings))
    describe = SceneFeatures.of(plain.env.simulator, tiny_settings["predictor"])
    env = FeaturesVecEnv(BlindSRVecEnv(BlindSRVectorEnv(3, **tiny_settings)), describe)
    assert env.observation_space == describe.space
    for each in (plain, env):
        each.seed(5)
    images, seen = plain.reset(), env.reset()
    np.testing.assert_array_equal(seen, describe(images))
    for _ in range(2):
        actions = np.zeros((3, 10), np.float32)
        (images, expected, *_), (after, rewards, dones, infos) = plain.step(actions), env.step(actions)
        np.testing.assert_array_equal(rewards, expected)
        assert dones.all()
        np.testing.assert_array_equal([info["terminal_observation"] for info in infos], seen)
        np.testing.assert_array_equal(after, describe(images))
        assert not np.array_equal(after, seen)
        seen = after


def test_features_need_images(tiny_settings: dict[str, Any], tiny_predictor: Path) -> None:
    env = BlindSRVecEnv(BlindSRIterativeVectorEnv(2, **tiny_settings))
    describe = SceneFeatures.of(env.env.simulator, str(tiny_predictor))
    with pytest.raises(ValueError, match="are no images"):
        FeaturesVecEnv(env, describe)


# -------------------------------------------------------------------------------------------------- hyperparameters


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_shipped_hyperparameters_are_arguments(algorithm: str) -> None:
    need(algorithm)
    block = load_hyperparameters(algorithm)
    assert block["gamma"] == 0
    assert block["n_envs"] > 1
    if algorithm != "ppo":
        assert block["buffer_size"] <= 20_000  # images of that many scenes still fit in memory


def test_wrong_hyperparameters(tmp_path: Path) -> None:
    path = tmp_path / "h.yml"
    path.write_text("ppo: {n_envs: 4, learning_rat: 0.1}\nsac: 3\n")
    with pytest.raises(
        ValueError, match=r"unknown hyperparameter of ppo 'learning_rat': choose one of .*learning_rate"
    ):
        load_hyperparameters("ppo", path)
    for name in ("sac", "td3"):
        with pytest.raises(ValueError, match=f"no block '{name}'"):
            load_hyperparameters(name, path)
    path.write_text("ppo: [")
    with pytest.raises(ValueError, match="is no YAML file"):
        load_hyperparameters("ppo", path)
    with pytest.raises(FileNotFoundError, match="no hyperparameters at"):
        load_hyperparameters("ppo", tmp_path / "absent.yml")
    with pytest.raises(ValueError, match="unknown algorithm 'dqn'"):
        Agent("dqn", BlindSRVecEnv.__new__(BlindSRVecEnv), {})


# --------------------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize(
    ("algorithm", "features"), [*((name, "pretrained") for name in ALGORITHMS), ("ppo", "cnn"), ("td3", "cnn")]
)
def test_algorithms_learn(algorithm: str, features: Any, tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    need(algorithm)
    block = load_hyperparameters(algorithm)
    block |= {name: value for name, value in SHORT.items() if name in block}
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    env = BlindSRVecEnv(BlindSRVectorEnv(block["n_envs"], **tiny_settings))
    agent = Agent(algorithm, env, block, features, tiny_settings["predictor"], seed=1)
    before = agent.act(images)
    assert agent.learn(32) == 32
    after = agent.act(images)
    assert after.shape == (3, 10)
    assert after.dtype == np.float32
    assert np.abs(after).max() <= 1
    assert np.abs(after - before).max() > 1e-4
    path = agent.save(tmp_path / "model")
    assert path.name == "model.zip"
    again = type(agent.model).load(path, device="cpu")
    seen = images if features == "cnn" else SceneFeatures.of(env.env.simulator, tiny_settings["predictor"])(images)
    np.testing.assert_allclose(again.predict(seen, deterministic=True)[0], after, atol=1e-6)


def test_shipped_hyperparameters_are_not_changed_by_an_agent(tiny_settings: dict[str, Any]) -> None:
    block = load_hyperparameters("ppo", HYPERPARAMETERS)
    Agent("ppo", BlindSRVecEnv(BlindSRVectorEnv(4, **tiny_settings)), block, "cnn")
    assert block == load_hyperparameters("ppo")


class EasyReward(VectorWrapper):
    """Pays for actions near one half."""

    def step(self, actions: Any) -> Any:
        observations, _, *rest = self.env.step(actions)
        return observations, -np.square(actions - 0.5).sum(1), *rest


def test_actor_critic_solves_an_easy_reward(monkeypatch: pytest.MonkeyPatch, tiny_settings: dict[str, Any]) -> None:
    example = script(monkeypatch, "examples", "actor_critic_torch")
    torch.manual_seed(0)
    env = BlindSRVectorEnv(16, **tiny_settings)
    describe = SceneFeatures.of(env.simulator, tiny_settings["predictor"])
    agent = example.ActorCritic(describe.space.shape[0], 10, 32, 0.3)
    scenes = torch.from_numpy(describe(env.reset(seed=9)[0]))
    start = agent.policy(scenes).mean
    assert start.abs().max() < 0.2
    settings = example.Settings(steps=1000, learning_rate=5e-3)
    assert example.learn(agent, EasyReward(env), describe, settings) == 1024  # in whole rollouts
    errors = [(mean.detach() - 0.5).square().sum(1).mean().item() for mean in (start, agent.policy(scenes).mean)]
    assert errors[1] < 0.3 * errors[0]


def test_scripts_train_and_tell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: dict[str, Any], tmp_path: Path
) -> None:
    example = script(monkeypatch, "examples", "actor_critic_torch")
    runs = [example.main(example.Settings(steps=100, **settings)) for _ in range(2)]
    assert runs[0].steps == 128
    np.testing.assert_array_equal(runs[0].after.values["score"], runs[1].after.values["score"])  # seeded
    assert not np.array_equal(runs[0].after.values["score"], runs[0].before.values["score"])
    sb3 = script(monkeypatch, "examples", "sb3_algorithms")
    outcome = sb3.main(sb3.Settings(steps=100, algorithm="ppo", out=tmp_path / "deep" / "m.zip", **settings))
    assert (tmp_path / "deep" / "m.zip").stat().st_size > 1000
    told = capsys.readouterr().out
    assert f"ppo, pretrained features, seed 0: held-out reward {outcome.reward_before:+.3f} ->" in told
    with pytest.raises(ValueError, match="steps 0 is not positive"):
        example.main(example.Settings(steps=0))


def test_rllib_learns(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    pytest.importorskip("ray.rllib", reason="the extra [rllib] is not installed")
    example = script(monkeypatch, "examples", "rllib_ppo")
    outcome = example.main(example.Settings(steps=32, rollout=16, minibatch=8, envs=2, **settings))
    assert outcome.steps >= 32
    assert not np.array_equal(outcome.after.values["score"], outcome.before.values["score"])


# -------------------------------------------------------------------------------------------------------- comparing


def test_held_out_reward_counts_from_the_reference(settings: dict[str, Any]) -> None:
    chosen = LearningSettings(**settings | {"reference": "predictor"})
    held_out = chosen.held_out()
    assert isinstance(held_out, HeldOut)
    predictor = load_predictor(settings["predictor"]).network
    same = held_out.score(predictor.act)
    assert same.values["score"].shape == (2, 4)
    assert held_out.reward(same) == pytest.approx(0, abs=1e-5)
    other = held_out.score(lambda images: np.full((len(images), 10), 0.9, np.float32))
    assert abs(held_out.reward(other)) > 1e-3


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [([1.0, 1.1, 0.9], "better"), ([-1.0, -1.1, -0.9], "WORSE"), ([1.0, -1.0, 0.3], "not measurably better")],
)
def test_verdicts(gains: list[float], verdict: str) -> None:
    before, after = Scores({"score": np.zeros((2, 3))}), Scores({"score": np.tile(gains, (2, 1))})
    outcome = Outcome(before, after, 1.0, 1.0 + float(np.mean(gains)), 10, 1.0)
    assert outcome.standard_error == pytest.approx(np.std(gains, ddof=1) / np.sqrt(3))
    assert outcome.verdict.startswith(verdict)
    assert verdict in outcome.sentence("x")


def test_the_comparison(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], tmp_path: Path) -> None:
    benchmark = script(monkeypatch, "benchmarks", "algorithms")
    chosen = {"algorithms": ("ppo", "actor_critic_torch"), "steps": 128, "out": tmp_path, **settings}
    benchmark.main(benchmark.Settings(seeds=(0,), **chosen))
    benchmark.main(benchmark.Settings(seeds=(0, 1), resume=True, **chosen))
    results = json.loads((tmp_path / "algorithms.json").read_text())
    runs = {(run["algorithm"], run["seed"]): run for run in results["runs"]}
    assert len(results["runs"]) == len(runs) == 4
    mine = [runs["ppo", seed] for seed in (0, 1)]
    assert mine[0]["hyperparameters"] == load_hyperparameters("ppo")
    assert mine[0]["gain"] != mine[1]["gain"]
    assert {run["steps"] for run in runs.values()} == {128}
    for run in mine:
        assert run["gain"] == pytest.approx(np.mean(run["after"]) - np.mean(run["before"]))
    crops = np.mean([np.subtract(run["after"], run["before"]) for run in mine], axis=(0, 1))
    row = next(line for line in (tmp_path / "algorithms.md").read_text().splitlines() if "PPO" in line)
    assert f"| {np.mean([run['gain'] for run in mine]):+.3f} | {crops.std(ddof=1) / 2:.3f} |" in row
    with pytest.raises(ValueError, match="other settings"):
        benchmark.main(benchmark.Settings(resume=True, **chosen | {"steps": 256}))
    with pytest.raises(ValueError, match="unknown algorithm 'dqn'"):
        benchmark.main(benchmark.Settings(**chosen | {"algorithms": ("dqn",)}))
