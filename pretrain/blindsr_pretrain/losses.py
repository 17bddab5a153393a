"""What AMGAN is trained on: VGG loss, DISTS, and the two adversarial losses (realness, relativistic average).

By default the sum is ``L1 + 15 L_vgg + 0.01 L_adversarial + 10 L_DISTS + 20 L_phase``
(:class:`LossWeights`, :func:`total`).
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blindsr_pretrain.runtime import upload
from sr_env.metrics import ConvFeatures, create_metric, vgg16_features, vgg19_features
from sr_env.utils.checks import UsageError, WeightsUnavailable, check_choice

VGGArchitecture = Literal["auto", "vgg19", "vgg16"]
Anchors = Literal["supplement", "official"]
Form = Literal["kl", "cross_entropy"]

# relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
_VGG19_LAYERS = (1, 6, 11, 20, 29)
_VGG16_LAYERS = (1, 6, 11, 18, 25)
#: Learned metrics that can be terms of the loss.
LEARNED = ("dists", "lpips", "lpips_vgg")
_VGG_MIN_SIZE = 16  # relu5_1 lies behind four halvings
_ANCHOR_SAMPLES = 1000
# The largest of 1000 standard normal numbers is 3.24 in the mean.
_SIGMAS = 3.24


# ---------------------------------------------------------------------------------------------------- what is compared


def _full(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def vgg_backbone(arch: VGGArchitecture = "auto", device: torch.device | str = "cpu") -> ConvFeatures:
    """relu1_1 .. relu5_1 of an ImageNet VGG, in channels-last memory.

    Args:
        arch: "vgg19" (the supplement's), "vgg16", or "auto": VGG19, and VGG16 with a warning where VGG19's weights
            cannot be had.
        device: Where the features live.

    Returns:
        The features; ``arch`` and ``source`` of the result say what was taken.

    Raises:
        UsageError: Unknown ``arch``.
        RuntimeError: The weights cannot be had (names everything tried).
    """
    check_choice("VGG", arch, ("auto", "vgg19", "vgg16"))
    features = None
    if arch != "vgg16":
        try:
            features = vgg19_features(_VGG19_LAYERS, device=device)
        except WeightsUnavailable as error:
            if arch == "vgg19":
                raise
            warnings.warn(f"the VGG loss uses VGG16 in place of VGG19: {error}", stacklevel=2)
    if features is None:
        features = vgg16_features(_VGG16_LAYERS, device=device)
    return features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class VGGLoss(nn.Module):
    """``sum_l (1e3 / C_l^2) mean|phi_l(HR) - phi_l(SR)|`` over the layers of a backbone, C_l their channels.

    Source: the supplement of Hui et al., CVPR 2021. The backbone runs in the ambient autocast, the means in float32.

    Args:
        backbone: Frozen features, see :func:`vgg_backbone`.
    """

    def __init__(self, backbone: ConvFeatures) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Loss of a batch; gradients reach ``sr`` only.

        Args:
            sr: Images [B, 3, H, W], nominally in [0, 1], both sides at least 16.
            hr: References of the same shape.

        Returns:
            A float32 scalar >= 0.

        Raises:
            ValueError: The shapes differ or a side is under 16 pixels.
        """
        if sr.shape != hr.shape or min(sr.shape[-2:]) < _VGG_MIN_SIZE:
            raise ValueError(
                f"the VGG loss compares images of one shape with sides of at least {_VGG_MIN_SIZE} pixels, not sr "
                f"{list(sr.shape)} with hr {list(hr.shape)}"
            )
        with torch.no_grad():
            target = self.backbone(hr)
        distances = [
            1e3 / x.shape[1] ** 2 * F.l1_loss(_full(x), _full(y))
            for x, y in zip(self.backbone(sr), target, strict=True)
        ]
        return torch.stack(distances).sum()


class MetricLoss(nn.Module):
    """Mean of a learned metric over a batch, with gradients; its network runs in the ambient autocast.

    Args:
        name: "dists", "lpips" or "lpips_vgg".
        device: Where the weights live.
        backbone: Ready features to use instead of the released ones, see :mod:`sr_env.metrics.perceptual`.

    Raises:
        UsageError: Another name.
        RuntimeError: The weights cannot be had (names everything tried).
    """

    def __init__(self, name: str, device: torch.device | str = "cpu", *, backbone: ConvFeatures | None = None) -> None:
        super().__init__()
        check_choice("learned metric", name, LEARNED)
        self.metric = create_metric(name, device=device, backbone=backbone)
        self.metric.full_precision = False
        self.metric.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Loss of a batch; gradients reach ``sr`` only.

        Args:
            sr: Images [B, 3, H, W], nominally in [0, 1].
            hr: References of the same shape.

        Returns:
            A float32 scalar, 0 for equal images.

        Raises:
            ValueError: The shapes differ, or are not those of images.
        """
        value: Tensor = self.metric(sr, hr.detach())
        return value.mean()


# ---------------------------------------------------------------------------------------------------------- adversaries


class AdversarialLoss(ABC):
    """The losses of a discriminator and of the generator that plays against it, both to be minimised.

    Attributes:
        outputs: Numbers that the discriminator must return for an image.
        needs_real: Whether the generator's loss looks at the discriminator's outputs for real images.
    """

    outputs: int
    needs_real: bool

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor, seed: int) -> Tensor:
        """Loss of the discriminator.

        Args:
            real: Its raw outputs for HR images, [B, outputs].
            fake: Its raw outputs for SR images, [B, outputs].
            seed: Seed of whatever is drawn at random; give one step's two losses the same.

        Returns:
            A float32 scalar, computed in float32 under autocast too.

        Raises:
            ValueError: Outputs of another shape.
        """

    @abstractmethod
    def generator(self, real: Tensor | None, fake: Tensor, seed: int) -> Tensor:
        """Loss of the generator.

        Args:
            real: Raw outputs for HR images, [B, outputs]; may be None where ``needs_real`` is False.
            fake: Raw outputs for SR images, [B, outputs].
            seed: As in :meth:`discriminator`.

        Returns:
            A float32 scalar; it may be negative.

        Raises:
            ValueError: Outputs of another shape, or ``real`` is None though needed.
        """

    def _check(self, outputs: Tensor) -> Tensor:
        if outputs.ndim != 2 or outputs.shape[1] != self.outputs:
            raise ValueError(
                f"{type(self).__name__} takes the outputs of a discriminator with {self.outputs} of them, "
                f"[B, {self.outputs}], not {list(outputs.shape)}"
            )
        return _full(outputs)


class RealnessLoss(AdversarialLoss):
    """Realness GAN: the discriminator gives a distribution over N outcomes, not one number.

    The softmax of its outputs is the distribution D over the support ``linspace(-1, 1, N)``, compared with the two
    anchors A1 (real) and A0 (fake)::

        discriminator  KL(A1 || D(real)) + KL(A0 || D(fake))
        generator      KL(A1 || D(fake)) - KL(A0 || D(fake))

    Anchors, ``"supplement"``: A1 is a Gaussian and A0 is uniform, both as exact densities on the support. The official
    code draws 1000 numbers of N(0, 0.1) and spreads their histogram over the sample's own range, that is, over about
    3.24 standard deviations either side, whatever their size; accordingly the Gaussian has a standard deviation of
    1 / 3.24 here, and the support ends at 3.24 of them. ``"official"``: those histograms themselves, of 1000 numbers
    each, drawn anew from every seed. There the Gaussian is the **fake** anchor and the uniform one the **real** anchor.
    (That code also shifts the two by +1 and -1 along the support, to move them apart; no such shift is made here.)

    Form, ``"cross_entropy"``: ``-sum A log D`` for ``KL(A || D)``, as in the official code. The two differ by the
    entropy of A, so their gradients are the same.

    Source: Xiangli et al., "Real or Not Real, that is the Question", ICLR 2020; the supplement of Hui et al., CVPR
    2021.

    Args:
        outcomes: Number N of outcomes, at least 3 (on two, a Gaussian and a uniform distribution are the same).
        anchors: "supplement" or "official".
        form: "kl" or "cross_entropy".

    Raises:
        UsageError: Fewer than 3 outcomes, or an unknown choice.
    """

    needs_real = False

    def __init__(self, outcomes: int = 51, anchors: Anchors = "supplement", form: Form = "kl") -> None:
        if isinstance(outcomes, bool) or not isinstance(outcomes, int) or outcomes < 3:
            raise UsageError(f"outcomes is {outcomes!r}: give a whole number of at least 3, for example 51")
        check_choice("anchors", anchors, ("supplement", "official"))
        check_choice("form", form, ("kl", "cross_entropy"))
        self.outputs = outcomes
        self.kind = anchors
        self.form = form

    def anchors(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """A1 (real) and A0 (fake), float64 [N] each, non-negative, of sum 1; ``seed`` matters to the official ones."""
        if self.kind == "supplement":
            bell = np.exp(-0.5 * (_SIGMAS * np.linspace(-1, 1, self.outputs)) ** 2)
            return bell / bell.sum(), np.full(self.outputs, 1 / self.outputs)
        rng = np.random.default_rng(seed)
        fake = np.histogram(rng.normal(0, 0.1, _ANCHOR_SAMPLES), self.outputs)[0]
        real = np.histogram(rng.uniform(-1, 1, _ANCHOR_SAMPLES), self.outputs)[0]
        return real / _ANCHOR_SAMPLES, fake / _ANCHOR_SAMPLES

    def discriminator(self, real: Tensor, fake: Tensor, seed: int) -> Tensor:
        """``KL(A1 || D(real)) + KL(A0 || D(fake))``; see :meth:`AdversarialLoss.discriminator`."""
        of_real, of_fake = self.anchors(seed)
        return self._distance(of_real, real) + self._distance(of_fake, fake)

    def generator(self, real: Tensor | None, fake: Tensor, seed: int) -> Tensor:
        """``KL(A1 || D(fake)) - KL(A0 || D(fake))``; see :meth:`AdversarialLoss.generator`."""
        of_real, of_fake = self.anchors(seed)
        return self._distance(of_real, fake) - self._distance(of_fake, fake)

    def _distance(self, anchor: np.ndarray, outputs: Tensor) -> Tensor:
        """Mean over the batch of KL or cross-entropy."""
        outputs = self._check(outputs)
        with torch.autocast(outputs.device.type, enabled=False):
            target = upload(torch.from_numpy(anchor).to(outputs.dtype), outputs.device).expand_as(outputs)
            if self.form == "cross_entropy":
                return F.cross_entropy(outputs, target)
            return F.kl_div(F.log_softmax(outputs, 1), target, reduction="batchmean")  # 0 log 0 = 0


class RelativisticAverageLoss(AdversarialLoss):
    """Relativistic average GAN: is an image more real than the other kind is on average?

    With ``r = D(real) - mean D(fake)``, ``f = D(fake) - mean D(real)`` and the binary cross-entropy of their sigmoids::

        discriminator  BCE(r, 1) + BCE(f, 0)
        generator      BCE(r, 0) + BCE(f, 1)

    Source: Jolicoeur-Martineau, "The relativistic discriminator", 2018 (the sum, as there and in ESRGAN's paper; some
    code halves it). The means are those of the batch at hand, in each process.
    """

    outputs = 1
    needs_real = True

    def discriminator(self, real: Tensor, fake: Tensor, seed: int) -> Tensor:
        """``BCE(r, 1) + BCE(f, 0)``; see :meth:`AdversarialLoss.discriminator`."""
        real, fake = self._check(real), self._check(fake)
        return _bce(real - fake.mean(), 1.0) + _bce(fake - real.mean(), 0.0)

    def generator(self, real: Tensor | None, fake: Tensor, seed: int) -> Tensor:
        """``BCE(r, 0) + BCE(f, 1)``; see :meth:`AdversarialLoss.generator`."""
        if real is None:
            raise ValueError("the relativistic loss of the generator needs D(real): give the outputs for the HR images")
        return self.discriminator(fake, real, seed)


def _bce(logits: Tensor, target: float) -> Tensor:
    with torch.autocast(logits.device.type, enabled=False):
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


# ---------------------------------------------------------------------------------------------- what draws no patterns


def frequency_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Mean absolute difference of the real Fourier transforms of images [B, 3, H, W], scaled to unit variance of noise.

    Source: Cho et al., "Rethinking Coarse-to-Fine Approach in Single Image Deblurring" (ICCV 2021), beside L1.
    """
    difference = torch.view_as_real(torch.fft.rfft2(_full(sr) - _full(hr), norm="ortho"))
    return difference.abs().mean() * math.sqrt(2)


class PhaseLoss(nn.Module):
    """How much the error depends on where a pixel lies within its block of ``scale`` x ``scale``: the shuffle's grid.

    ``u = pixel_unshuffle(SR - HR, scale)``, ``m = avg_pool(u, 8, stride 4)``, then ``mean |m - mean of m over the
    scale^2 phases|``. An error that is the same at every phase, which is all that a photograph asks for, costs nothing.

    Args:
        scale: Magnification, the period of the grid.
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Loss of images [B, 3, H, W] with sides of at least 8 * scale: a float32 scalar >= 0.

        Raises:
            ValueError: A side is under 8 * scale pixels.
        """
        if min(sr.shape[-2:]) < 8 * self.scale:
            raise ValueError(f"the phase loss needs sides of at least {8 * self.scale} pixels, not {list(sr.shape)}")
        phases = F.avg_pool2d(F.pixel_unshuffle(_full(sr) - _full(hr), self.scale), 8, stride=4)
        phases = phases.unflatten(1, (3, self.scale**2))
        return (phases - phases.mean(2, keepdim=True)).abs().mean()


# -------------------------------------------------------------------------------------------------------------- the sum


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of AMGAN's loss; 0 leaves a term out. The defaults are the supplement's, and the phase loss.

    Attributes:
        l1: Weight of the mean absolute error.
        vgg: Weight of the VGG loss.
        adversarial: Weight of the adversarial loss.
        dists: Weight of DISTS.
        lpips: Weight of LPIPS on AlexNet. A renderer that is trained on the metric fits the metric too: judge such a
            one by DISTS and by eye.
        lpips_vgg: Weight of LPIPS on VGG16.
        phase: Weight of the phase loss, without which the other terms draw a grid into flat areas.

    Raises:
        UsageError: A weight is negative or not finite, or all are 0.
    """

    l1: float = 1.0
    vgg: float = 15.0
    adversarial: float = 0.01
    dists: float = 10.0
    lpips: float = 0.0
    lpips_vgg: float = 0.0
    phase: float = 20.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= getattr(self, field.name) < math.inf:
                raise UsageError(f"the weight of {field.name} is {getattr(self, field.name)}: give a number >= 0")
        if not any(getattr(self, field.name) for field in fields(self)):
            raise UsageError("all loss weights are 0, which trains nothing: give at least one above 0")


def total(terms: Mapping[str, Tensor], weights: LossWeights) -> Tensor:
    """Weighted sum of scalar terms.

    Args:
        terms: Scalars by the names of the weights; a term of weight 0 may be absent and counts for nothing.
        weights: The weights.

    Raises:
        ValueError: A term has an unknown name, or one whose weight is not 0 is absent.
    """
    names = [field.name for field in fields(weights)]
    if unknown := terms.keys() - set(names):
        raise ValueError(f"unknown loss terms {sorted(unknown)}: the weights are {', '.join(names)}")
    used = {name: getattr(weights, name) for name in names if getattr(weights, name) > 0}
    if missing := used.keys() - terms.keys():
        raise ValueError(f"the loss terms {sorted(missing)} are absent though their weights are not 0")
    return torch.stack([weight * terms[name] for name, weight in used.items()]).sum()
