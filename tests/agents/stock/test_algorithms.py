"""Algorithms by name: their hyperparameters, and that they learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blindsr_agents.stock import ALGORITHMS, HYPERPARAMETERS, SceneFeatures, StockAgent, load_hyperparameters

from sr_env import BlindSRVecEnv, BlindSRVectorEnv
from sr_env.utils.checks import MissingFileError, UsageError

#: What makes a run short, where an algorithm takes it.
SHORT = {"n_envs": 4, "n_steps": 4, "batch_size": 8, "n_epochs": 2}
SHORT |= {"learning_starts": 8, "buffer_size": 64, "gradient_steps": 2}


def need(algorithm: str) -> None:
    if algorithm in ("crossq", "tqc", "trpo"):
        pytest.importorskip("sb3_contrib", reason="the extra [algorithms] is not installed")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_released_hyperparameters_are_arguments(algorithm: str) -> None:
    need(algorithm)
    block = load_hyperparameters(algorithm)
    assert block["gamma"] == 0
    assert block["n_envs"] > 1
    if "buffer_size" in block:
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
        StockAgent("dqn", BlindSRVecEnv.__new__(BlindSRVecEnv), {})


@pytest.mark.parametrize(
    ("algorithm", "features"), [*((name, "pretrained") for name in ALGORITHMS), ("ppo", "cnn"), ("td3", "cnn")]
)
def test_algorithms_learn(algorithm: str, features: Any, tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    need(algorithm)
    block = load_hyperparameters(algorithm)
    block |= {name: value for name, value in SHORT.items() if name in block}
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    env = BlindSRVecEnv(BlindSRVectorEnv(block["n_envs"], **tiny_settings))
    agent = StockAgent(algorithm, env, block, features, tiny_settings["predictor"], seed=1)
    before = agent.act(images)
    assert agent.learn(32) == 32
    after = agent.act(images)
    assert after.shape == (3, 10)
    assert after.dtype == np.float32
    assert np.abs(after).max() <= 1
    assert np.abs(after - before).max() > 1e-4
    path = agent.save(tmp_path / "model")
    assert path.name == "model.zip"
    other = StockAgent(algorithm, env, block, features, tiny_settings["predictor"], seed=2)
    assert np.abs(other.act(images) - after).max() > 1e-4
    other.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(other.act(images), after)
    again = type(agent.model).load(path, device="cpu")
    seen = images if features == "cnn" else SceneFeatures.of(env.env.simulator, tiny_settings["predictor"])(images)
    np.testing.assert_allclose(again.predict(seen, deterministic=True)[0], after, atol=1e-6)


def test_released_hyperparameters_are_not_changed_by_an_agent(tiny_settings: dict[str, Any]) -> None:
    block = load_hyperparameters("ppo", HYPERPARAMETERS)
    StockAgent("ppo", BlindSRVecEnv(BlindSRVectorEnv(4, **tiny_settings)), block, "cnn")
    assert block == load_hyperparameters("ppo")


def test_what_an_algorithm_cannot_do_is_named(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    env = BlindSRVecEnv(BlindSRVectorEnv(4, **tiny_settings))
    agent = StockAgent("ppo", env, {"n_steps": 4, "batch_size": 8}, "cnn")
    with pytest.raises(MissingFileError, match="no policy at"):
        agent.load(tmp_path / "absent")
    (tmp_path / "torn.safetensors").write_bytes(b"no")
    with pytest.raises(UsageError, match="does not fit this policy"):
        agent.load(tmp_path / "torn")
    agent.save(tmp_path / "cnn")
    other = StockAgent("sac", env, {"buffer_size": 8}, "cnn")
    with pytest.raises(UsageError, match="does not fit this policy"):
        other.load(tmp_path / "cnn")
    pytest.importorskip("sb3_contrib", reason="the extra [algorithms] is not installed")
    with pytest.raises(UsageError, match="crossq has no policy for images"):
        StockAgent("crossq", env, {}, "cnn")
