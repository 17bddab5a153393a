"""Which of the actors met in training is kept: the best on held-out scenes of those that lose nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blindsr_agents.evaluation.scene_sets import SceneSet
from blindsr_agents.evaluation.tables import columns
from sr_env.utils.checks import check_choice


class Selection:
    """Keeps the best actor on held-out scenes: the highest mean gain of those that lose at no kernel width.

    Photographs as they are have no widths: there the mean alone counts, beside the guards.

    The pretrained actor, with gain zero, is the first best.

    Args:
        scenes: The held-out scenes.
        pretrained: LR images -> actions.
        guards: Metric, or "consistency" -> how much worse its mean over all scenes may be than the pretrained actor's,
            in its own units.

    Attributes:
        best: Weights of the best actor; None while that is the pretrained one.
        broken: The guards that the actor considered last broke.
        fits: Whether it broke none, and lost at no kernel width.
        idle: Actors considered since the best one.

    Raises:
        UsageError: The simulator does not measure a guard's metric.
    """

    def __init__(
        self,
        scenes: SceneSet,
        pretrained: Callable[[Tensor], Tensor],
        guards: Mapping[str, float] | None = None,
    ) -> None:
        self.scenes, self.guards = scenes, dict(guards or {})
        for name in self.guards:
            check_choice("guard", name, scenes.simulator.terms)
        self.pretrained = scenes.score(scenes.acting(pretrained))
        self._begin()

    def _begin(self) -> None:
        self.broken: tuple[str, ...] = ()
        self.fits = True
        self.idle = 0
        self.best_gain, self.best_step = 0.0, 0
        self.best: dict[str, Tensor] | None = None
        self.history: list[tuple[int, list[float]]] = [(0, [0.0] * len(self.scenes.conditions))]

    def anew(self) -> Selection:
        """A selection on the same scenes that has considered nothing yet."""
        other = copy(self)
        other._begin()
        return other

    def consider(self, actor: torch.nn.Module, step: int) -> np.ndarray:
        """Score an actor (a module: LR images -> actions); returns its gain per condition."""
        scores = self.scenes.score(self.scenes.acting(actor))
        gain = scores.gain(self.pretrained)
        self.history.append((step, gain.tolist()))
        worse = {
            name: float(scores.gain(self.pretrained, name).mean()) * (-1 if column.higher_is_better else 1)
            for name, column in columns(self.guards, self.scenes.simulator.metrics).items()
        }
        self.broken = tuple(name for name, allowed in self.guards.items() if worse[name] > allowed)
        self.fits = bool(gain.min() >= 0) and not self.broken
        self.idle += 1
        if self.fits and gain.mean() > self.best_gain:
            self.idle = 0
            self.best_gain, self.best_step = float(gain.mean()), step
            self.best = {name: value.detach().cpu().clone() for name, value in actor.state_dict().items()}
        return gain

    @property
    def conditions(self) -> str:
        """What an actor must not do to be kept, to end a sentence that says that none was."""
        told = ["losing at some kernel width"] if self.scenes.widths else []
        told += ["breaking a guard"] if self.guards else []
        return f" without {' or '.join(told)}" if told else ""

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "best_gain": self.best_gain,
            "best_step": self.best_step,
            "best": self.best,
            "idle": self.idle,
            "fits": self.fits,
            "history": [(step, list(gain)) for step, gain in self.history],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        self.best_gain, self.best_step, self.best = state["best_gain"], state["best_step"], state["best"]
        self.idle, self.fits = state["idle"], state["fits"]
        self.history = [(step, list(gain)) for step, gain in state["history"]]
