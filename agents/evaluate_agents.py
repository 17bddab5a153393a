"""Compare trained actors with the pretrained one on benchmark sets, and with the best code that a search finds.

    python agents/evaluate_agents.py --bench-dir FOLDER --actors mine=runs/mine/actor_x4.safetensors --out runs/agents
    python agents/evaluate_agents.py --lr-photos my_scans --actors mine=runs/mine/actor_x4.safetensors

``FOLDER`` holds one folder of HR images per set (``FOLDER/Set5/*.png``). Every image is scored whole at every kernel
width, with one table per renderer, reward and set; the released actors are compared beside those that are given.

``my_scans`` are photographs to be enlarged as they are: without HR there are metrics that need none, no true kernel, no
oracle, and of trained actors those that are given.
"""

from __future__ import annotations

from typing import Any

from blindsr_agents.evaluation.actor_rows import Comparisons
from blindsr_agents.evaluation.actor_tables import print_table, write_report
from blindsr_agents.evaluation.actors import (
    Bench,
    Search,
    absent_actors,
    fitting_metrics,
    identities,
    parse_actor,
    plan,
    public_actor,
    released_actors,
)
from blindsr_agents.evaluation.sets import open_lr_photos, open_sets
from blindsr_agents.evaluation.settings import ComparisonSettings as Settings
from blindsr_agents.evaluation.settings import evaluate, print_skipped
from rich.console import Console

from sr_env.simulator import REAL, SimulatorSettings
from sr_env.utils.checks import UsageError
from sr_env.utils.finished import within
from sr_env.utils.script import parse_weights, run_script


def measure(settings: Settings, console: Console) -> Comparisons:
    """Compare trained actors on every set, printing the tables of each, and writing the report after each.

    Raises:
        UsageError: A setting is wrong, a file is missing, or checkpoints do not fit each other.
        WeightsUnavailable: The weights of a metric of a reward cannot be had.
    """
    s, without_hr = settings, settings.lr_photos is not None
    device, _, widths = s.resolve()
    missing: list[str] = []
    if s.lr_photos is not None:
        sets, widths = open_lr_photos(s.lr_photos, s.limit), ()
    else:
        sets, missing = open_sets(s.bench_dir, s.sets, s.scale, s.limit)
    actors = [*([] if without_hr else released_actors(s.scale)), *map(parse_actor, s.actors)]
    rewards = None if s.rewards is None else [parse_weights(text) for text in s.rewards]
    default = str(SimulatorSettings(scale=s.scale, kernels=s.family).renderer_or_default)
    tasks = plan(actors, s.scale, s.renderers, rewards, (default, REAL["reward"]) if without_hr else None)
    if s.oracle_guards and not s.oracle_evaluations:
        raise UsageError("oracle_guards without oracle_evaluations guard nothing: give both")
    metrics, unavailable = fitting_metrics(
        s.measured, tasks, sets, s.max_side, device, tuple(s.oracle_guards), without_hr
    )
    source: dict[str, Any] = {"lr_photos" if without_hr else "photos": next(iter(sets.values()))}
    shared = SimulatorSettings(
        **source,
        kernels=s.family,
        scale=s.scale,
        predictor=s.predictor,
        info_metrics=metrics,
        controls=s.controls,
        blend_renderer=s.blend_renderer,
        device=s.device,
        precision=s.precision,
    )
    search = Search(s.oracle_evaluations, s.oracle_guards, s.seed) if s.oracle_evaluations else None
    benches = [Bench(task, actors, shared, search) for task in tasks]
    reasons = [*missing, *unavailable, *absent_actors(actors, tasks, s.scale)]
    print_skipped(reasons, console)
    about = s.about(device, widths)
    about["settings"] |= {"actors": [public_actor(text) for text in s.actors]}
    results = Comparisons(about, reasons)
    with s.finished(about, sets, metrics, **identities(benches)) as finished:
        for name, photos in sets.items():
            for number, bench in enumerate(benches):
                take = within(finished.take, f"{name}/table {number}")
                results.tables.append(bench.run(name, photos, widths, s.max_side, console, take))
                print_table(results.tables[-1], console)
                if s.out is not None:
                    write_report(s.out, results)
    return results


def main(settings: Settings) -> Comparisons:
    """Compare, print the tables, and write the report."""
    return evaluate(settings, measure, "agents.json")


if __name__ == "__main__":
    run_script(Settings, main, threads="fastest")
