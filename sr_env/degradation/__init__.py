"""How LR images come about: kernel families, their PCA codes, blurring and reducing."""

from sr_env.degradation.basis import KernelBasis
from sr_env.degradation.corruption import LEVELS, Corruption, level_values
from sr_env.degradation.degradation import REDUCTIONS, Degradation, Reduction
from sr_env.degradation.families import (
    ANISOTROPIC_WIDTHS,
    ISOTROPIC_WIDTHS,
    REPORTED_WIDTHS,
    KernelFamily,
    available_families,
    basis_path,
    family_of,
    fit_bases,
    kernel_family,
    load_basis,
    register_family,
)
from sr_env.degradation.kernels import KERNEL_SIZE, Kernels, anisotropic_kernels, gaussian_taps, isotropic_kernels
from sr_env.degradation.operators import bicubic_resize, blur, quantize, soften, unsharp
from sr_env.degradation.real import Real

__all__ = [
    "ANISOTROPIC_WIDTHS",
    "ISOTROPIC_WIDTHS",
    "KERNEL_SIZE",
    "LEVELS",
    "REDUCTIONS",
    "REPORTED_WIDTHS",
    "Corruption",
    "Degradation",
    "KernelBasis",
    "KernelFamily",
    "Kernels",
    "Real",
    "Reduction",
    "anisotropic_kernels",
    "available_families",
    "basis_path",
    "bicubic_resize",
    "blur",
    "family_of",
    "fit_bases",
    "gaussian_taps",
    "isotropic_kernels",
    "kernel_family",
    "level_values",
    "load_basis",
    "quantize",
    "register_family",
    "soften",
    "unsharp",
]
