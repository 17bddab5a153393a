"""Kernel families: how blur kernels are drawn and built, and the PCA basis in which their codes are written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sr_env.degradation.basis import KernelBasis
from sr_env.degradation.kernels import KERNEL_SIZE, Kernels, anisotropic_kernels, gaussian_taps, isotropic_kernels
from sr_env.utils.checks import SCALES, UsageError, check_choice
from sr_env.utils.files import atomic_write
from sr_env.utils.plugins import import_named

#: Range of the isotropic width (standard deviation in HR pixels) per scale, as in IKC and DAN.
ISOTROPIC_WIDTHS: Mapping[int, tuple[float, float]] = {2: (0.2, 2.0), 3: (0.2, 3.0), 4: (0.2, 4.0)}
#: Range of either width of the anisotropic setting, at every scale (USRGAN, DAN setting 2).
ANISOTROPIC_WIDTHS: tuple[float, float] = (0.6, 5.0)
#: Widths at which quality is reported, per scale: those of the supplement's Table 1 at x4, and as much blur in LR
#: pixels at the other scales, but for the narrowest kernel, which is that of the range.
REPORTED_WIDTHS: Mapping[int, tuple[float, ...]] = {2: (0.2, 0.65, 1.3), 3: (0.2, 0.975, 1.95), 4: (0.2, 1.3, 2.6)}
_BASES = Path(__file__).parent / "bases"
#: Kernels to which a family's basis is fitted.
_SAMPLES = 30_000


class KernelFamily(ABC):
    """A set of blur kernels that two widths and an angle describe.

    A subclass sets the class attributes and implements :meth:`width_range` and :meth:`kernels`;
    :func:`register_family` makes it known to ``gym.make(..., kernels=name)`` and to the training scripts.

    Attributes:
        name: Name in the registry.
        two_widths: Whether both widths count; otherwise the second repeats the first.
        has_angle: Whether the angle counts; otherwise it is zero.
        corrupts: Whether pictures are more than blurred and reduced: kernels then have a ``corruption``.
        size: Side K of the kernels in HR pixels, odd.
    """

    name: str
    size: int = KERNEL_SIZE
    two_widths: bool = False
    has_angle: bool = False
    corrupts: bool = False

    @abstractmethod
    def width_range(self, scale: int) -> tuple[float, float]:
        """Range from which the widths are drawn at a scale, in HR pixels."""

    @abstractmethod
    def kernels(self, widths: Tensor, angles: Tensor) -> Tensor:
        """Kernels of given parameters.

        Args:
            widths: In HR pixels, shape [B, 2], float.
            angles: In radians, shape [B].

        Returns:
            Shape [B, K, K], non-negative, each summing to one, in the dtype of ``widths``.
        """

    def taps(self, widths: Tensor) -> Tensor | None:
        """Taps [B, K] where every kernel is the outer product of its taps with themselves, else None."""
        return None

    def parameters(self, uniforms: np.ndarray, width_range: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """Turn uniform numbers into widths, uniform in the range, and angles, uniform in [0, pi).

        Args:
            uniforms: Numbers in [0, 1), shape [B, 3].
            width_range: Lowest and highest width in HR pixels.

        Returns:
            Widths, shape [B, 2], and angles, shape [B].
        """
        low, high = width_range
        return low + (high - low) * uniforms[:, :2], np.pi * uniforms[:, 2]

    def draw(self, uniforms: np.ndarray, width_range: tuple[float, float], device: torch.device | str) -> Kernels:
        """Turn uniform numbers [B, 3] into kernels of the family on a device."""
        return self.build(*self.parameters(uniforms, width_range), device)

    def build(self, widths: np.ndarray, angles: np.ndarray, device: torch.device | str = "cpu") -> Kernels:
        """Build the kernels of widths [B, 2] and angles [B]; what does not count in this family is made uniform."""
        width = torch.from_numpy(np.ascontiguousarray(widths)).to(device, torch.float32)
        angle = torch.from_numpy(np.ascontiguousarray(angles)).to(device, torch.float32)
        width, angle = self._canonical(width, angle)
        return Kernels(self.kernels(width, angle), width, angle, self.taps(width))

    def basis(self, scale: int) -> KernelBasis:
        """The basis of the family's codes at a scale: fitted to 30,000 kernels drawn from the usual range.

        Fitting takes seconds, once per process. A family for which networks are trained should rather fit once, keep
        the result and return it here, since the last bits of a fit depend on the linear algebra library.
        """
        return _fitted(self, scale)

    def fit(self, scale: int) -> KernelBasis:
        """Fit the basis anew, to kernels drawn with a fixed seed."""
        widths, angles = self.parameters(sample_uniforms(), self.width_range(scale))
        width, angle = self._canonical(torch.from_numpy(widths), torch.from_numpy(angles))
        return KernelBasis.fit(self.kernels(width, angle))

    def _canonical(self, widths: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        if not self.two_widths:
            widths = widths[:, :1].repeat(1, 2)
        return widths, angles if self.has_angle else torch.zeros_like(angles)


def sample_uniforms() -> np.ndarray:
    """Uniform numbers [30000, 3], the same in every process, from which a basis' samples are drawn."""
    return torch.rand(_SAMPLES, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).numpy()


@lru_cache(maxsize=32)
def _fitted(family: KernelFamily, scale: int) -> KernelBasis:
    return family.fit(scale)


F = TypeVar("F", bound=type[KernelFamily])
_FAMILIES: dict[str, KernelFamily] = {}


def register_family(family: F) -> F:
    """Class decorator: make a kernel family available by its name.

    Raises:
        UsageError: It has no name, its name is taken, or its kernels, from the narrowest to the widest, are not
            [B, K, K], non-negative and each summing to one.
    """
    name = getattr(family, "name", None)
    if not isinstance(name, str) or not name:
        raise UsageError(f"kernel family {family.__qualname__} has no name: set the class attribute name")
    known = type(_FAMILIES[name]) if name in _FAMILIES else None
    # A notebook's cell is run again and again, and defines the same class anew each time.
    if known is not None and (known.__module__, known.__qualname__) != (family.__module__, family.__qualname__):
        raise UsageError(f"a kernel family {name!r} is registered already, {known.__qualname__}: choose another name")
    made = family()
    for scale in SCALES:
        _check_kernels(made, scale)
    _FAMILIES[name] = made
    return family


def _check_kernels(family: KernelFamily, scale: int) -> None:
    """Raise :class:`UsageError` unless the narrowest, the middle and the widest kernels of a scale are kernels."""
    side = family.size
    remedy = f"return [B, {side}, {side}], non-negative and each summing to one"
    for uniform in (0.0, 0.5, 1 - 1e-6):  # one by one: a batch would use threads, which a forked process has lost
        parameters = family.parameters(np.full((1, 3), uniform), family.width_range(scale))
        built = family.build(*parameters).kernels
        if not isinstance(built, Tensor) or built.shape != (1, side, side):
            found = list(built.shape) if isinstance(built, Tensor) else type(built).__name__
            raise UsageError(f"kernel family {family.name!r} makes kernels {found} of one width: {remedy}")
        total, lowest = float(built.sum()), float(built.min())
        if not abs(total - 1) < 1e-4 or lowest < -1e-6:
            raise UsageError(
                f"kernel family {family.name!r} makes kernels that sum to {total:.4g}, the lowest weight being "
                f"{lowest:.4g}: {remedy}"
            )


def available_families() -> tuple[str, ...]:
    """Names of the kernel families."""
    return tuple(_FAMILIES)


def kernel_family(name: str) -> KernelFamily:
    """The kernel family of a name; ``"module:name"`` imports the module that registers it first.

    Raises:
        UsageError: Unknown name, listing the valid ones.
    """
    if isinstance(name, str):
        name = import_named("kernel family", name)
    check_choice("kernel family", name, available_families())
    return _FAMILIES[name]


@register_family
class Isotropic(KernelFamily):
    """Isotropic Gaussians (IKC, DAN's setting 1)."""

    name = "isotropic"

    def width_range(self, scale: int) -> tuple[float, float]:
        """As in IKC and DAN: up to as many HR pixels as the scale."""
        return ISOTROPIC_WIDTHS[scale]

    def kernels(self, widths: Tensor, angles: Tensor) -> Tensor:
        """Gaussians of the first width."""
        return isotropic_kernels(widths[:, 0])

    def taps(self, widths: Tensor) -> Tensor:
        """Their one-dimensional Gaussians."""
        return gaussian_taps(widths[:, 0])

    def basis(self, scale: int) -> KernelBasis:
        """The stored one, which the released networks speak."""
        return KernelBasis.from_state(load_file(basis_path(self.name, scale)))

    def fit(self, scale: int) -> KernelBasis:
        """Fit to widths evenly spaced over the range."""
        return KernelBasis.fit(isotropic_kernels(torch.linspace(*self.width_range(scale), 10_000, dtype=torch.float64)))


@register_family
class Anisotropic(KernelFamily):
    """Gaussians of two widths and an angle (USRGAN, DAN's setting 2); the same at every scale."""

    name = "anisotropic"
    two_widths = True
    has_angle = True

    def width_range(self, scale: int) -> tuple[float, float]:
        """The same at every scale."""
        return ANISOTROPIC_WIDTHS

    def kernels(self, widths: Tensor, angles: Tensor) -> Tensor:
        """Gaussians of both widths, turned by the angle."""
        return anisotropic_kernels(widths, angles)

    def basis(self, scale: int) -> KernelBasis:
        """The stored one."""
        return KernelBasis.from_state(load_file(basis_path(self.name, scale)))


def basis_path(name: str, scale: int) -> Path:
    """Where the stored basis of one of our own families lies; the anisotropic one is the same at every scale."""
    return _BASES / (f"kernels_{name}.safetensors" if name == "anisotropic" else f"kernels_{name}_x{scale}.safetensors")


def load_basis(name: str = "isotropic", scale: int = 4) -> KernelBasis:
    """The basis of a kernel family at a scale.

    Raises:
        UsageError: Unknown family or scale, naming the valid ones.
    """
    family = kernel_family(name)
    check_choice("scale", scale, SCALES)
    return family.basis(scale)


def family_of(basis: KernelBasis, scale: int) -> str | None:
    """Name of the family whose basis this is; None where it is of none that is registered."""
    return next((name for name, family in _FAMILIES.items() if basis.matches(family.basis(scale))), None)


def fit_bases() -> None:
    """Fit the basis of each of our own families and write it where :func:`load_basis` reads it (done once)."""
    for name in ("isotropic", "anisotropic", "real"):
        for path, scale in {basis_path(name, scale): scale for scale in reversed(SCALES)}.items():
            with atomic_write(path) as temporary:
                save_file(kernel_family(name).fit(scale).state_dict(), temporary)
