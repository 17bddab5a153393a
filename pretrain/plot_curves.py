"""Draw the curves of training runs into one PNG, one panel per curve, the runs side by side.

python pretrain/plot_curves.py --runs runs/amgan runs/amgan_star --out docs/amgan_curves.png
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sr_env.utils.files import atomic_write, check_writable
from sr_env.utils.script import run_script

#: name of a curve -> steps, values
Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass
class Settings:
    """Draw the curves of training runs.

    Attributes:
        runs: Folders of runs (``--out`` of a training script).
        out: PNG file to write.
        curves: Names of the curves, in TensorBoard's spelling; None takes all that the runs share or have alone.
        smoothing: Points over which training curves are averaged.
    """

    runs: tuple[Path, ...]
    out: Path = Path("runs/curves.png")
    curves: tuple[str, ...] | None = None
    smoothing: int = 10

    def __post_init__(self) -> None:
        if self.smoothing < 1:
            raise ValueError(f"smoothing is {self.smoothing}: give at least 1")


def read_curves(run: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Steps and values of every curve of a run.

    Raises:
        FileNotFoundError: The folder holds no curves.
    """
    events = EventAccumulator(str(run / "tb"), size_guidance={"scalars": 0})
    if not any((run / "tb").glob("events*")):
        raise FileNotFoundError(f"no curves in {run}: give the --out folder of a training run")
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


def main(settings: Settings) -> None:
    """Read, draw, and say where."""
    check_writable(settings.out.parent)
    runs = {run.name: read_curves(run) for run in settings.runs}
    known = list(dict.fromkeys(name for curves in runs.values() for name in curves))
    names = list(settings.curves or known)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no curve {unknown[0]!r} in these runs: choose from {', '.join(known)}")
    draw(settings.out, runs, names, settings.smoothing)
    print(f"{len(names)} curves of {len(runs)} runs drawn into {settings.out}")


if __name__ == "__main__":
    run_script(Settings, main)
