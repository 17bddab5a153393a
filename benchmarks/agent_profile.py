"""Where the time of a training run of HingeDDPG goes: the renderer, the metrics, the updates, and the rest.

    python benchmarks/agent_profile.py --minutes 1

Runs ``agents/train_ddpg.py`` with its own settings under Python's profiler and adds up the cumulative seconds of the
functions that do the work, wherever they are called from (training, references, validation). Loading is left out. Of
the updates it also says what share of the steps' time they take once they have begun, with validation left out. With
one thread it counts CPU time, of which a busy machine takes less away.
"""

from __future__ import annotations

import cProfile
import inspect
import pstats
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import CodeType
from typing import Any
from unittest.mock import patch

import torch
import train_ddpg
from blindsr_agents.hinge_ddpg import HingeDDPG
from blindsr_agents.training.progress import Progress
from rich.console import Console
from rich.table import Table

from sr_env.degradation import Degradation
from sr_env.metrics import Metric
from sr_env.models import KernelPredictor
from sr_env.photos import crops
from sr_env.simulator import Simulator
from sr_env.utils.script import run_script

#: What is counted: a name for people, and the functions, none of which calls another.
PARTS: dict[str, list[Callable[..., Any]]] = {
    "renderer": [Simulator.render],
    "metrics": [Simulator.score, Metric.prepare],
    "updates of critics and actor": [HingeDDPG.train],
    "predictor (acting, describing, reference)": [KernelPredictor.features],
    "photographs, blur and reduction": [crops, Degradation.__call__],
}
_WORK = ("renderer", "metrics", "updates of critics and actor")


def _code(function: Callable[..., Any]) -> CodeType:
    """What the profiler knows a function by, whatever decorates it."""
    code: CodeType = inspect.unwrap(function).__code__
    return code


class Learning:
    """What the updates take of the steps' time once they have begun.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.begun, self.updates, self.validation = 0.0, 0.0, 0.0

    @property
    def share(self) -> float:
        """So far; NaN before the first update."""
        steps = self.clock() - self.begun - self.validation
        return self.updates / steps if self.begun else float("nan")

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function, whose seconds are added up under a name from the first update on."""

        def call(*args: Any, **kwargs: Any) -> Any:
            first = self.clock()
            if name == "updates":
                self.begun = self.begun or first
            try:
                return function(*args, **kwargs)
            finally:
                if self.begun:
                    setattr(self, name, getattr(self, name) + self.clock() - first)

        return call


def main(settings: train_ddpg.Settings) -> dict[str, float]:
    """Profile a run; returns each part's share of the seconds spent in training and validation."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    profile, learn, learning = cProfile.Profile(clock), HingeDDPG.learn, Learning(clock)
    shares = []

    def profiled(self: HingeDDPG, *args: Any, **kwargs: Any) -> HingeDDPG:
        try:
            return profile.runcall(learn, self, *args, **kwargs)
        finally:
            shares.append(learning.share)

    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(HingeDDPG, "learn", profiled),
        patch.object(HingeDDPG, "train", learning.timed(HingeDDPG.train, "updates")),
        patch.object(Progress, "validate", learning.timed(Progress.validate, "validation")),
    ):
        train_ddpg.main(replace(settings, out=Path(folder), test_crops=0))
    stats: Any = pstats.Stats(profile)  # whose attributes typeshed leaves out
    spent_in = {(file, line): cumulative for (file, line, _), (_, _, _, cumulative, _) in stats.stats.items()}
    seconds = {
        part: sum(spent_in.get((code.co_filename, code.co_firstlineno), 0.0) for code in map(_code, functions))
        for part, functions in PARTS.items()
    }
    total = stats.total_tt
    table = Table("part", "seconds", "share", title=f"{total:.0f} s of training and validation", title_justify="left")
    for part, spent in seconds.items():
        table.add_row(part, f"{spent:.1f}", f"{100 * spent / total:.1f} %")
    rest = total - sum(seconds.values())
    table.add_row("everything else", f"{rest:.1f}", f"{100 * rest / total:.1f} %")
    Console().print(table)
    share = sum(seconds[part] for part in _WORK) / total
    Console().print(f"renderer, metrics and updates: {100 * share:.1f} %")
    Console().print(f"updates, of the steps since the first of them, without validation: {100 * shares[0]:.1f} %")
    return {part: value / total for part, value in seconds.items()}


if __name__ == "__main__":
    run_script(train_ddpg.Settings, main, threads="one")
