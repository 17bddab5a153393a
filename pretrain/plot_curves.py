"""Draw the curves of training runs into one PNG, one panel per curve, the runs side by side.

python pretrain/plot_curves.py --runs runs/amgan runs/amgan_star --out docs/amgan_curves.png
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from blindsr_pretrain.curves import draw, read_curves

from sr_env.utils.checks import UsageError
from sr_env.utils.files import check_writable
from sr_env.utils.script import run_script


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
            raise UsageError(f"smoothing is {self.smoothing}: give at least 1")


def main(settings: Settings) -> None:
    """Read, draw, and say where."""
    check_writable(settings.out.parent)
    runs = {run.name: read_curves(run) for run in settings.runs}
    known = list(dict.fromkeys(name for curves in runs.values() for name in curves))
    names = list(settings.curves or known)
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"no curve {unknown[0]!r} in these runs: choose from {', '.join(known)}")
    draw(settings.out, runs, names, settings.smoothing)
    print(f"{len(names)} curves of {len(runs)} runs drawn into {settings.out}")


if __name__ == "__main__":
    run_script(Settings, main)
