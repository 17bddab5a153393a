"""Saving and loading: SB3's zip, weights and actors without pickle, and the state of a run."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.hinge_ddpg import HingeDDPG
from safetensors import safe_open

from sr_env.envs.sb3 import BlindSRVecEnv
from sr_env.envs.vector import BlindSRVectorEnv
from sr_env.models import load_predictor
from sr_env.utils.checks import UsageError

Make = Callable[..., HingeDDPG]


def test_state_round_trip(make: Make, tmp_path: Path) -> None:
    dropped: dict[str, Any] = {"policy_kwargs": {"hidden": 64, "dropout": 0.3}}
    agent = make(**dropped)
    agent.learn(32)
    agent.save_state(tmp_path / "state.pt", {"best": 1.5, "none": None})
    other = make(seed=7, **dropped)
    assert other.load_state(tmp_path / "state.pt") == {"best": 1.5, "none": None}
    assert (other.num_timesteps, other._n_updates) == (agent.num_timesteps, agent._n_updates)
    np.testing.assert_array_equal(other.memory.observations[:8], agent.memory.observations[:8])
    agent.train(3, 16)
    other.learn(0, reset_num_timesteps=False)  # sets SB3's logger up, and draws nothing
    torch.manual_seed(99)  # dropout is drawn from the global generator, whose state comes with the file
    other.load_state(tmp_path / "state.pt")
    other.train(3, 16)
    for name, value in agent.policy.state_dict().items():
        assert torch.equal(value, other.policy.state_dict()[name]), name


def test_damaged_or_foreign_state_is_one_clear_error(make: Make, tmp_path: Path) -> None:
    agent = make()
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        agent.load_state(tmp_path / "absent.pt")
    (tmp_path / "state.pt").write_bytes(b"not a state")
    with pytest.raises(ValueError, match=r"cannot resume from .*state\.pt"):
        agent.load_state(tmp_path / "state.pt")
    agent.learn(8)
    agent.save_state(tmp_path / "state.pt")
    with pytest.raises(ValueError, match="cannot resume"):
        make(critics=3).load_state(tmp_path / "state.pt")


def test_a_bug_while_resuming_keeps_its_traceback(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make()
    agent.save_state(tmp_path / "state.pt")

    def broken(state: Any) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(agent.memory, "load_state", broken)
    with pytest.raises(TypeError, match="a bug"):
        agent.load_state(tmp_path / "state.pt")


@pytest.mark.parametrize("damage", ["text", "cut", "flipped", "empty zip", "another's"])
def test_a_broken_zip_is_one_clear_error(make: Make, damage: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.zip"
    make().save(path)
    content = bytearray(path.read_bytes())
    if damage == "text":
        path.write_text("no zip")
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            if damage == "another's":
                archive.writestr("data", "{}")
    with pytest.raises(UsageError, match=r"agent\.zip (is damaged or no agent|holds another agent)"):
        HingeDDPG.load(path, device="cpu")
    with pytest.raises(FileNotFoundError, match="no agent at"):
        HingeDDPG.load(tmp_path / "absent", device="cpu")


def test_loading_measures_no_noise(make: Make, centred: dict[str, Any], tmp_path: Path) -> None:
    agent = make({"actions_per_scene": 2})
    agent.save(tmp_path / "agent.zip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blindsr_agents.hinge_ddpg.agent.measured_noise_shape", lambda *_: pytest.fail("measured"))
        env = BlindSRVecEnv(BlindSRVectorEnv(4, actions_per_scene=2, **centred))
        loaded = HingeDDPG.load(tmp_path / "agent.zip", env=env, device="cpu")
    assert torch.equal(loaded.critic.noise_shape, agent.critic.noise_shape)
    assert loaded.config == agent.config
    loaded.learn(16, reset_num_timesteps=False)
    assert loaded._n_updates > 0


def test_an_agent_loaded_without_environment_takes_one(make: Make, centred: dict[str, Any], tmp_path: Path) -> None:
    make({"actions_per_scene": 2}).save(tmp_path / "agent.zip")
    loaded = HingeDDPG.load(tmp_path / "agent.zip", device="cpu")
    assert loaded.memory.times == 2
    loaded.set_env(BlindSRVecEnv(BlindSRVectorEnv(4, actions_per_scene=4, **centred)))
    assert loaded.actions_per_scene == loaded.memory.times == 4
    loaded.learn(16)
    assert loaded._n_updates > 0


def test_loading_warns_of_rewards_that_are_not_centred(
    make: Make, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    make().save(tmp_path / "agent.zip")
    with pytest.warns(UserWarning, match="not centred"):
        HingeDDPG.load(tmp_path / "agent.zip", env=BlindSRVecEnv(BlindSRVectorEnv(4, **tiny_settings)), device="cpu")


def test_weights_go_round_without_pickle(make: Make, tmp_path: Path) -> None:
    agent = make()
    agent.learn(32)
    path = agent.save_weights(tmp_path / "agent.safetensors")
    with safe_open(path, framework="pt") as file:
        kept = set(file.keys())
    assert any(name.startswith("actor.") for name in kept)
    assert any(name.startswith("critic.q_networks.") for name in kept)
    other = make(seed=7)
    other.load_weights(path)
    for name, value in agent.policy.state_dict().items():
        assert torch.equal(value, other.policy.state_dict()[name]), name


def test_weights_that_do_not_fit_are_one_clear_error(make: Make, tmp_path: Path) -> None:
    agent = make()
    with pytest.raises(FileNotFoundError, match="no policy at"):
        agent.load_weights(tmp_path / "absent.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UsageError, match="does not fit this policy"):
        agent.load_weights(tmp_path / "damaged.safetensors")
    path = agent.save_weights(tmp_path / "two.safetensors")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(content)
    with pytest.raises(UsageError, match=r"flipped\.safetensors' is damaged: its tensors are not those"):
        agent.load_weights(tmp_path / "flipped.safetensors")
    with pytest.raises(UsageError, match="does not fit this policy"):
        make(critics=3).load_weights(path)
    with pytest.raises(UsageError, match=r"\.safetensors"):
        agent.save_weights(tmp_path / "agent.pt")


def test_the_saved_actor_is_a_predictor(make: Make, tmp_path: Path) -> None:
    agent = make(actor_learning_rate=1e-2, tau=0.5)
    agent.learn(32)
    path = agent.save_actor(tmp_path / "mine.safetensors", {"method": "HingeDDPG"})
    loaded = load_predictor(path, scale=4)
    assert loaded.card["method"] == "HingeDDPG"
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    expected = agent.actor_target(torch.from_numpy(images).permute(0, 3, 1, 2)).detach().numpy()
    np.testing.assert_allclose(loaded.network.act(images), expected, atol=1e-6)
    assert not np.allclose(expected, agent.policy.pretrained_predictor.network.act(images), atol=1e-4)
