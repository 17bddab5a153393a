"""What is simulated: every setting of the environments, checked before any work is done."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from sr_env.degradation import Reduction
from sr_env.models import check_controls
from sr_env.photos import DEFAULT_MEMORY_BUDGET, PhotoSource
from sr_env.utils.checks import MIN_LR_SIZE, SCALES, UsageError, check_choice
from sr_env.utils.devices import Precision

Reference = Literal["bicubic", "predictor", "none"]
#: What the score is compared with, and how that is said.
REFERENCES: Mapping[str, str] = {
    "bicubic": "above the bicubic enlargement's",
    "predictor": "above the pretrained predictor's",
    "none": "by itself",
}
SPLITS: tuple[str, ...] = ("train", "test", "all")
#: Term of the reward that needs the code beside the picture: see :meth:`~sr_env.simulator.Simulator.consistency`.
CONSISTENCY = "consistency"
#: Settings of ``BlindSRReal-v0`` where none are given.
REAL: Mapping[str, Any] = MappingProxyType(
    {"lr_photos": "bundled", "kernels": "real", "reward": {"niqe": 1.0, CONSISTENCY: 0.1}, "reference": "predictor"}
)
#: Longest episode that ``max_steps`` may ask for.
MAX_STEPS = 64
#: Largest weight of a term of the reward: float32 then still resolves the other terms.
MAX_WEIGHT = 1e6


@dataclass(frozen=True)
class SimulatorSettings:
    """Settings of the environments; every one can be given to ``gym.make``.

    Attributes:
        photos: HR images: "bundled" (scikit-image's photographs), a folder (searched recursively), a list of uint8 RGB
            arrays [H, W, 3], or a :class:`~sr_env.photos.PhotoSource`.
        lr_photos: Photographs to be enlarged as they are, in place of ``photos`` and of the same kinds: scenes are
            crops of them at the LR size, nothing is blurred or reduced, and there is no HR. Metrics must then need no
            reference. None makes scenes of ``photos``.
        split: Part of the bundled photos: "train", "test" or "all"; other sources are taken whole.
        scale: Magnification, 2, 3 or 4.
        patch_size: HR patch side in pixels, divisible by ``scale``; that of SR where there is no HR.
        renderer: The frozen renderer, as :func:`~sr_env.models.load_renderer` takes it: a name, the path of a
            checkpoint, or a module that takes LR images [B, 3, h, w] and codes [B, L]; None takes
            ``amnet_l_x{scale}``, or ``amnet_real_x{scale}`` for the kernels "real".
        predictor: Name or path of the kernel predictor; None takes the released one of the renderer's kernels, such as
            ``predictor_x{scale}``. It is only loaded for the reference "predictor".
        reward: Metric names and weights of the score, such as ``{"psnr": 1, "lpips": 20}``; a metric that is better
            when lower counts negatively. Beside the metrics there is "consistency": the PSNR in dB between LR and the
            SR image blurred with the chosen kernel and reduced, which needs no HR and keeps a metric that is easily
            fooled from leaving what was photographed. Where LR is noisy, SR that reproduces it best has the noise in.
        reference: What the score is compared with: "bicubic" enlargement, the renderer with the "predictor"'s code,
            or "none" (the reward is the score itself).
        info_metrics: Metrics, and "consistency", reported in ``info`` beside those of the reward.
        info_images: Whether ``info`` of a step holds the SR image as ``sr``, uint8 [P, P, 3].
        kernels: Kernel family, "isotropic", "anisotropic" or another registered one; the renderer's own.
        widths: Range of kernel widths in HR pixels, under 21; None takes the family's usual one.
        reduction: "bicubic" (antialiased) or "decimate".
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: Precision of the renderer: "fp32", "bf16", or "auto" (bf16 where the device computes in it).
        metric_precision: The same for the networks that learned metrics (lpips, lpips_vgg, dists) look through. bf16
            halves the time of dists on a CPU that computes in it, for errors of 0.0003 in what an action changes dists
            by, where exploration changes it by 0.005.
        memory_budget: Bytes of decoded photos kept in memory.
        max_steps: Steps per episode of the iterative environment, 1 to 64.
        correction: Largest change of a code component by one action of the iterative environment, in action units,
            above 0 and at most 2.
        controls: What an action holds: "code", and after it in this order any of "sharpen" (strength of an unsharp mask
            on SR, -1 to 4) and "blend" (share of the perceptual renderer, -0.25 to 1.25, at the cost of a second
            rendering). Of these 0 in an action leaves the rendering as the reference's is.
        blend_renderer: The renderer at the other end of "blend", as ``renderer``; None takes the one that is released
            with it. It is only loaded for that control.

    Raises:
        UsageError: A value is wrong; the message names it and what is valid.
    """

    photos: str | os.PathLike[str] | PhotoSource | Sequence[np.ndarray] = "bundled"
    lr_photos: str | os.PathLike[str] | PhotoSource | Sequence[np.ndarray] | None = None
    split: Literal["train", "test", "all"] = "train"
    scale: int = 4
    patch_size: int = 192
    renderer: str | os.PathLike[str] | nn.Module | None = None
    predictor: str | os.PathLike[str] | None = None
    reward: Mapping[str, float] = field(default_factory=lambda: {"psnr": 1.0})
    reference: Reference = "bicubic"
    info_metrics: Sequence[str] = ()
    info_images: bool = False
    kernels: str = "isotropic"
    widths: tuple[float, float] | None = None
    reduction: Reduction = "bicubic"
    device: str | torch.device = "auto"
    precision: Precision = "fp32"
    metric_precision: Precision = "fp32"
    memory_budget: int = DEFAULT_MEMORY_BUDGET
    max_steps: int = 4
    correction: float = 0.5
    controls: Sequence[str] = ("code",)
    blend_renderer: str | os.PathLike[str] | nn.Module | None = None

    @classmethod
    def from_kwargs(cls, settings: Mapping[str, Any], others: Sequence[str] = ()) -> SimulatorSettings:
        """Build settings from keywords.

        Args:
            settings: Names and values.
            others: Further keywords that whoever calls takes, for the message.

        Raises:
            TypeError: An unknown name, in Python's own words (libraries retry on them), listing the valid ones.
            UsageError: A value is wrong.
        """
        valid = [f.name for f in fields(cls)]
        for name in settings:
            if name not in valid:
                raise TypeError(f"unexpected keyword argument {name!r}: choose one of {', '.join([*valid, *others])}")
        return cls(**settings)

    def __post_init__(self) -> None:
        for name in ("scale", "patch_size", "memory_budget", "max_steps"):  # NumPy's integers become Python's
            object.__setattr__(self, name, whole(name, getattr(self, name)))
        check_choice("scale", self.scale, SCALES)
        size = self.patch_size
        if size % self.scale or size < self.scale * MIN_LR_SIZE:
            raise UsageError(
                f"patch_size {size} does not fit scale {self.scale}: choose a multiple of {self.scale} "
                f"that is at least {self.scale * MIN_LR_SIZE}"
            )
        for name in ("photos", "lr_photos"):
            value = getattr(self, name)
            if (name == "photos" and value is None) or (isinstance(value, str) and not value.strip()):
                raise UsageError(f"{name} {value!r} names no folder: give 'bundled', or the path of a folder")
        if self.lr_photos is not None:
            if not (isinstance(self.photos, str) and self.photos == "bundled"):
                raise UsageError("photos and lr_photos are both given: give photos with HR, or those without, alone")
            if self.widths is not None:
                raise UsageError(f"widths {self.widths!r} blur nothing in lr_photos, which stay as they are: leave out")
        check_choice("split", self.split, SPLITS)
        check_choice("reference", self.reference, REFERENCES)
        _check_reward(self.reward)
        if isinstance(self.info_metrics, str) or not isinstance(self.info_metrics, Sequence):
            raise UsageError(
                f"info_metrics {self.info_metrics!r} is no list of names: give such as ['lpips'], or [] for none"
            )
        if not isinstance(self.info_images, bool):
            raise UsageError(f"info_images {self.info_images!r} is neither True nor False: give one of them")
        renderer_kinds = (str, os.PathLike, nn.Module)
        for name, kinds in (
            ("renderer", renderer_kinds),
            ("blend_renderer", renderer_kinds),
            ("predictor", (str, os.PathLike)),
        ):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kinds):
                more = ", a torch module" if nn.Module in kinds else ""
                raise UsageError(
                    f"{name} {repr(value)[:80]} cannot be loaded: give a name, the path of a checkpoint{more}"
                )
        object.__setattr__(self, "controls", check_controls(self.controls))
        if isinstance(self.widths, list | np.ndarray):  # JSON has no tuples
            widths = self.widths.ravel().tolist() if isinstance(self.widths, np.ndarray) else self.widths
            object.__setattr__(self, "widths", tuple(widths))
        if not isinstance(self.device, str | torch.device):
            raise UsageError(f"device {self.device!r} is no device: give 'auto', 'cpu', 'cuda' or 'cuda:N'")
        if self.memory_budget < 0:
            raise UsageError(f"memory_budget {self.memory_budget} is negative: give a number of bytes, 0 for none")
        if not 1 <= self.max_steps <= MAX_STEPS:
            raise UsageError(f"max_steps {self.max_steps} is outside 1..{MAX_STEPS}: choose a number of steps in it")
        if not (_is_number(self.correction) and 0 < self.correction <= 2):
            raise UsageError(
                f"correction {self.correction!r} is no number in (0, 2]: it is the largest change of an action"
            )

    @property
    def renderer_or_default(self) -> str | os.PathLike[str] | nn.Module:
        """The renderer, or the released one for these kernels."""
        size = "real" if self.kernels == "real" else "l"
        return f"amnet_{size}_x{self.scale}" if self.renderer is None else self.renderer

    @property
    def reward_sentence(self) -> str:
        """What the reward is, to be printed: "the score psnr + 20 lpips, above the bicubic enlargement's"."""
        return f"the score {reward_title(self.reward)}, {REFERENCES[self.reference]}"


def reward_title(reward: Mapping[str, float]) -> str:
    """``{"psnr": 1, "lpips": 20}`` -> "psnr + 20 lpips"."""
    return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in reward.items())


def whole(name: str, value: Any) -> int:
    """The whole number that ``value`` is.

    Raises:
        UsageError: It is none.
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise UsageError(f"{name} {value!r} is not a whole number: give an integer") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _check_reward(reward: Any) -> None:
    if not isinstance(reward, Mapping) or not reward:
        raise UsageError(f"reward {reward!r} is no mapping of metrics to weights: give such as {{'psnr': 1}}")
    for name, weight in reward.items():
        if not (_is_number(weight) and 0 < weight <= MAX_WEIGHT):
            raise UsageError(
                f"the weight of {name!r} must be a positive number up to {MAX_WEIGHT:g}, not {weight!r}: the direction "
                "of a metric is known, so lpips needs no minus, and leave out what must not count"
            )
    if set(reward) == {CONSISTENCY}:
        raise UsageError(
            f"reward {dict(reward)!r} judges no picture: give a metric beside {CONSISTENCY!r}, such as 'psnr'"
        )
