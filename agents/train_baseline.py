"""Improve the pretrained kernel predictor without reinforcement learning, for comparison with the agent.

    python agents/train_baseline.py --method gradient --reward lpips=1 --photos my_photos --minutes 4
    python agents/train_baseline.py --method random --reward niqe=1 --guards psnr=0.1 --calls 16000
    python agents/train_baseline.py --method constant --reward lpips=1 --calls 6400  # one offset for all scenes

Photos, scenes, selection and the test at the end are those of ``agents/train_ddpg.py`` with the same settings, and so
is the actor that is written, a predictor that ``agents/evaluate_agents.py`` compares. Ctrl-C keeps the best so far, and
``--resume`` goes on.
"""

from __future__ import annotations

from typing import Any

from blindsr_agents.baselines import METHODS, check_gradient, train
from blindsr_agents.baselines.run import BaselineProgress, BaselineSettings, BaselineState
from blindsr_agents.evaluation.scores import reward_title
from blindsr_agents.training import STATE, Improvement, measure_test
from rich.console import Console

from sr_env.simulator import Simulator, SimulatorSettings
from sr_env.utils.files import check_writable, disk_errors_named
from sr_env.utils.resume import check_out
from sr_env.utils.script import run_script, stop_requests


def main(settings: BaselineSettings) -> dict[str, Any]:
    """Train, select, test and save; returns what the card says of the training.

    Raises:
        FileInTheWayError: ``out`` holds another run.
        UsageError: A setting does not fit, such as a reward without a gradient for the method "gradient", or there is
            nothing to resume or it is of other settings.
        KeyboardInterrupt: After Ctrl-C, with the best actor so far and the state saved.
    """
    console = Console()
    if settings.method == "gradient":
        check_gradient(settings.reward)  # a metric without one shows before the work
    check_out(settings.out, STATE, (f"actor_x{settings.scale}.safetensors",), settings.resume)
    check_writable(settings.out)
    improvement = Improvement(settings)
    simulator = Simulator(SimulatorSettings(**settings.environment(improvement.photos)))
    baseline = METHODS[settings.method](simulator, improvement.pretrained, settings)
    state = BaselineState(improvement, baseline)
    if settings.resume:
        state.load()
    console.print(
        f"Method {settings.method}, reward {reward_title(settings.reward)}; {len(improvement.photos)} photos, "
        f"{settings.batch} scenes per step on {simulator.device}; from step {baseline.steps}, at most "
        f"{settings.minutes:g} minutes"
        + ("" if settings.calls is None else f" and {settings.calls} renderer calls")
        + f"; writing to {settings.out}",
        soft_wrap=True,
    )
    with (
        stop_requests() as stop,
        disk_errors_named(settings.out),
        BaselineProgress(settings, improvement.selection, console) as progress,
    ):
        run = train(
            baseline,
            improvement.selection,
            calls=settings.calls,
            minutes=settings.minutes,
            select_every=settings.select_every,
            stop=stop.is_set,
            validated=state.validated,
            save=state.save,
            on_step=progress.on_step,
            on_selection=progress.on_selection,
        )

    actor = baseline.average
    card: dict[str, Any] = {
        "method": settings.method,
        "kept": improvement.choose(actor, console),
        "steps": run.steps,
        "renderer_calls": run.calls,
        "seconds": round(state.seconds + run.seconds),
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
        console.print(f"stopped at step {run.steps}, saved; add --resume to go on")
        raise KeyboardInterrupt
    return card


if __name__ == "__main__":
    run_script(BaselineSettings, main, threads="one")
