"""Where the time of a training run of HingeDDPG goes: the renderer, the metrics, the updates, and the rest.

    python benchmarks/agent_profile.py --minutes 1

Runs ``agents/train_ddpg.py`` with its own settings under Python's profiler and adds up the cumulative seconds of the
functions that do the work, wherever they are called from (training, references, validation). Loading is left out.
"""

from __future__ import annotations

import cProfile
import inspect
import pstats
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import CodeType
from typing import Any
from unittest.mock import patch

import train_ddpg
from blindsr_agents.hinge_ddpg import HingeDDPG
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


def main(settings: train_ddpg.Settings) -> dict[str, float]:
    """Profile a run; returns each part's share of the seconds spent in training and validation."""
    profile, learn = cProfile.Profile(), HingeDDPG.learn

    def profiled(self: HingeDDPG, *args: Any, **kwargs: Any) -> HingeDDPG:
        return profile.runcall(learn, self, *args, **kwargs)

    with tempfile.TemporaryDirectory() as folder, patch.object(HingeDDPG, "learn", profiled):
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
    return {part: value / total for part, value in seconds.items()}


if __name__ == "__main__":
    run_script(train_ddpg.Settings, main, threads="one")
