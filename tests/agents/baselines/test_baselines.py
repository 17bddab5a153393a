"""The alternatives to the agent: gradients, search, counting, budgets, and selection."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.baselines import (
    Baseline,
    ConstantOffset,
    DifferentiableScore,
    FineTune,
    RandomSearch,
    RandomSearchConfig,
    RenderCounter,
    train,
)
from blindsr_agents.evaluation.scene_sets import FixedScenes
from blindsr_agents.training import Selection

from sr_env.models import load_predictor
from sr_env.simulator import UNIFORMS_PER_SCENE, Result, Scenes, Simulator, SimulatorSettings

METHODS = pytest.mark.parametrize("method", [FineTune, RandomSearch, ConstantOffset])


@pytest.fixture
def simulator(tiny_settings: dict[str, Any]) -> Simulator:
    return Simulator(SimulatorSettings(**tiny_settings, reference="predictor"))


def build(method: type[Baseline], simulator: Simulator, **changes: Any) -> Baseline:
    assert simulator.predictor is not None
    return method(simulator, simulator.predictor, **{"batch": 6, "tau": 1.0, **changes})


def draw(simulator: Simulator, count: int, seed: int = 5) -> Scenes:
    return simulator.draw(np.random.default_rng(seed).random((count, UNIFORMS_PER_SCENE)))


def select(simulator: Simulator) -> Selection:
    assert simulator.predictor is not None
    return Selection(FixedScenes(simulator, 3, (0.2, 2.6), seed=1), simulator.predictor.network)


# ------------------------------------------------------------------------------------------------------------ gradient


def test_the_gradient_is_the_finite_difference(simulator: Simulator) -> None:
    score, scenes = DifferentiableScore(simulator), draw(simulator, 4)
    actions = torch.zeros(4, simulator.code_length, requires_grad=True)
    (gradient,) = torch.autograd.grad(score(scenes, actions)[0].sum(), actions)
    step = 0.005 * gradient / gradient.norm(dim=1, keepdim=True)
    with torch.no_grad():
        up, down = (score(scenes, actions + sign * step)[0] for sign in (1, -1))
    assert gradient.norm(dim=1).min() > 1e-3
    torch.testing.assert_close((up - down) / 2, (gradient * step).sum(1), rtol=0.03, atol=1e-5)


@pytest.mark.parametrize("reward", [{"psnr": 1.0}, {"lpips": 1.0}, {"psnr": 1.0, "lpips": 20.0}])
def test_the_differentiable_score_is_the_environments(tiny_settings: dict[str, Any], reward: dict[str, float]) -> None:
    simulator = Simulator(SimulatorSettings(**tiny_settings, reward=reward))
    scenes, actions = draw(simulator, 3), torch.linspace(-1, 1, 30).view(3, 10)
    score, terms = DifferentiableScore(simulator)(scenes, actions)
    result = simulator.evaluate(scenes, actions)
    assert terms.keys() == reward.keys()
    torch.testing.assert_close(score, result.score, rtol=2e-3, atol=2e-3)  # but for rounding to 8 bit


def test_gradients_pass_metrics_in_the_environments_precision(tiny_settings: dict[str, Any]) -> None:
    simulator = Simulator(SimulatorSettings(**tiny_settings, reward={"lpips": 1.0}, metric_precision="bf16"))
    scenes, actions = draw(simulator, 3), torch.linspace(-1, 1, 30).view(3, 10).requires_grad_()
    score, terms = DifferentiableScore(simulator)(scenes, actions)
    code = simulator.basis.to_code(actions.detach())
    sr = simulator.renderer.network(scenes.lr, code).clamp(0, 1)
    torch.testing.assert_close(terms["lpips"], simulator.score(scenes, sr, code).terms["lpips"], rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(score.sum(), actions)
    assert gradient.norm(dim=1).min() > 1e-4


def test_metrics_without_a_gradient_are_refused(tiny_settings: dict[str, Any]) -> None:
    tiny_settings["patch_size"] = 128
    simulator = Simulator(SimulatorSettings(**tiny_settings, reward={"psnr": 1, "niqe": 1}, reference="predictor"))
    with pytest.raises(ValueError, match=r"no gradient passes niqe in the reward.*--method random"):
        build(FineTune, simulator)
    assert np.isfinite(build(RandomSearch, simulator, batch=1).step())


def test_consistency_is_searched_and_refused_as_metrics_without_a_gradient_are(tiny_settings: dict[str, Any]) -> None:
    reward = {"psnr": 1.0, "consistency": 1.0}
    simulator = Simulator(SimulatorSettings(**tiny_settings, reward=reward, reference="predictor"))
    with pytest.raises(ValueError, match="no gradient passes consistency"):
        build(FineTune, simulator)
    assert np.isfinite(build(RandomSearch, simulator, batch=1).step())


def test_only_the_head_moves_unless_asked_otherwise(simulator: Simulator) -> None:
    assert simulator.predictor is not None
    before = deepcopy(simulator.predictor.network.state_dict())
    for method, options, moved in (
        (FineTune, {}, {"head"}),
        (FineTune, {"train_features": True}, {"head", "stem", "gate"}),
        (RandomSearch, {}, {"head"}),
    ):
        baseline = build(method, simulator, **options)
        baseline.step()
        after = baseline.average.state_dict()
        assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == moved
    start = simulator.predictor.network.state_dict()  # the simulator's own, which makes the reference
    assert all(torch.equal(before[name], start[name]) for name in before)


# --------------------------------------------------------------------------------------------------------- all methods


@METHODS
@pytest.mark.parametrize("relative", [True, False])
def test_all_raise_the_training_reward(method: type[Baseline], relative: bool, simulator: Simulator) -> None:
    rates = {FineTune: 3e-3, RandomSearch: 1.0, ConstantOffset: 1.0}
    baseline = build(method, simulator, learning_rate=rates[method], relative=relative)
    scenes = draw(simulator, 24)

    def score() -> torch.Tensor:
        return simulator.evaluate(scenes, baseline.average(scenes.lr)).score

    before = score()
    for _ in range(40):
        baseline.step()
    gain = score() - before
    assert gain.mean() > 3 * gain.std() / len(gain) ** 0.5
    assert gain.mean() > 0.02


def test_search_moves_with_the_gradient(simulator: Simulator) -> None:
    """The update of the last layer, averaged over directions, points along the exact gradient."""
    scenes = draw(simulator, 1)
    exact = build(FineTune, simulator, relative=False)
    exact.score(scenes, exact.actor(scenes.lr))[0].sum().backward()
    gradient = exact.actor.head[-1].bias.grad  # type: ignore[union-attr]
    search = build(RandomSearch, simulator, noise_limit=0.01)  # this renderer is far from linear
    start = search.actor.head[-1].bias.clone()  # type: ignore[operator]
    search._improve(scenes.repeat(400))
    moved = search.actor.head[-1].bias - start
    into_units = torch.linalg.inv(search.noise_shape)
    assert torch.cosine_similarity(moved @ into_units, gradient @ search.noise_shape, dim=0) > 0.9


def test_the_constant_is_one_for_all_scenes_and_the_best(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    search = build(ConstantOffset, simulator)
    scenes, best = draw(simulator, 4), torch.linspace(-0.15, 0.15, 10)
    start = torch.atanh(search.actor(scenes.lr))

    def toy(scenes: Scenes, actions: torch.Tensor) -> Result:
        """As many points as the offset is near the best, in every scene."""
        offset = torch.atanh(actions) - torch.atanh(pretrained(scenes.lr))
        score = 30 - 100 * (offset - best).square().sum(1)
        return Result(scenes.hr, actions, score, {"psnr": score})

    pretrained = deepcopy(search.actor)
    monkeypatch.setattr(simulator, "evaluate", toy)
    for _ in range(150):
        search.step()
    offset = torch.atanh(search.actor(scenes.lr)) - start
    torch.testing.assert_close(offset, best.expand_as(offset), atol=0.02, rtol=0)
    changed = {n for n, v in search.actor.state_dict().items() if not torch.equal(v, pretrained.state_dict()[n])}
    assert changed == {"head.2.bias"}


@METHODS
def test_a_state_goes_on_as_if_uninterrupted(method: type[Baseline], simulator: Simulator) -> None:
    whole, begun = build(method, simulator), build(method, simulator)
    for _ in range(2):
        whole.step()
        begun.step()
    resumed = build(method, simulator)
    resumed.load_state(begun.state())
    for _ in range(2):
        whole.step()
        resumed.step()
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, resumed.average.state_dict()[name]), name


@METHODS
def test_equal_seeds_give_equal_actors(method: type[Baseline], simulator: Simulator) -> None:
    def trained(seed: int) -> torch.Tensor:
        baseline = build(method, simulator, seed=seed)
        for _ in range(3):
            baseline.step()
        return torch.nn.utils.parameters_to_vector(baseline.average.parameters())

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_a_default_search_equals_itself(simulator: Simulator) -> None:
    assert simulator.predictor is not None
    one, other = (RandomSearch(simulator, simulator.predictor) for _ in range(2))
    assert torch.equal(one.noise_shape, other.noise_shape)
    assert one.step() == other.step()
    for name, value in one.average.state_dict().items():
        assert torch.equal(value, other.average.state_dict()[name])


def test_a_config_and_changes_are_one_setting(simulator: Simulator) -> None:
    config = RandomSearchConfig(batch=3, noise=0.5)
    search = build(RandomSearch, simulator, config=config, batch=2)
    assert (search.config.batch, search.config.noise, config.batch) == (2, 0.5, 3)  # type: ignore[attr-defined]
    assert (search.learning_rate, build(FineTune, simulator).learning_rate) == (0.3, 3e-4)
    with pytest.raises(TypeError, match="nois"):
        build(RandomSearch, simulator, nois=1.0)


def test_the_average_lags(simulator: Simulator) -> None:
    baseline = build(FineTune, simulator, tau=0.25)
    before, actor = (n.head[-1].bias.clone() for n in (baseline.average, baseline.actor))  # type: ignore[operator]
    assert torch.equal(before, actor)
    baseline.step()
    after, actor = (n.head[-1].bias for n in (baseline.average, baseline.actor))
    torch.testing.assert_close(after, 0.75 * before + 0.25 * actor)  # type: ignore[operator]


@METHODS
def test_bad_settings_are_refused(method: type[Baseline], simulator: Simulator) -> None:
    for name, value in (("batch", 0), ("learning_rate", 0.0), ("learning_rate", float("nan")), ("tau", 1.5)):
        with pytest.raises(ValueError, match=f"{name} {value}"):
            build(method, simulator, **{name: value})
    with pytest.raises(ValueError, match=r"noise -1"):
        build(RandomSearch, simulator, noise=-1)


def test_another_kernel_basis_is_refused(simulator: Simulator) -> None:
    other = load_predictor("predictor_x2")
    with pytest.raises(ValueError, match=other.basis.digest):
        FineTune(simulator, other)


# ------------------------------------------------------------------------------------------------- budgets, selection


@METHODS
@pytest.mark.parametrize("calls", [17, 24, 31])
def test_renderer_calls_are_counted_and_spent_exactly(
    method: type[Baseline], calls: int, simulator: Simulator, tiny_settings: dict[str, Any]
) -> None:
    baseline = build(method, simulator, batch=4)
    held_out = select(Simulator(SimulatorSettings(**tiny_settings, reference="predictor")))
    with RenderCounter(simulator) as counter:
        run = train(baseline, held_out, calls=calls)
    assert run.calls == counter.calls == calls - calls % method.calls_per_scene
    assert run.steps == baseline.steps == -(-run.calls // (4 * method.calls_per_scene))
    assert run.ended == "calls"
    # What selection renders is nobody's call, even on the training's own simulator.
    baseline, selection = build(method, simulator, batch=4), select(simulator)
    with RenderCounter(simulator) as counter:
        assert train(baseline, selection, calls=calls).calls == run.calls
    assert counter.calls == run.calls + 6 * (len(selection.history) - 1)


def test_the_counter_stops(simulator: Simulator) -> None:
    lr, code = draw(simulator, 2).lr, torch.zeros(2, 10)
    with RenderCounter(simulator) as counter:
        simulator.render(lr, code)
    simulator.render(lr, code)
    assert counter.calls == 2


def test_selection_keeps_the_pretrained_actor_where_nothing_is_better(simulator: Simulator) -> None:
    class Worse(RandomSearch):
        """Walks down."""

        def _improve(self, scenes: Scenes) -> float:
            before = deepcopy(self.actor.head[-1].state_dict())
            score = super()._improve(scenes)
            for name, value in self.actor.head[-1].named_parameters():
                value.copy_(2 * before[name] - value)
            return score

    selection = select(simulator)
    gains: list[float] = []
    train(
        build(Worse, simulator, learning_rate=1.0, batch=12),
        selection,
        calls=480,
        select_every=240,
        on_selection=lambda run, gain: gains.append(gain.mean()),
    )
    assert len(gains) == 2
    assert gains[-1] < 0
    assert selection.best is None
    assert selection.best_gain == 0


def test_validations_come_at_their_calls_and_at_the_end(simulator: Simulator) -> None:
    seen: list[int] = []
    train(
        build(FineTune, simulator, batch=4),
        select(simulator),
        calls=22,
        select_every=8,
        on_selection=lambda run, gain: seen.append(run.steps),
    )
    assert seen == [2, 4, 6]


def test_budgets_are_checked(simulator: Simulator) -> None:
    selection, baseline = select(simulator), build(RandomSearch, simulator)
    with pytest.raises(ValueError, match="neither calls nor minutes"):
        train(baseline, selection)
    with pytest.raises(ValueError, match=r"1 renderer calls are too few: a scene takes 2"):
        train(baseline, selection, calls=1)
    with pytest.raises(ValueError, match=r"minutes 0"):
        train(baseline, selection, minutes=0)
    with pytest.raises(ValueError, match=r"select_every 0"):
        train(baseline, selection, calls=2, select_every=0)
    assert baseline.steps == 0
    run = train(baseline, selection, minutes=1e-6)
    assert (run.steps, run.ended) == (1, "minutes")


def test_scores_that_are_not_finite_stop_the_run(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    baseline = build(RandomSearch, simulator)
    monkeypatch.setattr(baseline, "_improve", lambda scenes: float("nan"))
    with pytest.raises(FloatingPointError, match="step 0"):
        baseline.step()
