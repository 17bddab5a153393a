"""Train IterativeHinge on BlindSRIterative-v0, and show what one, two, ... corrections of the code gain in all.

    python agents/train_iterative.py --photos my_photos --reward lpips=1 --max-steps 4

Correctors are selected on photos that are not trained on, as by ``agents/train_ddpg.py``: where none beats the
pretrained predictor without losing at some kernel width, "no correction" is kept, and the output says so. The table is
measured on whole photos that neither training nor selection sees. ``--max-steps 1`` is the same agent with a single
correction; ``--one-step`` adds the actor that ``agents/train_ddpg.py`` wrote, and ``--earlier`` a corrector of a
run before.
"""

from __future__ import annotations

import time
from typing import Any

from blindsr_agents.evaluation.scene_sets import PRETRAINED
from blindsr_agents.evaluation.scores import reward_title
from blindsr_agents.evaluation.tables import score_table
from blindsr_agents.iterative import save_corrector
from blindsr_agents.iterative.run import IterativeProgress, IterativeSettings, as_json, build, methods
from blindsr_agents.training import STATE, Improvement
from rich.console import Console

from sr_env.utils.files import check_writable, disk_errors_named, write_json
from sr_env.utils.provenance import command_line, commit, hardware
from sr_env.utils.resume import check_out
from sr_env.utils.script import run_script, stop_requests


def main(settings: IterativeSettings) -> dict[str, Any]:
    """Train, select, and report; returns the table.

    Raises:
        FileInTheWayError: ``out`` holds another run.
        UsageError: A setting is wrong, or there is nothing to resume or it is of other settings.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, with the state saved.
    """
    console, begun = Console(), time.monotonic()
    check_out(settings.out, STATE, (f"corrector_x{settings.scale}.safetensors",), settings.resume)
    check_writable(settings.out)
    improvement = Improvement(settings)
    scenes = settings.scenes(improvement)  # a mistake in what is reported on shows before the training
    agent = build(settings, improvement)
    rows = methods(settings, scenes, agent)
    progress = IterativeProgress(settings, improvement, agent, console)
    if settings.resume:
        progress.load()
    console.print(
        f"IterativeHinge, {settings.max_steps} correction(s), {agent.n_steps}-step returns, loss {settings.loss}, "
        f"reward {reward_title(settings.reward)} above the pretrained actor's; {len(improvement.photos)} photos, "
        f"{settings.envs} environments on {agent.device}; steps {agent.steps} to {settings.steps}, "
        f"at most {settings.minutes:g} minutes",
        soft_wrap=True,
    )
    with stop_requests() as stop, disk_errors_named(settings.out):
        agent.learn(settings.steps, lambda: not stop.is_set() and progress())
        if stop.is_set():
            progress.save()
            console.print(f"stopped at step {agent.steps}, saved; add --resume to go on")
            raise KeyboardInterrupt
    progress.validate()
    progress.save()
    trained = time.monotonic() - begun
    kept = progress.choose()
    scores = scenes.score_all(rows)
    title = f"{scenes.count} photos of {settings.test_photos}"
    if settings.test_photos == "bundled" and settings.without_hr:
        title = improvement.reported_title
    if scenes.widths:
        title += f", each at {len(scenes.widths)} kernel widths"
    console.print(score_table(scores, PRETRAINED, scenes.widths, scenes.simulator.metrics, title))
    card = {
        "method": "IterativeHinge",
        "kept": kept,
        "reward": dict(settings.reward),
        "renderer": improvement.simulator.renderer.path.stem,
        "steps": agent.steps,
        "seconds": round(progress.earlier + trained),
        "seed": settings.seed,
        "hardware": hardware(agent.device),
        "command": command_line(),
        "commit": commit(),
    }
    weights = settings.out / f"corrector_x{settings.scale}.safetensors"
    save_corrector(weights, agent.actor_target, improvement.pretrained, card)
    table = as_json(scores, scenes)
    selection = [{"step": step, "improvement": gain} for step, gain in improvement.selection.history]
    result = {**card, "table": table, "selection": selection, "returns": agent.returns}
    write_json(settings.out / "iterative.json", result)
    console.print(f"written to {settings.out}: iterative.json, {weights.name}")
    return table


if __name__ == "__main__":
    run_script(IterativeSettings, main, threads="one")
