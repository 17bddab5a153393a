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
from blindsr_agents.evaluation.tables import columns, join_widths, score_table
from blindsr_agents.training.selection import Selection
from blindsr_agents.training.setup import Improvement
from sr_env.degradation import REPORTED_WIDTHS
from sr_env.metrics import Metric
from sr_env.models.predictor import KernelPredictor
from sr_env.simulator import Scenes, Simulator, SimulatorSettings
from sr_env.utils.files import atomic_write
from sr_env.utils.images import to_uint8

#: The rows of the table beside those of every comparison.
TRAINED, CONSTANT = "trained actor", "best constant"


@dataclass(frozen=True)
class Constant:
    """The best constant action of the same action space, for comparison.

    Attributes:
        actor: It.
        renderings: How many it was fitted with.
    """

    actor: KernelPredictor
    renderings: int


def verdict(
    scores: Mapping[str, Scores],
    metrics: Mapping[str, Metric],
    widths: Sequence[float] = (),
    renderings: int | None = None,
) -> str:
    """One sentence: whether the trained actor is better on the test scenes, what is gained, and what is paid.

    Args:
        scores: By method; where the best constant is among them, the trained actor is compared with it too.
        metrics: Those that were measured; changes within two standard errors are left out.
        widths: Kernel widths of the scores, so that those with a measurable loss are named.
        renderings: How many the best constant was fitted with.
    """
    trained, pretrained = scores[TRAINED], scores[PRETRAINED]
    found = f"{_compared(trained, pretrained, 'the pretrained one')} on the test photos ({_gain(trained, pretrained)})"
    if CONSTANT in scores:
        fitted = "" if renderings is None else f", which took {renderings} renderings"
        versus = _compared(trained, scores[CONSTANT], "the best constant action")
        found += f", and {versus} ({_gain(trained, scores[CONSTANT])}){fitted}"
    lost = trained.losses(pretrained)
    if widths and lost:
        found += f"; it LOSES at kernel width {join_widths([widths[place] for place in lost])}"
    changes: dict[str, list[str]] = {"gained": [], "paid": []}
    for name, column in columns([name for name in trained.values if name != "score"], metrics).items():
        if trained.differs(pretrained, name):
            before, after = (float(each.values[name].mean()) for each in (pretrained, trained))
            change = f"{column.title} {column.format(before)} → {column.format(after)} {column.unit}".strip()
            changes["gained" if (after > before) == column.higher_is_better else "paid"].append(change)
    told = "".join(f"; {what}: {', '.join(which)}" for what, which in changes.items() if which)
    return f"The trained actor is {found}{told}."


def _compared(trained: Scores, other: Scores, name: str) -> str:
    return rules.verdict(float(trained.gain(other).mean()), trained.standard_error(other), name)


def _gain(trained: Scores, other: Scores) -> str:
    gain, error = float(trained.gain(other).mean()), trained.standard_error(other)
    return f"{gain:+.4f} reward, standard error {error:.4f}"


@dataclass(frozen=True)
class Test:
    """What was measured on the test photos.

    Attributes:
        scenes: Their crops.
        shown: Methods worth a picture.
        scores: Those of every method.
        result: The trained actor's gain in reward over the pretrained one, and its standard error; the same over the
            best constant where there is one.
    """

    scenes: FixedScenes
    shown: Mapping[str, Method]
    scores: Mapping[str, Scores]
    result: dict[str, float]


def measure_test(
    improvement: Improvement,
    actor: KernelPredictor,
    crops: int,
    widths: Sequence[float] | None,
    console: Console,
    constant: Constant | None = None,
) -> Test:
    """Measure an actor on photographs which nothing is trained on or chosen by, and print the table.

    They are the bundled test photos, or of the user's ``lr_photos`` those that were left for it (of very few the parts
    that actors were selected by: the title then says so). Without HR there is no row of the true kernel.

    Args:
        improvement: The run.
        actor: What came of it.
        crops: Crops of the test photos.
        widths: Kernel widths; None takes those that are reported for the scale. Without HR there are none.
        console: Where the table goes.
        constant: The best constant action; None leaves it out.
    """
    simulator = Simulator(SimulatorSettings(**improvement.settings.reporting(improvement.reported)))
    scenes = FixedScenes(
        simulator, crops, () if simulator.without_hr else widths or REPORTED_WIDTHS[simulator.scale], 2
    )
    methods = {
        BICUBIC: simulator.bicubic,
        PRETRAINED: scenes.acting(improvement.pretrained.network),
        **({} if constant is None else {CONSTANT: scenes.acting(constant.actor)}),
        TRAINED: scenes.acting(actor),
        **({} if simulator.without_hr else {TRUE_KERNEL: true_kernel(simulator)}),
    }
    scores = scenes.score_all(methods)
    title = f"{crops} crops of {improvement.reported_title}"
    if scenes.widths:
        title += f", each at {len(scenes.widths)} kernel widths"
    console.print(score_table(scores, PRETRAINED, scenes.widths, simulator.metrics, title))
    renderings = None if constant is None else constant.renderings
    console.print(verdict(scores, simulator.metrics, scenes.widths, renderings), soft_wrap=True)
    result = {}
    for suffix, other in (("", PRETRAINED), ("_over_constant", CONSTANT)):
        if other in scores:
            result[f"gain{suffix}"] = float(scores[TRAINED].gain(scores[other]).mean())
            result[f"standard_error{suffix}"] = scores[TRAINED].standard_error(scores[other])
    shown = {name: methods[name] for name in (BICUBIC, PRETRAINED, TRAINED)}
    return Test(scenes, shown, scores, result)


def draw_curves(path: Path, selection: Selection, training: Sequence[tuple[int, float, float]]) -> None:
    """Write the curves as PNG.

    Args:
        path: File to write.
        selection: Its history holds the gain over the pretrained actor per validation and condition.
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


def draw_before_after(path: Path, test: Test, count: int = 3) -> None:
    """Write a PNG with the crops on which the trained actor gained most in reward, one row each, the most first.

    Args:
        path: File to write.
        test: What was measured.
        count: Rows.
    """
    scenes = test.scenes
    gains = test.scores[TRAINED].values["score"] - test.scores[PRETRAINED].values["score"]
    best = scenes.take(*np.unravel_index(np.argsort(-gains, axis=None)[:count], gains.shape))
    with atomic_write(path) as temporary:
        before_after(best, scenes.simulator.photos.names, test.shown, count).savefig(temporary, dpi=110)


def before_after(batch: Scenes, names: Sequence[str], methods: Mapping[str, Method], count: int) -> Figure:
    """The first scenes of a batch, one row each: what every method makes of them, and HR where there is one."""
    rows, places = min(count, len(batch.lr)), len(methods) + (batch.truth is not None)
    figure = Figure(figsize=(2.6 * places, 2.95 * rows), layout="constrained")
    axes = figure.subplots(rows, places, squeeze=False)
    for column, (name, method) in enumerate(methods.items()):
        result = method(batch)
        for row, image in enumerate(to_uint8(result.sr[:rows])):
            told = ", ".join(f"{metric} {float(value[row]):.4g}" for metric, value in result.terms.items())
            whose = "" if batch.truth is not None or column else f"{names[int(batch.photo[row])]}, "
            axes[row, column].imshow(image)
            axes[row, column].set_title(f"{whose}{name}\n{told}", fontsize=8)
    for row, image in enumerate([] if batch.truth is None else to_uint8(batch.hr[:rows])):
        name, width = names[int(batch.photo[row])], float(batch.kernels.widths[row, 0])
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
