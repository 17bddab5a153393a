"""How the LR images of an evaluation come about: a few named conditions, the same for every method and every run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from sr_env.degradation import Corruption, Degradation, Kernels, Real
from sr_env.degradation.real import SHAPES
from sr_env.utils.checks import UsageError


@dataclass(frozen=True)
class Condition:
    """How every image of a set is degraded.

    Attributes:
        name: Heading of its column.
        kernels: Indices of images [B] in their set, and a device -> what happens to each.
    """

    name: str
    kernels: Callable[[np.ndarray, torch.device], Kernels]


def blur_conditions(degradation: Degradation, widths: Sequence[float]) -> list[Condition]:
    """Isotropic blur of each width, in HR pixels, by its number.

    Raises:
        UsageError: A width is wrong, given twice, or there is none.
    """
    degradation.build(np.array(widths))
    if not widths or len(set(widths)) < len(widths):
        raise UsageError(f"kernel widths {widths} must be at least one, each given once")

    def of(width: float) -> Callable[[np.ndarray, torch.device], Kernels]:
        return lambda indices, device: degradation.build(np.full(len(indices), width), device=device)

    return [Condition(f"{width:g}", of(width)) for width in widths]


#: Conditions of photographs as people have them: shape of the kernel, its widths in LR pixels, and what else happens.
_LEVELS: Mapping[str, tuple[str, tuple[float, float], Mapping[str, float]]] = {
    "clean": ("isotropic", (0.05, 0.05), {}),
    "blur 0.65": ("isotropic", (0.65, 0.65), {}),
    "blur 1.5": ("isotropic", (1.5, 1.5), {}),
    "defocus 1": ("defocus", (1.0, 1.0), {}),
    "motion 0.75": ("motion", (0.75, 0.2), {}),
    "noise 5": ("isotropic", (0.325, 0.325), {"noise": 5.0}),
    "noise 15": ("isotropic", (0.325, 0.325), {"noise": 15.0}),
    "JPEG 80": ("isotropic", (0.325, 0.325), {"quality": 80.0}),
    "JPEG 50": ("isotropic", (0.325, 0.325), {"quality": 50.0}),
    "sharpened": ("isotropic", (0.325, 0.325), {"sharpening": 1.0}),
}
#: The condition in which everything is drawn, by the number of the image.
DRAWN = "drawn"
#: Angle in radians of the motion.
_ANGLE = 0.5


def real_conditions(scale: int) -> list[Condition]:
    """Blur, noise, compression and sharpening one by one, and the whole setting drawn once for each image.

    Widths in the names are in LR pixels. The noise, and where compressed blocks begin, hang on the number of the image
    in its set; so does everything in the condition ``DRAWN``.
    """
    family = Real()

    def one(name: str) -> Callable[[np.ndarray, torch.device], Kernels]:
        shape, widths, levels = _LEVELS[name]

        def make(indices: np.ndarray, device: torch.device) -> Kernels:
            number = torch.from_numpy(indices).to(device, torch.int64)
            corruption = Corruption.nothing(number)
            values = {key: torch.full_like(corruption.noise, value) for key, value in levels.items()}
            return family.shaped(
                torch.full_like(number, list(SHAPES).index(shape)),
                torch.tensor(widths, device=device).mul(scale).expand(len(number), -1),
                torch.full_like(corruption.noise, _ANGLE),
                replace(corruption, **values),
            )

        return make

    def drawn(indices: np.ndarray, device: torch.device) -> Kernels:
        uniforms = np.stack([np.random.default_rng(int(index)).random(3) for index in indices])
        return family.draw(uniforms, family.width_range(scale), device)

    return [*(Condition(name, one(name)) for name in _LEVELS), Condition(DRAWN, drawn)]
