"""What every training script can be told: the only home of these defaults and of their meaning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from sr_env.utils.checks import UsageError
from sr_env.utils.devices import Precision


def check_range(name: str, value: object, right: bool) -> None:
    """Refuse a setting that is out of range.

    Raises:
        UsageError: ``right`` is False; names the setting and its value.
    """
    if not right:
        raise UsageError(f"{name} is {value}, which is out of range: see --help for its meaning")


@dataclass(kw_only=True)
class DataSettings:
    """The photos, and which of them are held out.

    Attributes:
        data: Folder of HR photos, searched recursively; "bundled" takes scikit-image's photographs.
        patch_size: HR patch side in pixels; smaller photos are left out.
        validation_photos: Photos of the folder held out for validation (the bundled source has its own).
        softness: Half of the patches are softened first, by a Gaussian of a width uniform up to this, and the held-out
            photos are there a second time, softened by half of it; in HR pixels at x4, and in proportion at other
            scales, since in LR it adds to the kernel's own blur, from which more could not be told. Photographs differ
            in their own sharpness: a network that has only seen sharp ones sharpens soft scenes too much.
    """

    data: str = "bundled"
    patch_size: int = 128
    validation_photos: int = 16
    softness: float = 0.0

    def __post_init__(self) -> None:
        for name in ("patch_size", "validation_photos"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: give at least 1")
        check_range("softness", self.softness, 0 <= self.softness < math.inf)

    def softness_at(self, scale: int) -> float:
        """Widest softening in HR pixels of a scale."""
        return self.softness * scale / 4


@dataclass(kw_only=True)
class TrainingSettings(DataSettings):
    """Settings shared by every training script.

    Attributes:
        out: Folder for the state to resume from, the exported weights and the TensorBoard curves.
        kernels: Kernel family that patches are blurred with.
        steps: Optimiser steps in all; with ``minutes`` at most.
        minutes: Minutes of training in all, validation included and earlier sittings too; the learning rate then
            follows the clock, so that any budget ends at a low rate. None leaves the schedule to the steps.
        batch_size: Patches per step and process.
        reduced: Share of patches taken from photographs that are reduced by 2 to 3 first, which makes them sharper than
            any original; photos too small for a patch after that have no part in it.
        drawings: Share of patches taken from text, line art, screenshots and drawings made by a program; some are held
            out and measured apart.
        unblurred: Share of patches that are reduced without any blur, beside those whose kernel is drawn narrow.
        workers: Threads that cut patches ahead.
        learning_rate: Peak learning rate of AdamW; a cosine takes it to ``final_lr_ratio`` of that.
        warmup_steps: Steps over which the learning rate rises linearly.
        final_lr_ratio: Last learning rate as a share of the peak.
        ema: Decay of the exponential moving average of the weights, which is what is validated and exported.
        clip: Gradient norm above which gradients are scaled down.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto" (bf16 where the device computes in it), "fp32" or "bf16".
        compile: Use torch.compile (needs a C++ compiler on a CPU; where it fails training runs uncompiled).
        seed: Seed of initial weights and data order.
        resume: Continue from the state in ``out``, which may have been copied there from another machine.
        checkpoint_minutes: Minutes between writings of the state.
        log_every: Steps between points of the curves.
        validate_every: Steps between validations.
    """

    out: Path = Path("runs/train")
    kernels: str = "isotropic"
    steps: int = 40_000
    minutes: float | None = None
    batch_size: int = 16
    reduced: float = 0.0
    drawings: float = 0.0
    unblurred: float = 0.0
    workers: int = 2
    learning_rate: float = 5e-4
    warmup_steps: int = 200
    final_lr_ratio: float = 1e-2
    ema: float = 0.999
    clip: float = 1.0
    device: str = "auto"
    precision: Precision = "auto"
    compile: bool = True
    seed: int = 0
    resume: bool = False
    checkpoint_minutes: float = 2.0
    log_every: int = 50
    validate_every: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "batch_size", "workers", "log_every", "validate_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: give at least 1")
        for name, right in (
            ("learning_rate", 0 < self.learning_rate < math.inf),
            ("warmup_steps", self.warmup_steps >= 0),
            ("final_lr_ratio", 0 <= self.final_lr_ratio <= 1),
            ("reduced", 0 <= self.reduced <= 1),
            ("drawings", 0 <= self.drawings <= 1),
            ("unblurred", 0 <= self.unblurred <= 1),
            ("ema", 0 <= self.ema < 1),
            ("clip", self.clip > 0),
            ("checkpoint_minutes", self.checkpoint_minutes >= 0),
            ("minutes", self.minutes is None or 0 < self.minutes < math.inf),
        ):
            check_range(name, getattr(self, name), right)
        if self.reduced + self.drawings > 1:
            raise UsageError(
                f"reduced is {self.reduced} and drawings is {self.drawings}: shares of one batch sum to at most 1"
            )


@dataclass(kw_only=True)
class MiddleSettings(TrainingSettings):
    """Settings of the trainings in which a patch is looked at as a whole and only its middle is rendered.

    Attributes:
        render_size: Side in HR pixels of the middle of a patch that is rendered and judged, a multiple of the scale;
            None renders all of it. The predictor always sees the whole patch: a few LR pixels tell little of the blur.
    """

    render_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.render_size is not None and not 1 <= self.render_size <= self.patch_size:
            raise UsageError(
                f"render_size is {self.render_size}: give at least 1 and at most the patch_size of {self.patch_size}"
            )
