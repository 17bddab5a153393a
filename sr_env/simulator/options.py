"""What ``reset(options=...)`` fixes of the scenes, checked and brought to one row per scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sr_env.degradation import KERNEL_SIZE, Degradation, Kernels
from sr_env.degradation.families import KernelFamily
from sr_env.photos import PhotoSource
from sr_env.simulator.scenes import updated_kernels
from sr_env.simulator.settings import whole
from sr_env.utils.checks import UsageError, check_choice

_KERNEL = "a kernel [k, k] of finite numbers"
#: Options of what happens to a picture beside blur -> attributes of :class:`~sr_env.degradation.Corruption`.
CORRUPTIONS: Mapping[str, str] = {"noise": "noise", "jpeg_quality": "quality", "sharpening": "sharpening"}
_CORRUPTION_LIMITS: Mapping[str, tuple[float, float, str]] = {
    "noise": (0, 255, "a standard deviation of 0 to 255 grey levels"),
    "jpeg_quality": (1, 100, "a quality of 1 to 100, or 0 for no compression"),
    "sharpening": (0, 10, "a strength of 0 to 10"),
}
_OF_KERNELS = ("kernel_width", "kernel_angle", "kernel", *CORRUPTIONS)
OPTIONS = ("photo", "crop", *_OF_KERNELS)


@dataclass(frozen=True)
class SceneOptions:
    """What is fixed of B scenes; the rest is drawn.

    Attributes:
        photo: Index of each photo, int64 [B]; -1 where it is drawn.
        corner: Top and left of each crop in the photo's pixels, int64 [B, 2]; -1 where it is drawn.
        widths: Kernel widths in HR pixels, float64 [B, 2]; NaN where they are drawn.
        angle: Angles in radians, float64 [B]; NaN where they are drawn.
        kernel: Whole kernels, float64 [B, k, k], NaN where they are drawn; None where all are.
        corruption: What of ``CORRUPTIONS`` is given -> its values, float64 [B], NaN where they are drawn.
    """

    photo: np.ndarray
    corner: np.ndarray
    widths: np.ndarray
    angle: np.ndarray
    kernel: np.ndarray | None
    corruption: Mapping[str, np.ndarray]

    @classmethod
    def parse(
        cls, options: Any, count: int, photos: PhotoSource, family: KernelFamily, blurred: bool = True
    ) -> SceneOptions:
        """Check a user's options.

        Args:
            options: None, or names with a single value for all scenes or a sequence of one each, among which None
                leaves that scene's to chance: ``photo`` (index or name), ``crop`` ((top, left) in the photo's pixels),
                ``kernel_width`` (HR pixels; a number, or two), ``kernel_angle`` (radians), ``kernel`` (an array [k, k]
                in place of the two), ``noise`` (standard deviation in grey levels), ``jpeg_quality`` (1 to 100, 0 for
                none), ``sharpening`` (strength).
            count: Number B of scenes.
            photos: The photos.
            family: Of the kernels. Where both widths count, two numbers are those of one kernel, otherwise of two.
            blurred: Whether the photos are blurred at all; options of kernels are refused where they are not.

        Raises:
            UsageError: An option is unknown, does not fit, or would not count in this family.
        """
        if options is not None and not isinstance(options, Mapping):
            raise UsageError(f"reset options {options!r} are no mapping: give such as {{'photo': 0}}")
        given = {
            name: value.numpy(force=True) if isinstance(value, Tensor) else value
            for name, value in (options or {}).items()
        }
        for name in given:
            check_choice("reset option", name, OPTIONS)
            if not blurred and name in _OF_KERNELS:
                raise UsageError(
                    f"reset option {name} blurs nothing in photographs as they are (lr_photos): fix photo or crop alone"
                )
        if given.get("kernel") is not None and not given.keys().isdisjoint({"kernel_width", "kernel_angle"}):
            raise UsageError("reset option kernel says the width and angle too: leave out kernel_width, kernel_angle")

        widths: Any = given.get("kernel_width")
        pair = (
            family.two_widths
            and _depth(widths) == 1
            and len(widths) == 2
            and all(width is not None for width in widths)
        )
        kernel = given.get("kernel")
        width = _widths(widths, count, (2,) if pair or _depth(widths) == 2 else ())
        angle = _values("kernel_angle", given.get("kernel_angle"), count, (), "one number of radians", np.isfinite)
        # What `info` says of a scene may be given again: an angle of 0, and one width twice.
        if not family.has_angle and np.nan_to_num(angle).any():
            raise UsageError(
                f"reset option kernel_angle={_short(given['kernel_angle'])} would not count, since {family.name} "
                "kernels have none: leave it out, or choose kernels such as 'anisotropic'"
            )
        if not family.two_widths and (width[:, 0] != width[:, 1])[~np.isnan(width[:, 0])].any():
            raise UsageError(
                f"reset option kernel_width={_short(widths)}: {family.name} kernels have one width, so that the second "
                "would not count: give one, or choose kernels such as 'anisotropic'"
            )
        return cls(
            _photo_indices(given.get("photo"), count, photos),
            _corners(given.get("crop"), count),
            width,
            angle,
            None if kernel is None else _values("kernel", kernel, count, _side(kernel), _KERNEL, np.isfinite),
            {name: _corruption(name, given[name], count, family) for name in CORRUPTIONS if name in given},
        )

    def take(self, rows: np.ndarray) -> SceneOptions:
        """Those of the scenes at ``rows``."""
        kernel = None if self.kernel is None else self.kernel[rows]
        corruption = {name: values[rows] for name, values in self.corruption.items()}
        return SceneOptions(
            self.photo[rows], self.corner[rows], self.widths[rows], self.angle[rows], kernel, corruption
        )

    def applied(self, drawn: Kernels, degradation: Degradation) -> Kernels:
        """Kernels [B] as they were drawn, but for what is fixed; what is said by width or angle is a Gaussian."""
        kernels, device = drawn, drawn.kernels.device

        def put(rows: np.ndarray, new: Kernels) -> Kernels:
            places = torch.from_numpy(rows).to(device)
            corruption = kernels.map(lambda x: x[places]).corruption  # the rest stays by chance
            return updated_kernels(kernels, places, replace(new, corruption=corruption))

        rows = np.flatnonzero(~(np.isnan(self.widths).all(1) & np.isnan(self.angle)))
        if len(rows):
            widths, angles = (each.cpu().double().numpy()[rows] for each in (drawn.widths, drawn.angles))
            widths = np.where(np.isnan(self.widths[rows]), widths, self.widths[rows])
            angles = np.where(np.isnan(self.angle[rows]), angles, self.angle[rows])
            kernels = put(rows, degradation.build(widths, angles, device))
        if self.kernel is not None:
            rows = np.flatnonzero(~np.isnan(self.kernel[:, 0, 0]))
            kernels = put(rows, degradation.given(self.kernel[rows], device))
        if kernels.corruption is not None and self.corruption:
            fixed = {}
            for name, values in self.corruption.items():
                old, given = getattr(kernels.corruption, CORRUPTIONS[name]), torch.from_numpy(values).to(device)
                fixed[CORRUPTIONS[name]] = torch.where(given.isnan(), old, given.to(old))
            kernels = replace(kernels, corruption=replace(kernels.corruption, **fixed))
        return kernels


def _photo_indices(given: Any, count: int, photos: PhotoSource) -> np.ndarray:
    indices = np.full(count, -1)
    for row, value in enumerate(_rows("photo", given, count, 0, "an index or a name")):
        if isinstance(value, str):
            check_choice("photo", value, photos.names)
            indices[row] = photos.names.index(value)
        elif value is not None:
            indices[row] = index = whole("reset option photo", value)
            if not 0 <= index < len(photos):
                raise UsageError(f"photo {index} is outside 0..{len(photos) - 1}: the source has {len(photos)}")
    return indices


def _corners(given: Any, count: int) -> np.ndarray:
    what = "two whole numbers from 0, (top, left)"
    corners = _values("crop", given, count, (2,), what, lambda values: (values >= 0) & (values == np.floor(values)))
    return np.nan_to_num(corners, nan=-1).astype(np.int64)


def _widths(given: Any, count: int, shape: tuple[int, ...]) -> np.ndarray:
    what = f"{'two positive numbers' if shape else 'a positive number'} of HR pixels, under {KERNEL_SIZE}"
    widths = _values("kernel_width", given, count, shape, what, lambda values: (values > 0) & (values < KERNEL_SIZE))
    return widths if shape else np.repeat(widths[:, None], 2, axis=1)


def _corruption(name: str, given: Any, count: int, family: KernelFamily) -> np.ndarray:
    """An option of what happens beside blur, float64 [B], NaN where it is left to chance."""
    if not family.corrupts:
        raise UsageError(
            f"reset option {name}={_short(given)} would not count, since {family.name} kernels blur alone: leave it "
            "out, or choose kernels such as 'real'"
        )
    lowest, largest, what = _CORRUPTION_LIMITS[name]
    return _values(
        name, given, count, (), what, lambda values: (values == 0) | ((values >= lowest) & (values <= largest))
    )


def _side(kernel: Any) -> tuple[int, int]:
    """Shape [k, k] of one of the kernels given."""
    while _depth(kernel) > 2:
        kernel = next(value for value in kernel if value is not None)
    return (len(kernel), len(kernel)) if _depth(kernel) == 2 else (1, 1)


def _values(
    name: str,
    given: Any,
    count: int,
    shape: tuple[int, ...],
    what: str,
    valid: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """An option of numbers as float64 [count, *shape], NaN where it is left to chance; ``what`` is valid is said."""
    rows = _rows(name, given, count, len(shape), what)
    values = np.full((count, *shape), np.nan)
    known = [row for row, value in enumerate(rows) if value is not None]
    if known:
        try:
            numbers = np.asarray([rows[row] for row in known])
        except ValueError:  # of several lengths
            raise _misfit(name, given, count, what) from None
        if numbers.dtype.kind not in "iuf" or numbers.shape[1:] != shape or not valid(numbers).all():
            raise _misfit(name, given, count, what)
        values[known] = numbers
    return values


def _rows(name: str, given: Any, count: int, depth: int, what: str) -> Sequence[Any]:
    """One value for all, or a sequence of one each -> one each; ``depth`` is how nested one value is."""
    if given is None:
        return [None] * count
    nested = _depth(given)
    if nested == depth and not (nested and any(value is None for value in given)):
        return [given] * count
    if nested == 0:
        raise _misfit(name, given, count, what)
    if len(given) not in (1, count):
        raise UsageError(f"reset option {name} has {len(given)} entries for {count} environments: give one or {count}")
    return list(given) * (count // len(given))


def _depth(value: Any) -> int:
    """How deep sequences are nested: 0 for a number, 1 for a list of numbers, and so on."""
    if isinstance(value, np.ndarray):
        return value.ndim
    if not isinstance(value, list | tuple):
        return 0
    return 1 + max((_depth(entry) for entry in value if entry is not None), default=0)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:100]}..."


def _misfit(name: str, given: Any, count: int, what: str) -> UsageError:
    return UsageError(
        f"reset option {name}={_short(given)} does not fit {count} environment(s): give {what}, or "
        "as many of one shape for each"
    )
