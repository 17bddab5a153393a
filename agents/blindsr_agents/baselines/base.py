"""What every alternative to the agent does: draw scenes, count renderer calls, move an actor, average it.

One *renderer call* is one SR image rendered, the currency in which these are compared with the agent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sr_env.models import Checkpoint, KernelPredictor, widened
from sr_env.simulator import UNIFORMS_PER_SCENE, Scenes, Simulator
from sr_env.utils import torchvision_compat as _torchvision  # noqa: F401  # before stable_baselines3, whose imports reach torchvision
from sr_env.utils.checks import UsageError

from stable_baselines3.common.utils import polyak_update  # isort: skip


@dataclass
class BaselineConfig:
    """How a :class:`Baseline` improves its actor.

    Attributes:
        batch: Scenes per step.
        learning_rate: Size of the steps; None takes the method's own.
        tau: Polyak rate of the averaged actor; None takes the method's own.
        relative: Divide each scene's score by its own magnitude (sum of the weighted metrics' magnitudes), so that
            scenes with large scores, in practice those of wide kernels, do not rule the mean.
        seed: Seed of scenes and search directions.

    Raises:
        UsageError: A setting is out of range.
    """

    batch: int = 16
    learning_rate: float | None = None
    tau: float | None = None
    relative: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        rate = self.learning_rate
        for name, fits, remedy in (
            ("batch", self.batch >= 1, "a number of scenes from 1"),
            ("learning_rate", rate is None or 0 < rate < float("inf"), "a positive number"),
            ("tau", self.tau is None or 0 < self.tau <= 1, "a rate in (0, 1]; 1 averages nothing"),
        ):
            if not fits:
                raise UsageError(f"{name} {getattr(self, name)} does not fit: give {remedy}")


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


class Baseline(ABC):
    """An actor that is improved step by step on freshly drawn scenes.

    Args:
        simulator: Draws, renders and scores; of the settings that the agent's environment has.
        pretrained: The actor to start from (copied); it begins with zeros for the controls beside the code.
        config: How it improves; None takes the defaults.
        **changes: Fields of the method's config to take in place of those.

    Attributes:
        config: As it improves.
        actor: The actor that is moved.
        average: Its moving average, which is validated and exported.
        steps: Steps taken.

    Raises:
        UsageError: A setting is out of range, or the predictor's kernel basis is not the renderer's.
    """

    #: Renderer calls that a scene takes in one step.
    calls_per_scene: ClassVar[int]
    #: Step size where none is given.
    default_rate: ClassVar[float]
    #: Polyak rate where none is given.
    default_tau: ClassVar[float] = 0.05
    #: The method's settings.
    config_class: ClassVar[type[BaselineConfig]] = BaselineConfig

    config: BaselineConfig

    def __init__(
        self,
        simulator: Simulator,
        pretrained: Checkpoint[KernelPredictor],
        config: BaselineConfig | None = None,
        **changes: Any,
    ) -> None:
        self.config = replace(config or self.config_class(), **changes)
        if pretrained.basis.digest != simulator.basis.digest:
            raise UsageError(
                f"the predictor speaks kernel basis {pretrained.basis.digest}, the simulator's renderer "
                f"{simulator.basis.digest}: use a predictor trained for this renderer's basis"
            )
        self.simulator = simulator
        rate = self.config.learning_rate
        self.learning_rate: float = self.default_rate if rate is None else rate
        self.tau: float = self.default_tau if self.config.tau is None else self.config.tau
        start = widened(pretrained, simulator.controls.names)
        self.actor = deepcopy(start.network).requires_grad_(False).eval()
        self.average = deepcopy(self.actor)
        self.rng = np.random.default_rng(self.config.seed)
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
            UsageError: ``calls`` does not suffice for one scene.
            FloatingPointError: A score is not finite.
        """
        count = self.config.batch if calls is None else min(self.config.batch, calls // self.calls_per_scene)
        if count < 1:
            raise UsageError(f"{calls} renderer calls are too few: a scene takes {self.calls_per_scene}")
        scenes = self.simulator.draw(self.rng.random((count, UNIFORMS_PER_SCENE)))
        with self._counter:
            score = self._improve(scenes)
        if not np.isfinite(score):
            raise FloatingPointError(f"the mean score is {score} at step {self.steps}: lower the learning rate")
        with torch.no_grad():
            polyak_update(self.actor.parameters(), self.average.parameters(), self.tau)
        self.steps += 1
        return score

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "actor": self.actor.state_dict(),
            "average": self.average.state_dict(),
            "counters": [self.steps, self.calls],
            "generator": self.rng.bit_generator.state,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        self.actor.load_state_dict(state["actor"])
        self.average.load_state_dict(state["average"])
        self.steps, self._counter.calls = state["counters"]
        self.rng.bit_generator.state = state["generator"]

    @abstractmethod
    def _improve(self, scenes: Scenes) -> float:
        """Move ``actor``; returns the mean score."""

    def _magnitude(self, terms: Mapping[str, Tensor]) -> Tensor:
        """What scores are divided by, of the shape of a term."""
        sizes = [weight * terms[name].detach().abs() for name, weight in self.simulator.settings.reward.items()]
        return torch.stack(sizes).sum(0).clamp_min(1e-6) if self.config.relative else torch.ones_like(sizes[0])
