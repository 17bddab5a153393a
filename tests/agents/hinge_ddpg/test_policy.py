"""Actor and critics: their start, their export, and what an action is worth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from blindsr_agents.hinge_ddpg import HingeDDPG, KernelCritic

from sr_env.models import load_predictor, save_checkpoint

Make = Callable[..., HingeDDPG]


def test_actor_starts_as_the_predictor_and_exports_as_one(make: Make, tiny_predictor: Path, tmp_path: Path) -> None:
    agent = make()
    original = load_predictor(tiny_predictor)
    env = agent.get_env()
    assert env is not None
    observation = env.reset()  # channels first
    assert isinstance(observation, np.ndarray)
    images = torch.from_numpy(observation).float() / 255
    expected = original.network(images).numpy()
    np.testing.assert_allclose(agent.predict(observation)[0], expected, atol=1e-6)
    # Users hand over what gym.make's environment gives: one uint8 image, channels last.
    one, _ = agent.predict(observation[0].transpose(1, 2, 0))
    np.testing.assert_allclose(one, expected[0], atol=1e-6)
    path = save_checkpoint(tmp_path / "a.safetensors", agent.predictor, original.basis, 4, {})
    np.testing.assert_allclose(load_predictor(path, scale=4).network(images).numpy(), expected, atol=1e-6)


def test_critic_scores_many_actions_as_one_by_one(make: Make) -> None:
    critic: KernelCritic = make().critic
    critic.set_training_mode(False)
    observations = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    actions = torch.rand(3, 5, 10) * 2 - 1
    description = critic.describe(observations)
    many = critic.score(description, actions)
    assert many.shape == (2, 3, 5)
    one = torch.stack([torch.cat(critic(observations, actions[:, k]), dim=1).T for k in range(5)], dim=-1)
    torch.testing.assert_close(many, one, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(many[0], many[1])  # an ensemble, not copies


def test_the_pretrained_action_has_no_advantage(make: Make) -> None:
    agent = make()
    agent.learn(32)
    critic: KernelCritic = agent.critic
    description = critic.describe(torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8))
    _, start = critic.split(description)
    for training in (False, True):  # dropout leaves out the same units of an action and of the pretrained one
        critic.set_training_mode(training)
        assert critic.score(description, start).abs().max() < 1e-6
        assert critic.score(description, start + 0.1).abs().min() > 1e-6
