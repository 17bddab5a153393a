"""The ensemble of critics against critics that stand apart: their values, a loss, one update; and its dropout."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from blindsr_agents.hinge_ddpg import HingeDDPG, QEnsemble, contrast, critic_loss, squash
from torch import Tensor, nn

from sr_env.utils.checks import UsageError

Make = Callable[..., HingeDDPG]


class Apart(nn.Module):
    """One critic by itself, of torch's own layers, with a member's weights."""

    def __init__(self, ensemble: QEnsemble, member: int) -> None:
        super().__init__()
        (hidden, size), actions = ensemble.scene.weight.shape[1:], ensemble.action.weight.shape[2]
        self.scene, self.action = nn.Linear(size, hidden), nn.Linear(actions, hidden, bias=False)
        self.first = nn.Sequential(nn.LayerNorm(hidden), nn.SiLU())
        self.second = nn.Sequential(nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.SiLU())
        self.last = nn.Linear(hidden, 1, bias=False)
        self.load_state_dict({name: value[member] for name, value in ensemble.state_dict().items()})

    def value(self, description: Tensor, move: Tensor) -> Tensor:
        return self.last(self.second(self.first(self.scene(description) + self.action(move)))).squeeze(-1)  # type: ignore[no-any-return]

    def forward(self, description: Tensor, move: Tensor) -> Tensor:
        return self.value(description, move) - self.value(description, torch.zeros_like(move))


def apart(ensemble: QEnsemble) -> nn.ModuleList:
    return nn.ModuleList(Apart(ensemble, member) for member in range(len(ensemble)))


def test_values_are_those_of_critics_apart() -> None:
    torch.manual_seed(0)
    ensemble = QEnsemble(3, 7, 2, 16, 0.0)
    description, moves = torch.randn(5, 7), torch.randn(5, 4, 2)
    many = ensemble(description, moves)
    assert many.shape == (3, 5, 4)
    for member, critic in enumerate(apart(ensemble)):
        for action in range(4):
            torch.testing.assert_close(many[member, :, action], critic(description, moves[:, action]))
    torch.testing.assert_close(ensemble(description, moves[:, 0]), many[..., 0])
    assert many.std(0).min() > 1e-4  # each has weights of its own


def step(parameters: list[Tensor], loss: Tensor, rate: float, clip: float) -> None:
    """One step of plain Adam, clipped."""
    optimizer = torch.optim.Adam(parameters, rate, foreach=False, fused=False)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()


def test_an_update_is_that_of_critics_apart_on_single_actions(make: Make) -> None:
    agent = make(env_changes={"actions_per_scene": 2}, warmup_updates=0, learning_starts=1000, tau=0.5, clip=0.1)
    agent.learn(40)
    for parameter in agent.actor.predictor.head.parameters():  # away from the pretrained one, whose advantage is zero
        nn.init.normal_(parameter, std=0.3)
    config, rng = agent.config, deepcopy(agent.rng)
    critics, actor = apart(agent.critic.q_networks), deepcopy(agent.actor)
    averages = [value.clone() for value in agent.actor_target.predictor.head.parameters()]
    agent.train(1, 16)

    batch = agent.memory.draw(16, rng, images=False)
    assert batch.actions.shape[:2] == (8, 2)
    description, action = batch.descriptions.repeat_interleave(2, 0), batch.actions.flatten(0, 1)
    q = torch.stack([critic(description, agent.critic.moved(description, action)) for critic in critics])
    target = squash(batch.rewards, batch.scales).flatten().expand_as(q)
    loss = critic_loss(config.loss)(q + config.shift, target + config.shift, agent.gamma)
    values = agent.logger.name_to_value
    assert values["train/critic_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert values["train/contrast"] == pytest.approx(contrast(q, target, 2).item(), rel=1e-4)
    loss = len(q) * (loss + config.contrast * contrast(q, target, 2))
    step(list(critics.parameters()), loss, config.learning_rate, config.clip)
    for member, critic in enumerate(critics):
        for name, value in critic.state_dict().items():
            torch.testing.assert_close(agent.critic.q_networks.state_dict()[name][member], value, atol=1e-6, rtol=1e-5)

    logits = actor.logits(agent.critic.split(description)[0])
    moved = agent.critic.moved(description, torch.tanh(logits))
    q = torch.stack([critic(description, moved) for critic in critics])
    value = (q.mean(0) - config.pessimism * q.std(0, correction=0)).mean()
    assert values["train/actor_value"] == pytest.approx(value.item(), rel=1e-4)
    saturated = torch.relu(logits.abs() - config.saturation).square().mean()
    loss = config.anchor * moved.square().sum(1).mean() + saturated - value
    head = list(actor.predictor.head.parameters())
    step(head, loss, config.actor_learning_rate, config.clip)
    for now, then in zip(agent.actor.predictor.head.parameters(), head, strict=True):
        torch.testing.assert_close(now, then, atol=1e-6, rtol=1e-5)
    for average, before, then in zip(agent.predictor.head.parameters(), averages, head, strict=True):
        torch.testing.assert_close(average, (before + then) / 2, atol=1e-6, rtol=1e-5)


def test_dropout_is_one_for_all_moves_of_a_scene_and_another_for_every_critic() -> None:
    torch.manual_seed(0)
    ensemble = QEnsemble(3, 200, 2, 64, 0.25)
    kept = ensemble._drop(torch.ones(3, 50, 4, 200))
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (kept > 0).float().mean().item() == pytest.approx(0.75, abs=0.01)
    assert torch.equal(kept, kept[:, :, :1].expand_as(kept))
    for one, other in ((kept[0], kept[1]), (kept[:, 0], kept[:, 1])):
        assert ((one > 0) == (other > 0)).float().mean().item() == pytest.approx(0.75**2 + 0.25**2, abs=0.03)
    ensemble.eval()
    assert ensemble._drop(torch.ones(3, 2, 4, 200)).min() == 1


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_a_dropout_that_is_no_share_is_refused(dropout: float) -> None:
    with pytest.raises(UsageError, match="dropout"):
        QEnsemble(2, 7, 2, 16, dropout)


def test_critics_saved_apart_are_refused_in_one_sentence(make: Make, tmp_path: Path) -> None:
    agent = make()
    names = {name.removeprefix("q_networks.") for name in agent.critic.state_dict() if "q_networks" in name}
    former = {
        f"critic.q_networks.{member}.{name}": agent.critic.q_networks.state_dict()[name][member].clone()
        for member in range(2)
        for name in names
    }
    rest = {name: value for name, value in agent.policy.state_dict().items() if "critic.q_networks" not in name}
    with pytest.raises(UsageError, match=r"critics were saved one by one.*train the agent anew"):
        agent.policy.load_state_dict({**rest, **former})
    agent.save_state(tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    torch.save({**state, "policy": {**rest, **former}}, tmp_path / "former.pt")
    with pytest.raises(UsageError, match=r"cannot resume from .*one by one.*delete it"):
        agent.load_state(tmp_path / "former.pt")


def test_a_batch_gives_every_scene_once(make: Make) -> None:
    agent = make(env_changes={"actions_per_scene": 2}, learning_starts=1000)
    agent.learn(40)
    batch = agent.memory.draw(16, np.random.default_rng(0), images=True)
    assert batch.observations is not None
    shapes = [tuple(value.shape) for value in batch if value is not None]
    assert shapes == [(8, 3, 16, 16), (8, agent.critic.description_size), (8, 2, 10), (8, 2), (8, 2)]
    torch.testing.assert_close(batch.descriptions, agent.critic.describe(batch.observations), atol=1e-5, rtol=1e-4)
