"""What the agent is measured against: the same actor improved by gradient, by blind search, or by one constant.

All start from the pretrained predictor, draw their scenes from the environments' :class:`~sr_env.simulator.Simulator`
and are selected as the agent is (:class:`blindsr_agents.training.Selection`); none has a critic or a memory.

* :mod:`blindsr_agents.baselines.fine_tune` climbs the gradient of the reward through the frozen renderer and the
  metrics. It needs metrics with a gradient, and is the strongest alternative there: a call gives it ten slopes where
  the search learns half of one.
* :mod:`blindsr_agents.baselines.random_search` takes any reward. It shifts each scene's action by a random direction
  and by its opposite, and moves the last layer towards the better of the two: augmented random search (Mania, Guy,
  Recht, "Simple random search of static policies is competitive for reinforcement learning", NeurIPS 2018), with a
  direction of its own per scene.
* :mod:`blindsr_agents.baselines.constant` takes any reward, too, and searches for the offset of the action that is best
  in the mean over all scenes.

This file has their table and the loop that they are trained by.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from torch.utils.tensorboard import SummaryWriter

from blindsr_agents.baselines.base import Baseline, BaselineConfig
from blindsr_agents.baselines.constant import ConstantOffset
from blindsr_agents.baselines.fine_tune import FineTune, FineTuneConfig
from blindsr_agents.baselines.random_search import RandomSearch, RandomSearchConfig
from blindsr_agents.training import (
    STATE,
    Improvement,
    ImprovementSettings,
    reading_state,
    set_torch_generators,
    write_state,
)
from blindsr_agents.training.report import Constant
from blindsr_agents.training.selection import Selection
from sr_env.simulator import Simulator, SimulatorSettings
from sr_env.utils.checks import UsageError

Ended = Literal["calls", "minutes", "stopped"]
#: Methods of ``agents/train_baseline.py``.
METHODS: Mapping[str, type[Baseline]] = {"gradient": FineTune, "random": RandomSearch, "constant": ConstantOffset}


@dataclass
class BaselineSettings(FineTuneConfig, RandomSearchConfig, ImprovementSettings):
    """Train a baseline.

    Attributes:
        method: "gradient" (through the frozen renderer; metrics with a gradient only; ``train_features`` and ``clip``
            are its own), "random" (blind search) or "constant" (the best offset of the action that is the same in all
            scenes); ``noise`` and ``noise_limit`` are those two's own.
        calls: SR images that training may render; None sets no limit. It also ends when ``minutes`` are over.
        test_crops: Crops of the test scenes; 0 leaves the test out.
        test_widths: Kernel widths of the test scenes; None takes those that are reported for the scale.
    """

    method: Literal["gradient", "random", "constant"] = "gradient"
    out: Path = Path("runs/baseline")
    controls: tuple[str, ...] = ("code", "sharpen")  # HingeDDPG's
    calls: int | None = None
    test_crops: int = 24
    test_widths: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        BaselineConfig.__post_init__(self)
        ImprovementSettings.__post_init__(self)


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
    validated: int = -1,
    save: Callable[[int], None] = lambda validated: None,
    on_step: Callable[[Run, float], None] | None = None,
    on_selection: Callable[[Run, np.ndarray], None] | None = None,
) -> Run:
    """Improve an actor until a budget is spent, keeping the best averaged actor in ``selection``.

    Args:
        baseline: The method.
        selection: Held-out scenes.
        calls: Renderer calls that the baseline may have made in the end; it makes all of them, but for a rest that is
            too small for a scene.
        minutes: Time that may be spent.
        select_every: Renderer calls between validations; there is one at the end too.
        stop: Whether to end before the next step, without a last validation.
        validated: Renderer calls at the last validation of a run that is gone on with.
        save: Writes what the run can be gone on from, and is given ``validated``; called after each validation and when
            the run is stopped.
        on_step: Is given what was spent so far and the mean score of each step.
        on_selection: Is given what was spent so far and the gain per width of each validation.

    Returns:
        What was spent.

    Raises:
        UsageError: Neither budget is given, or one that does not suffice for a step.
        FloatingPointError: A score was not finite.
    """
    if calls is None and minutes is None:
        raise UsageError("neither calls nor minutes is given: give a budget of either, or of both")
    if calls is not None and calls < baseline.calls_per_scene:
        raise UsageError(f"{calls} renderer calls are too few: a scene takes {baseline.calls_per_scene}")
    if minutes is not None and not minutes > 0:
        raise UsageError(f"minutes {minutes} is not positive: give the time that may be spent")
    if select_every < 1:
        raise UsageError(f"select_every {select_every} is not positive: give renderer calls between validations")
    begun, first = time.monotonic(), baseline.steps

    def spent(ended: Ended | None = None) -> Run:
        return Run(baseline.steps, baseline.calls, time.monotonic() - begun, ended)

    def validate() -> None:
        nonlocal validated
        validated = baseline.calls
        gain = selection.consider(baseline.average, baseline.steps)
        if on_selection is not None:
            on_selection(spent(), gain)
        save(validated)

    while True:
        left = None if calls is None else calls - baseline.calls
        if stop():
            save(validated)
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


def best_constant(improvement: Improvement, renderings: int, noise: float, noise_limit: float) -> Constant:
    """Fit the best constant action to a run's training photographs, and select it on the run's selection scenes.

    Args:
        improvement: The run.
        renderings: How many the search may make.
        noise: As :class:`RandomSearchConfig` has it.
        noise_limit: The same.

    Returns:
        The pretrained actor moved by the best offset of those that lose at no kernel width; where there is none, by
        that which the search ended with.
    """
    settings = improvement.settings
    simulator = Simulator(SimulatorSettings(**settings.environment(improvement.photos)))
    search = ConstantOffset(simulator, improvement.pretrained, seed=settings.seed, noise=noise, noise_limit=noise_limit)
    selection = improvement.selection.anew()
    train(search, selection, calls=renderings, select_every=settings.select_every)
    if selection.best is not None:
        search.average.load_state_dict(selection.best)
    return Constant(search.average, search.calls)


class BaselineState:
    """The file that a run is gone on from.

    Args:
        improvement: The run.
        baseline: Its method.

    Attributes:
        validated: Renderer calls at the last validation of the earlier sittings; -1 before any.
        seconds: Seconds of the earlier sittings.
    """

    def __init__(self, improvement: Improvement, baseline: Baseline) -> None:
        self.improvement, self.baseline = improvement, baseline
        self.path = improvement.settings.out / STATE
        self.validated, self.seconds = -1, 0.0
        self._begun = time.monotonic()

    def save(self, validated: int) -> None:
        """Write it, atomically."""
        extra = {
            "settings": self.improvement.kept,
            "selection": self.improvement.selection.state(),
            "validated": validated,
            "seconds": self.seconds + time.monotonic() - self._begun,
        }
        write_state(self.path, {"baseline": self.baseline.state(), "extra": extra})

    def load(self) -> None:
        """Take up what :meth:`save` wrote.

        Raises:
            UsageError: It is damaged or of another method.
        """
        with reading_state(self.path) as state:
            self.baseline.load_state(state["baseline"])
            set_torch_generators(state["torch_generators"])
            extra = state["extra"]
            self.improvement.selection.load_state(extra["selection"])
            self.validated, self.seconds = extra["validated"], extra["seconds"]


class BaselineProgress:
    """Shows a run of :func:`train` on the console and in TensorBoard; a context manager.

    Args:
        settings: The run's.
        selection: As :func:`train` has it.
        console: Where progress is shown.
    """

    def __init__(self, settings: BaselineSettings, selection: Selection, console: Console) -> None:
        self.settings, self.selection, self.console = settings, selection, console
        columns = (TextColumn("training"), BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, TimeElapsedColumn(), console=console)
        self._bar = self._progress.add_task("", total=1)

    def __enter__(self) -> BaselineProgress:
        self._board = SummaryWriter(self.settings.out / "tb")
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
        self._board.close()

    def on_step(self, run: Run, score: float) -> None:
        """Log a step's mean score."""
        settings = self.settings
        self._board.add_scalar("train/score", score, run.calls)
        share = run.seconds / 60 / settings.minutes
        share = share if settings.calls is None else max(share, run.calls / settings.calls)
        self._progress.update(self._bar, completed=share, description=f"{run.calls} renderer calls")

    def on_selection(self, run: Run, gain: np.ndarray) -> None:
        """Log a validation's gain per width."""
        self._board.add_scalar("selection/gain", gain.mean(), run.calls)
        for width, value in self.selection.scenes.by_width(gain).items():
            self._board.add_scalar(f"selection/gain_{width}", value, run.calls)
        each = " / ".join(f"{value:+.4g}" for value in gain)
        kept = "kept" if self.selection.best_step == run.steps else "not kept"
        self.console.print(
            f"{run.calls} calls: selection scenes {gain.mean():+.4g} over the pretrained actor ({each}), {kept}",
            soft_wrap=True,
        )
