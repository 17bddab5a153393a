"""Runs of algorithms: the script, the examples, and their comparison."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.stock import SceneFeatures, StockSettings, load_hyperparameters, train
from gymnasium.vector import VectorWrapper

from sr_env import BlindSRVectorEnv
from sr_env.utils.checks import FileInTheWayError

Script = Callable[[str, str], ModuleType]


class EasyReward(VectorWrapper):
    """Pays for actions near one half."""

    def step(self, actions: Any) -> Any:
        observations, _, *rest = self.env.step(actions)
        return observations, -np.square(actions - 0.5).sum(1), *rest


def test_actor_critic_solves_an_easy_reward(script: Script, tiny_settings: dict[str, Any]) -> None:
    example = script("examples", "actor_critic_torch")
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
    script: Script, capsys: pytest.CaptureFixture[str], settings: dict[str, Any], tmp_path: Path
) -> None:
    example = script("examples", "actor_critic_torch")
    runs = [example.main(example.Settings(steps=100, **settings)) for _ in range(2)]
    assert runs[0].steps == 128
    np.testing.assert_array_equal(runs[0].after.values["score"], runs[1].after.values["score"])  # seeded
    assert not np.array_equal(runs[0].after.values["score"], runs[0].before.values["score"])
    outcome = train(StockSettings(steps=100, algorithm="ppo", out=tmp_path / "deep" / "m.zip", **settings))
    assert (tmp_path / "deep" / "m.zip").stat().st_size > 1000
    assert (tmp_path / "deep" / "m.safetensors").stat().st_size > 1000
    with pytest.raises(FileInTheWayError, match=r"m\.zip of an earlier run exists: choose another --out"):
        train(StockSettings(steps=100, algorithm="sac", out=tmp_path / "deep" / "m.zip", **settings))
    told = capsys.readouterr().out
    assert f"ppo, pretrained features, seed 0: held-out reward {outcome.reward_before:+.3f} ->" in told
    with pytest.raises(ValueError, match="steps 0 is not positive"):
        example.main(example.Settings(steps=0))


def test_rllib_learns(script: Script, settings: dict[str, Any]) -> None:
    pytest.importorskip("ray.rllib", reason="the extra [rllib] is not installed")
    example = script("examples", "rllib_ppo")
    outcome = example.main(example.Settings(steps=32, rollout=16, minibatch=8, envs=2, **settings))
    assert outcome.steps >= 32
    assert not np.array_equal(outcome.after.values["score"], outcome.before.values["score"])


def test_the_comparison(script: Script, settings: dict[str, Any], tmp_path: Path) -> None:
    benchmark = script("benchmarks", "algorithms")
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
