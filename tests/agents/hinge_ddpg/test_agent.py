"""The agent: exploration, and learning."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from blindsr_agents.hinge_ddpg import REWARD_CLIP, HingeDDPG

Make = Callable[..., HingeDDPG]
Remember = Callable[..., None]


def test_acts_near_mu_from_the_first_step(make: Make) -> None:
    agent = make(learning_starts=1000, noise_limit=0.1)
    agent.learn(40)
    memory = agent.memory
    observations = torch.from_numpy(memory.observations[:10].reshape(-1, 3, 16, 16))
    noise = memory.actions[:10].reshape(-1, 10) - agent.actor(observations).detach().numpy()
    shape = agent.critic.noise_shape.numpy()
    expected = np.sqrt((shape**2).sum(0))
    assert 0.001 < expected.min() <= expected.max() < 0.1001
    np.testing.assert_allclose(noise.std(0), expected, rtol=0.45)
    assert np.abs(noise).max() < 0.5  # uniform actions would be up to 2 away


def test_several_actions_on_a_scene_lie_opposite_each_other(make: Make) -> None:
    agent = make(learning_starts=1000, noise=0.1, env_changes={"actions_per_scene": 4})
    agent.learn(40)
    memory = agent.memory
    observations, actions = memory.observations[:10], memory.actions[:10]
    assert (observations == observations[:, :1]).all()  # one scene for all four
    assert len(np.unique(observations.reshape(40, -1), axis=0)) == 10
    mean = agent.actor(torch.from_numpy(observations[:, 0])).detach().numpy()
    np.testing.assert_allclose(actions[:, 0] + actions[:, 1], 2 * mean, atol=1e-5)
    np.testing.assert_allclose(actions[:, 2] + actions[:, 3], 2 * mean, atol=1e-5)
    assert np.abs(actions[:, 0] - actions[:, 2]).min(0).max() > 1e-3


def test_noise_follows_its_schedule(make: Make) -> None:
    agent = make(noise=2.0, noise_final=0.0)
    sizes = {}
    for progress in (1.0, 0.5, 0.0):
        agent._current_progress_remaining = progress
        sizes[progress] = agent._draw_noise(2000, 1).std(0)
    expected = np.sqrt((agent.critic.noise_shape.numpy() ** 2).sum(0))
    np.testing.assert_allclose(sizes[1.0], expected, rtol=0.1)
    np.testing.assert_allclose(sizes[0.5], expected / 2, rtol=0.1)
    assert sizes[0.0].max() == 0


def test_warm_up_trains_the_critics_alone(make: Make) -> None:
    agent = make(warmup_updates=1000)
    actor = {name: value.clone() for name, value in agent.actor.state_dict().items()}
    critic = agent.critic.q_networks.state_dict()["scene.weight"].clone()
    agent.learn(32)
    assert agent._n_updates > 0
    assert all(torch.equal(value, actor[name]) for name, value in agent.actor.state_dict().items())
    assert not torch.equal(agent.critic.q_networks.state_dict()["scene.weight"], critic)


@pytest.mark.parametrize("train_features", [False, True])
def test_after_warm_up_the_actor_moves(make: Make, train_features: bool) -> None:
    agent = make(train_features=train_features, actor_learning_rate=1e-3)
    before = {name: value.clone() for name, value in agent.actor.predictor.state_dict().items()}
    frozen = {name: value.clone() for name, value in agent.critic.pretrained.state_dict().items()}
    agent.learn(32)
    after = agent.actor.predictor.state_dict()
    assert not torch.equal(after["head.0.weight"], before["head.0.weight"])
    averaged = agent.predictor.state_dict()
    for weights in (after, averaged):  # bit for bit: what is frozen must not drift by averaging either
        changed = {name for name in before if not torch.equal(weights[name], before[name])}
        assert any(not name.startswith("head") for name in changed) == train_features
    assert all(torch.equal(value, frozen[name]) for name, value in agent.critic.pretrained.state_dict().items())


def fill(agent: HingeDDPG, remember: Remember, better: float) -> None:
    """Fill the memory with scenes whose reward is highest where the first component is ``better`` above mu0."""
    memory, rng = agent.memory, np.random.default_rng(0)
    for _ in range(memory.buffer_size):
        observations = rng.integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
        start, _ = agent.predict(observations)
        actions = np.clip(start + 0.2 * rng.standard_normal((4, 10)), -1, 1).astype(np.float32)
        reward = better**2 - (actions[:, 0] - start[:, 0] - better) ** 2  # mu0 itself earns nothing
        described = agent.critic.describe(torch.from_numpy(observations)).numpy()
        remember(memory, observations, actions, reward, descriptions=described)


def even(size: float) -> dict[str, float]:
    """Settings of noise that is of one size in all components, whatever it does to the picture."""
    return {"noise": 1e9, "noise_limit": size}


def moved(agent: HingeDDPG) -> float:
    """How far the actor's first component is from the pretrained one's, on average."""
    observations = torch.from_numpy(agent.memory.observations.reshape(-1, 3, 16, 16))
    with torch.no_grad():
        return float((agent.actor(observations) - agent.critic.pretrained(observations / 255.0))[:, 0].mean())


def test_actor_climbs_to_the_reward_and_the_anchor_holds_it(make: Make, remember: Remember) -> None:
    shifts = {}
    for anchor in (0.0, 100.0):
        agent = make(
            buffer_size=512, batch_size=64, warmup_updates=150, actor_learning_rate=1e-3, anchor=anchor, **even(0.2)
        )
        agent.learn(4)  # sets SB3's logger up
        fill(agent, remember, better=0.2)
        agent.train(450, 64)
        shifts[anchor] = moved(agent)
    assert shifts[0.0] == pytest.approx(0.2, abs=0.1)
    assert abs(shifts[100.0]) < 0.03


@pytest.mark.parametrize("pessimism", [0.0, 1.0, 2.5])
def test_the_actor_climbs_the_critics_mean_less_their_disagreement(make: Make, pessimism: float) -> None:
    """Not plus it: it would seek out what the critics know nothing of."""
    agent = make(pessimism=pessimism, critics=3, learning_starts=1000)
    agent.learn(32)
    batch = agent.memory.draw(16, np.random.default_rng(0), images=False)
    agent.policy.set_training_mode(False)
    with torch.no_grad():
        agent.actor.predictor.head[-1].bias += 0.5  # at its start all critics promise nothing
        features, _ = agent.critic.split(batch.descriptions)
        values = agent.critic.score(batch.descriptions, torch.tanh(agent.actor.logits(features))).numpy()
    spread = values.std(0).mean()
    told = agent._climb(batch, agent._moving(agent.actor))["actor_value"].item()
    assert told == pytest.approx(values.mean() - pessimism * spread, abs=1e-5)
    assert pessimism == 0 or spread > 1e-3


def test_what_the_actor_climbs_rises(make: Make) -> None:
    agent = make(pessimism=2.0, critics=3, learning_starts=1000, actor_learning_rate=1e-3, anchor=0.0)
    agent.learn(32)
    batch = agent.memory.draw(16, np.random.default_rng(0), images=False)
    agent.policy.set_training_mode(False)
    values = [agent._climb(batch, agent._moving(agent.actor))["actor_value"].item() for _ in range(30)]
    assert values[-1] > values[0] + 1e-3


def test_printed_loss_runs_away(make: Make, remember: Remember) -> None:
    values = {}
    for loss in ("printed", "hinge_l2"):
        agent = make(loss=loss, buffer_size=256, warmup_updates=10_000, **even(0.1))
        agent.learn(4)
        fill(agent, remember, better=0.0)
        agent.train(150, 64)
        batch = agent.memory.draw(64, np.random.default_rng(0), images=False)
        agent.policy.set_training_mode(False)
        values[loss] = agent.critic.score(batch.descriptions, batch.actions).abs().mean().item()
    assert 0 < values["hinge_l2"] < REWARD_CLIP
    assert values["printed"] > 3 * REWARD_CLIP


def test_two_runs_with_one_seed_agree(make: Make) -> None:
    first, second = make(), make()
    first.learn(32)
    second.learn(32)
    for name, value in first.policy.state_dict().items():
        assert torch.equal(value, second.policy.state_dict()[name]), name
