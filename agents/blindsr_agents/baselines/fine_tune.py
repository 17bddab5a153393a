"""The same actor improved by the gradient of the reward, through the frozen renderer and the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blindsr_agents.baselines.base import Baseline, BaselineConfig
from sr_env.metrics import WeightedScore
from sr_env.models import Checkpoint, KernelPredictor
from sr_env.simulator import CONSISTENCY, Scenes, Simulator
from sr_env.utils.checks import UsageError


@dataclass
class FineTuneConfig(BaselineConfig):
    """How :class:`FineTune` improves its actor.

    Attributes:
        train_features: Train the convolutions too, not only the layers after the pooling.
        clip: Gradient norm above which gradients are scaled down.
    """

    train_features: bool = False
    clip: float = 1.0


def check_gradient(reward: Mapping[str, float]) -> None:
    """Check that gradients pass all terms of a reward.

    Args:
        reward: Terms and weights.

    Raises:
        UsageError: A term has no gradient, or is no metric, or a weight is not positive.
    """
    metrics = WeightedScore({name: weight for name, weight in reward.items() if name != CONSISTENCY}).metrics
    without = [name for name in reward if name == CONSISTENCY or not metrics[name].differentiable]
    if without:
        raise UsageError(
            f"no gradient passes {', '.join(without)} in the reward: leave it out, or take the random search "
            "(--method random) or the agent, which need none"
        )


class DifferentiableScore:
    """A simulator's score with gradients: the renderer in float32, SR clamped but not rounded to 8 bit.

    Args:
        simulator: Its renderer, basis and reward.

    Raises:
        UsageError: As :func:`check_gradient`.
    """

    def __init__(self, simulator: Simulator) -> None:
        check_gradient(simulator.settings.reward)
        self.simulator = simulator

    def __call__(self, scenes: Scenes, actions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Judge actions.

        Args:
            scenes: B scenes drawn by the simulator.
            actions: float32 in [-1, 1], [B, A].

        Returns:
            Score [B], higher is better, and the raw value [B] of each metric; gradients reach ``actions``.
        """
        simulator = self.simulator
        # Before rounding, an SR image is within half an 8-bit step of what the environments score.
        sr = simulator.unrounded(scenes.lr, actions).clamp(0, 1)
        with simulator.measuring():
            score: tuple[Tensor, dict[str, Tensor]] = simulator.objective(sr, scenes.prepared)
        return score


class FineTune(Baseline):
    """Adam on the reward's gradient through the frozen renderer; a call costs a backward pass on top.

    Args:
        simulator: As in :class:`Baseline`.
        pretrained: As in :class:`Baseline`.
        config: As in :class:`Baseline`.
        **changes: As in :class:`Baseline`.

    Raises:
        UsageError: As :class:`Baseline` and :class:`DifferentiableScore`.
    """

    calls_per_scene = 1
    default_rate = 3e-4
    config_class = FineTuneConfig
    config: FineTuneConfig

    def __init__(
        self,
        simulator: Simulator,
        pretrained: Checkpoint[KernelPredictor],
        config: FineTuneConfig | None = None,
        **changes: Any,
    ) -> None:
        self.score = DifferentiableScore(simulator)
        super().__init__(simulator, pretrained, config, **changes)
        self.trained = list(
            (self.actor if self.config.train_features else self.actor.head).requires_grad_(True).parameters()
        )
        self.optimizer = torch.optim.Adam(self.trained, self.learning_rate)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, the optimiser's moments among it."""
        return {**super().state(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        super().load_state(state)
        self.optimizer.load_state_dict(state["optimizer"])

    def _improve(self, scenes: Scenes) -> float:
        score, terms = self.score(scenes, self.actor(scenes.lr))
        self.optimizer.zero_grad(set_to_none=True)
        (-score / self._magnitude(terms)).mean().backward()
        nn.utils.clip_grad_norm_(self.trained, self.config.clip)
        self.optimizer.step()
        return float(score.detach().mean())
