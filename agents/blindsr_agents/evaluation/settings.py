"""What every evaluation is told: the scale, the networks, the machine, and benchmark sets or held-out pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from blindsr_agents.evaluation.conditions import blur_conditions
from sr_env.degradation import REPORTED_WIDTHS, Degradation
from sr_env.utils.devices import Precision, resolve_device, uses_bf16
from sr_env.utils.provenance import command_line, commit, hardware, public_path


@dataclass(kw_only=True)
class RenderingSettings:
    """What is rendered, and how its LR images are made.

    Attributes:
        scale: Magnification, 2, 3 or 4.
        renderers: Names or paths of renderers; None takes the released ones of this scale.
        predictor: Name or path of the kernel predictor; None takes ``predictor_x{scale}``.
        widths: Kernel widths in HR pixels; None takes 0.2, 1.3 and 2.6 at x4, as much blur in LR pixels at x2 and x3.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: Precision of the networks: "fp32", "bf16", or "auto" (bf16 where the device computes in it).
    """

    scale: int = 4
    renderers: tuple[str, ...] | None = None
    predictor: str | None = None
    widths: tuple[float, ...] | None = None
    device: str = "auto"
    precision: Precision = "fp32"

    def resolve(self) -> tuple[torch.device, Degradation, Sequence[float]]:
        """Device, degradation and widths.

        Raises:
            UsageError: One of them, or the precision, is wrong.
        """
        device = resolve_device(self.device)
        uses_bf16(self.precision, device)
        degradation = Degradation(self.scale)
        widths = REPORTED_WIDTHS[self.scale] if self.widths is None else self.widths
        blur_conditions(degradation, widths)
        return device, degradation, widths

    def about(self, device: torch.device, widths: Sequence[float]) -> dict[str, Any]:
        """What figures are measured with, without what describes a machine's folders."""
        return {
            "command": command_line(),
            "commit": commit(),
            "hardware": hardware(device),
            "device": str(device),
            "threads": torch.get_num_threads(),
            "precision": "bf16" if uses_bf16(self.precision, device) else "fp32",
            "torch": torch.__version__,
            "scale": self.scale,
            "widths": list(widths),
            "settings": {key: _public(value) for key, value in asdict(self).items()},
        }


@dataclass(kw_only=True)
class HeldOutSettings(RenderingSettings):
    """Settings shared by what looks at renderers on held-out pictures.

    Attributes:
        data: Folder of HR photos, searched recursively; "bundled" takes scikit-image's held-out photographs.
        held_out: Photos of the folder that pretraining holds out, which alone are taken; 0 takes all of a folder that
            nothing was trained on.
    """

    data: str = "bundled"
    held_out: int = 16


@dataclass
class EvaluationSettings(RenderingSettings):
    """Settings shared by everything that is measured on benchmark sets.

    Attributes:
        bench_dir: Folder with one folder of HR images per set.
        out: Folder for the report, written anew after every set; None writes none.
        sets: Sets to measure; one that is missing is named and skipped.
        limit: Images per set, for a quick look; None takes all.
        metrics: Metrics to measure; one whose weights cannot be had is named and skipped.
    """

    bench_dir: Path
    out: Path | None = None
    sets: tuple[str, ...] = ("Set5", "Set14", "BSD100")
    limit: int | None = None
    metrics: tuple[str, ...] = ("psnr", "ssim", "lpips", "dists", "niqe")


def print_skipped(reasons: Sequence[str], console: Console) -> None:
    """Print a line for everything that is not at hand."""
    for line in reasons:
        console.print(f"skipped: {line}", soft_wrap=True, markup=False)


def _public(value: object) -> object:
    if isinstance(value, tuple):
        return [_public(each) for each in value]
    return public_path(value) if isinstance(value, str | Path) else value
