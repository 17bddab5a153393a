"""How good an action can get: the best kernel code of each scene (and further controls), searched for with HR known.

No agent sees HR, so these searches are no methods to use: they say how much an action can change a score, which is
what an agent is measured against (:func:`headroom`). CMA-ES serves any score, Adam those with a gradient, and random
search shows what as many renderings are worth without either.

Every search maximises a function of actions [B, K, L], K candidates for each of B scenes, that returns [B, K] scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from cmaes import CMA  # type: ignore[import-untyped]
from torch import Tensor

from blindsr_agents.evaluation.scene_sets import Method
from blindsr_agents.evaluation.scores import Scores
from sr_env.degradation import quantize
from sr_env.simulator import Scenes, Simulator
from sr_env.utils.checks import UsageError, check_choice
from sr_env.utils.devices import autocast

#: Actions [B, K, L] -> scores [B, K], higher is better.
CodeScore = Callable[[Tensor], Tensor]
SEARCHES: tuple[str, ...] = ("cma", "gradient", "random")
#: HR pixels rendered and scored in one call, since the features of the metrics take memory.
_PIXELS = 2**20
#: Scores of codes that break a guard start here and fall with the excess, so that a search finds its way back.
_FORBIDDEN = -1e6
#: Actions this close to the bounds have no gradient left in tanh.
_EDGE = 0.995


@dataclass(frozen=True)
class Found:
    """The best codes that a search saw.

    Attributes:
        actions: float32 in [-1, 1], [B, L].
        scores: Their scores, [B].
    """

    actions: Tensor
    scores: Tensor

    def better(self, actions: Tensor, scores: Tensor) -> Found:
        """The best of these and of candidates [B, K, L] with scores [B, K]."""
        scores = torch.cat((self.scores[:, None], scores), 1)
        best = scores.argmax(1, keepdim=True)
        actions = torch.cat((self.actions[:, None], actions), 1)
        return Found(actions.take_along_dim(best[..., None], 1)[:, 0], scores.take_along_dim(best, 1)[:, 0])


class SimulatedScore:
    """The simulator's score of codes for given scenes, as a :data:`CodeScore`.

    All candidates of all scenes are rendered and scored in one call of the simulator, or in as few as the limit of a
    million pixels per call allows. Where a gradient is asked for, rounding to 8 bit passes it on unchanged
    (straight-through), so that the value is the rounded image's.

    Args:
        simulator: Renders and scores.
        scenes: B scenes.
        guards: Metric -> how much worse it may be on a scene than with the reference's code, in its own units. Codes
            that break one score under any that keeps all, the less the more they do (Deb, "An efficient constraint
            handling method for genetic algorithms", 2000). Where a gradient is asked for they do not count.
        reference: Actions [B, L] that the guards compare with; needed where there are any.
    """

    def __init__(
        self,
        simulator: Simulator,
        scenes: Scenes,
        guards: Mapping[str, float] | None = None,
        reference: Tensor | None = None,
    ) -> None:
        self.simulator = simulator
        self.scenes = scenes.with_prepared(
            {name: value for name, value in scenes.prepared.items() if name in simulator.metrics}
        )
        self._repeated = {1: self.scenes}
        #: Metric -> its values [B, 1] with the reference's code, and how much worse they may be.
        self._guards: dict[str, tuple[Tensor, float]] = {}
        if guards:
            assert reference is not None
            terms = simulator.evaluate(self.scenes, reference).terms
            self._guards = {name: (terms[name][:, None], allowed) for name, allowed in guards.items()}

    def __call__(self, actions: Tensor) -> Tensor:
        """Actions [B, K, L] in [-1, 1] -> scores [B, K]."""
        pixels = self.scenes.lr[:, 0].numel() * self.simulator.scale**2
        pieces = actions.split(max(1, _PIXELS // pixels), dim=1)
        score = self._differentiable if torch.is_grad_enabled() and actions.requires_grad else self._plain
        return torch.cat([score(piece) for piece in pieces], 1)

    def _plain(self, actions: Tensor) -> Tensor:
        result = self.simulator.evaluate(self._repeat(actions.shape[1]), actions.flatten(0, 1))
        score = result.score.unflatten(0, actions.shape[:2])
        if not self._guards:
            return score
        excess = torch.zeros_like(score)
        for name, (reference, allowed) in self._guards.items():
            values = result.terms[name].unflatten(0, actions.shape[:2])
            excess += (self.simulator.metrics[name].worsening(values, reference) / allowed - 1).clamp(min=0)
        return torch.where(excess > 0, _FORBIDDEN - excess, score)

    def _differentiable(self, actions: Tensor) -> Tensor:
        simulator, scenes = self.simulator, self._repeat(actions.shape[1])
        with autocast(simulator.settings.precision, simulator.device):
            sr = simulator.unrounded(scenes.lr, actions.flatten(0, 1))
        with simulator.measuring():
            score, _ = simulator.objective(sr + (quantize(sr) - sr).detach(), scenes.prepared)
        return score.unflatten(0, actions.shape[:2])

    def _repeat(self, times: int) -> Scenes:
        """The scenes for so many candidates of each; the last such repetition is kept, as searches ask for it again."""
        if times not in self._repeated:
            self._repeated = {1: self.scenes, times: self.scenes.repeat(times)}
        return self._repeated[times]


def cma_search(
    score: CodeScore, start: Tensor, spread: Tensor, evaluations: int, seeds: Sequence[int], sigma: float = 0.2
) -> Found:
    """CMA-ES, one search per scene, all in step.

    Args:
        score: What is maximised.
        start: First mean, and first candidate, in [-1, 1], [B, L].
        spread: Relative standard deviation of each component at first, [L].
        evaluations: Candidates per scene, ``start`` included; whole generations are made of them.
        seeds: One per scene.
        sigma: Standard deviation at first of the components whose ``spread`` is one, in action units.

    Source: Hansen, "The CMA Evolution Strategy: A Tutorial", 2016, as implemented by the package cmaes.
    """
    size = _generation(start.shape[1])
    bounds = np.tile([-1.0, 1.0], (start.shape[1], 1))
    covariance = np.diag(spread.double().cpu().numpy() ** 2)
    searches = [
        CMA(mean, sigma, bounds, seed=seed, population_size=size, cov=covariance.copy())
        for mean, seed in zip(start.double().cpu().numpy(), seeds, strict=True)
    ]
    found = _first(score, start)
    for _ in range((evaluations - 1) // size):
        asked = np.array([[search.ask() for _ in range(size)] for search in searches])
        actions = torch.from_numpy(asked).to(start)
        scores = score(actions)
        found = found.better(actions, scores)
        for search, candidates, losses in zip(searches, asked, (-scores).double().cpu().numpy(), strict=True):
            search.tell(list(zip(candidates, losses.tolist(), strict=True)))
    return found


def _generation(length: int) -> int:
    """Candidates of one generation of CMA-ES in so many dimensions."""
    return CMA(np.zeros(length), 1.0).population_size


def random_search_code(
    score: CodeScore, start: Tensor, spread: Tensor, evaluations: int, seeds: Sequence[int], sigma: float = 0.2
) -> Found:
    """Gaussian codes around the start, cut off at the bounds; arguments as in :func:`cma_search`."""
    found = _first(score, start)
    if evaluations > 1:
        shape = (evaluations - 1, start.shape[1])
        noise = np.stack([np.random.default_rng(seed).standard_normal(shape) for seed in seeds])
        actions = (start[:, None] + sigma * spread * torch.from_numpy(noise).to(start)).clamp(-1, 1)
        found = found.better(actions, score(actions))
    return found


def gradient_search(
    score: CodeScore, start: Tensor, spread: Tensor, evaluations: int, learning_rate: float = 0.2
) -> Found:
    """Adam on the actions before their tanh, for scores with a gradient.

    Args:
        score: What is maximised; gradients reach its actions.
        start: In [-1, 1], [B, L].
        spread: Relative step of each component, [L].
        evaluations: Forward passes per scene, ``start`` included; each but the last has a backward pass too.
        learning_rate: Of Adam, in action units of the components whose ``spread`` is one.
    """
    origin = torch.atanh(start.clamp(-_EDGE, _EDGE))
    moved = torch.zeros_like(origin, requires_grad=True)
    optimizer = torch.optim.Adam([moved], lr=learning_rate)
    found = _first(score, start)
    for step in range(1, evaluations):
        with torch.set_grad_enabled(step < evaluations - 1):
            actions = torch.tanh(origin + spread * moved)
            scores = score(actions[:, None])[:, 0]
            loss = -scores.sum()  # each scene's gradient reaches its own action only
        found = found.better(actions.detach()[:, None], scores.detach()[:, None])
        if loss.requires_grad:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return found


def _first(score: CodeScore, start: Tensor) -> Found:
    with torch.no_grad():
        return Found(start, score(start[:, None])[:, 0])


class Oracle:
    """Searches the best code of every scene, from the best of several starts; never worse than any of them.

    Args:
        simulator: Its reward is what is maximised; metrics for information alone only cost time.
        evaluations: Renderings per scene, those of the starts not counted.
        search: One of ``SEARCHES``; None takes "gradient" where the reward has one, else "cma".
        sigma: Standard deviation of the first candidates in action units of the most telling component.
        seed: Equal seeds find equal codes, however scenes are put into batches.
        guards: Metric -> how much worse it may become on any scene than with the first start, in its own units; the
            simulator measures it. With guards there is no gradient search.

    Raises:
        UsageError: The search is unknown, needs a gradient that the reward lacks, or the evaluations are too few; a
            guard's metric is not measured, or it allows nothing.
    """

    def __init__(
        self,
        simulator: Simulator,
        evaluations: int,
        search: str | None = None,
        sigma: float = 0.2,
        seed: int = 0,
        guards: Mapping[str, float] | None = None,
    ) -> None:
        self.guards = dict(guards or {})
        for name, allowed in self.guards.items():
            check_choice("guard", name, simulator.metrics)
            if not 0 < allowed < float("inf"):
                raise UsageError(f"guard {name}={allowed:g} of the oracle is not a positive number: it could not move")
        differentiable = simulator.differentiable and not self.guards
        self.search = search or ("gradient" if differentiable else "cma")
        check_choice("search", self.search, SEARCHES)
        if self.search == "gradient" and not differentiable:
            told = ", ".join(simulator.settings.reward)
            why = "with guards" if self.guards else f"for the reward {told}: a metric has no gradient"
            raise UsageError(f"no gradient search {why}, choose cma or random")
        needed = 1 + _generation(simulator.controls.length) if self.search == "cma" else 2
        if evaluations < needed:
            raise UsageError(
                f"{evaluations} evaluations per scene are too few for the search {self.search}: give at least {needed}"
            )
        self.simulator, self.evaluations, self.sigma, self.seed = simulator, evaluations, sigma, seed

    def __call__(self, scenes: Scenes, starts: Sequence[Tensor]) -> Found:
        """Search.

        Args:
            scenes: B scenes.
            starts: Actions [B, A], or codes as actions, [B, L], each, one or more; guards compare with the first.

        Returns:
            The best actions seen, and their scores.
        """
        controls = self.simulator.controls
        score = SimulatedScore(self.simulator, scenes, self.guards, starts[0].clamp(-1, 1))
        spread = controls.spread
        given = torch.stack([controls.complete(start.clamp(-1, 1)) for start in starts], 1)
        with torch.no_grad():
            best = score(given).argmax(1)
        start = given.take_along_dim(best[:, None, None], 1)[:, 0]
        if self.search == "gradient":
            found = gradient_search(score, start, spread, self.evaluations)
        else:
            search = cma_search if self.search == "cma" else random_search_code
            found = search(score, start, spread, self.evaluations, self._seeds(scenes), self.sigma)
        with torch.no_grad():
            # Scored side by side: in batches of another size the last bits may differ.
            last = torch.cat((given, found.actions[:, None]), 1)
            scores = score(last)
        return Found(given[:, 0], scores[:, 0]).better(last[:, 1:], scores[:, 1:])

    def method(self, pretrained: Callable[[Tensor], Tensor], simulator: Simulator | None = None) -> Method:
        """The method that renders what is found from the best of the pretrained actor's, the true and the mean code.

        Args:
            pretrained: LR images -> actions.
            simulator: Judges the result, with more metrics perhaps; None takes the one that searches.
        """
        judge = simulator or self.simulator

        def best(scenes: Scenes) -> Tensor:
            codes = (scenes.code, torch.zeros_like(scenes.code))
            return self(scenes, (pretrained(scenes.lr), *map(self.simulator.basis.to_action, codes))).actions

        return lambda scenes: judge.evaluate(scenes, best(scenes))

    def _seeds(self, scenes: Scenes) -> list[int]:
        """One seed per scene, of its photo and place alone."""
        places = np.column_stack((scenes.photo, scenes.corner)).tolist()
        return [int(np.random.SeedSequence([self.seed, *place]).generate_state(1)[0]) for place in places]


def headroom(
    agent: Scores, pretrained: Scores, oracle: Scores, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Share of the oracle's gain that an agent captures, (agent - pretrained) / (oracle - pretrained) of mean scores.

    Args:
        agent: The agent's scores.
        pretrained: Those it started from, on the same scenes.
        oracle: The limit.
        resamples: Bootstrap samples of the photos (a photo, seen at every width, is one).
        seed: Of the bootstrap.

    Returns:
        The share and its bootstrap standard error; NaN where the oracle gains nothing, or there is one photo.
    """
    start = pretrained.values["score"].mean(0)
    gain, limit = (scores.values["score"].mean(0) - start for scores in (agent, oracle))
    if limit.mean() <= 0:
        return float("nan"), float("nan")
    share = float(gain.mean() / limit.mean())
    if len(gain) < 2:
        return share, float("nan")
    drawn = np.random.default_rng(seed).integers(len(gain), size=(resamples, len(gain)))
    below = limit[drawn].mean(1)
    return share, float((gain[drawn].mean(1)[below > 0] / below[below > 0]).std(ddof=1))
