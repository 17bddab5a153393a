"""IterativeHinge: returns by hand, the start, the environment's play, learning, resumption, and the script."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.hinge_ddpg import REWARD_CLIP, squash
from blindsr_agents.iterative.agent import (
    EpisodeBatch,
    EpisodeMemory,
    IterativeHinge,
    Player,
    load_corrector,
    n_step_returns,
    save_corrector,
)
from torch import Tensor
from train_iterative import Settings, main

from sr_env.envs.vector import BlindSRIterativeVectorEnv, BlindSRVectorEnv
from sr_env.models.checkpoint import load_predictor
from sr_env.simulator import Result, Scenes, Simulator

Make = Callable[..., IterativeHinge]
STEPS = 3


@pytest.fixture(autouse=True)
def own_generator() -> Iterator[None]:
    """The agent seeds torch's global generator, which no other test is to notice."""
    with torch.random.fork_rng():
        yield


@pytest.fixture
def make(tiny_settings: dict[str, Any], tiny_predictor: Path) -> Make:
    """Builds a small agent on four sub-environments of three steps, two to a scene."""

    def build(env_changes: dict[str, Any] | None = None, **changes: Any) -> IterativeHinge:
        common = {**tiny_settings, "reference": "predictor", "max_steps": STEPS, "actions_per_scene": 2}
        env = BlindSRIterativeVectorEnv(4, **{**common, **(env_changes or {})})
        small: dict[str, Any] = {
            "buffer_size": 96,
            "learning_starts": 12,
            "batch_size": 16,
            "gradient_steps": 2,
            "warmup_updates": 2,
            "n_critics": 2,
            "hidden": 32,
        }
        return IterativeHinge(env, load_predictor(tiny_predictor), **{**small, **changes})

    return build


def stir(agent: IterativeHinge) -> None:
    """Give the actors a last layer, and the critics prospects, that are not zero."""
    for layer in (
        agent.actor.head[-1],
        agent.actor_target.head[-1],
        *(prospect[-1] for prospect in agent.critic.prospects),  # type: ignore[index]
        *(prospect[-1] for prospect in agent.critic_target.prospects),  # type: ignore[index]
    ):
        torch.nn.init.normal_(layer.weight, std=0.3)  # type: ignore[arg-type]


def same(one: IterativeHinge, other: IterativeHinge) -> bool:
    return all(
        torch.equal(value, getattr(other, name).state_dict()[key])
        for name in ("actor", "actor_target", "critic", "critic_target")
        for key, value in getattr(one, name).state_dict().items()
    )


# ------------------------------------------------------------------------------------------------------------- returns


@pytest.mark.parametrize(
    ("n", "start", "expected"),
    [
        # Rewards 1, 2, 4, 8; gamma 0.5: sum, the step after it, discount of what follows.
        (1, 0, (1.0, 1, 0.5)),
        (1, 3, (8.0, 4, 0.0)),
        (2, 1, (2 + 0.5 * 4, 3, 0.25)),
        (3, 2, (4 + 0.5 * 8, 4, 0.0)),
        (4, 0, (1 + 0.5 * 2 + 0.25 * 4 + 0.125 * 8, 4, 0.0)),
    ],
)
def test_n_step_returns_by_hand(n: int, start: int, expected: tuple[float, int, float]) -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0, 8.0], [0.0, 0.0, 0.0, 0.0]])
    sums, ends, discounts = n_step_returns(rewards, torch.tensor([start, start]), n, 0.5)
    assert (sums[0].item(), ends[0].item(), discounts[0].item()) == expected
    assert sums[1] == 0


def some_steps(agent: IterativeHinge) -> EpisodeBatch:
    generator = torch.Generator().manual_seed(3)
    states = torch.rand(STEPS, STEPS, agent.actor.state_size, generator=generator)
    states[..., -STEPS:] = torch.eye(STEPS)
    actions = torch.rand(STEPS, STEPS, 10, generator=generator) - 0.5
    rewards = torch.tensor([[1.0, -0.5, 0.25]]).repeat(STEPS, 1)
    return EpisodeBatch(states, actions, rewards, torch.full((STEPS,), 2.0), torch.arange(STEPS))


def test_monte_carlo_targets_are_the_rest_of_the_episode(make: Make) -> None:
    agent = make(n_steps=None)
    stir(agent)  # whatever the critics say
    expected = [math.asinh(total / 2) for total in (0.75, -0.25, 0.25)]
    assert agent.targets(some_steps(agent)).tolist() == pytest.approx(expected, abs=1e-6)


def test_one_step_targets_bootstrap_with_the_averages(make: Make) -> None:
    agent = make(n_steps=1, gamma=0.9)
    stir(agent)
    batch = some_steps(agent)
    later = batch.states[[0, 1], [1, 2]]
    ahead = agent.critic_target(agent.actor_target, later, agent.actor_target(later)).min(0).values
    first, second = (0.9 * 2 * math.sinh(min(max(v, -REWARD_CLIP), REWARD_CLIP)) for v in ahead.tolist())
    assert abs(first) > 1e-3
    expected = squash(torch.tensor([1.0 + first, -0.5 + second, 0.25]), 2.0)
    torch.testing.assert_close(agent.targets(batch), expected)


def test_two_critics_and_pessimism_one_are_twins(make: Make) -> None:
    values = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    assert make().value(values).tolist() == [0.5, -2.0]
    assert make(pessimism=0.0).value(values).tolist() == [0.75, 0.5]


# --------------------------------------------------------------------------------------------------- policy and critics


def test_starts_as_the_reference(make: Make, tiny_predictor: Path) -> None:
    agent = make()
    lr = torch.rand(2, 3, 20, 16)
    player = Player(agent.actor, agent.env.simulator)
    torch.testing.assert_close(player(lr), load_predictor(tiny_predictor).network(lr))


@pytest.mark.parametrize("corrections", [0, 1, STEPS])
def test_a_player_does_what_the_environment_does(make: Make, corrections: int) -> None:
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


def test_no_correction_gains_nothing_and_nothing_follows_the_last_step(make: Make) -> None:
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


def test_a_corrector_is_read_as_written(make: Make, tiny_predictor: Path, tmp_path: Path) -> None:
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


# ------------------------------------------------------------------------------------------------------------- learning


def test_memory_keeps_the_latest_episodes() -> None:
    memory = EpisodeMemory(4, 2, 1, 1, (0.0, 4.0), "width")
    for number in range(3):
        rewards = torch.full((2, 2), float(number))
        memory.add(torch.zeros(2, 2, 1), torch.zeros(2, 2, 1), rewards, np.array([0.1, 3.9]))
    assert memory.columns["rewards"][:, 0].tolist() == [2, 2, 1, 1]
    assert memory.columns["groups"].tolist() == [0, 7, 0, 7]
    other = EpisodeMemory(4, 3, 1, 1, (0.0, 4.0), "width")
    with pytest.raises(ValueError, match="the memory kept states"):
        other.load_state(memory.state())
    with pytest.raises(ValueError, match="keeps nothing"):
        EpisodeMemory(0, 2, 1, 1, (0.0, 4.0), "width")


def toy(simulator: Simulator, better: float) -> Callable[[Scenes, Tensor], Result]:
    """A score that is best where the first component is ``better`` above the predictor's."""
    assert simulator.predictor is not None
    network = simulator.predictor.network

    def evaluate(scenes: Scenes, actions: Tensor) -> Result:
        with torch.no_grad():
            off = (actions - network(scenes.lr))[:, 0] - better
        return Result(scenes.hr, simulator.basis.to_code(actions), -off.square(), {})

    return evaluate


@pytest.mark.parametrize("n_steps", [1, 2])
def test_training_raises_the_return(make: Make, monkeypatch: pytest.MonkeyPatch, n_steps: int) -> None:
    agent = make(
        {"max_steps": 2, "patch_size": 32},
        **{"n_steps": n_steps, "buffer_size": 2000, "batch_size": 64, "gradient_steps": 5, "anchor": 0.0},
        **{"learning_rate": 3e-3, "actor_learning_rate": 5e-3, "noise": 1e9, "tau": 0.05, "dropout": 0.0},
        **{"warmup_updates": 40, "learning_starts": 64, "noise_limit": 0.15},
    )
    monkeypatch.setattr(agent.env.simulator, "evaluate", toy(agent.env.simulator, 0.3))
    agent.learn(240)
    first, last = np.mean(agent.returns[:6]), np.mean(agent.returns[-6:])
    assert last > first + 0.04
    states = agent.memory.columns["states"][:, 0]
    with torch.no_grad():
        move = agent.actor.correction * agent.actor_target(states)[:, 0].mean()
    assert 0.05 < move < 0.45  # towards 0.3, also without noise


def test_warm_up_trains_the_critics_alone(make: Make) -> None:
    agent = make(warmup_updates=1000)
    actor = {name: value.clone() for name, value in agent.actor.state_dict().items()}
    critic = agent.critic.state_dict()["landscapes.0.scene.weight"].clone()
    agent.learn(36)
    assert agent.updates > 0
    assert all(torch.equal(value, actor[name]) for name, value in agent.actor.state_dict().items())
    assert not torch.equal(agent.critic.state_dict()["landscapes.0.scene.weight"], critic)


def test_what_is_pretrained_stays(make: Make, tiny_predictor: Path) -> None:
    agent = make(actor_learning_rate=1e-2)
    agent.learn(48)
    assert any(parameter.abs().max() > 0 for parameter in agent.actor.head[-1].parameters())
    for name, value in load_predictor(tiny_predictor).network.state_dict().items():
        assert torch.equal(agent.actor.pretrained.state_dict()[name], value)
        assert torch.equal(agent.actor_target.pretrained.state_dict()[name], value)


def test_two_runs_with_one_seed_agree(make: Make) -> None:
    agents = []
    for seed in (0, 0, 1):
        agents.append(make(seed=seed))
        agents[-1].learn(36)
    assert same(agents[0], agents[1])
    assert not same(agents[0], agents[2])


def test_state_round_trip(make: Make, tmp_path: Path) -> None:
    agent = make()
    agent.learn(36)
    agent.save_state(tmp_path / "state.pt", {"best": 1.5, "none": None})
    other = make(seed=7)
    assert other.load_state(tmp_path / "state.pt") == {"best": 1.5, "none": None}
    assert (other.steps, other.updates, other.returns) == (agent.steps, agent.updates, agent.returns)
    generator = torch.get_rng_state()
    agent.learn(48)
    torch.set_rng_state(generator)  # both draw dropout from the global generator
    other.learn(48)
    assert same(agent, other)
    assert agent.returns == other.returns
    assert agent.correlation == other.correlation


def test_damaged_or_foreign_state_is_one_clear_error(make: Make, tmp_path: Path) -> None:
    agent = make()
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        agent.load_state(tmp_path / "absent.pt")
    agent.save_state(tmp_path / "state.pt")
    with pytest.raises(ValueError, match="cannot resume"):
        make(critics=3).load_state(tmp_path / "state.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_steps": 4}, r"n_steps 4 is outside 1\.\.3"),
        ({"gamma": 1.1}, "gamma 1.1"),
        ({"noise": 0.0}, "noise 0.0"),
        ({"loss": "huber"}, "'huber'"),
        ({"normalisation": "some"}, "'some'"),
        ({"env_changes": {"reference": "bicubic"}}, "reference='predictor'"),
        ({"env_changes": {"predictor": "predictor_x4"}}, "that predictor"),
    ],
)
def test_bad_settings_are_named(make: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_refuses_the_environment_of_one_step(tiny_settings: dict[str, Any], tiny_predictor: Path) -> None:
    env = BlindSRVectorEnv(2, **tiny_settings, reference="predictor")
    with pytest.raises(ValueError, match="use BlindSRIterative-v0"):
        IterativeHinge(env, load_predictor(tiny_predictor))  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------------- script


def test_script_tells_the_improvement_after_each_correction(
    tiny_renderer: Path, tiny_predictor: Path, photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(
        out=tmp_path / "out",
        photos=str(photo_folder),
        test_photos=str(photo_folder),
        test_count=2,
        test_side=64,
        renderer=str(tiny_renderer),
        predictor=str(tiny_predictor),
        one_step=tiny_predictor,
        patch_size=64,
        selection_photos=1,
        selection_side=64,
        selection_widths=(1.3,),
        max_steps=2,
        n_steps=0,
        steps=16,
        envs=4,
        actions_per_scene=2,
        select_every=8,
        learning_starts=8,
        warmup_updates=1,
        gradient_steps=2,
        batch_size=8,
        actor_learning_rate=1e-2,
        device="cpu",
        precision="fp32",
    )
    table = main(settings)
    told = capsys.readouterr().out
    assert "2-step returns" in told
    assert list(table) == ["pretrained actor", "one-step agent", "1 correction", "2 corrections", "true kernel"]
    assert table["one-step agent"]["improvement"] == 0  # the same predictor
    written = json.loads((settings.out / "iterative.json").read_text())
    assert written["table"] == table
    assert list(table["2 corrections"]["per_width"]) == ["0.2", "1.3", "2.6"]
    assert [point["step"] for point in written["selection"]] == [0, 8, 16]
    kept = load_corrector(settings.out / "corrector_x4.safetensors", load_predictor(tiny_predictor))
    corrects = any(parameter.abs().max() > 0 for parameter in kept.head[-1].parameters())
    assert corrects == (written["kept"] != "no correction")
    assert corrects == (table["2 corrections"]["improvement"] != 0)
    settings.resume, settings.steps = True, 24
    main(settings)
    assert "steps 16 to 24" in capsys.readouterr().out.replace("\n", " ")
