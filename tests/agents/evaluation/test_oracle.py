"""The searches find optima, repeat themselves, and never return less than they were given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.evaluation.oracle import (
    Found,
    Oracle,
    SimulatedScore,
    cma_search,
    gradient_search,
    headroom,
    random_search_code,
)
from blindsr_agents.evaluation.scene_sets import FixedScenes
from blindsr_agents.evaluation.scores import Scores
from torch import Tensor

from sr_env.degradation import load_basis, quantize
from sr_env.metrics import create_metric
from sr_env.simulator import Scenes, Simulator, SimulatorSettings

OPTIMA = torch.tensor([[0.5, -0.3, 0.2], [-0.6, 0.1, 0.7]])
SPREAD = torch.tensor([1.0, 0.5, 0.8])


def quadratic(actions: Tensor) -> Tensor:
    return -(torch.tensor([1.0, 4.0, 0.5]) * (actions - OPTIMA[:, None]).square()).sum(-1)


@pytest.fixture
def simulator(tiny_settings: dict[str, Any]) -> Simulator:
    return Simulator(SimulatorSettings(**tiny_settings, reward={"psnr": 1.0}, reference="predictor"))


@pytest.fixture
def scenes(simulator: Simulator) -> Scenes:
    return FixedScenes(simulator, 2, (1.3,), seed=0).batches[1.3][0]


# ------------------------------------------------------------------------------------------------------ the searches


def test_cma_and_gradient_find_the_optimum_of_a_quadratic() -> None:
    start = torch.zeros(2, 3)
    for found in (
        cma_search(quadratic, start, SPREAD, 400, (1, 2)),
        gradient_search(quadratic, start, SPREAD, 150),
    ):
        torch.testing.assert_close(found.actions, OPTIMA, atol=0.02, rtol=0)
        torch.testing.assert_close(found.scores, quadratic(found.actions[:, None])[:, 0])


def test_cma_finds_an_optimum_in_the_corner_and_stays_inside() -> None:
    seen = []

    def linear(actions: Tensor) -> Tensor:
        seen.append(actions)
        return actions.sum(-1)

    found = cma_search(linear, torch.zeros(1, 3), SPREAD, 300, (0,))
    assert torch.cat(seen, 1).abs().max() <= 1
    assert found.scores.item() > 2.9


def test_every_search_sees_the_start_and_as_many_candidates_as_told() -> None:
    start = torch.tensor([[0.1, 0.2, 0.3], [0.0, 0.0, 0.0]])
    for search, evaluations in ((cma_search, 22), (random_search_code, 22), (gradient_search, 22)):
        seen: list[Tensor] = []

        def score(actions: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(actions.detach())
            return quadratic(actions)

        seeds = () if search is gradient_search else ((1, 2),)
        found: Found = search(score, start, SPREAD, evaluations, *seeds)  # type: ignore[operator]
        candidates = torch.cat(seen, 1)
        assert candidates.shape[1] == evaluations, search
        torch.testing.assert_close(candidates[:, 0], start)
        torch.testing.assert_close(found.scores, quadratic(candidates).max(1).values)


def test_first_candidates_spread_by_sensitivity() -> None:
    for search in (cma_search, random_search_code):
        seen: list[Tensor] = []

        def score(actions: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(actions)
            return actions[..., 0]

        narrow = torch.tensor([1.0, 0.01, 0.1])
        for seed in range(40):
            search(score, torch.zeros(1, 3), narrow, 8, (seed,), sigma=0.1)
        first = torch.cat([each for each in seen if each.shape[1] > 1], 1)[0]
        torch.testing.assert_close(first.std(0), 0.1 * narrow, rtol=0.2, atol=0)


def test_equal_seeds_find_equal_codes() -> None:
    start = torch.zeros(2, 3)
    for search in (cma_search, random_search_code):
        first, again, other = (search(quadratic, start, SPREAD, 50, seeds) for seeds in ((1, 2), (1, 2), (3, 4)))
        assert torch.equal(first.actions, again.actions)
        assert not torch.equal(first.actions, other.actions)
        # Each scene's search is its own: it does not matter which others it shares a call with.
        alone = search(lambda a: quadratic(a.expand(2, -1, -1))[:1], start[:1], SPREAD, 50, (1,))
        torch.testing.assert_close(alone.actions, first.actions[:1])


# --------------------------------------------------------------------------------------------- against the simulator


def test_score_is_the_simulators(simulator: Simulator, scenes: Scenes) -> None:
    actions = torch.rand(2, 3, simulator.code_length) * 2 - 1
    scores = SimulatedScore(simulator, scenes)(actions)
    assert scores.shape == (2, 3)
    metric = create_metric("psnr", border=4)
    for scene in range(2):
        for candidate in range(3):
            code = simulator.basis.to_code(actions[scene, candidate][None])
            sr = quantize(simulator.renderer.network(scenes.lr[scene : scene + 1], code))
            expected = float(metric(sr, scenes.hr[scene : scene + 1]))
            assert float(scores[scene, candidate]) == pytest.approx(expected, abs=1e-3)


def test_score_in_pieces_is_the_same(simulator: Simulator, scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    actions = torch.rand(2, 5, simulator.code_length) * 2 - 1
    whole = SimulatedScore(simulator, scenes)(actions)
    monkeypatch.setattr("blindsr_agents.evaluation.oracle._PIXELS", 2 * 64 * 64 * 2)  # two candidates a call
    torch.testing.assert_close(SimulatedScore(simulator, scenes)(actions), whole, atol=1e-3, rtol=0)


def test_gradient_is_that_of_the_image_before_rounding(simulator: Simulator, scenes: Scenes) -> None:
    score = SimulatedScore(simulator, scenes)
    actions = torch.zeros(2, 1, simulator.code_length, requires_grad=True)
    value = score(actions)
    torch.testing.assert_close(value.detach(), score(actions.detach()), atol=1e-3, rtol=0)
    (gradient,) = torch.autograd.grad(value.sum(), actions)
    sr = simulator.renderer.network(scenes.lr, simulator.basis.to_code(actions[:, 0]))
    (smooth,) = torch.autograd.grad(create_metric("psnr", border=4)(sr, scenes.hr).sum(), actions)
    assert smooth.abs().max() > 0.1
    assert torch.nn.functional.cosine_similarity(gradient[:, 0], smooth[:, 0]).min() > 0.98


@pytest.mark.parametrize("search", ["cma", "gradient", "random"])
def test_oracle_beats_its_starts(simulator: Simulator, scenes: Scenes, search: str) -> None:
    starts = (torch.zeros(2, simulator.code_length), simulator.basis.to_action(scenes.code))
    before = torch.stack([simulator.evaluate(scenes, start.clamp(-1, 1)).score for start in starts]).max(0).values
    found = Oracle(simulator, 31, search)(scenes, starts)
    after = simulator.evaluate(scenes, found.actions).score
    torch.testing.assert_close(after, found.scores, atol=1e-3, rtol=0)
    assert found.actions.abs().max() <= 1
    assert (after > before).all()


@pytest.mark.parametrize("search", ["cma", "gradient", "random"])
def test_oracle_returns_a_start_that_cannot_be_beaten(
    simulator: Simulator, scenes: Scenes, search: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = torch.full((2, simulator.code_length), 0.25)

    class Peak(SimulatedScore):
        def __call__(self, actions: Tensor) -> Tensor:
            return -(actions - best[:, None]).abs().sum(-1)

    monkeypatch.setattr("blindsr_agents.evaluation.oracle.SimulatedScore", Peak)
    found = Oracle(simulator, 31, search)(scenes, (torch.zeros_like(best), best))
    assert torch.equal(found.actions, best)
    assert torch.equal(found.scores, torch.zeros(2))


def test_oracle_repeats_itself_whatever_the_batch(simulator: Simulator, scenes: Scenes) -> None:
    oracle = Oracle(simulator, 21, "random", seed=5)
    start = torch.zeros(2, simulator.code_length)
    found = oracle(scenes, (start,))
    assert torch.equal(found.actions, oracle(scenes, (start,)).actions)
    assert not torch.equal(found.actions, Oracle(simulator, 21, "random", seed=6)(scenes, (start,)).actions)
    alone = FixedScenes(simulator, 2, (1.3,), seed=0).batches[1.3][0]
    kernels = simulator.degradation.build(np.array([1.3]))
    second = simulator.degrade(alone.hr[1:], kernels, alone.photo[1:], alone.corner[1:])
    assert torch.equal(oracle(second, (start[1:],)).actions, found.actions[1:])


def test_oracle_serves_scores_without_gradient(tiny_settings: dict[str, Any]) -> None:
    settings = tiny_settings | {"patch_size": 128}
    simulator = Simulator(SimulatorSettings(**settings, reward={"niqe": 1.0}, info_metrics=("psnr",)))
    oracle = Oracle(simulator, 11)
    assert oracle.search == "cma"
    (scenes,) = FixedScenes(simulator, 1, (1.3,), seed=0).batches[1.3]
    start = torch.zeros(1, simulator.code_length)
    assert oracle(scenes, (start,)).scores >= simulator.evaluate(scenes, start).score
    with pytest.raises(ValueError, match=r"niqe.*choose cma or random"):
        Oracle(simulator, 11, "gradient")


def test_guarded_oracle_keeps_its_guards(tiny_settings: dict[str, Any]) -> None:
    """What is found is worth less than without guards, more than the start, and within the guards on every scene."""
    simulator = Simulator(
        SimulatorSettings(**tiny_settings, reward={"lpips": 1.0}, info_metrics=("psnr",), reference="predictor")
    )
    scenes = FixedScenes(simulator, 3, (1.3,), seed=0).batches[1.3][0]
    first = torch.zeros(3, simulator.code_length)
    starts = (first, simulator.basis.to_action(scenes.code))
    free = Oracle(simulator, 61, "cma")(scenes, starts)
    before, unguarded = (simulator.evaluate(scenes, actions) for actions in (first, free.actions))
    loss = before.terms["psnr"] - unguarded.terms["psnr"]
    allowed = max(float(loss.max()) / 2, 1e-3)  # so that the guard bites on one scene at least
    found = Oracle(simulator, 61, guards={"psnr": allowed})(scenes, starts)
    after = simulator.evaluate(scenes, found.actions)
    assert (before.terms["psnr"] - after.terms["psnr"]).max() <= allowed + 1e-4
    assert (after.score >= before.score - 1e-5).all()
    assert (after.score > before.score + 1e-4).any()
    assert loss.max() > allowed
    assert not torch.equal(found.actions, free.actions)
    # A metric of which less is better is guarded upwards, and codes that break a guard are told apart by how much.
    guarded = SimulatedScore(simulator, scenes, {"lpips": 1e-6}, found.actions)
    scores = guarded(torch.stack((found.actions, first, -torch.ones_like(first)), 1))
    lpips = torch.stack([simulator.evaluate(scenes, a).terms["lpips"] for a in (found.actions, first, -first - 1)], 1)
    broken = lpips > lpips[:, :1] + 1e-5
    assert broken.any()
    assert (scores[broken] < -1e6 + 1).all()
    assert (scores[:, 0] > -10).all()
    both = broken[:, 1] & broken[:, 2]
    assert ((scores[:, 1] > scores[:, 2]) == (lpips[:, 1] < lpips[:, 2]))[both].all()


def test_bad_guards_of_the_oracle(simulator: Simulator) -> None:
    for guards, message in (
        ({"niqe": 1.0}, "unknown guard 'niqe'"),
        ({"psnr": 0.0}, "guard psnr=0 of the oracle is not a positive number"),
        ({"psnr": float("nan")}, "guard psnr=nan"),
    ):
        with pytest.raises(ValueError, match=message):
            Oracle(simulator, 20, guards=guards)
    with pytest.raises(ValueError, match="no gradient search with guards"):
        Oracle(simulator, 20, "gradient", guards={"psnr": 0.1})


def test_bad_oracles(simulator: Simulator) -> None:
    assert Oracle(simulator, 2).search == "gradient"
    with pytest.raises(ValueError, match=r"unknown search 'grid'.*cma"):
        Oracle(simulator, 20, "grid")
    with pytest.raises(ValueError, match=r"10 evaluations.*at least 11"):
        Oracle(simulator, 10, "cma")
    with pytest.raises(ValueError, match=r"1 evaluations.*at least 2"):
        Oracle(simulator, 1, "random")


def test_sensitivity() -> None:
    basis = load_basis("isotropic", 4)
    shares = basis.sensitivity
    assert shares.max() == 1
    torch.testing.assert_close(shares * basis.half_range.max(), basis.half_range)


# ------------------------------------------------------------------------------------------------------------ headroom


def test_headroom_by_hand() -> None:
    pretrained = Scores({"score": np.array([[1.0, 2.0], [3.0, 4.0]])})
    oracle = Scores({"score": pretrained.values["score"] + np.array([2.0, 4.0])})
    agent = Scores({"score": pretrained.values["score"] + np.array([1.0, 1.0])})
    share, error = headroom(agent, pretrained, oracle)
    assert share == pytest.approx(1 / 3)
    # The two photos are drawn with replacement: shares 1/2, 1/3, 1/3, 1/4.
    assert error == pytest.approx(np.std([1 / 2, 1 / 3, 1 / 3, 1 / 4]), rel=0.1)
    assert headroom(oracle, pretrained, oracle) == (1.0, 0.0)
    assert headroom(pretrained, pretrained, oracle) == (0.0, 0.0)


def test_headroom_where_there_is_none() -> None:
    scores = Scores({"score": np.array([[1.0, 2.0]])})
    assert np.isnan(headroom(scores, scores, scores)).all()
    one = Scores({"score": np.array([[1.0]])})
    better = Scores({"score": np.array([[2.0]])})
    share, error = headroom(better, one, better)
    assert share == 1
    assert np.isnan(error)
