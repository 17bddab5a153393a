"""What a training run shows at its end: the table, the curves, the pictures before and after."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from blindsr_agents.evaluation import scores as rules
from blindsr_agents.evaluation.scene_sets import (
    BICUBIC,
    PRETRAINED,
    TRUE_KERNEL,
    FixedScenes,
    Method,
    true_kernel,
)
from blindsr_agents.evaluation.scores import Scores
from blindsr_agents.evaluation.tables import columns, score_table
from blindsr_agents.training.selection import Selection
from blindsr_agents.training.setup import Improvement
from sr_env.degradation import REPORTED_WIDTHS
from sr_env.metrics import Metric
from sr_env.models.predictor import KernelPredictor
from sr_env.simulator import Scenes, Simulator, SimulatorSettings
from sr_env.utils.files import atomic_write
from sr_env.utils.images import to_uint8

#: The row of the table beside those of every comparison.
TRAINED = "trained actor"


def verdict(scores: Mapping[str, Scores], metrics: Mapping[str, Metric]) -> str:
    """One sentence: whether the trained actor is better on the test scenes, what is gained, and what is paid.

    Args:
        scores: By method.
        metrics: Those that were measured; changes within two standard errors are left out.
    """
    trained, pretrained = scores[TRAINED], scores[PRETRAINED]
    gain, error = float(trained.gain(pretrained).mean()), trained.standard_error(pretrained)
    found = rules.verdict(gain, error, "the pretrained one")
    changes: dict[str, list[str]] = {"gained": [], "paid": []}
    for name, column in columns([name for name in trained.values if name != "score"], metrics).items():
        if trained.differs(pretrained, name):
            before, after = (float(each.values[name].mean()) for each in (pretrained, trained))
            change = f"{column.title} {column.format(before)} → {column.format(after)} {column.unit}".strip()
            changes["gained" if (after > before) == column.higher_is_better else "paid"].append(change)
    told = "".join(f"; {what}: {', '.join(which)}" for what, which in changes.items() if which)
    return f"The trained actor is {found} on the test photos ({gain:+.4f} reward, standard error {error:.4f}){told}."


@dataclass(frozen=True)
class Test:
    """What was measured on the test photos.

    Attributes:
        scenes: Their crops.
        shown: Methods worth a picture.
        result: The trained actor's gain in reward over the pretrained one, and its standard error.
    """

    scenes: FixedScenes
    shown: Mapping[str, Method]
    result: dict[str, float]


def measure_test(
    improvement: Improvement,
    actor: KernelPredictor,
    crops: int,
    widths: Sequence[float] | None,
    console: Console,
) -> Test:
    """Measure an actor on the bundled test photos, which nothing is trained on or chosen by, and print the table.

    Args:
        improvement: The run.
        actor: What came of it.
        crops: Crops of the test photos.
        widths: Kernel widths; None takes those that are reported for the scale.
        console: Where the table goes.
    """
    simulator = Simulator(SimulatorSettings(photos="bundled", split="test", **improvement.settings.reporting()))
    scenes = FixedScenes(simulator, crops, widths or REPORTED_WIDTHS[simulator.scale], 2)
    methods = {
        BICUBIC: simulator.bicubic,
        PRETRAINED: scenes.acting(improvement.pretrained.network),
        TRAINED: scenes.acting(actor),
        TRUE_KERNEL: true_kernel(simulator),
    }
    scores = scenes.score_all(methods)
    title = f"{crops} crops of {', '.join(simulator.photos.names)}, each at {len(scenes.widths)} kernel widths"
    console.print(score_table(scores, PRETRAINED, scenes.widths, simulator.metrics, title))
    console.print(verdict(scores, simulator.metrics), soft_wrap=True)
    result = {
        "gain": float(scores[TRAINED].gain(scores[PRETRAINED]).mean()),
        "standard_error": scores[TRAINED].standard_error(scores[PRETRAINED]),
    }
    return Test(scenes, {name: methods[name] for name in (BICUBIC, PRETRAINED, TRAINED)}, result)


def draw_curves(path: Path, selection: Selection, training: Sequence[tuple[int, float, float]]) -> None:
    """Write the curves as PNG.

    Args:
        path: File to write.
        selection: Its history holds the gain over the pretrained actor per validation and width.
        training: Per validation, the step, the mean training reward (noise included), and the critics' correlation
            with rewards not yet trained on.
    """
    history, widths = selection.history, selection.scenes.widths
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [step for step, _ in history]
    gains = np.array([gain for _, gain in history])
    for index, width in enumerate(widths):
        left.plot(steps, gains[:, index], lw=1, label=f"width {width:g}")
    left.plot(steps, gains.mean(1), "k", lw=2, label="mean")
    left.axhline(0, color="gray", lw=0.8)
    left.axvline(selection.best_step, color="gray", ls=":", label="kept")
    left.set(title="Held-out scenes", xlabel="environment steps", ylabel="reward above the pretrained actor")
    left.legend()
    if training:
        where, reward, correlation = np.array(training).T
        right.plot(where, reward, label="training reward, with noise")
        right.set(title="Training", xlabel="environment steps", ylabel="reward")
        other = right.twinx()
        other.plot(where, correlation, "C1", label="critics' correlation with new rewards")
        other.set_ylim(-0.1, 1)
        other.set_ylabel("correlation")
        right.legend(handles=[*right.lines, *other.lines], loc="lower right")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)


def draw_before_after(path: Path, scenes: FixedScenes, methods: Mapping[str, Method], count: int = 3) -> None:
    """Write a PNG with the first crop of the first photos, one row each, at the middle width.

    Args:
        path: File to write.
        scenes: The test scenes.
        methods: Columns, beside HR.
        count: Rows.
    """
    width = scenes.widths[len(scenes.widths) // 2]
    names = scenes.simulator.photos.names
    with atomic_write(path) as temporary:
        before_after(scenes.batches[width][0], width, names, methods, count).savefig(temporary, dpi=110)


def before_after(
    batch: Scenes, width: float, names: Sequence[str], methods: Mapping[str, Method], count: int
) -> Figure:
    """The first scenes of a batch, one row each: what every method makes of them, and HR."""
    rows = min(count, len(batch.hr))
    figure = Figure(figsize=(2.6 * (len(methods) + 1), 2.95 * rows), layout="constrained")
    axes = figure.subplots(rows, len(methods) + 1, squeeze=False)
    for column, (name, method) in enumerate(methods.items()):
        result = method(batch)
        for row, image in enumerate(to_uint8(result.sr[:rows])):
            told = ", ".join(f"{metric} {float(value[row]):.4g}" for metric, value in result.terms.items())
            axes[row, column].imshow(image)
            axes[row, column].set_title(f"{name}\n{told}", fontsize=8)
    for row, image in enumerate(to_uint8(batch.hr[:rows])):
        name = names[int(batch.photo[row])]
        axes[row, -1].imshow(image)
        axes[row, -1].set_title(f"HR\n{name}, kernel width {width:g}", fontsize=8)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure


def peak_memory() -> float:
    """Largest resident size of this process in bytes; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
