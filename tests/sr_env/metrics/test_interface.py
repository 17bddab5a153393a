"""The one interface of all metrics, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sr_env.metrics import ConvFeatures, Metric, WeightedScore, available_metrics, create_metric
from sr_env.utils.checks import UsageError

NEEDS_VGG = ("lpips_vgg", "dists")


def small_metric(name: str, border: int = 0) -> Metric:
    """The metric, with random VGG features where it needs VGG: enough for tests of the formula."""
    if name not in NEEDS_VGG:
        return create_metric(name, border=border)
    return create_metric(name, border=border, backbone=random_vgg(name == "dists"))


@lru_cache
def random_vgg(l2_pooling: bool) -> ConvFeatures:
    torch.manual_seed(0)
    return ConvFeatures("vgg16", (3, 8, 15, 22, 29), l2_pooling=l2_pooling)


def small(name: str, pairs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The pairs, cut down for the slow networks."""
    cut = np.s_[..., :44, :52] if name in NEEDS_VGG else np.s_[...]
    return pairs[0][cut], pairs[1][cut]


def test_identical_images(pairs: tuple[Tensor, Tensor]) -> None:
    for name, value in {"psnr": 100.0, "psnr_rgb": 100.0, "ssim": 1.0, "lpips": 0.0, "dists": 0.0}.items():
        _, image = small(name, pairs)
        torch.testing.assert_close(small_metric(name)(image, image.clone()), torch.full((3,), value), atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", available_metrics())
def test_batch_equals_one_by_one_and_prepared(name: str, pairs: tuple[Tensor, Tensor]) -> None:
    sr, hr = small(name, pairs)
    metric = small_metric(name, border=2)
    batch = metric(sr, hr)
    assert batch.shape == (3,)
    assert batch.dtype == torch.float32
    assert len(set(batch.tolist())) == 3
    single = torch.cat([metric(sr[i : i + 1], hr[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(batch, single, atol=1e-5, rtol=1e-5)
    if metric.needs_reference:
        prepared = metric.prepare(hr)
        torch.testing.assert_close(metric(sr, prepared), batch, atol=0, rtol=0)
        one = metric(sr, metric.prepare(hr[:1]))  # several candidates for one scene
        torch.testing.assert_close(one, metric(sr, hr[:1].expand(3, -1, -1, -1)), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", available_metrics())
def test_nothing_of_the_border_reaches_a_value(name: str, pairs: tuple[Tensor, Tensor]) -> None:
    sr, hr = pairs if name in ("niqe", "brisque") else (x[:1, :, :52, :60] for x in pairs)
    metric = small_metric(name, border=4)
    changed = torch.zeros_like(sr)
    changed[..., 4:-4, 4:-4] = sr[..., 4:-4, 4:-4]
    torch.testing.assert_close(metric(changed, hr), metric(sr, hr), atol=0, rtol=0)
    changed[..., 20:24, 20:24] = 1 - changed[..., 20:24, 20:24]
    assert not torch.equal(metric(changed, hr), metric(sr, hr))


@pytest.mark.parametrize("name", available_metrics())
def test_direction(name: str, pairs: tuple[Tensor, Tensor]) -> None:
    """The metric's declared direction is that of more noise, pair 0 having the least."""
    sr, hr = small(name, pairs)
    metric = small_metric(name)
    if not metric.needs_reference:
        pytest.skip("noise can look natural to a metric without a reference")
    values = metric(sr, hr)
    assert (values[0] > values[2]) == metric.higher_is_better


@pytest.mark.parametrize("name", available_metrics())
def test_gradients(name: str, pairs: tuple[Tensor, Tensor]) -> None:
    sr, hr = small(name, pairs)
    metric = small_metric(name)
    assert not metric(sr, hr).requires_grad
    image = sr[:1].clone().requires_grad_()
    value = metric(image, hr[:1])
    assert value.requires_grad == metric.differentiable
    if metric.differentiable:
        value.sum().backward()
        assert image.grad is not None
        assert torch.isfinite(image.grad).all()
        direction = image.grad / image.grad.norm()
        with torch.no_grad():
            step = 0.02
            change = (metric(image + step * direction, hr[:1]) - metric(image - step * direction, hr[:1])) / (2 * step)
        assert change.item() == pytest.approx(image.grad.norm().item(), rel=0.05)


def test_gradient_of_identical_images_is_finite(pairs: tuple[Tensor, Tensor]) -> None:
    for name in ("psnr", "ssim", "lpips", "dists"):
        _, hr = small(name, pairs)
        image = hr[:1].clone().requires_grad_()
        small_metric(name)(image, hr[:1]).sum().backward()
        assert image.grad is not None
        assert torch.isfinite(image.grad).all(), name


@pytest.mark.parametrize("name", ["niqe", "brisque"])
def test_flat_pictures_are_the_worst_and_leave_their_batch_alone(name: str, pairs: tuple[Tensor, Tensor]) -> None:
    sr, _ = pairs
    metric = create_metric(name)
    black = torch.zeros_like(sr[:1])
    values = metric(torch.cat([sr[:1], black]))
    assert values[1].item() == pytest.approx(100)
    assert values[0].item() == pytest.approx(metric(sr[:1]).item())


def test_niqe_ignores_what_no_whole_block_covers(pairs: tuple[Tensor, Tensor]) -> None:
    sr, _ = pairs
    assert create_metric("niqe")(sr).tolist() == create_metric("niqe")(sr[:, :, :96, :96]).tolist()


def test_autocast_and_half_images_are_scored_in_float32(pairs: tuple[Tensor, Tensor]) -> None:
    sr, hr = pairs
    for name in ("ssim", "lpips"):
        metric = create_metric(name)
        plain = metric(sr, hr)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(metric(sr, hr), plain, atol=0, rtol=0)
        assert metric(sr.half(), hr.half()).dtype == torch.float32


def test_weighted_score(pairs: tuple[Tensor, Tensor]) -> None:
    sr, hr = pairs
    score = WeightedScore({"psnr": 1, "lpips": 20, "niqe": 0.5}, border=2)
    value, terms = score(sr, hr)
    expected = {name: create_metric(name, border=2)(sr, hr) for name in ("psnr", "lpips", "niqe")}
    assert list(terms) == ["psnr", "lpips", "niqe"]
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name])
    torch.testing.assert_close(value, expected["psnr"] - 20 * expected["lpips"] - 0.5 * expected["niqe"])
    prepared = {name: score.metrics[name].prepare(hr) for name in ("psnr", "lpips")}
    torch.testing.assert_close(score(sr, prepared)[0], value)
    assert not score.differentiable
    assert WeightedScore({"psnr": 1, "ssim": 3}).differentiable
    assert WeightedScore({"niqe": 1})(sr)[0].shape == (3,)


def test_metrics_share_the_weights_of_a_backbone_but_not_their_modules() -> None:
    first, second = create_metric("lpips"), create_metric("lpips", border=3)
    pointers = [metric.backbone.features[0].weight.data_ptr() for metric in (first, second)]  # type: ignore
    assert pointers[0] == pointers[1]
    first.to(torch.float64)
    assert second.backbone.features[0].weight.dtype == torch.float32  # type: ignore[union-attr, index]


def test_worsening_follows_the_metric_s_direction() -> None:
    values, reference = torch.tensor([3.0, 1.0]), torch.tensor([2.0, 2.0])
    assert create_metric("psnr").worsening(values, reference).tolist() == [-1.0, 1.0]
    assert create_metric("niqe").worsening(values.numpy(), reference.numpy()).tolist() == [1.0, -1.0]


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "needs a mapping"),
        ("psnr", "needs a mapping"),
        ({"psnr": 0}, "positive finite number, not 0"),
        ({"lpips": -20}, "positive finite number, not -20"),
        ({"psnr": float("nan")}, "positive finite number, not nan"),
        ({"psnr": "1"}, "positive finite number, not '1'"),
        ({"psnr": True}, "positive finite number, not True"),
        ({"psnr": 1e300}, r"positive finite number, not 1e\+300, and at most 1e\+09"),
        (["psnr"], "needs a mapping"),
        (None, "needs a mapping"),
        ({3: 1}, "unknown metric 3"),
        ({"pnsr": 1}, "unknown metric 'pnsr': choose one of psnr, psnr_rgb, ssim"),
    ],
)
def test_bad_weights(weights: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightedScore(weights)  # type: ignore[arg-type]


def test_bad_names_borders_and_devices() -> None:
    with pytest.raises(ValueError, match=r"unknown metric 'fid': choose one of psnr, psnr_rgb, ssim"):
        create_metric("fid")
    for border in (-1, 1.5, True):
        with pytest.raises(ValueError, match="border must be a number of pixels"):
            create_metric("psnr", border=border)  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="CUDA devices"):
            create_metric("psnr", device="cuda")
    with pytest.raises(ValueError, match="unknown backbone 'resnet'; choose one of alexnet, vgg16, vgg19"):
        ConvFeatures("resnet", (1,))
    for layers in ((), (0,), (3, 1), (1, 1)):
        with pytest.raises(ValueError, match=r"ascending ReLU indices out of \[1, 4, 7, 9, 11\]"):
            ConvFeatures("alexnet", layers)


def test_bad_images() -> None:
    psnr = create_metric("psnr")
    good = torch.rand(2, 3, 40, 40)
    with pytest.raises(ValueError, match=r"compares with a reference"):
        psnr(good)
    with pytest.raises(ValueError, match=r"float tensor \[B, 3, H, W\].*not torch.uint8 \[2, 3, 40, 40\]"):
        psnr((good * 255).byte(), good)
    for bad in (good[0], good[:, :1], good.permute(0, 2, 3, 1)):
        with pytest.raises(ValueError, match=r"float tensor \[B, 3, H, W\]"):
            psnr(bad, good)
    with pytest.raises(ValueError, match="must have the same size"):
        psnr(good, good[..., :-1])
    with pytest.raises(ValueError, match="must have the same size"):
        psnr(torch.rand(3, 3, 40, 40), good)
    with pytest.raises(ValueError, match="prepared by psnr with border 0, not by psnr with border 4"):
        create_metric("psnr", border=4)(good, psnr.prepare(good))
    for name, size in {"niqe": 96, "ssim": 11, "lpips": 31, "brisque": 32}.items():
        metric = create_metric(name, border=2)
        image = torch.rand(1, 3, size + 4, size + 4)
        assert metric(image, image).shape == (1,)
        with pytest.raises(ValueError, match=rf"{name} with border 2 needs images of at least {size + 4}x{size + 4}"):
            metric(image[..., 1:], image[..., 1:])
    with pytest.raises(ValueError, match="niqe needs no reference"):
        create_metric("niqe").prepare(torch.rand(1, 3, 96, 96))


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (lambda image: image.mean(), r"the shape \[\] for 2 image"),
        (lambda image: image.mean(dim=(2, 3)), r"the shape \[2, 3\] for 2 image.*return a tensor \[2\]"),
        (lambda image: [0.0] * len(image), "list for 2 image"),
    ],
)
@pytest.mark.parametrize("needs_reference", [False, True])
def test_a_metric_of_ones_own_gives_one_value_per_image(
    returned: Callable[[Tensor], Any], told: str, needs_reference: bool
) -> None:
    class Wrong(Metric):
        name, higher_is_better = "wrong", True

        def _encode(self, image: Tensor) -> Any:
            return image if needs_reference else returned(image)

        def _compare(self, sr: Any, hr: Any) -> Any:
            return returned(sr)

    metric = Wrong()
    metric.needs_reference = needs_reference
    image = torch.rand(2, 3, 16, 16)
    with pytest.raises(UsageError, match=f"metric 'wrong' returned {told}"):
        metric(image, image)


def test_what_a_metric_of_ones_own_lacks_is_said() -> None:
    class Bare(Metric):
        name, higher_is_better = "bare", True

    class Encoded(Bare):
        def _encode(self, image: Tensor) -> Tensor:
            return image

    image = torch.rand(1, 3, 16, 16)
    with pytest.raises(NotImplementedError, match=r"metric 'bare' has no method _encode\(image\)"):
        Bare()(image, image)
    with pytest.raises(NotImplementedError, match=r"no method _compare\(sr, hr\).*needs_reference = False"):
        Encoded()(image, image)
