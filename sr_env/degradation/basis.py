"""PCA bases: kernel <-> code <-> action."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_env.degradation.kernels import Kernels
from sr_env.utils.checks import CODE_LENGTH, UsageError
from sr_env.utils.digests import tensor_digest


class KernelBasis(nn.Module):
    """PCA basis of a kernel family: kernel <-> code <-> action.

    The basis is fitted once and **stored**; another process never fits it again, since the last bits of an
    eigendecomposition depend on the linear algebra library that happens to be loaded. Renderers and predictors carry
    the ``digest`` of the basis they were trained with.

    * ``code``: PCA coefficients divided by their standard deviation. Components whose standard deviation is under 1 %
      of the first one's are divided by that floor instead, so that noise is not blown up to unit variance.
    * A *longer code* goes on with levels, such as that of noise, that are written by whoever knows them and that no
      kernel tells: the basis only holds their ranges.
    * ``action``: ``(code - centre) / half_range``. The family's codes fill 80 % of [-1, 1] in every component, which
      keeps a tanh actor away from saturation.

    Args:
        mean: Mean kernel, flattened row by row, shape [K*K].
        components: Orthonormal rows, shape [C, K*K].
        scale: Standard deviation per component (with the floor), shape [C].
        centre: Middle of the family's codes, shape [L], where L is C or, of longer codes, more.
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
        self.digest = tensor_digest(self.state_dict())

    @property
    def code_length(self) -> int:
        """Length L of the codes: the coefficients, and the levels behind them."""
        return self.centre.shape[0]

    @property
    def levels(self) -> int:
        """How many levels follow the C coefficients of a kernel."""
        return self.code_length - self.coefficients

    @property
    def coefficients(self) -> int:
        """How many numbers of a code say what the kernel is, C; they come first."""
        return self.components.shape[0]

    @property
    def kernel_size(self) -> int:
        """Kernel side K."""
        return math.isqrt(self.mean.numel())

    @property
    def sensitivity(self) -> Tensor:
        """How much of the code each action component moves, as a share of the largest, [L]."""
        return self.half_range / self.half_range.max()

    def encode(self, kernels: Tensor, levels: Tensor | None = None) -> Tensor:
        """Kernels [B, K, K], and of longer codes their levels -> codes [B, L], in full precision under autocast too.

        Smaller kernels of an odd side are padded with zeros. Levels that are None are zeros.
        """
        margin = max(0, (self.kernel_size - kernels.shape[-1]) // 2)
        kernels = F.pad(kernels, (margin,) * 4)
        with torch.autocast(kernels.device.type, enabled=False):
            code = (kernels.flatten(1) - self.mean) @ self.components.T / self.scale
        if not self.levels:
            return code
        return F.pad(code, (0, self.levels)) if levels is None else torch.cat((code, levels.to(code.dtype)), dim=1)

    def code_of(self, kernels: Kernels) -> Tensor:
        """Codes [B, L] of kernels and, where codes are longer, of what else happens to their pictures."""
        return self.encode(kernels.kernels, None if kernels.corruption is None else kernels.corruption.levels)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, L] -> kernels [B, K, K]. They sum to one but may dip below zero, as any truncated PCA does."""
        with torch.autocast(codes.device.type, enabled=False):
            flat = self.mean + (codes[:, : self.coefficients] * self.scale) @ self.components
        return flat.unflatten(1, (self.kernel_size, self.kernel_size))

    def to_action(self, codes: Tensor) -> Tensor:
        """Codes [B, L] -> actions [B, L]; the family's own codes land in [-0.8, 0.8]."""
        return (codes - self.centre) / self.half_range

    def to_code(self, actions: Tensor) -> Tensor:
        """Actions [B, L] -> codes [B, L]."""
        return actions * self.half_range + self.centre

    def lengthened(self, largest: Sequence[float]) -> KernelBasis:
        """The same with levels behind the coefficients, each from 0 to its largest value."""
        ends = self.centre.new_tensor(list(largest))
        centre, half_range = torch.cat((self.centre, ends / 2)), torch.cat((self.half_range, ends / 2 / 0.8))
        return KernelBasis(self.mean, self.components, self.scale, centre, half_range)

    def matches(self, other: KernelBasis) -> bool:
        """Whether codes mean the same in another basis: it is the same, but for the last bits of another fit."""
        if self.digest == other.digest:
            return True
        mine, others = self.state_dict(), other.state_dict()
        return all(
            mine[name].shape == others[name].shape
            and bool((mine[name].cpu() - others[name].cpu()).norm() <= 1e-3 * others[name].norm())
            for name in mine
        )

    @classmethod
    def fit(cls, kernels: Tensor, code_length: int = CODE_LENGTH, floor: float = 1e-2) -> KernelBasis:
        """Fit the basis to sample kernels.

        Args:
            kernels: Samples of the family, shape [N, K, K].
            code_length: Number of components L.
            floor: Smallest standard deviation used for scaling, as a share of the first component's.

        Raises:
            UsageError: The samples are all the same: there is nothing for a code to say.
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
        if not float(deviation[0]) > 1e-8:
            raise UsageError("all kernels of the family are the same: let them depend on the widths or the angles")
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
            UsageError: A tensor is missing, or of another shape than the others want, naming it.
        """
        names = ("mean", "components", "scale", "centre", "half_range")
        missing = [name for name in names if name not in state]
        if missing:
            raise UsageError(
                f"the kernel basis lacks {', '.join(missing)}: use a checkpoint written by save_checkpoint"
            )
        count, size = len(state["scale"].reshape(-1)), math.isqrt(state["mean"].numel()) ** 2
        length = max(count, len(state["centre"].reshape(-1)))
        wanted = {"mean": (size,), "components": (count, size), "scale": (count,)}
        wanted |= dict.fromkeys(names[3:], (length,))
        for name, shape in wanted.items():
            if state[name].shape != shape or 0 in shape:
                raise UsageError(
                    f"the kernel basis has {name} of shape {list(state[name].shape)}, not {list(shape)}: use a "
                    "checkpoint written by save_checkpoint"
                )
        return cls(*(state[name] for name in names))
