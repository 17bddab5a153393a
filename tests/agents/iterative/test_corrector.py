"""The policy: its start, the environment's play, its file; and what the critics promise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.iterative import Corrector, EpisodeBatch, IterativeHinge, Player, load_corrector, save_corrector
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sr_env.models import load_predictor
from sr_env.simulator import Simulator, SimulatorSettings
from sr_env.utils.checks import UsageError

Make = Callable[..., IterativeHinge]
Stir = Callable[[IterativeHinge], None]
Steps = Callable[[IterativeHinge], EpisodeBatch]
STEPS = 3


def test_starts_as_the_reference(make: Make, tiny_predictor: Path) -> None:
    agent = make()
    lr = torch.rand(2, 3, 20, 16)
    player = Player(agent.actor, agent.env.simulator)
    torch.testing.assert_close(player(lr), load_predictor(tiny_predictor).network(lr))


@pytest.mark.parametrize("corrections", [0, 1, STEPS])
def test_a_player_does_what_the_environment_does(make: Make, stir: Stir, corrections: int) -> None:
    agent = make()
    stir(agent)
    agent.play()
    simulator = agent.env.simulator
    observation, _ = agent.env.reset(seed=5)
    code = observation["code"]
    scene = agent.actor.describe(simulator.scenes.lr)
    player = Player(agent.actor, simulator, corrections)
    expected = player(simulator.scenes.lr)
    for step in range(corrections):
        thumbnails = torch.from_numpy(observation["sr"]).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            action = agent.actor(agent.actor.state(scene, torch.from_numpy(code), thumbnails, step))
        observation, _, _, _, infos = agent.env.step(action.numpy())
        code = np.stack([o["code"] for o in infos["final_obs"]]) if step == STEPS - 1 else observation["code"]
    np.testing.assert_allclose(expected, code, atol=1e-4)
    if corrections:
        assert np.abs(code - scene[1].numpy()).max() > 0.01


def test_a_player_makes_no_more_corrections_than_an_episode(make: Make) -> None:
    agent = make()
    with pytest.raises(ValueError, match=r"4 corrections are outside 0\.\.3"):
        Player(agent.actor, agent.env.simulator, 4)


def test_no_correction_gains_nothing_and_nothing_follows_the_last_step(
    make: Make, stir: Stir, some_steps: Steps
) -> None:
    agent = make()
    stir(agent)
    states = some_steps(agent).states[0]  # one of each step
    for training in (False, True):
        agent.critic.train(training)
        assert agent.critic.gain(agent.actor, states, torch.zeros(STEPS, 10)).abs().max() < 1e-6
        assert agent.critic.gain(agent.actor, states, torch.full((STEPS, 10), 0.2)).abs().min() > 1e-6
        prospects = agent.critic.prospect(agent.actor, states)
        assert prospects[:, -1].abs().max() == 0
        assert prospects[:, :-1].abs().min() > 0


def test_corrections_on_a_scene_lie_opposite_each_other(make: Make) -> None:
    agent = make(learning_starts=1000)
    agent.play()
    first = agent.memory.columns["actions"][:4, 0]  # around no correction
    torch.testing.assert_close(first[0::2], -first[1::2])
    assert first[0].abs().max() > 1e-3
    assert not torch.equal(first[0], first[2])


def test_a_corrector_is_read_as_written(
    make: Make, stir: Stir, some_steps: Steps, tiny_predictor: Path, tmp_path: Path
) -> None:
    agent, predictor = make(), load_predictor(tiny_predictor)
    stir(agent)
    save_corrector(tmp_path / "c.safetensors", agent.actor, predictor, {"steps": 3})
    states = some_steps(agent).states[0]
    read = load_corrector(tmp_path / "c.safetensors", predictor)
    assert torch.equal(read(states), agent.actor(states))
    assert (read.max_steps, read.correction) == (STEPS, 0.5)
    assert torch.equal(read.noise_shape, agent.actor.noise_shape)
    with pytest.raises(ValueError, match="corrects tiny_predictor"):
        load_corrector(tmp_path / "c.safetensors", load_predictor("predictor_x4"))
    (tmp_path / "d.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="no corrector"):
        load_corrector(tmp_path / "d.safetensors", predictor)
    with pytest.raises(FileNotFoundError, match="train one"):
        load_corrector(tmp_path / "absent.safetensors", predictor)


@pytest.mark.parametrize(
    ("header", "changes", "message"),
    [
        ("made", {"max_steps": 10**9}, r"no corrector .*max_steps=1000000000: give a whole number"),
        ("made", {"hidden": None}, r"no corrector .*hidden=None"),
        ("made", {"correction": "x"}, r"no corrector .*could not convert"),
        ("made", {"correction": float("nan")}, r"no corrector .*its correction is nan"),
        ("card", {"predictor": [1]}, r"corrects \[1\]"),
        ("card", {"digest": "0" * 16}, "is damaged: its tensors are not those"),
        ("card", [], "no corrector"),
        (None, "nan", r"not finite \('head\.0\.bias'\)"),
        (None, "noise", "no corrector of tiny_predictor"),
    ],
)
def test_a_corrector_from_elsewhere_is_not_trusted(
    make: Make, tiny_predictor: Path, tmp_path: Path, header: str | None, changes: Any, message: str
) -> None:
    predictor, path = load_predictor(tiny_predictor), tmp_path / "c.safetensors"
    save_corrector(path, make().actor, predictor, {})
    with safe_open(path, "pt") as file:
        headers = file.metadata()
    tensors = load_file(path)
    if header is None:
        card = json.loads(headers["card"])
        headers["card"] = json.dumps({name: value for name, value in card.items() if name != "digest"})
        tensors |= (
            {"head.0.bias": tensors["head.0.bias"] / 0} if changes == "nan" else {"noise_shape": torch.ones(2, 2)}
        )
    else:
        headers[header] = json.dumps(changes and {**json.loads(headers[header]), **changes})
    save_file(tensors, path, headers)
    with pytest.raises(UsageError, match=message):
        load_corrector(path, predictor)


def test_a_player_comes_out_of_a_file(
    make: Make, stir: Stir, tiny_predictor: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    agent, path = make(), tmp_path / "c.safetensors"
    stir(agent)
    save_corrector(path, agent.actor, load_predictor(tiny_predictor), {})
    simulator, lr = agent.env.simulator, torch.rand(2, 3, 20, 16)
    assert torch.equal(Player.load(path, simulator, 2)(lr), Player(agent.actor, simulator, 2)(lr))
    with pytest.raises(UsageError, match="reference 'bicubic' has no predictor"):
        Player.load(path, Simulator(SimulatorSettings(**tiny_settings)))


def test_a_bug_while_a_corrector_is_read_keeps_its_name(
    make: Make, tiny_predictor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, predictor, path = make(), load_predictor(tiny_predictor), tmp_path / "c.safetensors"
    save_corrector(path, agent.actor, predictor, {})

    def broken(self: Corrector, *_: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(Corrector, "__init__", broken)
    with pytest.raises(TypeError, match="a bug"):
        load_corrector(path, predictor)
