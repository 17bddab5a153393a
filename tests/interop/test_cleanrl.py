"""DDPG in one file in CleanRL's manner, over Gymnasium's vector environments and wrappers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import nn

import sr_env  # noqa: F401

ENVS, STEPS, GAMMA = 4, 24, 0.99


class Network(nn.Module):
    """Two layers."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, outputs))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(torch.cat(inputs, 1))
        return result


def make(env_id: str, kind: str, settings: dict[str, Any]) -> gym.vector.VectorEnv[Any, Any, Any]:
    """A vector environment of ours or Gymnasium's, with the wrappers that DDPG in CleanRL has."""
    mode = AutoresetMode.SAME_STEP
    given = {"autoreset_mode": mode} if kind == "vector_entry_point" else {"vector_kwargs": {"autoreset_mode": mode}}
    envs = gym.make_vec(env_id, ENVS, vectorization_mode=kind, max_steps=2, **given, **settings)
    return gym.wrappers.vector.RecordEpisodeStatistics(envs)


@pytest.mark.parametrize("kind", ["sync", "vector_entry_point"])
@pytest.mark.parametrize("env_id", ["BlindSR-v0", "BlindSRIterative-v0"])
def test_ddpg_bootstraps_nowhere_but_within_an_episode(env_id: str, kind: str, small: dict[str, Any]) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    envs = make(env_id, kind, small)

    def see(observation: Any) -> np.ndarray:
        parts = observation.values() if isinstance(observation, dict) else [observation]
        return np.concatenate([np.reshape(part, (len(part), -1)) / 255 for part in parts], 1).astype(np.float32)

    observations, _ = envs.reset(seed=1)
    size = see(observations).shape[1]
    actor, critic = Network(size, 10), Network(size + 10, 1)
    optimizers = [torch.optim.Adam(network.parameters(), lr=1e-4) for network in (actor, critic)]
    memory: list[tuple[np.ndarray, ...]] = []
    returns = []
    for _ in range(STEPS):
        with torch.no_grad():
            noise = rng.normal(0, 0.1, (ENVS, 10))
            actions = np.clip(actor(torch.from_numpy(see(observations))).tanh().numpy() + noise, -1, 1)
        after, rewards, terminations, truncations, infos = envs.step(actions.astype(np.float32))
        assert not truncations.any()
        real = see(after)
        if "final_obs" in infos:
            for index in np.flatnonzero(infos["_final_obs"]):
                last = infos["final_obs"][index]
                last = {key: value[None] for key, value in last.items()} if isinstance(last, dict) else last[None]
                real[index] = see(last)[0]
            statistics = infos["final_info"]["episode"] if "episode" in infos["final_info"] else infos["episode"]
            returns.append(np.asarray(statistics["r"]))
        # As CleanRL stores it: the flag that stops bootstrapping is termination alone.
        memory.append((see(observations), actions.astype(np.float32), rewards, real, terminations))
        observations = after
    before = [parameter.clone() for parameter in actor.parameters()]
    seen, acted, paid, then, ended = (torch.from_numpy(np.concatenate(part)) for part in zip(*memory, strict=True))
    with torch.no_grad():
        bootstrapped = GAMMA * (1 - ended.float()) * critic(then, actor(then).tanh())[:, 0]
        targets = paid.float() + bootstrapped
    if env_id == "BlindSR-v0":
        assert ended.all()
        torch.testing.assert_close(targets, paid.float())
    else:
        assert ended.float().mean() == 0.5
        assert (bootstrapped[~ended] != 0).all()
    losses = []
    for _ in range(30):
        error = (critic(seen, acted)[:, 0] - targets).square().mean()
        optimizers[1].zero_grad()
        error.backward()
        optimizers[1].step()
        losses.append(float(error.detach()))
    optimizers[0].zero_grad()
    (-critic(seen, actor(seen).tanh()).mean()).backward()
    optimizers[0].step()
    assert losses[-1] < losses[0]
    assert any((a != b).any() for a, b in zip(before, actor.parameters(), strict=True))
    assert len(returns) == STEPS / (1 if env_id == "BlindSR-v0" else 2)
    assert np.isfinite(returns).all()
    envs.close()
