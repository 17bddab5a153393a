"""Curves of training runs, read from TensorBoard's files and drawn side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sr_env.utils.checks import MissingFileError
from sr_env.utils.files import atomic_write

#: name of a curve -> steps, values
Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]


def read_curves(run: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Steps and values of every curve of a run.

    Raises:
        MissingFileError: The folder holds no curves.
    """
    events = EventAccumulator(str(run / "tb"), size_guidance={"scalars": 0})
    if not any((run / "tb").glob("events*")):
        raise MissingFileError(f"no curves in {run}: give the --out folder of a training run")
    events.Reload()
    read = {}
    for name in events.Tags()["scalars"]:
        points = events.Scalars(name)
        read[name] = np.array([point.step for point in points]), np.array([point.value for point in points])
    return read


def smoothed(values: np.ndarray, count: int) -> np.ndarray:
    """Mean of the last ``count`` values up to each, of those that there are [N] -> [N]."""
    sums = np.cumsum(np.concatenate(([0.0], values)))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - count)
    return (sums[ends] - sums[starts]) / (ends - starts)


def draw(path: Path, runs: Mapping[str, Curves], names: Sequence[str], smoothing: int) -> None:
    """Write the PNG."""
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        for number, (run, curves) in enumerate(runs.items()):
            if name in curves:
                steps, values = curves[name]
                values = smoothed(values, smoothing) if name.startswith("train/") else values
                axis.plot(steps, values, f"C{number}", marker="." if len(steps) < 20 else None, label=run)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    axes.flat[0].legend(fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=100)
