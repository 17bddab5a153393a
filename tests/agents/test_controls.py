"""Agents, baselines and searches whose actions hold more than the code: they begin at the reference and move it all."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.baselines import FineTune, RandomSearch
from blindsr_agents.evaluation.oracle import Oracle
from blindsr_agents.exploration import measured_noise_shape
from blindsr_agents.hinge_ddpg import HingeDDPG, HingeDDPGSettings, train
from blindsr_agents.iterative import IterativeHinge, Player, save_corrector
from blindsr_agents.stock.algorithms import StockAgent
from rich.console import Console

from sr_env.envs.sb3 import BlindSRVecEnv
from sr_env.envs.vector import BlindSRIterativeVectorEnv, BlindSRVectorEnv
from sr_env.models import load_predictor, widened
from sr_env.simulator import Simulator, SimulatorSettings
from sr_env.utils.checks import UsageError

CONTROLS = ("code", "sharpen")


@pytest.fixture(autouse=True)
def own_generator() -> Iterator[None]:
    """The agents seed torch's global generator, which no other test is to notice."""
    with torch.random.fork_rng():
        yield


@pytest.fixture
def settings(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    return tiny_settings | {"reference": "predictor", "controls": CONTROLS}


@pytest.fixture
def simulator(settings: dict[str, Any]) -> Simulator:
    return Simulator(SimulatorSettings(**settings))


@pytest.fixture
def make(settings: dict[str, Any], tiny_predictor: Path) -> Callable[..., HingeDDPG]:
    """Builds a small agent on a vector environment of four."""

    def build(**changes: Any) -> HingeDDPG:
        env = BlindSRVecEnv(BlindSRVectorEnv(4, actions_per_scene=2, **settings))
        return HingeDDPG(
            env=env,
            predictor=str(tiny_predictor),
            **{"constant_steps": 0, **changes},
            buffer_size=64,
            learning_starts=8,
            batch_size=16,
            gradient_steps=1,
            warmup_updates=1,
            critics=2,
            policy_kwargs={"hidden": 32, "dropout": 0.0},
            seed=0,
            device="cpu",
        )

    return build


def test_hinge_ddpg_starts_at_the_pretrained_actor_and_moves_every_number(
    make: Callable[..., HingeDDPG], tiny_predictor: Path
) -> None:
    agent = make()
    lr = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    start = agent.predictor(lr)
    torch.testing.assert_close(start[:, :10], load_predictor(tiny_predictor).network(lr), atol=1e-6, rtol=0)
    assert torch.equal(start[:, 10:], torch.zeros(6, 1))
    assert agent.critic.noise_shape.shape == (11, 11)
    agent.learn(24)
    assert agent._n_updates >= 2
    tried = agent.memory.actions[: agent.memory.size()].reshape(-1, 11)
    assert tried[:, 10].std() > 1e-3
    assert (agent.predictor(lr)[:, 10] != 0).all()


def test_after_the_constant_the_code_alone_depends_on_the_scene(make: Callable[..., HingeDDPG]) -> None:
    agent = make(constant_steps=16)
    lr = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    agent.learn(16)
    agent.critic.offset[10] = 0.3  # as if that had paid
    for actor in (agent.actor, agent.actor_target):
        actor.begin(agent.critic.pretrained, agent.critic.offset)
    begun = agent.predictor(lr)
    agent.learn(24, reset_num_timesteps=False)
    assert agent._n_updates >= 2
    assert (agent.predictor(lr)[:, :10] != begun[:, :10]).any()
    torch.testing.assert_close(agent.predictor(lr)[:, 10], torch.full((6,), 0.3).tanh())
    tried = agent.memory.actions[: agent.memory.size(), :, 10]
    assert tried[:4].std() > 1e-3
    torch.testing.assert_close(torch.from_numpy(tried[4:]), torch.full((6, 4), 0.3).tanh())
    assert make(constant_steps=16, scene_controls=True).actor.learned is None


def test_an_agent_goes_on_only_where_actions_hold_the_same(
    make: Callable[..., HingeDDPG], settings: dict[str, Any]
) -> None:
    blending = {"controls": ("code", "blend"), "blend_renderer": settings["renderer"]}
    env = BlindSRVecEnv(BlindSRVectorEnv(4, actions_per_scene=2, **settings | blending))
    with pytest.raises(UsageError, match="hold code, sharpen, the environment's code, blend: make the environment"):
        make().set_env(env)


def test_a_run_writes_an_actor_that_only_the_same_controls_take(
    settings: dict[str, Any], photo_folder: Path, tmp_path: Path
) -> None:
    run = train(
        HingeDDPGSettings(
            out=tmp_path / "out",
            photos=str(photo_folder),
            reward={"psnr": 1.0},
            **{name: settings[name] for name in ("renderer", "predictor", "patch_size", "device", "controls")},
            steps=16,
            envs=4,
            actions_per_scene=2,
            learning_starts=4,
            warmup_updates=1,
            gradient_steps=1,
            batch_size=8,
            buffer_size=64,
            select_every=8,
            selection_side=64,
            selection_widths=(0.2, 2.6),
            test_crops=2,
            test_widths=(1.3,),
        ),
        console=Console(file=io.StringIO()),
    )
    actor = load_predictor(run.path, controls=CONTROLS)
    assert (actor.network.code_length, actor.card["controls"]) == (11, list(CONTROLS))
    lr = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(actor.network(lr), run.agent.predictor(lr), atol=1e-6, rtol=0)
    for use in (
        lambda: load_predictor(run.path),
        lambda: load_predictor(run.path, controls=("code", "blend")),
        lambda: Simulator(SimulatorSettings(**settings | {"predictor": run.path})),
    ):
        with pytest.raises(UsageError, match=r"gives code, sharpen and here .* is taken"):
            use()


def test_what_gives_the_code_alone_is_taken_everywhere(tiny_predictor: Path) -> None:
    assert load_predictor(tiny_predictor, controls=CONTROLS).network.code_length == 10


def test_noise_covers_the_controls(simulator: Simulator) -> None:
    shape = measured_noise_shape(simulator, 0.7, 0.3, 0)
    assert shape.shape == (11, 11)
    assert shape[10, 10] > 1e-3


@pytest.mark.parametrize("method", [FineTune, RandomSearch])
def test_baselines_move_the_controls_too(
    method: Any, simulator: Simulator, tiny_predictor: Path, settings: dict[str, Any]
) -> None:
    baseline = method(simulator, load_predictor(tiny_predictor), batch=4)
    lr = simulator.draw(np.random.default_rng(0).random((2, 6))).lr
    assert torch.equal(baseline.actor(lr)[:, 10:], torch.zeros(2, 1))
    baseline.step()
    assert (baseline.average(lr)[:, 10] != 0).all()


def test_the_gradient_moves_sharpening_where_it_pays(simulator: Simulator, tiny_predictor: Path) -> None:
    """The tiny renderer's pictures are soft or harsh; either way one step goes towards the better ones."""
    scenes = simulator.draw(np.random.default_rng(0).random((8, 6)))
    action = simulator.reconstruct(scenes)[1]
    less, more = action.clone(), action.clone()
    less[:, 10], more[:, 10] = -0.05, 0.05
    better = simulator.evaluate(scenes, more).score.mean() > simulator.evaluate(scenes, less).score.mean()
    baseline = FineTune(simulator, load_predictor(tiny_predictor), batch=8, relative=False, tau=1.0)
    for _ in range(3):
        baseline.step()
    assert bool(baseline.average(scenes.lr)[:, 10].mean() > 0) == bool(better)


@pytest.mark.parametrize("search", ["gradient", "cma", "random"])
def test_the_oracle_searches_in_all_numbers_and_finds_more(search: str, simulator: Simulator) -> None:
    scenes = simulator.draw(np.random.default_rng(0).random((2, 6)))
    assert simulator.predictor is not None
    start = simulator.predictor.network(scenes.lr)
    plain = Simulator(replace(simulator.settings, controls=("code",)))
    found = Oracle(simulator, 25, search)(scenes, (start, torch.zeros_like(start)))
    assert found.actions.shape == (2, 11)
    assert (found.actions[:, 10] != 0).all()
    again = simulator.evaluate(scenes, found.actions).score
    torch.testing.assert_close(again, found.scores, atol=1e-3, rtol=1e-4)
    assert (found.scores >= plain.evaluate(scenes, start).score).all()


def test_a_stock_algorithm_explores_in_all_numbers(settings: dict[str, Any]) -> None:
    env = BlindSRVecEnv(BlindSRVectorEnv(1, **settings))
    hyperparameters = {"noise_std": 0.1, "learning_starts": 100, "buffer_size": 16, "batch_size": 4}
    agent = StockAgent("ddpg", env, hyperparameters, predictor=settings["predictor"])
    agent.learn(2)
    assert agent.act(np.zeros((2, 16, 16, 3), np.uint8)).shape == (2, 11)


def test_iterative_hinge_corrects_all_numbers(
    settings: dict[str, Any], simulator: Simulator, tiny_predictor: Path, tmp_path: Path
) -> None:
    env = BlindSRIterativeVectorEnv(4, max_steps=2, actions_per_scene=2, **settings)
    small: dict[str, Any] = {"buffer_size": 96, "learning_starts": 8, "batch_size": 8, "gradient_steps": 1}
    predictor = load_predictor(tiny_predictor)
    agent = IterativeHinge(env, predictor, warmup_updates=1, critics=2, hidden=32, **small)
    lr = simulator.draw(np.random.default_rng(0).random((2, 6))).lr
    start = Player(agent.actor_target, simulator)(lr)
    torch.testing.assert_close(start, widened(predictor, CONTROLS).network(lr), atol=1e-6, rtol=0)
    agent.learn(24)
    assert agent.updates > 1
    ended = Player(agent.actor_target, simulator)(lr)
    assert (ended[:, 10] != 0).all()
    save_corrector(tmp_path / "c.safetensors", agent.actor_target, widened(predictor, CONTROLS), {})
    torch.testing.assert_close(Player.load(tmp_path / "c.safetensors", simulator)(lr), ended)
    plain = Simulator(replace(simulator.settings, controls=("code",)))
    with pytest.raises(UsageError, match=r"corrects actions of code, sharpen, not of code: make the simulator with"):
        Player.load(tmp_path / "c.safetensors", plain)
