"""What a training run ends with: the table, the curves, and the pictures before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from agents.scenes import FixedScenes, Method, Scores
from sr_env._files import atomic_write
from sr_env.images import to_uint8
from sr_env.simulator import Simulator

#: Rows of the table.
BICUBIC, PRETRAINED, TRAINED, TRUE_KERNEL = "bicubic", "pretrained actor", "trained actor", "true kernel"


def true_kernel(simulator: Simulator) -> Method:
    """The renderer, told the true kernel's code."""
    return lambda scenes: simulator.score(scenes, simulator.render(scenes.lr, scenes.code), scenes.code)


def make_table(
    scores: Mapping[str, Scores], widths: Sequence[float], lower_is_better: Sequence[str], title: str
) -> Table:
    """The mean over the widths, then each width: methods by reward (score above the pretrained actor's) and metrics."""
    metrics = [name for name in next(iter(scores.values())).values if name != "score"]
    table = Table("kernel width", "", title=title, title_justify="left")
    for name in ("reward", *metrics):
        better = "lower" if name in lower_is_better else "higher"
        table.add_column(f"{name}\n({better} is better)", justify="right")
    for index in (None, *range(len(widths))):
        for number, (method, values) in enumerate(scores.items()):
            cells = []
            for name in ("reward", *metrics):
                each = values.gain(scores[PRETRAINED]) if name == "reward" else values.per_width(name)
                value = each.mean() if index is None else each[index]
                cells.append(
                    f"{value:+.3f}" if name == "reward" else f"{value:.{2 if name.startswith('psnr') else 4}f}"
                )
            where = "mean" if index is None else f"{widths[index]:g}"
            table.add_row(where if number == 0 else "", method, *cells)
        table.add_section()
    return table


def verdict(scores: Mapping[str, Scores]) -> str:
    """One sentence: whether the trained actor is better on the test scenes, and how sure that is."""
    trained, pretrained = scores[TRAINED], scores[PRETRAINED]
    gain, error = float(trained.gain(pretrained).mean()), trained.standard_error(pretrained)
    number = f"{gain:+.4f} reward, standard error {error:.4f}"
    if gain > 2 * error:
        return f"The trained actor is better than the pretrained one on the test photos ({number})."
    if gain < -2 * error:
        return f"The trained actor is WORSE than the pretrained one on the test photos ({number})."
    return f"The trained actor is not measurably better than the pretrained one on the test photos ({number})."


def draw_curves(
    path: Path,
    history: Sequence[tuple[int, Sequence[float]]],
    widths: Sequence[float],
    training: Sequence[tuple[int, float, float]],
    best_step: int,
) -> None:
    """Write the curves as PNG.

    Args:
        path: File to write.
        history: Per validation, the step and the gain over the pretrained actor per width.
        widths: The widths.
        training: Per logged step, the step, the mean training reward (noise included), and the critics' correlation
            with rewards not yet trained on.
        best_step: Step of the actor that was kept; 0 for the pretrained one.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [step for step, _ in history]
    gains = np.array([gain for _, gain in history])
    for index, width in enumerate(widths):
        left.plot(steps, gains[:, index], lw=1, label=f"width {width:g}")
    left.plot(steps, gains.mean(1), "k", lw=2, label="mean")
    left.axhline(0, color="gray", lw=0.8)
    left.axvline(best_step, color="gray", ls=":", label="kept")
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
    batch = scenes.batches[width][0]
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
        name = scenes.simulator.photos.names[int(batch.photo[row])]
        axes[row, -1].imshow(image)
        axes[row, -1].set_title(f"HR\n{name}, kernel width {width:g}", fontsize=8)
    for axis in axes.flat:
        axis.set_axis_off()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
