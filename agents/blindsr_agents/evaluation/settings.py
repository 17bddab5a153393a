"""What every evaluation is told: the scale, the networks, the machine, and benchmark sets or held-out pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console

from blindsr_agents.evaluation.conditions import blur_conditions
from blindsr_agents.evaluation.sets import WITHOUT_HR
from sr_env.degradation import REPORTED_WIDTHS, Degradation
from sr_env.photos import PhotoSource, fingerprint
from sr_env.utils.checks import UsageError
from sr_env.utils.devices import Precision, resolve_device, uses_bf16
from sr_env.utils.finished import Finished, open_run
from sr_env.utils.provenance import command_line, commit, hardware, public_path
from sr_env.utils.resume import kept_settings
from sr_env.utils.script import Weights

#: Settings that a resumed evaluation may change: where files lie. What they hold must be the same.
_CHANGEABLE = frozenset({"out", "resume", "bench_dir", "lr_photos", "peers_dir", "dan", "usrgan"})


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
        bench_dir: Folder with one folder of HR images per set; needed unless a script measures something else too.
        out: Folder for the report, written anew after every set, and for the state to resume from; None writes none.
        resume: Go on from the state in ``out``: what is finished there is not measured again.
        sets: Sets to measure; one that is missing is named and skipped.
        limit: Images per set, for a quick look; None takes all.
        metrics: Metrics to measure; one whose weights cannot be had is named and skipped. None takes psnr, ssim, lpips,
            dists and niqe, or without HR niqe, brisque and consistency.
    """

    bench_dir: Path | None = None
    out: Path | None = None
    resume: bool = False
    sets: tuple[str, ...] = ("Set5", "Set14", "BSD100")
    limit: int | None = None
    metrics: tuple[str, ...] | None = None

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics, or those that are usual."""
        return ("psnr", "ssim", "lpips", "dists", "niqe") if self.metrics is None else self.metrics

    def finished(
        self, about: dict[str, Any], sets: Mapping[str, PhotoSource], metrics: Iterable[str], **inputs: Any
    ) -> Finished:
        """What is finished of this evaluation.

        Args:
            about: What :meth:`about` gives; with what else a part was measured is added to it as ``earlier``.
            sets: The sets that are there.
            metrics: Names of those that are measured.
            **inputs: By the name of a setting, what tells what it leads to from other such things.

        Raises:
            UsageError: It is to be resumed, and the state is damaged or of other settings.
        """
        kept = kept_settings(
            self,
            _CHANGEABLE,
            **{name: about[name] for name in ("device", "precision", "widths")},
            sets=[f"{name}: {fingerprint(photos)}" for name, photos in sets.items()],
            metrics=list(metrics),
            **inputs,
        )
        finished = Finished(self.out, kept, self.resume, about)
        if finished.earlier:
            about["earlier"] = finished.earlier
        return finished


@dataclass
class ComparisonSettings(EvaluationSettings):
    """Compare trained actors, for every renderer and reward; ``out`` gets agents.json and agents.md.

    Attributes:
        lr_photos: Folder of photographs to compare on as they are, in place of the sets: nothing is blurred, and niqe,
            brisque and consistency are measured.
        kernels: Kernel family, the renderer's own; None takes "isotropic", or "real" with ``lr_photos``.
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

    lr_photos: Path | None = None
    kernels: str | None = None
    actors: tuple[str, ...] = ()
    rewards: tuple[str, ...] | None = None
    oracle_evaluations: int = 0
    oracle_guards: Weights = field(default_factory=dict)
    max_side: int | None = None
    controls: tuple[str, ...] = ("code",)
    blend_renderer: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.lr_photos is None:
            return
        for name in ("bench_dir", "widths", "oracle_evaluations"):
            if given := getattr(self, name):
                raise UsageError(f"{name} {given} needs HR or its kernel, which lr_photos lack: leave one out")

    @property
    def family(self) -> str:
        """The kernel family."""
        return self.kernels or ("isotropic" if self.lr_photos is None else "real")

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics, or those that are usual."""
        return WITHOUT_HR if self.metrics is None and self.lr_photos is not None else super().measured


Settings = TypeVar("Settings", bound=EvaluationSettings)
Measured = TypeVar("Measured")


def print_skipped(reasons: Sequence[str], console: Console) -> None:
    """Print a line for everything that is not at hand."""
    for line in reasons:
        console.print(f"skipped: {line}", soft_wrap=True, markup=False)


def evaluate(settings: Settings, measure: Callable[[Settings, Console], Measured], report: str) -> Measured:
    """Measure, print, and say where the report is; a folder that does not suit is refused before.

    Args:
        settings: What is measured.
        measure: Measures and prints, and writes the report.
        report: Name of a file of the report.

    Raises:
        FileInTheWayError: The folder holds another evaluation.
        UsageError: There is nothing to resume.
    """
    console = Console(width=None if sys.stdout.isatty() else 160)  # a log has no width to fit into
    open_run(settings.out, (report,), settings.resume)
    results = measure(settings, console)
    if settings.out is not None:
        console.print(f"report written to {settings.out}")
    return results


def _public(value: object) -> object:
    if isinstance(value, tuple):
        return [_public(each) for each in value]
    return public_path(value) if isinstance(value, str | Path) else value
