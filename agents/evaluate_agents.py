"""Compare trained actors with the pretrained one on benchmark sets, and with the best code that a search finds.

    python agents/evaluate_agents.py --bench-dir FOLDER --actors mine=runs/mine/actor_x4.safetensors --out runs/agents

``FOLDER`` holds one folder of HR images per set (``FOLDER/Set5/*.png``). Every image is scored whole at every kernel
width, with one table per renderer, reward and set; the released actors are compared beside those that are given.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from blindsr_agents.evaluation.actor_tables import print_table, write_report
from blindsr_agents.evaluation.actors import (
    Bench,
    Comparisons,
    Search,
    absent_actors,
    fitting_metrics,
    parse_actor,
    plan,
    public_actor,
    released_actors,
)
from blindsr_agents.evaluation.sets import open_sets
from blindsr_agents.evaluation.settings import EvaluationSettings, print_skipped
from rich.console import Console

from sr_env.simulator import SimulatorSettings
from sr_env.utils.checks import UsageError
from sr_env.utils.files import check_writable
from sr_env.utils.script import Weights, parse_weights, run_script


@dataclass
class Settings(EvaluationSettings):
    """Compare trained actors, for every renderer and reward; ``out`` gets agents.json and agents.md.

    Attributes:
        actors: Trained actors beside the released ones, as LABEL=FILE or LABEL=FILE,FILE with a checkpoint per seed.
            With a best constant action among them (``agents/train_baseline.py --method constant``) the others are
            compared with it too.
        rewards: Rewards to compare by, such as ``--rewards lpips=1 psnr=1,lpips=20``; None takes the actors' (and
            ``renderers`` None the actors' renderers), or lpips where there is no actor.
        oracle_evaluations: Renderings per scene of the oracle, which knows HR, and of random search; 0 leaves them out.
        oracle_guards: How much worse than with the pretrained actor a searched code may make other metrics on a scene,
            such as ``--oracle-guards psnr=0.1``, in their own units: the limit of an agent held to the same.
        max_side: Longest side in HR pixels that an image keeps, around its centre; None keeps all.
        controls: What an action holds, for actors that were trained with more than code, and for the oracle: code, and
            after it any of sharpen and blend. Actors of codes alone are compared too.
        blend_renderer: Name or path of the renderer at the other end of "blend"; None takes the released one.
        seed: Of the searches.
    """

    actors: tuple[str, ...] = ()
    rewards: tuple[str, ...] | None = None
    oracle_evaluations: int = 0
    oracle_guards: Weights = field(default_factory=dict)
    max_side: int | None = None
    controls: tuple[str, ...] = ("code",)
    blend_renderer: str | None = None
    seed: int = 0


def measure(settings: Settings, console: Console) -> Comparisons:
    """Compare trained actors on every set, printing the tables of each, and writing the report after each.

    Raises:
        UsageError: A setting is wrong, a file is missing, or checkpoints do not fit each other.
        WeightsUnavailable: The weights of a metric of a reward cannot be had.
    """
    s = settings
    device, _, widths = s.resolve()
    sets, missing = open_sets(s.bench_dir, s.sets, s.scale, s.limit)
    actors = [*released_actors(s.scale), *map(parse_actor, s.actors)]
    rewards = None if s.rewards is None else [parse_weights(text) for text in s.rewards]
    tasks = plan(actors, s.scale, s.renderers, rewards)
    if s.oracle_guards and not s.oracle_evaluations:
        raise UsageError("oracle_guards without oracle_evaluations guard nothing: give both")
    metrics, unavailable = fitting_metrics(s.metrics, tasks, sets, s.max_side, device, tuple(s.oracle_guards))
    shared = SimulatorSettings(
        photos=next(iter(sets.values())),
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
    for name, photos in sets.items():
        for bench in benches:
            results.tables.append(bench.run(name, photos, widths, s.max_side, console))
            print_table(results.tables[-1], console)
            if s.out is not None:
                write_report(s.out, results)
    return results


def main(settings: Settings) -> Comparisons:
    """Compare, print the tables, and write the report."""
    console = Console(width=None if sys.stdout.isatty() else 160)  # a log has no width to fit into
    if settings.out is not None:
        check_writable(settings.out)
    results = measure(settings, console)
    if settings.out is not None:
        console.print(f"report written to {settings.out}")
    return results


if __name__ == "__main__":
    run_script(Settings, main, threads="fastest")
