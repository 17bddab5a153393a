"""What the agent is measured against: the same actor improved by gradient, or by blind search, on the same scenes.

Both start from the pretrained predictor, draw their scenes from the environments' :class:`~sr_env.simulator.Simulator`
and are selected as the agent is (:class:`blindsr_agents.evaluation.scene_sets.Selection`); neither has a critic or a
memory.

* :class:`FineTune` climbs the gradient of the reward through the frozen renderer and the metrics. It needs metrics with
  a gradient, and is the strongest alternative there: a call tells it ten slopes where the search learns half of one.
* :class:`RandomSearch` takes any reward. It shifts each scene's action by a random direction and by its opposite, and
  moves the last layer towards the better of the two: augmented random search (Mania, Guy, Recht, "Simple random search
  of static policies is competitive for reinforcement learning", NeurIPS 2018), with a direction of its own per scene.

One *renderer call* is one SR image rendered, the currency in which these are compared with the agent.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from blindsr_agents.evaluation.scene_sets import Selection
from blindsr_agents.exploration import measured_noise_shape
from sr_env.metrics import WeightedScore
from sr_env.models.checkpoint import Checkpoint
from sr_env.models.predictor import KernelPredictor
from sr_env.simulator import CONSISTENCY, UNIFORMS_PER_SCENE, Scenes, Simulator
from sr_env.utils import torchvision_compat as _torchvision  # noqa: F401  # before stable_baselines3, whose imports reach torchvision

from stable_baselines3.common.utils import polyak_update  # isort: skip


class RenderCounter:
    """Counts the SR images that a simulator's renderer makes, whoever asks for them; a context manager.

    Args:
        simulator: Its renderer is watched from entering to leaving, any number of times.

    Attributes:
        calls: Images rendered so far.
    """

    def __init__(self, simulator: Simulator) -> None:
        self.calls = 0
        self._network = simulator.renderer.network

    def __enter__(self) -> RenderCounter:
        self._hook = self._network.register_forward_hook(self._count)
        return self

    def __exit__(self, *error: object) -> None:
        self._hook.remove()

    def _count(self, module: nn.Module, given: tuple[Any, ...], made: Tensor) -> None:
        self.calls += len(made)


def check_gradient(reward: Mapping[str, float]) -> None:
    """Check that gradients pass all terms of a reward.

    Args:
        reward: Terms and weights.

    Raises:
        ValueError: A term has no gradient, or is no metric, or a weight is not positive.
    """
    metrics = WeightedScore({name: weight for name, weight in reward.items() if name != CONSISTENCY}).metrics
    without = [name for name in reward if name == CONSISTENCY or not metrics[name].differentiable]
    if without:
        raise ValueError(
            f"no gradient passes {', '.join(without)} in the reward: leave it out, or take the random search "
            "(--method random) or the agent, which need none"
        )


class DifferentiableScore:
    """A simulator's score with gradients: the renderer in float32, SR clamped but not rounded to 8 bit.

    Args:
        simulator: Its renderer, basis and reward.

    Raises:
        ValueError: As :func:`check_gradient`.
    """

    def __init__(self, simulator: Simulator) -> None:
        check_gradient(simulator.settings.reward)
        self.simulator = simulator

    def __call__(self, scenes: Scenes, actions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Judge actions.

        Args:
            scenes: B scenes drawn by the simulator.
            actions: float32 in [-1, 1], [B, L].

        Returns:
            Score [B], higher is better, and the raw value [B] of each metric; gradients reach ``actions``.
        """
        simulator = self.simulator
        # Before rounding, an SR image is within half an 8-bit step of what the environments score.
        sr = simulator.renderer.network(scenes.lr, simulator.basis.to_code(actions)).float().clamp(0, 1)
        with simulator.measuring():
            score: tuple[Tensor, dict[str, Tensor]] = simulator.objective(sr, scenes.prepared)
        return score


class Baseline(ABC):
    """An actor that is improved step by step on freshly drawn scenes.

    Args:
        simulator: Draws, renders and scores; of the settings that the agent's environment has.
        pretrained: The actor to start from (copied).
        batch: Scenes per step.
        learning_rate: Size of the steps; None takes the method's own.
        tau: Polyak rate of the averaged actor.
        relative: Divide each scene's score by its own magnitude (sum of the weighted metrics' magnitudes), so that
            scenes with large scores, in practice those of wide kernels, do not rule the mean.
        seed: Seed of scenes and search directions.

    Attributes:
        actor: The actor that is moved.
        average: Its moving average, which is validated and exported.
        steps: Steps taken.

    Raises:
        ValueError: A setting is out of range, or the predictor's kernel basis is not the renderer's.
    """

    #: Renderer calls that a scene takes in one step.
    calls_per_scene: ClassVar[int]
    #: Step size where none is given.
    default_rate: ClassVar[float]

    def __init__(
        self,
        simulator: Simulator,
        pretrained: Checkpoint[KernelPredictor],
        *,
        batch: int = 16,
        learning_rate: float | None = None,
        tau: float = 0.05,
        relative: bool = True,
        seed: int = 0,
    ) -> None:
        rate = self.default_rate if learning_rate is None else learning_rate
        for name, value, fits, remedy in (
            ("batch", batch, batch >= 1, "a number of scenes from 1"),
            ("learning_rate", rate, 0 < rate < float("inf"), "a positive number"),
            ("tau", tau, 0 < tau <= 1, "a rate in (0, 1]; 1 averages nothing"),
        ):
            if not fits:
                raise ValueError(f"{name} {value} does not fit: give {remedy}")
        if pretrained.basis.digest != simulator.basis.digest:
            raise ValueError(
                f"the predictor speaks kernel basis {pretrained.basis.digest}, the simulator's renderer "
                f"{simulator.basis.digest}: use a predictor trained for this renderer's basis"
            )
        self.simulator, self.batch, self.learning_rate, self.tau, self.relative = simulator, batch, rate, tau, relative
        self.actor = deepcopy(pretrained.network).requires_grad_(False).eval()
        self.average = deepcopy(self.actor)
        self.rng = np.random.default_rng(seed)
        self.steps = 0
        self._counter = RenderCounter(simulator)

    @property
    def calls(self) -> int:
        """Renderer calls made in the steps."""
        return self._counter.calls

    def step(self, calls: int | None = None) -> float:
        """Draw scenes and improve the actor on them.

        Args:
            calls: Renderer calls that may be made; the batch is cut to fit. None sets no limit.

        Returns:
            Mean score of what was rendered.

        Raises:
            ValueError: ``calls`` does not suffice for one scene.
            FloatingPointError: A score is not finite.
        """
        count = self.batch if calls is None else min(self.batch, calls // self.calls_per_scene)
        if count < 1:
            raise ValueError(f"{calls} renderer calls are too few: a scene takes {self.calls_per_scene}")
        scenes = self.simulator.draw(self.rng.random((count, UNIFORMS_PER_SCENE)))
        with self._counter:
            score = self._improve(scenes)
        if not np.isfinite(score):
            raise FloatingPointError(f"the mean score is {score} at step {self.steps}: lower the learning rate")
        with torch.no_grad():
            polyak_update(self.actor.parameters(), self.average.parameters(), self.tau)
        self.steps += 1
        return score

    @abstractmethod
    def _improve(self, scenes: Scenes) -> float:
        """Move ``actor``; returns the mean score."""

    def _magnitude(self, terms: Mapping[str, Tensor]) -> Tensor:
        """What scores are divided by, of the shape of a term."""
        sizes = [weight * terms[name].detach().abs() for name, weight in self.simulator.settings.reward.items()]
        return torch.stack(sizes).sum(0).clamp_min(1e-6) if self.relative else torch.ones_like(sizes[0])


class FineTune(Baseline):
    """Adam on the reward's gradient through the frozen renderer; a call costs a backward pass on top.

    Args:
        simulator: As in :class:`Baseline`.
        pretrained: As in :class:`Baseline`.
        train_features: Train the convolutions too, not only the layers after the pooling.
        clip: Gradient norm above which gradients are scaled down.
        **kwargs: Further arguments of :class:`Baseline`.

    Raises:
        ValueError: As :class:`Baseline` and :class:`DifferentiableScore`.
    """

    calls_per_scene = 1
    default_rate = 3e-4

    def __init__(
        self,
        simulator: Simulator,
        pretrained: Checkpoint[KernelPredictor],
        *,
        train_features: bool = False,
        clip: float = 1.0,
        **kwargs: Any,
    ) -> None:
        self.score = DifferentiableScore(simulator)
        super().__init__(simulator, pretrained, **kwargs)
        self.train_features, self.clip = train_features, clip
        self.trained = list((self.actor if train_features else self.actor.head).requires_grad_(True).parameters())
        self.optimizer = torch.optim.Adam(self.trained, self.learning_rate)

    def _improve(self, scenes: Scenes) -> float:
        score, terms = self.score(scenes, self.actor(scenes.lr))
        self.optimizer.zero_grad(set_to_none=True)
        (-score / self._magnitude(terms)).mean().backward()
        nn.utils.clip_grad_norm_(self.trained, self.clip)
        self.optimizer.step()
        return float(score.detach().mean())


class RandomSearch(Baseline):
    """Antithetic random search over the last layer, for any reward; no gradient is taken of anything.

    Shifting the action of one scene is shifting the last layer's weights for that scene, but ten numbers are searched
    instead of all weights, so that far fewer calls are lost in noise: the update is the expectation of the weights'
    shift given the action's. In a small trial (LPIPS, 500 calls, one seed) weights shifted alike for the whole batch,
    as in the paper, bore smaller steps, and a (1+1) search, which takes a step or leaves it, was misled by its scenes.

    Args:
        simulator: As in :class:`Baseline`.
        pretrained: As in :class:`Baseline`.
        noise: What the shifts, before the tanh, change the picture by in each direction, root mean square in grey
            levels of 255: the agent's exploration (:mod:`blindsr_agents.exploration`).
        noise_limit: Standard deviation of the shifts that no direction exceeds.
        **kwargs: Further arguments of :class:`Baseline`. ``learning_rate`` is in units of ``noise``.

    Raises:
        ValueError: As :class:`Baseline`, or a noise that is not positive.
    """

    calls_per_scene = 2
    default_rate = 0.3

    def __init__(
        self,
        simulator: Simulator,
        pretrained: Checkpoint[KernelPredictor],
        *,
        noise: float = 0.7,
        noise_limit: float = 0.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(simulator, pretrained, **kwargs)
        self.noise_shape = measured_noise_shape(simulator, noise, noise_limit, kwargs.get("seed"))

    @torch.no_grad()
    def _improve(self, scenes: Scenes) -> float:
        layer = self.actor.head[-1]
        hidden = self.actor.head[:-1](self.actor.features(scenes.lr))
        logits = layer(hidden)
        directions = torch.from_numpy(self.rng.standard_normal(logits.shape)).to(logits)
        shifts = directions @ self.noise_shape
        both = torch.stack((logits + shifts, logits - shifts), dim=1).flatten(0, 1)
        result = self.simulator.evaluate(scenes.repeat(2), torch.tanh(both))
        plus, minus = result.score.unflatten(0, (-1, 2)).unbind(1)
        slope = (plus - minus) / self._magnitude(result.terms).unflatten(0, (-1, 2)).mean(1)
        slope = slope / slope.square().mean().sqrt().clamp_min(1e-12)  # the rewards' scale sets no step size
        wanted = self.learning_rate * (slope[:, None] * directions @ self.noise_shape) / len(slope)
        length = hidden.square().sum(1).mean() + 1  # the bias' input is 1
        layer.weight += wanted.T @ hidden / length
        layer.bias += wanted.sum(0) / length
        return float(result.score.mean())


Ended = Literal["calls", "minutes", "stopped"]
#: Methods of ``agents/train_baseline.py``.
METHODS: Mapping[str, type[Baseline]] = {"gradient": FineTune, "random": RandomSearch}


@dataclass(frozen=True)
class Run:
    """What a run took.

    Attributes:
        steps: Steps of the method.
        calls: Renderer calls of training; selection's are not among them.
        seconds: Seconds, selection included.
        ended: Which budget was spent, or that the run was stopped; None while it goes on.
    """

    steps: int
    calls: int
    seconds: float
    ended: Ended | None = None


def train(
    baseline: Baseline,
    selection: Selection,
    *,
    calls: int | None = None,
    minutes: float | None = None,
    select_every: int = 640,
    stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[Run, float], None] | None = None,
    on_selection: Callable[[Run, np.ndarray], None] | None = None,
) -> Run:
    """Improve an actor until a budget is spent, keeping the best averaged actor in ``selection``.

    Args:
        baseline: The method.
        selection: Held-out scenes.
        calls: Renderer calls that the baseline may have made in the end; it makes all of them (but one where they are
            odd and a scene takes two).
        minutes: Time that may be spent.
        select_every: Renderer calls between validations; there is one at the end too.
        stop: Whether to end before the next step, without a last validation.
        on_step: Is told what was spent so far and the mean score of each step.
        on_selection: Is told what was spent so far and the gain per width of each validation.

    Returns:
        What was spent.

    Raises:
        ValueError: Neither budget is given, or one that does not suffice for a step.
        FloatingPointError: A score was not finite.
    """
    if calls is None and minutes is None:
        raise ValueError("neither calls nor minutes is given: give a budget of either, or of both")
    if calls is not None and calls < baseline.calls_per_scene:
        raise ValueError(f"{calls} renderer calls are too few: a scene takes {baseline.calls_per_scene}")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes {minutes} is not positive: give the time that may be spent")
    if select_every < 1:
        raise ValueError(f"select_every {select_every} is not positive: give renderer calls between validations")
    begun, first = time.monotonic(), baseline.steps
    validated = -1  # renderer calls at the last validation

    def spent(ended: Ended | None = None) -> Run:
        return Run(baseline.steps, baseline.calls, time.monotonic() - begun, ended)

    def validate() -> None:
        nonlocal validated
        validated = baseline.calls
        gain = selection.consider(baseline.average, baseline.steps)
        if on_selection is not None:
            on_selection(spent(), gain)

    while True:
        left = None if calls is None else calls - baseline.calls
        if stop():
            return spent("stopped")
        if left is not None and left < baseline.calls_per_scene:
            ended: Ended = "calls"
            break
        if minutes is not None and baseline.steps > first and spent().seconds > 60 * minutes:
            ended = "minutes"
            break
        score = baseline.step(left)
        if on_step is not None:
            on_step(spent(), score)
        if baseline.calls // select_every > max(validated, 0) // select_every:
            validate()
    if validated != baseline.calls:
        validate()
    return spent(ended)
