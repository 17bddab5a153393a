"""The best constant: the pretrained action moved by the same offset in every scene."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from cmaes import CMA  # type: ignore[import-untyped]
from torch import Tensor, nn

from blindsr_agents.baselines.random_search import BlindSearch
from sr_env.simulator import Scenes

#: Offsets of a generation.
_CANDIDATES = 8


class ConstantOffset(BlindSearch):
    """CMA-ES over one offset of the action before its tanh, the same for all scenes, for any reward.

    It looks at no picture, so what an agent gains beyond it is what the agent has learned to see. The numbers are
    the last layer's bias; every generation tries eight offsets on the same freshly drawn scenes, in units in which all
    directions change the picture alike, and ``learning_rate`` is the first standard deviation in units of ``noise``.

    Source: Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv 1604.00772, 2016.

    Arguments and errors are those of :class:`~blindsr_agents.baselines.random_search.BlindSearch`.
    """

    calls_per_scene = _CANDIDATES
    default_rate = 1.0
    default_tau = 0.3  # the search's mean is an average already

    def _prepare(self) -> None:
        last = self.actor.head[-1]
        assert isinstance(last, nn.Linear)
        self._bias, self._start = last.bias, last.bias.clone()
        self._begin()

    def _begin(self) -> None:
        start = np.zeros(len(self.noise_shape))
        self._search = CMA(start, self.learning_rate, population_size=_CANDIDATES, seed=self.config.seed)
        self._told: list[list[float]] = []

    def state(self) -> dict[str, Any]:
        """What a resumed run needs: of the search, what it was told, since its seed makes the rest of that again."""
        return {**super().state(), "told": [list(losses) for losses in self._told]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        super().load_state(state)
        self._begin()
        for losses in state["told"]:
            self._tell([self._search.ask() for _ in range(_CANDIDATES)], losses)

    def _tell(self, asked: list[np.ndarray], losses: list[float]) -> None:
        self._search.tell(list(zip(asked, losses, strict=True)))
        self._told.append(list(losses))

    @torch.no_grad()
    def _improve(self, scenes: Scenes) -> float:
        asked = [self._search.ask() for _ in range(_CANDIDATES)]
        offsets = self._shift(np.stack(asked))
        logits = self.actor.head(self.actor.features(scenes.lr)) - self._bias + self._start
        actions = torch.tanh(logits[:, None] + offsets).flatten(0, 1)
        result = self.simulator.evaluate(scenes.repeat(_CANDIDATES), actions)
        # A scene's scores are divided by one number, so that it ranks the offsets as its scores do.
        size = self._magnitude(result.terms).unflatten(0, (-1, _CANDIDATES)).mean(1, keepdim=True)
        losses = -(result.score.unflatten(0, (-1, _CANDIDATES)) / size).mean(0)
        if losses.isfinite().all():
            self._tell(asked, losses.tolist())
            self._bias.copy_(self._start + self._shift(self._search.mean))
        return float(result.score.mean())

    def _shift(self, offsets: np.ndarray) -> Tensor:
        """Offsets [..., L] in units of the noise -> before the tanh."""
        return torch.from_numpy(offsets).to(self.noise_shape) @ self.noise_shape
