"""Progress of an agent of Stable-Baselines3: validation, what is kept, and when training ends early."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from blindsr_agents.training.setup import Improvement
from blindsr_agents.training.tensorboard import Board, Learner
from sr_env.utils import torchvision_compat as _torchvision  # noqa: F401  # before stable_baselines3, which reaches it

from stable_baselines3.common.callbacks import BaseCallback  # isort: skip


class Ended(Exception):
    """Training is over before its steps are; the message says why."""


class Progress(BaseCallback):
    """Shows progress, validates, saves, and says when training ends early.

    Everything happens between two rounds of updates, so that what is saved there can be gone on from exactly.

    Args:
        improvement: The run, whose selection validates and keeps the best actor.
        steps: Environment steps in all.
        patience: Validations without a better actor after which training ends; None for no end.
        save: Writes the state.
        asked: Tells whether the user asked to stop.
        console: Where progress is shown.
    """

    def __init__(
        self,
        improvement: Improvement,
        steps: int,
        patience: int | None,
        save: Callable[[], None],
        asked: Callable[[], bool],
        console: Console,
    ) -> None:
        super().__init__()
        self.settings, self.selection, self.save, self.asked = improvement.settings, improvement.selection, save, asked
        self.steps, self.patience, self.console = steps, patience, console
        self.board = Board(improvement)
        self.training: list[tuple[int, float, float]] = []
        self._rewards: list[float] = []
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bar = RichProgress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console)

    def _on_training_start(self) -> None:
        self._begun = time.monotonic()
        self._task = self.bar.add_task("", total=self.steps, completed=self.num_timesteps)

    def _on_rollout_start(self) -> None:
        every, last = self.settings.select_every, self.training[-1][0] if self.training else 0
        if self.num_timesteps // every > last // every:
            self.validate()
            self.save()
        if time.monotonic() - self._begun > 60 * self.settings.minutes:
            raise Ended(f"{self.settings.minutes:g} minutes are over at step {self.num_timesteps}")
        if self.patience is not None and self.selection.idle >= self.patience:
            raise Ended(f"no better actor in {self.patience} validations, at step {self.num_timesteps}")
        if self.asked():
            self.save()
            self.console.print(f"stopped at step {self.num_timesteps}, saved; add --resume to go on")
            raise KeyboardInterrupt

    def _on_step(self) -> bool:
        self.bar.update(self._task, completed=self.num_timesteps)
        self._rewards += self.locals["rewards"].tolist()
        self.board.rewards(self.logger, self.locals["infos"])
        return True

    def validate(self) -> None:
        """Score the averaged actor on the selection scenes, once a step."""
        if self.training and self.training[-1][0] == self.num_timesteps:
            return
        learner = cast(Learner, self.model)
        correlation = learner.correlation
        reward = float(np.mean(self._rewards)) if self._rewards else float("nan")
        self.training.append((self.num_timesteps, reward, correlation))
        self._rewards.clear()
        gain = self.selection.consider(learner.predictor, self.num_timesteps)
        self.board.validation(self.logger, learner, gain)
        self.logger.dump(self.num_timesteps)
        each = " / ".join(f"{value:+.4g}" for value in gain)
        kept = "kept" if self.selection.best_step == self.num_timesteps else "not kept"
        if self.selection.broken:
            kept += f" (guard broken: {', '.join(self.selection.broken)})"
        self.console.print(
            f"step {self.num_timesteps}: selection scenes {gain.mean():+.4g} over the pretrained actor ({each}), "
            f"{kept}; training reward {reward:+.3g}, critics' correlation {correlation:.2f}",
            soft_wrap=True,
        )

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "selection": self.selection.state(),
            "training": [list(row) for row in self.training],
            "rewards": list(self._rewards),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        self.selection.load_state(state["selection"])
        self.training = [(int(step), float(reward), float(corr)) for step, reward, corr in state["training"]]
        self._rewards = list(state["rewards"])
