"""How a sharp HR image becomes the blurred LR image: Gaussian kernels, their PCA code, blur and reduction.

The setting is the one shared by IKC, DAN, DCLS and the supplement of "Learning the Non-differentiable Optimization for
Blind Super-Resolution" (CVPR 2021): a 21x21 Gaussian kernel, bicubic reduction with antialiasing, rounding to 8 bit.
A kernel is described by its *code*, ten PCA coefficients in units of their standard deviation, and an *action* is the
same code mapped to [-1, 1] per component.

Everything is batched, with a different kernel per image, and runs on the device of its inputs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sr_env.utils.checks import CODE_LENGTH, SCALES, check_choice
from sr_env.utils.files import atomic_write

KERNEL_SIZE = 21
KernelKind = Literal["isotropic", "anisotropic"]
Reduction = Literal["bicubic", "decimate"]
KERNEL_KINDS: tuple[str, ...] = ("isotropic", "anisotropic")
REDUCTIONS: tuple[str, ...] = ("bicubic", "decimate")
#: Range of the isotropic width (standard deviation in HR pixels) per scale, as in IKC and DAN.
ISOTROPIC_WIDTHS: Mapping[int, tuple[float, float]] = {2: (0.2, 2.0), 3: (0.2, 3.0), 4: (0.2, 4.0)}
#: Range of either width of the anisotropic setting, at every scale (USRGAN, DAN setting 2).
ANISOTROPIC_WIDTHS: tuple[float, float] = (0.6, 5.0)
#: Widths at which quality is reported, per scale: those of the supplement's Table 1 at x4, and as much blur in LR
#: pixels at the other scales, but for the narrowest kernel, which is that of the range.
REPORTED_WIDTHS: Mapping[int, tuple[float, ...]] = {2: (0.2, 0.65, 1.3), 3: (0.2, 0.975, 1.95), 4: (0.2, 1.3, 2.6)}
_BASES = Path(__file__).parents[1] / "checkpoints"


def gaussian_taps(widths: Tensor, size: int = KERNEL_SIZE) -> Tensor:
    """Sample normalised one-dimensional Gaussians; their outer product is the isotropic kernel.

    Args:
        widths: Standard deviations in pixels, shape [B], all > 0.
        size: Number of taps, odd.

    Returns:
        Taps of shape [B, size], each row summing to one.
    """
    offsets = torch.arange(size, device=widths.device, dtype=widths.dtype) - size // 2
    return torch.softmax(-0.5 * (offsets / widths[:, None]) ** 2, dim=-1)


def isotropic_kernels(widths: Tensor, size: int = KERNEL_SIZE) -> Tensor:
    """Isotropic Gaussian kernels.

    Args:
        widths: Standard deviations in HR pixels, shape [B], all > 0.
        size: Kernel side, odd.

    Returns:
        Kernels of shape [B, size, size], each summing to one.
    """
    taps = gaussian_taps(widths, size)
    return taps[:, :, None] * taps[:, None, :]


def anisotropic_kernels(widths: Tensor, angles: Tensor, size: int = KERNEL_SIZE) -> Tensor:
    """Gaussian kernels with two widths and an angle.

    Args:
        widths: Standard deviations in HR pixels along the two principal axes, shape [B, 2], all > 0.
        angles: Angle of the first axis against the image's x axis, in radians, shape [B].
        size: Kernel side, odd.

    Returns:
        Kernels of shape [B, size, size], each summing to one.
    """
    offsets = torch.arange(size, device=widths.device, dtype=widths.dtype) - size // 2
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    cos, sin = torch.cos(angles)[:, None, None], torch.sin(angles)[:, None, None]
    along, across = cos * x + sin * y, cos * y - sin * x
    exponent = -0.5 * ((along / widths[:, 0, None, None]) ** 2 + (across / widths[:, 1, None, None]) ** 2)
    return torch.softmax(exponent.flatten(1), dim=-1).unflatten(1, (size, size))


class KernelBasis(nn.Module):
    """PCA basis of a kernel family: kernel <-> code <-> action.

    The basis is fitted once and **stored**; another process never fits it again, since the last bits of an
    eigendecomposition depend on the linear algebra library that happens to be loaded. Renderers and predictors carry
    the ``digest`` of the basis they were trained with.

    * ``code``: PCA coefficients divided by their standard deviation. Components whose standard deviation is under 1 %
      of the first one's are divided by that floor instead, so that noise is not blown up to unit variance.
    * ``action``: ``(code - centre) / half_range``. The family's codes fill 80 % of [-1, 1] in every component, which
      keeps a tanh actor away from saturation.

    Args:
        mean: Mean kernel, flattened row by row, shape [K*K].
        components: Orthonormal rows, shape [L, K*K].
        scale: Standard deviation per component (with the floor), shape [L].
        centre: Middle of the family's codes, shape [L].
        half_range: Half the width of the action range in code units, shape [L].
    """

    mean: Tensor
    components: Tensor
    scale: Tensor
    centre: Tensor
    half_range: Tensor

    def __init__(self, mean: Tensor, components: Tensor, scale: Tensor, centre: Tensor, half_range: Tensor) -> None:
        super().__init__()
        for name, value in (
            ("mean", mean),
            ("components", components),
            ("scale", scale),
            ("centre", centre),
            ("half_range", half_range),
        ):
            self.register_buffer(name, value.detach().to(torch.float32).contiguous().clone())
        self.digest = _digest(self.state_dict())

    @property
    def code_length(self) -> int:
        """Number of coefficients L."""
        return self.components.shape[0]

    @property
    def kernel_size(self) -> int:
        """Kernel side K."""
        return math.isqrt(self.mean.numel())

    @property
    def sensitivity(self) -> Tensor:
        """How much of the code each action component moves, as a share of the largest, [L]."""
        return self.half_range / self.half_range.max()

    def encode(self, kernels: Tensor) -> Tensor:
        """Kernels [B, K, K] -> codes [B, L], in full precision under autocast too."""
        with torch.autocast(kernels.device.type, enabled=False):
            return (kernels.flatten(1) - self.mean) @ self.components.T / self.scale

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, L] -> kernels [B, K, K]. They sum to one but may dip below zero, as any truncated PCA does."""
        with torch.autocast(codes.device.type, enabled=False):
            flat = self.mean + (codes * self.scale) @ self.components
        return flat.unflatten(1, (self.kernel_size, self.kernel_size))

    def to_action(self, codes: Tensor) -> Tensor:
        """Codes [B, L] -> actions [B, L]; the family's own codes land in [-0.8, 0.8]."""
        return (codes - self.centre) / self.half_range

    def to_code(self, actions: Tensor) -> Tensor:
        """Actions [B, L] -> codes [B, L]."""
        return actions * self.half_range + self.centre

    @classmethod
    def fit(cls, kernels: Tensor, code_length: int = CODE_LENGTH, floor: float = 1e-2) -> KernelBasis:
        """Fit the basis to sample kernels.

        Args:
            kernels: Samples of the family, shape [N, K, K].
            code_length: Number of components L.
            floor: Smallest standard deviation used for scaling, as a share of the first component's.
        """
        flat = kernels.flatten(1).to(torch.float64)
        mean = flat.mean(0)
        centred = flat - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(flat))
        values = values.flip(0)[:code_length].clamp_min(0)
        components = vectors.flip(1)[:, :code_length].T
        # An eigenvector's sign is arbitrary: make the entry of largest magnitude positive.
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        components = components * torch.sign(largest)
        deviation = values.sqrt()
        scale = deviation.clamp_min(floor * float(deviation[0]))
        codes = centred @ components.T / scale
        low, high = codes.amin(0), codes.amax(0)
        # A component that the family hardly uses still gets a range that an action can resolve.
        half_range = ((high - low) / 2 / 0.8).clamp_min(0.05)
        return cls(mean, components, scale, (high + low) / 2, half_range)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> KernelBasis:
        """Rebuild a basis from its ``state_dict``, bit for bit.

        Raises:
            ValueError: A tensor is missing, naming it.
        """
        names = ("mean", "components", "scale", "centre", "half_range")
        missing = [name for name in names if name not in state]
        if missing:
            raise ValueError(
                f"the kernel basis lacks {', '.join(missing)}: use a checkpoint written by save_checkpoint"
            )
        return cls(*(state[name] for name in names))


def _digest(state: Mapping[str, Tensor]) -> str:
    """First 16 hex digits of the SHA-256 over the basis' bytes."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def basis_path(kind: str, scale: int) -> Path:
    """Where the shipped basis of a kernel family lies; the anisotropic family is the same at every scale."""
    return _BASES / (
        f"kernels_isotropic_x{scale}.safetensors" if kind == "isotropic" else "kernels_anisotropic.safetensors"
    )


def load_basis(kind: KernelKind = "isotropic", scale: int = 4) -> KernelBasis:
    """Load the shipped basis of a kernel family.

    Raises:
        ValueError: Unknown family or scale, naming the valid ones.
    """
    check_choice("kernel family", kind, KERNEL_KINDS)
    check_choice("scale", scale, SCALES)
    return KernelBasis.from_state(load_file(basis_path(kind, scale)))


def fit_bases() -> None:
    """Fit the basis of every family and write it where :func:`load_basis` reads it (done once, for the package)."""
    for scale in SCALES:
        widths = torch.linspace(*ISOTROPIC_WIDTHS[scale], 10_000, dtype=torch.float64)
        _save_basis(KernelBasis.fit(isotropic_kernels(widths)), basis_path("isotropic", scale))
    uniforms = torch.rand(30_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    low, high = ANISOTROPIC_WIDTHS
    kernels = anisotropic_kernels(low + (high - low) * uniforms[:, :2], math.pi * uniforms[:, 2])
    _save_basis(KernelBasis.fit(kernels), basis_path("anisotropic", 4))


def _save_basis(basis: KernelBasis, path: Path) -> None:
    with atomic_write(path) as temporary:
        save_file(basis.state_dict(), temporary)


@dataclass(frozen=True)
class Kernels:
    """A batch of blur kernels.

    Attributes:
        kernels: Shape [B, K, K], float32, each summing to one.
        widths: The two widths in HR pixels (equal where isotropic), shape [B, 2].
        angles: Angle of the first axis in radians, shape [B].
        taps: Shape [B, K] where every kernel is the outer product of its taps (isotropic), else None.
    """

    kernels: Tensor
    widths: Tensor
    angles: Tensor
    taps: Tensor | None

    def repeat(self, times: int) -> Kernels:
        """Every kernel ``times`` times in a row."""
        return Kernels(*(None if x is None else x.repeat_interleave(times, 0) for x in vars(self).values()))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Degradation:
    """HR -> LR: ``LR = round8(reduce(HR * kernel))``.

    Args:
        scale: Reduction factor, 2, 3 or 4.
        kernels: Kernel family, ``"isotropic"`` or ``"anisotropic"``.
        reduction: ``"bicubic"`` (antialiased, MATLAB's ``imresize`` away from the border) or ``"decimate"``
            (every ``scale``-th pixel, the USRGAN setting).
        widths: Range of the width in HR pixels; None takes the family's usual range (``ISOTROPIC_WIDTHS``,
            ``ANISOTROPIC_WIDTHS``).

    Raises:
        ValueError: An unknown name or scale, or a range that is not ``0 < low <= high``.
    """

    scale: int = 4
    kernels: KernelKind = "isotropic"
    reduction: Reduction = "bicubic"
    widths: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_choice("scale", self.scale, SCALES)
        check_choice("kernel family", self.kernels, KERNEL_KINDS)
        check_choice("reduction", self.reduction, REDUCTIONS)
        low, high = self.width_range
        if not (math.isfinite(high) and 0 < low <= high):
            raise ValueError(f"kernel widths {self.widths!r} are not a range: give (low, high) with 0 < low <= high")

    @property
    def width_range(self) -> tuple[float, float]:
        """Range from which widths are drawn, in HR pixels."""
        if self.widths is not None:
            return self.widths
        return ISOTROPIC_WIDTHS[self.scale] if self.kernels == "isotropic" else ANISOTROPIC_WIDTHS

    def draw(self, uniforms: np.ndarray, device: torch.device | str = "cpu") -> Kernels:
        """Turn uniform numbers into kernels: width(s) uniform in the range, angle uniform in [0, pi).

        Args:
            uniforms: Numbers in [0, 1), shape [B, 3].
            device: Where the kernels are built.
        """
        low, high = self.width_range
        widths = low + (high - low) * uniforms[:, :2]
        angles = np.pi * uniforms[:, 2]
        return self.build(widths, angles, device)

    def build(
        self, widths: np.ndarray, angles: np.ndarray | None = None, device: torch.device | str = "cpu"
    ) -> Kernels:
        """Build the kernels of given widths (one per image, [B], or two, [B, 2]) and angles ([B], radians).

        In the isotropic family the first width counts and the angle is zero.

        Raises:
            ValueError: A width is not a positive finite number.
        """
        widths = np.asarray(widths, dtype=np.float64)
        widths = np.repeat(widths[:, None], 2, axis=1) if widths.ndim == 1 else widths
        if not (np.isfinite(widths).all() and (widths > 0).all()):
            raise ValueError(f"kernel widths must be positive numbers of HR pixels, not {widths.tolist()}")
        angles = np.zeros(len(widths)) if angles is None else np.asarray(angles, dtype=np.float64)
        if self.kernels == "isotropic":
            widths, angles = np.repeat(widths[:, :1], 2, axis=1), np.zeros(len(widths))
        width = torch.from_numpy(np.ascontiguousarray(widths)).to(device, torch.float32)
        angle = torch.from_numpy(np.ascontiguousarray(angles)).to(device, torch.float32)
        if self.kernels == "isotropic":
            taps = gaussian_taps(width[:, 0])
            return Kernels(taps[:, :, None] * taps[:, None, :], width, angle, taps)
        return Kernels(anisotropic_kernels(width, angle), width, angle, None)

    def __call__(self, hr: Tensor, kernels: Kernels) -> Tensor:
        """Blur, reduce, clamp and round to 8 bit.

        Args:
            hr: Images, float32 in [0, 1], shape [B, 3, H, W] with H and W divisible by ``scale``.
            kernels: One kernel per image.

        Returns:
            LR images, float32 multiples of 1/255 in [0, 1], shape [B, 3, H/scale, W/scale].

        Raises:
            ValueError: H or W is not divisible by the scale.
        """
        height, width = hr.shape[-2:]
        if height % self.scale or width % self.scale:
            raise ValueError(f"HR size {height}x{width} is not divisible by scale {self.scale}: crop it first")
        return quantize(self.reduce(hr, kernels))

    def reduce(self, hr: Tensor, kernels: Kernels) -> Tensor:
        """Blur and reduce without clamping or rounding: the linear operator, differentiable in ``hr``."""
        if kernels.taps is not None:
            return _separable(hr, kernels.taps, self.scale, self.reduction)
        blurred = blur(hr, kernels.kernels)
        if self.reduction == "decimate":
            return blurred[..., :: self.scale, :: self.scale]
        return bicubic_resize(blurred, (hr.shape[-2] // self.scale, hr.shape[-1] // self.scale))


def quantize(images: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to multiples of 1/255, as saving to 8 bit does. Not differentiable."""
    return (images * 255).round_().clamp_(0, 255).div_(255)


def bicubic_resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic resize with antialiasing to ``(height, width)``; MATLAB's ``imresize`` away from the border."""
    return F.interpolate(images, size=size, mode="bicubic", antialias=True)


def soften(images: Tensor, widths: Tensor) -> Tensor:
    """Blur each image by an isotropic Gaussian of its own width, replicating the border.

    Photographs differ in how sharp they are before any degradation; this makes sharp ones softer.

    Args:
        images: Shape [B, C, H, W].
        widths: Standard deviations in pixels, shape [B]; one near zero leaves its image as it is.

    Returns:
        Shape [B, C, H, W].
    """
    taps = gaussian_taps(widths.clamp_min(0.1))  # at a tenth of a pixel the kernel is a single tap
    return _separable(images, taps, 1, "decimate")


def blur(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate each image with its own kernel by FFT, replicating the border.

    (A Gaussian is symmetric under a half turn, so that correlation and convolution agree.)

    Args:
        images: Shape [B, C, H, W].
        kernels: Shape [B, K, K] with K odd.

    Returns:
        Shape [B, C, H, W].
    """
    reach = kernels.shape[-1] // 2
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    size = padded.shape[-2:]
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernels, s=size).conj()[:, None]
    return torch.fft.irfft2(spectrum, s=size)[..., : images.shape[-2], : images.shape[-1]]


def _separable(images: Tensor, taps: Tensor, scale: int, reduction: str) -> Tensor:
    """Blur and reduce by one matrix per axis, many times faster than convolving: [B, C, H, W] -> [B, C, H/s, W/s]."""
    # A training step calls this under autocast, and bf16 products would be off by more than a grey level.
    with torch.autocast(images.device.type, enabled=False):
        rows, columns = (_axis_operator(taps, length, scale, reduction) for length in images.shape[-2:])
        return rows[:, None] @ images @ columns[:, None].mT


def _axis_operator(taps: Tensor, length: int, scale: int, reduction: str) -> Tensor:
    """Matrices [B, length/scale, length] that blur one axis with replicated border and reduce it."""
    reach = taps.shape[-1] // 2
    reducer, sources = _axis_plan(length, scale, reduction, reach, taps.device)
    matrices = taps.new_zeros(len(taps), length, length)
    # Row i takes tap t from pixel clamp(i + t - reach); taps that fall on one border pixel add up.
    index = sources.expand(len(taps), -1, -1)
    matrices.scatter_add_(2, index, taps[:, None, :].expand(-1, length, -1).contiguous())
    if reduction == "decimate":
        return matrices[:, ::scale]
    return reducer @ matrices


@lru_cache(maxsize=64)
def _axis_plan(length: int, scale: int, reduction: str, reach: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Bicubic reduction as a matrix [length/scale, length], and the source pixel of every (row, tap)."""
    with torch.inference_mode(False):  # kept for later calls, among which one may need gradients
        positions = torch.arange(length, device=device)[:, None] + torch.arange(-reach, reach + 1, device=device)
        identity = torch.eye(length, device=device)[None, None]
        reducer = bicubic_resize(identity, (length // scale, length))[0, 0]
    return reducer, positions.clamp_(0, length - 1)
