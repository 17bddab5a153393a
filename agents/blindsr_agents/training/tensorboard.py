"""What TensorBoard shows of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from matplotlib.figure import Figure

from blindsr_agents.evaluation.scene_sets import PRETRAINED, TRUE_KERNEL
from blindsr_agents.training.report import TRAINED, before_after
from blindsr_agents.training.setup import Improvement
from sr_env.models import KernelPredictor
from sr_env.simulator import Scenes
from sr_env.utils import torchvision_compat as _torchvision  # noqa: F401  # before stable_baselines3, which reaches it

from stable_baselines3.common.logger import Figure as LoggedFigure  # isort: skip
from stable_baselines3.common.logger import Logger


class Learner(Protocol):
    """An agent as it is shown."""

    @property
    def predictor(self) -> KernelPredictor:
        """The actor that is validated and exported."""

    @property
    def correlation(self) -> float:
        """Between the critics' values and the latest rewards, before these were trained on."""

    @property
    def judged(self) -> np.ndarray:
        """Critics' mean advantages and squashed rewards of the latest scenes, before these were trained on, [2, N]."""


class Board:
    """What TensorBoard shows of a run, beside the losses: reward terms, Q against reward, kernels and pictures.

    Args:
        improvement: The run.
        every: Validations between pictures.
    """

    def __init__(self, improvement: Improvement, every: int = 5) -> None:
        self.improvement, self.every = improvement, every
        self._validations = 0

    def rewards(self, logger: Logger, infos: Sequence[Mapping[str, Any]]) -> None:
        """Keep how much each term of the reward rose above the pretrained actor's, for the next dump."""
        for name in self.improvement.settings.reward:
            logger.record_mean(
                f"reward/{name}", float(np.mean([info[name] - info[f"{name}_reference"] for info in infos]))
            )

    def validation(self, logger: Logger, model: Learner, gain: np.ndarray) -> None:
        """Keep the gains on the selection scenes, and every so often the pictures."""
        for where, value in self.improvement.selection.scenes.by_width(gain).items():
            logger.record(f"selection/gain_{where}", value)
        logger.record("selection/gain", float(gain.mean()))
        if self._validations % self.every == 0:
            width, batch = self._batch()
            scenes = self.improvement.selection.scenes
            acting = {
                PRETRAINED: scenes.acting(self.improvement.pretrained.network),
                TRAINED: scenes.acting(model.predictor),
            }
            for name, figure in {
                "critics": q_against_reward(model.judged),
                "kernels": self._kernels(batch, width, model),
                "pictures": before_after(batch, self.improvement.simulator.photos.names, acting, 3),
            }.items():
                logger.record(f"shown/{name}", LoggedFigure(figure, close=True), exclude=("stdout", "log", "csv"))
        self._validations += 1

    def _batch(self) -> tuple[float | None, Scenes]:
        """The first batch of the selection scenes at the middle width, if there are widths."""
        scenes = self.improvement.selection.scenes
        middle = len(scenes.conditions) // 2
        return scenes.conditions[middle], next(batch for row, _, batch in scenes.parts() if row == middle)

    def _kernels(self, batch: Scenes, width: float | None, model: Learner) -> Figure:
        """Heat maps of the true kernel, where known, and of those that the two actors name, of the first scenes."""
        simulator, count = self.improvement.simulator, min(3, len(batch.lr))
        basis, actors = simulator.basis, {PRETRAINED: self.improvement.pretrained.network, TRAINED: model.predictor}
        with torch.no_grad():
            codes = {name: simulator.controls.split(actor(batch.lr[:count]))[0] for name, actor in actors.items()}
        kernels = {} if batch.truth is None else {TRUE_KERNEL: batch.kernels.kernels[:count]}
        kernels |= {name: basis.decode(code) for name, code in codes.items()}
        figure = Figure(figsize=(2 * len(kernels), 2 * count), layout="constrained")
        axes = figure.subplots(count, len(kernels), squeeze=False)
        for column, (name, shown) in enumerate(kernels.items()):
            for row, kernel in enumerate(shown.cpu().numpy()):
                axes[row, column].imshow(kernel, vmin=0)
                axes[row, column].set_title(f"{name}\npeak {kernel.max():.3f}", fontsize=8)
                axes[row, column].set_axis_off()
        if width is not None:
            figure.suptitle(f"kernel width {width:g}", fontsize=8)
        return figure


def q_against_reward(judged: np.ndarray) -> Figure:
    """Scatter of the critics' advantages [0] against the squashed rewards [1], of scenes not trained on yet, [2, N]."""
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    axes.scatter(judged[1], judged[0], s=4)
    axes.axline((0, 0), slope=1, color="gray", lw=0.8)
    axes.set(xlabel="reward, squashed", ylabel="critics' mean advantage")
    return figure
