"""Improve the pretrained kernel predictor without reinforcement learning, for comparison with the agent.

    python agents/train_baseline.py --method gradient --reward lpips=1 --photos my_photos --minutes 4
    python agents/train_baseline.py --method random --reward niqe=1 --guards psnr=0.1 --calls 16000

Photos, scenes, selection and the test at the end are those of ``agents/train_ddpg.py`` with the same settings, and so
is the actor that is written, a predictor that ``agents/evaluate_agents.py`` compares. Ctrl-C keeps the best so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from blindsr_agents.baselines.run import METHODS, Run, check_gradient, train
from blindsr_agents.training import Improvement, ImprovementSettings
from blindsr_agents.training.report import measure_test
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from torch.utils.tensorboard import SummaryWriter

from sr_env.simulator import Simulator, SimulatorSettings
from sr_env.utils.files import check_writable
from sr_env.utils.script import run_script, stop_requests


@dataclass
class Settings(ImprovementSettings):
    """Train a baseline.

    Attributes:
        method: "gradient" (through the frozen renderer; metrics with a gradient only) or "random" (blind search).
        calls: SR images that training may render; None sets no limit. It also ends when ``minutes`` are over.
        batch: Scenes per step.
        learning_rate: Size of the steps; None takes the method's own.
        tau: Polyak rate of the averaged actor.
        absolute: Climb the plain mean of the reward, not that of each scene's relative improvement.
        train_features: Train the actor's convolutions too ("gradient" only).
        noise: What the shifts change the picture by in each direction, in grey levels ("random" only).
        test_crops: Crops of the test scenes; 0 leaves the test out.
        test_widths: Kernel widths of the test scenes; None takes those that are reported for the scale.
    """

    method: Literal["gradient", "random"] = "gradient"
    out: Path = Path("runs/baseline")
    calls: int | None = None
    batch: int = 16
    learning_rate: float | None = None
    tau: float = 0.05
    absolute: bool = False
    train_features: bool = False
    noise: float = 0.7
    test_crops: int = 12
    test_widths: tuple[float, ...] | None = None

    def options(self) -> dict[str, Any]:
        """Keywords of the method."""
        own = {"train_features": self.train_features} if self.method == "gradient" else {"noise": self.noise}
        return {
            "batch": self.batch,
            "learning_rate": self.learning_rate,
            "tau": self.tau,
            "relative": not self.absolute,
            "seed": self.seed,
            **own,
        }


def main(settings: Settings) -> dict[str, Any]:
    """Train, select, test and save; returns what the card says of the training.

    Raises:
        ValueError: A setting does not fit, such as a reward without a gradient for the method "gradient".
        KeyboardInterrupt: After Ctrl-C, with the best actor so far saved.
    """
    console = Console()
    if settings.method == "gradient":
        check_gradient(settings.reward)  # a metric without one shows before the work
    check_writable(settings.out)
    improvement = Improvement(settings)
    selection = improvement.selection
    simulator = Simulator(SimulatorSettings(photos=improvement.photos, **settings.environment()))
    baseline = METHODS[settings.method](simulator, improvement.pretrained, **settings.options())
    told = ", ".join(f"{weight:g} {name}" for name, weight in settings.reward.items())
    console.print(
        f"Method {settings.method}, reward {told}; {len(improvement.photos)} photos, {settings.batch} scenes per step "
        f"on {simulator.device}; at most {settings.minutes:g} minutes"
        + ("" if settings.calls is None else f" and {settings.calls} renderer calls")
        + f"; writing to {settings.out}",
        soft_wrap=True,
    )
    columns = (TextColumn("training"), BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with (
        stop_requests() as stop,
        Progress(*columns, TimeElapsedColumn(), console=console) as progress,
        SummaryWriter(settings.out / "tb") as board,
    ):
        bar = progress.add_task("", total=1)

        def on_step(run: Run, score: float) -> None:
            board.add_scalar("train/score", score, run.calls)
            share = run.seconds / 60 / settings.minutes
            share = share if settings.calls is None else max(share, run.calls / settings.calls)
            progress.update(bar, completed=share, description=f"{run.calls} renderer calls")

        def on_selection(run: Run, gain: np.ndarray) -> None:
            board.add_scalar("selection/gain", gain.mean(), run.calls)
            for width, value in zip(settings.selection_widths, gain, strict=True):
                board.add_scalar(f"selection/gain_{width:g}", value, run.calls)
            each = " / ".join(f"{value:+.4g}" for value in gain)
            kept = "kept" if selection.best_step == run.steps else "not kept"
            console.print(
                f"{run.calls} calls: selection scenes {gain.mean():+.4g} over the pretrained actor ({each}), {kept}",
                soft_wrap=True,
            )

        run = train(
            baseline,
            selection,
            calls=settings.calls,
            minutes=settings.minutes,
            select_every=settings.select_every,
            stop=stop.is_set,
            on_step=on_step,
            on_selection=on_selection,
        )

    actor = baseline.average
    card: dict[str, Any] = {
        "method": settings.method,
        "kept": improvement.choose(actor, console),
        "steps": run.steps,
        "renderer_calls": run.calls,
        "seconds": round(run.seconds),
        "ended": run.ended,
    }
    if settings.test_crops and run.ended != "stopped":
        card["test"] = measure_test(improvement, actor, settings.test_crops, settings.test_widths, console).result
    path = improvement.save(actor, card)
    console.print(
        f"{run.steps} steps, {run.calls} renderer calls, {run.seconds:.0f} s; actor: {path}",
        soft_wrap=True,
    )
    if run.ended == "stopped":
        raise KeyboardInterrupt
    return card


if __name__ == "__main__":
    run_script(Settings, main)
