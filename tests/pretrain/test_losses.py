"""What AMGAN compares pictures by, against values derived by hand, with gradients; and the sum of its loss."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from blindsr_pretrain import losses
from blindsr_pretrain.losses import (
    LossWeights,
    MetricLoss,
    PhaseLoss,
    VGGLoss,
    frequency_loss,
    total,
    vgg_backbone,
)
from torch import Tensor, nn

from sr_env.metrics import ConvFeatures, create_metric
from sr_env.utils.checks import WeightsUnavailable


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def random_vgg(layers: tuple[int, ...], **options: Any) -> ConvFeatures:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ConvFeatures("vgg16", layers, **options)


@pytest.fixture(scope="module")
def vgg() -> ConvFeatures:
    """relu1_1 .. relu5_1 of VGG16, random weights."""
    return random_vgg((1, 6, 11, 18, 25))


@pytest.fixture(scope="module")
def dists_vgg() -> ConvFeatures:
    """What DISTS looks at, random weights."""
    return random_vgg((3, 8, 15, 22, 29), l2_pooling=True)


def steepest_slope(loss: Callable[[Tensor], Tensor], at: Tensor, step: float) -> tuple[float, float]:
    """Slope along the sign of the gradient: by the gradient, and by central differences."""
    at = at.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(at), at)
    with torch.no_grad():
        difference = loss(at + step * gradient.sign()) - loss(at - step * gradient.sign())
    return float(gradient.abs().sum()), float(difference) / (2 * step)


# -------------------------------------------------------------------------------------------------------------- VGG


class FlatFeatures(nn.Module):
    """VGG's channel counts; each layer l = 1 .. 5 is flat, l times the mean of its image."""

    def forward(self, image: Tensor) -> list[Tensor]:
        mean = image.mean((1, 2, 3))[:, None, None, None]
        return [level * mean.expand(-1, c, 4, 4) for level, c in enumerate((64, 128, 256, 512, 512), 1)]


def test_vgg_loss_by_hand() -> None:
    loss = VGGLoss(FlatFeatures())  # type: ignore[arg-type]
    sr, hr = torch.full((2, 3, 16, 16), 0.5), torch.full((2, 3, 16, 16), 0.25)
    # 0.25 (1 * 1000/4096 + 2 * 1000/16384 + 3 * 1000/65536 + (4 + 5) * 1000/262144)
    assert float(loss(sr, hr)) == pytest.approx(0.11157989501953125, rel=1e-6)
    sr[1] = 0.25  # a mean over the batch
    assert float(loss(sr, hr)) == pytest.approx(0.11157989501953125 / 2, rel=1e-6)
    assert float(loss(hr, hr)) == 0


def test_vgg_loss_slope_and_where_it_goes() -> None:
    vgg = random_vgg((1, 6, 11)).double()
    loss, sr, hr = VGGLoss(vgg), images(2, 3, 32, 32).double(), images(2, 3, 32, 32, seed=1).double()
    slope, measured = steepest_slope(lambda x: loss(x, hr), sr, 1e-7)
    assert slope > 0
    assert measured == pytest.approx(slope, rel=1e-4)
    sr.requires_grad_(), hr.requires_grad_()
    loss(sr, hr).backward()
    assert hr.grad is None
    assert all(parameter.grad is None for parameter in vgg.parameters())


def test_vgg_loss_in_bf16(vgg: ConvFeatures) -> None:
    loss, sr, hr = VGGLoss(vgg), images(1, 3, 32, 32), images(1, 3, 32, 32, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(sr, hr)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(loss(sr, hr)), rel=0.05)


@pytest.mark.parametrize(("sr", "hr"), [((1, 3, 32, 32), (1, 3, 32, 16)), ((1, 3, 15, 32), (1, 3, 15, 32))])
def test_vgg_loss_refuses(vgg: ConvFeatures, sr: tuple[int, ...], hr: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"one shape with sides of at least 16 pixels, not sr \[1, 3"):
        VGGLoss(vgg)(torch.zeros(sr), torch.zeros(hr))


def test_vgg19_is_preferred_and_vgg16_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    @cache
    def features_of(arch: str, layers: tuple[int, ...]) -> ConvFeatures:
        return ConvFeatures(arch, layers)

    def fake(arch: str) -> Callable[..., ConvFeatures]:
        return lambda layers, device: features_of(arch, layers).to(device)

    def absent(layers: tuple[int, ...], device: str) -> ConvFeatures:
        raise WeightsUnavailable("the weights of vgg19 could not be had; tried this and that")

    monkeypatch.setattr(losses, "vgg16_features", fake("vgg16"))
    monkeypatch.setattr(losses, "vgg19_features", fake("vgg19"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [vgg_backbone(), vgg_backbone("vgg19"), vgg_backbone("vgg16")]
    monkeypatch.setattr(losses, "vgg19_features", absent)
    with pytest.warns(UserWarning, match="uses VGG16 in place of VGG19: the weights of vgg19 .* tried this and that"):
        found.append(vgg_backbone("auto"))
    assert [features.arch for features in found] == ["vgg19", "vgg19", "vgg16", "vgg16"]
    for features in found:
        # relu1_1 .. relu5_1: the first outputs at each size
        shapes = [x.shape[1:] for x in features(images(1, 3, 16, 16))]
        assert shapes == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2), (512, 1, 1)]
        convolutions = sum(isinstance(module, nn.Conv2d) for module in features.features)
        assert convolutions == {"vgg19": 13, "vgg16": 11}[features.arch]  # up to conv5_1
        assert features.features[2].weight.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(WeightsUnavailable, match="tried this and that"):
        vgg_backbone("vgg19")
    with pytest.raises(ValueError, match="unknown VGG 'resnet': choose one of auto, vgg19, vgg16"):
        vgg_backbone("resnet")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ DISTS


def test_dists_loss_is_the_metric_with_a_slope(dists_vgg: ConvFeatures) -> None:
    sr, hr = images(2, 3, 48, 40), images(2, 3, 48, 40, seed=1)
    metric, loss = create_metric("dists", backbone=dists_vgg), MetricLoss("dists", backbone=dists_vgg)
    assert float(loss(sr, hr)) == pytest.approx(float(metric(sr, hr).mean()), abs=1e-6)
    assert float(loss(hr, hr)) == pytest.approx(0, abs=1e-6)
    slope, measured = steepest_slope(lambda x: loss(x, hr), sr, 1e-3)
    assert slope > 0.01
    assert measured == pytest.approx(slope, rel=0.03)
    sr.requires_grad_(), hr.requires_grad_()
    loss(sr, hr).backward()
    assert hr.grad is None
    assert all(parameter.grad is None for parameter in loss.parameters())


def test_lpips_is_a_term_too_and_other_metrics_are_not() -> None:
    sr, hr = images(2, 3, 48, 40), images(2, 3, 48, 40, seed=1)
    loss = MetricLoss("lpips")
    assert float(loss(sr, hr)) == pytest.approx(float(create_metric("lpips")(sr, hr).mean()), abs=1e-6)
    slope, measured = steepest_slope(lambda x: loss(x, hr), sr, 1e-3)
    assert measured == pytest.approx(slope, rel=0.03)
    black = torch.zeros(1, 3, 48, 40, requires_grad=True)
    loss(black, torch.ones_like(black)).backward()
    assert black.grad is not None
    assert black.grad.isfinite().all()
    with pytest.raises(ValueError, match="unknown learned metric 'psnr': choose one of dists, lpips, lpips_vgg"):
        MetricLoss("psnr")


def test_dists_follows_the_ambient_precision_as_a_loss_only(dists_vgg: ConvFeatures) -> None:
    sr, hr = images(1, 3, 48, 40), images(1, 3, 48, 40, seed=1)
    metric, loss = create_metric("dists", backbone=dists_vgg), MetricLoss("dists", backbone=dists_vgg)
    assert metric.full_precision
    seen: list[torch.dtype] = []
    hook = dists_vgg.features[2].register_forward_hook(lambda module, arguments, output: seen.append(output.dtype))
    plain = metric(sr, hr)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(metric(sr, hr), plain)
        assert torch.equal(metric(sr, metric.prepare(hr)), plain)
        assert set(seen) == {torch.float32}
        seen.clear()
        value = loss(sr, hr)
        assert torch.is_autocast_enabled("cpu")
    hook.remove()
    assert seen == [torch.bfloat16, torch.bfloat16]
    assert value.dtype == torch.float32
    assert float(value) != float(plain)
    assert float(value) == pytest.approx(float(plain), abs=0.01)


# ---------------------------------------------------------------------------------------------- what draws no patterns


def test_the_phase_loss_sees_a_grid_and_nothing_else() -> None:
    hr = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    grid = torch.zeros(64, 64)
    grid[::4, ::4] = 0.16  # one phase of sixteen: its mean is 0.16, the mean of all 0.01
    assert float(PhaseLoss(4)(hr + 0.2, hr)) == pytest.approx(0, abs=1e-6)
    assert float(PhaseLoss(4)(hr + grid, hr)) == pytest.approx((0.15 + 15 * 0.01) / 16, rel=1e-4)
    assert float(PhaseLoss(2)(hr + grid, hr)) == pytest.approx((0.03 + 3 * 0.01) / 4, rel=1e-4)
    with pytest.raises(ValueError, match="phase loss needs sides of at least 32 pixels"):
        PhaseLoss(4)(hr[..., :28, :], hr[..., :28, :])


def test_the_frequency_loss_is_the_mean_of_the_spectrum() -> None:
    hr = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert float(frequency_loss(hr, hr)) == 0
    flat = float(frequency_loss(hr + 0.5, hr))  # a single coefficient of 0.5 * 32 among 32 x 17 complex ones
    assert flat == pytest.approx(2**0.5 * 0.5 * 32 / (2 * 32 * 17), rel=1e-3)


# ---------------------------------------------------------------------------------------------------------- the sum


def test_total_is_the_supplements_sum() -> None:
    terms = {name: torch.tensor(value) for name, value in
             {"l1": 0.04, "vgg": 0.02, "adversarial": -3.0, "dists": 0.1, "phase": 0.01}.items()}  # fmt: skip
    assert float(total(terms, LossWeights())) == pytest.approx(0.04 + 15 * 0.02 - 0.01 * 3 + 10 * 0.1 + 20 * 0.01)
    weights = LossWeights(vgg=0, adversarial=0)
    assert float(total({**terms, "vgg": torch.tensor(float("nan"))}, weights)) == pytest.approx(0.04 + 1.0 + 0.2)
    del terms["vgg"], terms["adversarial"]
    assert float(total(terms, weights)) == pytest.approx(0.04 + 1.0 + 0.2)
    with pytest.raises(ValueError, match=r"terms \['adversarial', 'vgg'\] are absent"):
        total(terms, LossWeights())
    with pytest.raises(
        ValueError, match=r"unknown loss terms \['gan'\]: .* l1, vgg, adversarial, dists, lpips, lpips_vgg, phase"
    ):
        total({**terms, "gan": torch.tensor(1.0)}, weights)


def test_total_passes_weighted_gradients() -> None:
    terms = {name: torch.tensor(1.0, requires_grad=True) for name in ("l1", "vgg", "adversarial", "dists", "phase")}
    total(terms, LossWeights(l1=0.5)).backward()
    assert [float(term.grad) for term in terms.values()] == pytest.approx([0.5, 15, 0.01, 10, 20])  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_weights_out_of_range(value: float) -> None:
    with pytest.raises(ValueError, match=f"weight of vgg is {value}: give a number >= 0"):
        LossWeights(vgg=value)
    with pytest.raises(ValueError, match="all loss weights are 0"):
        LossWeights(**dict.fromkeys(vars(LossWeights()), 0))
