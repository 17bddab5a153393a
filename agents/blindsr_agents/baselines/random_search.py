"""The same actor improved by blind search, for any reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from blindsr_agents.baselines.base import Baseline, BaselineConfig
from blindsr_agents.exploration import measured_noise_shape
from sr_env.models import Checkpoint, KernelPredictor
from sr_env.simulator import Scenes, Simulator


@dataclass
class RandomSearchConfig(BaselineConfig):
    """How :class:`RandomSearch` improves its actor; its ``learning_rate`` is in units of ``noise``.

    Attributes:
        noise: What the shifts, before the tanh, change the picture by in each direction, root mean square in grey
            levels of 255: the agent's exploration (:mod:`blindsr_agents.exploration`).
        noise_limit: Standard deviation of the shifts that no direction exceeds.
    """

    noise: float = 0.7
    noise_limit: float = 0.3


class BlindSearch(Baseline):
    """A search that takes no gradient: it moves actions in units in which all directions change the picture alike.

    Args:
        simulator: As in :class:`Baseline`.
        pretrained: As in :class:`Baseline`.
        config: As in :class:`Baseline`.
        **changes: As in :class:`Baseline`.

    Attributes:
        noise_shape: Those units, before the tanh, [A, A].

    Raises:
        UsageError: As :class:`Baseline`, or a noise that is not positive.
    """

    config_class = RandomSearchConfig
    config: RandomSearchConfig

    def __init__(
        self,
        simulator: Simulator,
        pretrained: Checkpoint[KernelPredictor],
        config: RandomSearchConfig | None = None,
        **changes: Any,
    ) -> None:
        super().__init__(simulator, pretrained, config, **changes)
        self.noise_shape = measured_noise_shape(simulator, self.config.noise, self.config.noise_limit, self.config.seed)
        self._prepare()

    def _prepare(self) -> None:
        """What a method sets up once the actor and the units are known; nothing by default."""


class RandomSearch(BlindSearch):
    """Antithetic random search over the last layer, for any reward; no gradient is taken of anything.

    Shifting the action of one scene is shifting the last layer's weights for that scene, but few numbers are searched
    instead of all weights, so that far fewer calls are lost in noise: the update is the expectation of the weights'
    shift given the action's. In a small trial (LPIPS, 500 calls, one seed) weights shifted alike for the whole batch,
    as in the paper, bore smaller steps, and a (1+1) search, which takes a step or leaves it, was misled by its scenes.

    Arguments and errors are those of :class:`BlindSearch`.
    """

    calls_per_scene = 2
    default_rate = 0.3

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
        move = self.learning_rate * (slope[:, None] * directions @ self.noise_shape) / len(slope)
        length = hidden.square().sum(1).mean() + 1  # the bias' input is 1
        layer.weight += move.T @ hidden / length
        layer.bias += move.sum(0) / length
        return float(result.score.mean())
