"""Quality without a reference, from the statistics of natural scenes: NIQE and BRISQUE. Not differentiable.

Both divide out the local mean and contrast, fit generalised Gaussians to the result and to products of neighbours at
two scales, and judge the 36 parameters. All images of a batch, blocks and orientations are fitted at once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_env.metrics.base import Metric, register
from sr_env.metrics.fidelity import weighted_channels
from sr_env.metrics.weights import load_asset

_GRAY = (0.298936021293775, 0.587043074451121, 0.114020904255103)  # MATLAB's rgb2gray

_WORST = 100.0  # value of images whose statistics are undefined (flat ones), and the largest value


def _gray(image: Tensor) -> Tensor:
    """8-bit gray levels [B, H, W] of RGB in [0, 1], in float64 where the device has it, as the MATLAB codes use."""
    image = image if image.device.type == "mps" else image.double()
    return (weighted_channels(image, _GRAY) * 255.0).round()


def _mirror(size: int, before: int, after: int, device: torch.device) -> Tensor:
    """Indices that extend an axis by reflection with the edge repeated (MATLAB's 'symmetric')."""
    index = torch.arange(-before, size + after, device=device) % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


def _taps(x: Tensor, weights: list[float], length: int, step: int, dim: int) -> Tensor:
    """Correlate along one axis by shifted sums (in float64 several times faster than a convolution call)."""
    span = step * (length - 1) + 1
    windows = [x.narrow(dim, offset, span) for offset in range(len(weights))]
    if step > 1:
        windows = [window.unfold(dim, 1, step).squeeze(-1) for window in windows]
    total = windows[0] * weights[0]
    for window, weight in zip(windows[1:], weights[1:], strict=True):
        total.add_(window, alpha=weight)
    return total


def _halve(x: Tensor) -> Tensor:
    """MATLAB's ``imresize(x, 0.5)``: antialiased bicubic, [B, H, W] -> [B, ceil(H/2), ceil(W/2)]."""
    # Keys' kernel (a = -0.5) at +-0.25, 0.75, 1.25, 1.75, stretched by two
    inner = [1.5 * d**3 - 2.5 * d**2 + 1 for d in (0.25, 0.75)]
    outer = [-0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 for d in (1.25, 1.75)]
    half = [weight / 2 for weight in (*inner, *outer)]
    weights = [*reversed(half), *half]
    for dim in (1, 2):
        size = x.shape[dim]
        x = x.index_select(dim, _mirror(size, 3, 3 + size % 2, x.device))
        x = _taps(x, weights, (size + 1) // 2, 2, dim)
    return x


def _normalise(x: Tensor, padding: str) -> Tensor:
    """Subtract the local mean and divide by the local deviation plus one; Gaussian window 7x7 with sigma 7/6."""
    weights = torch.exp(-(torch.arange(-3, 4, dtype=torch.float64) ** 2) / (2 * (7 / 6) ** 2))
    taps = (weights / weights.sum()).tolist()
    padded = F.pad(x[:, None], (3, 3, 3, 3), mode=padding)[:, 0]
    moments = torch.stack([padded, padded.square()])
    mean, square = _taps(_taps(moments, taps, x.shape[1], 1, 2), taps, x.shape[2], 1, 3)
    return (x - mean) / ((square - mean.square()).abs().sqrt() + 1)


def _gamma(x: Tensor) -> Tensor:
    return torch.lgamma(x).exp()


def _shape_table(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Shapes 0.2, 0.201 .. 10 and G(2/a)^2 / (G(1/a) G(3/a)), which rises with the shape a."""
    shapes = torch.arange(9801, dtype=torch.float64) / 1000 + 0.2
    ratios = _gamma(2 / shapes).square() / (_gamma(1 / shapes) * _gamma(3 / shapes))
    return shapes.to(device, dtype), ratios.to(device, dtype)


def _nearest(table: Tensor, value: Tensor) -> Tensor:
    """Index of the entry of an ascending table that is nearest to each value (NaN: the last)."""
    return torch.searchsorted((table[1:] + table[:-1]) / 2, value)


def _fit_aggd(x: Tensor, table: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Fit asymmetric generalised Gaussians over the last axis by moment matching.

    Returns:
        The shape, and the root mean squares of the negative and of the positive side; NaN where a side is empty.
    """
    shapes, ratios = table
    size = x.shape[-1]
    below, above = ((x < 0).sum(-1, dtype=torch.int32), (x > 0).sum(-1, dtype=torch.int32))
    square = torch.linalg.vector_norm(x, dim=-1).square()
    signed = (x.abs() * x).sum(-1)  # positive squares minus negative ones: fewer passes over x than splitting it
    left = ((square - signed).clamp(min=0) / (2 * below)).sqrt().where(below > 0, torch.nan)
    right = ((square + signed).clamp(min=0) / (2 * above)).sqrt().where(above > 0, torch.nan)
    skew = left / right
    ratio = (torch.linalg.vector_norm(x, 1, dim=-1) / size).square() / (square / size)
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew.square() + 1).square()
    return shapes[_nearest(ratios, ratio)], left, right


def _with_neighbours(x: Tensor, shifts: tuple[tuple[int, int], ...]) -> Tensor:
    """Products of x [..., h, w] with itself shifted circularly, [len(shifts), ..., h * w]."""
    return torch.stack([x * torch.roll(x, shift, dims=(-2, -1)) for shift in shifts]).flatten(-2)


class _NaturalScene(Metric):
    """What NIQE and BRISQUE share."""

    higher_is_better = False
    needs_reference = False
    differentiable = False

    def __init__(self, border: int = 0) -> None:
        super().__init__(border)
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def _table(self, like: Tensor) -> tuple[Tensor, Tensor]:
        key = (like.device, like.dtype)
        if key not in self._tables:
            self._tables[key] = _shape_table(*key)
        return self._tables[key]


@register
class NIQE(_NaturalScene):
    """Natural image quality evaluator on 96x96 blocks. Lower is better.

    As the authors' MATLAB code: gray levels (rgb2gray, rounded), whole blocks only, two scales, the mean and
    covariance of the blocks' features against those of pristine photographs. A picture with fewer than two usable
    blocks counts with no covariance of its own. Flat pictures have no statistics: they, and anything worse, get 100.
    NIQE is easily fooled when trained on; watch a reference metric beside it.

    Source: Mittal et al., "Making a 'Completely Blind' Image Quality Analyzer", SPL 2013, Eq. 10.
    """

    name = "niqe"
    title = "NIQE"
    decimals = 2
    min_size = 96
    mean: Tensor
    covariance: Tensor

    def __init__(self, border: int = 0) -> None:
        super().__init__(border)
        pristine, _ = load_asset("niqe.safetensors")
        self.register_buffer("mean", pristine["mean"], persistent=False)
        self.register_buffer("covariance", pristine["covariance"], persistent=False)

    def _encode(self, image: Tensor) -> Tensor:
        gray = _gray(image)
        gray = gray[:, : gray.shape[1] // 96 * 96, : gray.shape[2] // 96 * 96]
        fine = self._features(_normalise(gray, "replicate"), 96)
        coarse = self._features(_normalise(_halve(gray), "replicate"), 48)
        features = torch.cat([fine, coarse], -1)  # [B, blocks, 36]

        # mean over what is defined of each feature, covariance over blocks where all are, as nanmean and nancov do
        mean = features.nanmean(1)
        usable = features.isfinite().all(-1, keepdim=True)
        count = usable.sum(1, keepdim=True)
        centred = features.where(usable, 0)
        centred = (centred - centred.sum(1, keepdim=True) / count.clamp(min=1)).where(usable, 0)
        covariance = centred.mT @ centred / (count - 1).clamp(min=1)

        gap = (mean - self.mean.to(mean)).nan_to_num(nan=torch.inf)
        defined = gap.isfinite().all(-1)
        gap = gap.where(defined[:, None], 0)
        inverse = torch.linalg.pinv((self.covariance.to(mean) + covariance) / 2, hermitian=True)
        quality = torch.einsum("bi,bij,bj->b", gap, inverse, gap).clamp(min=0).sqrt()
        return quality.where(defined, _WORST).clamp(max=_WORST)

    def _features(self, x: Tensor, size: int) -> Tensor:
        """18 features of every block, [B, H, W] -> [B, blocks, 18]."""
        blocks = x.unflatten(2, (-1, size)).unflatten(1, (-1, size)).transpose(2, 3).flatten(1, 2)  # [B, n, size, size]
        samples = torch.cat([blocks.flatten(-2)[None], _with_neighbours(blocks, ((0, 1), (1, 0), (1, 1), (1, -1)))])
        shape, left, right = _fit_aggd(samples, self._table(x))
        spread = (_gamma(1 / shape) / _gamma(3 / shape)).sqrt()
        left, right = left * spread, right * spread
        mean = (right - left) * _gamma(2 / shape) / _gamma(1 / shape)
        products = torch.stack([shape, mean, left, right], -1)[1:]  # [4, B, n, 4]
        own = torch.stack([shape[0], (left[0] + right[0]) / 2], -1)
        return torch.cat([own, products.movedim(0, 2).flatten(-2)], -1)


@register
class BRISQUE(_NaturalScene):
    """Blind/referenceless image spatial quality evaluator, about 0 (best) to 100. Lower is better.

    As the authors' MATLAB code with the model trained on the LIVE database. The support vector machine extrapolates a
    little below 0 and above 100; flat pictures, which have no statistics, get 100.

    Where large parts of a picture are exactly flat, the last bit of the local mean decides the signs that are counted,
    and implementations differ by a few points (seen: 74.3 here, 72.3 in MATLAB, on a picture that is a third flat).

    Source: Mittal et al., "No-Reference Image Quality Assessment in the Spatial Domain", TIP 2012.
    """

    name = "brisque"
    title = "BRISQUE"
    decimals = 2
    min_size = 32
    support_vectors: Tensor
    coefficients: Tensor
    gamma: Tensor
    rho: Tensor
    feature_range: Tensor

    def __init__(self, border: int = 0) -> None:
        super().__init__(border)
        model, _ = load_asset("brisque.safetensors")
        for key, value in model.items():
            self.register_buffer(key, value, persistent=False)

    def _encode(self, image: Tensor) -> Tensor:
        gray = _gray(image)
        features = torch.cat([self._features(gray), self._features(_halve(gray))], -1)
        return self._regress(features).nan_to_num(nan=_WORST)

    def _features(self, gray: Tensor) -> Tensor:
        """18 features of every image, [B, H, W] -> [B, 18]."""
        x = _normalise(gray, "constant")
        shapes, ratios = table = self._table(x)
        square, magnitude = x.square().mean((1, 2)), x.abs().mean((1, 2))
        # the table holds the reciprocal; the nearest entry is sought in the ratio itself, as the MATLAB code does
        shape = shapes.flip(0)[_nearest((1 / ratios).flip(0), square / magnitude.square())]
        own = torch.stack([shape, square], -1)

        shape, left, right = _fit_aggd(_with_neighbours(x, ((0, 1), (1, 0), (1, 1), (-1, 1))), table)
        spread = (_gamma(1 / shape) / _gamma(3 / shape)).sqrt()
        mean = (right - left) * _gamma(2 / shape) / _gamma(1 / shape) * spread
        products = torch.stack([shape, mean, left.square(), right.square()], -1)  # [4, B, 4]
        return torch.cat([own, products.movedim(0, 1).flatten(1)], -1)

    def _regress(self, features: Tensor) -> Tensor:
        """Support vector regression with a Gaussian kernel, [B, 36] -> [B]."""
        low, high = self.feature_range.to(features).unbind(1)
        scaled = 2 * (features - low) / (high - low) - 1
        distance = (scaled[:, None] - self.support_vectors.to(features)).square().sum(-1)
        return torch.exp(-self.gamma.to(features) * distance) @ self.coefficients.to(features) - self.rho.to(features)
