"""The settings: one home for every default, and one clear error for a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from blindsr_agents.hinge_ddpg import HingeDDPG, HingeDDPGConfig, HingeDDPGSettings

from sr_env.utils.checks import UsageError

Make = Callable[..., HingeDDPG]


def test_unknown_loss_lists_the_names(make: Make) -> None:
    with pytest.raises(ValueError, match=r"'huber'.*printed, hinge_l2, hinge_l1, hinge_margin, mse"):
        make(loss="huber")


def test_class_and_command_line_have_the_same_defaults() -> None:
    assert HingeDDPGSettings().config() == HingeDDPGConfig()
    config = HingeDDPGConfig()
    assert (config.anchor, config.actor_learning_rate, config.gradient_steps) == (0.003, 2e-4, 16)


def test_no_setting_is_documented_twice() -> None:
    own = {field.name for field in fields(HingeDDPGConfig)}
    assert all(f"    {name}: " in (HingeDDPGConfig.__doc__ or "") for name in own)
    elsewhere = f"{HingeDDPGSettings.__doc__} {HingeDDPG.__doc__}"
    assert not any(f"    {name}: " in elsewhere for name in own)


def test_the_agent_takes_a_config_and_changes_to_it(make: Make) -> None:
    agent = make(config=HingeDDPGConfig(anchor=0.5, critics=5), critics=3)
    assert (agent.config.anchor, agent.config.critics, len(agent.critic.q_networks)) == (0.5, 3, 3)
    assert agent.learning_rate == agent.config.learning_rate


def test_only_the_critics_rate_may_be_a_schedule(make: Make) -> None:
    agent = make(learning_rate=lambda left: 1e-3 * left)
    agent.learn(16)
    assert agent.critic.optimizer.param_groups[0]["lr"] < 1e-3
    with pytest.raises(UsageError, match=r"actor_learning_rate .*no number.*only learning_rate"):
        make(actor_learning_rate=lambda left: 1e-4 * left)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("critics", 0),
        ("batch_size", 0),
        ("gradient_steps", -1),
        ("buffer_size", 0),
        ("constant_steps", -1),
        ("learning_starts", -1),
        ("warmup_updates", -1),
        ("actor_learning_rate", float("nan")),
        ("actor_learning_rate", "fast"),
        ("learning_rate", -1e-3),
        ("anchor", -1.0),
        ("pessimism", float("inf")),
        ("contrast", -0.1),
        ("noise", 0.0),
        ("noise_final", -1.0),
        ("noise_limit", float("nan")),
        ("clip", 0.0),
        ("tau", 1.5),
        ("normalisation", "median"),
    ],
)
def test_wrong_settings_are_named(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=name):
        HingeDDPGConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("envs", 0),
        ("actions_per_scene", 0),
        ("patience", 0),
        ("constant_renderings", 7),
        ("test_crops", -1),
    ],
)
def test_wrong_settings_of_a_run_are_named(name: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"{name} {value}"):
        HingeDDPGSettings(**{name: value})
