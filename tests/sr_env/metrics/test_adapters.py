"""Metrics of others: functions, piq, pyiqa; and what the registry refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sr_env.utils.torchvision_compat  # noqa: F401  (before piq, which imports torchvision)
from sr_env.metrics import (
    Metric,
    WeightedScore,
    adapters,
    available_metrics,
    base,
    create_metric,
    describe,
    register,
    register_function,
)
from sr_env.utils.checks import UsageError

PIQ = [name.removeprefix("piq.") for name in adapters.PIQ if name != "piq.brisque"]  # whose model piq downloads


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    monkeypatch.setattr(base, "_ORIGINS", dict(base._ORIGINS))


def mae(sr: np.ndarray, hr: np.ndarray) -> np.ndarray:
    """Mean absolute error in grey levels."""
    return np.abs(sr.astype(float) - hr).mean((1, 2, 3))


def expected_mae(sr: Tensor, hr: Tensor) -> Tensor:
    return 255 * (sr - hr).abs().mean((1, 2, 3))


# --- what is known of a metric ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "title", "text", "arrow"),
    [
        ("psnr", "PSNR-Y", "31.23", "↑"),
        ("psnr_rgb", "PSNR-RGB", "31.23", "↑"),
        ("ssim", "SSIM-Y", "31.2346", "↑"),
        ("lpips", "LPIPS", "31.2346", "↓"),
        ("lpips_vgg", "LPIPS-VGG", "31.2346", "↓"),
        ("dists", "DISTS", "31.2346", "↓"),
        ("niqe", "NIQE", "31.23", "↓"),
        ("brisque", "BRISQUE", "31.23", "↓"),
        ("piq.haarpsi", "HaarPSI", "31.2346", "↑"),
    ],
)
def test_a_metric_says_how_it_is_written(
    name: str, title: str, text: str, arrow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("weights were loaded"))
    info = describe(name)
    assert (info.name, info.title, info.format(31.23456), info.arrow) == (name, title, text, arrow)
    assert info.format(None) == "-"


def test_every_metric_has_its_own_title() -> None:
    titles = [describe(name).title for name in (*available_metrics(), *adapters.PIQ)]
    assert len(set(titles)) == len(titles)


# --- a subclass -------------------------------------------------------------------------------------------------------


def test_a_subclass_needs_one_decorator(pairs: tuple[Tensor, Tensor]) -> None:
    @register
    class Bright(Metric):
        name, title, decimals, unit = "bright", "Brightness", 1, "%"
        higher_is_better = True
        needs_reference = False

        def _encode(self, image: Tensor) -> Tensor:
            return 100 * image.mean((1, 2, 3))

    sr = pairs[0]
    inner = sr[..., 4:-4, 4:-4]
    torch.testing.assert_close(create_metric("bright", border=4)(sr), 100 * inner.mean((1, 2, 3)))
    assert describe("bright").format(41.27) == "41.3"
    assert (describe("bright").title, describe("bright").unit) == ("Brightness", "%")
    assert "bright" in available_metrics()


def test_what_cannot_be_registered() -> None:
    def made(**attributes: Any) -> type[Metric]:
        return type("Mine", (Metric,), attributes)

    for attributes, told in (
        ({"higher_is_better": True}, "Mine has no name"),
        ({"name": "mine"}, "Mine has no direction"),
        ({"name": "a.b", "higher_is_better": True}, "'a.b' is reserved or has a point"),
        ({"name": "code", "higher_is_better": True}, "'code' is reserved"),
        ({"name": "sharpen", "higher_is_better": True}, "'sharpen' is reserved"),
        ({"name": "psnr", "higher_is_better": True}, "'psnr' is registered already, .*PSNR"),
    ):
        with pytest.raises(UsageError, match=told):
            register(made(**attributes))
    register(made(name="mine", higher_is_better=True))
    register(made(name="mine", higher_is_better=False))  # a notebook's cell, changed and run again
    assert not describe("mine").higher_is_better


# --- functions --------------------------------------------------------------------------------------------------------


def test_a_registered_function_sees_8_bit_arrays_without_the_border(pairs: tuple[Tensor, Tensor]) -> None:
    seen = []

    def spy(sr: np.ndarray, hr: np.ndarray) -> list[float]:
        seen.append((sr.dtype, sr.shape, hr.shape, sr[0, 0, 0].tolist()))
        sr[:] = 0  # a copy of its own
        hr[:] = 0
        return [0.0] * len(sr)

    register_function("spy", spy, higher_is_better=True)
    register_function("mae", mae, higher_is_better=False, decimals=1, title="MAE")
    sr, hr = pairs
    metric = create_metric("spy", border=4)
    prepared = metric.prepare(hr)
    for _ in range(2):
        metric(sr, prepared)
    assert seen[0][:3] == (np.uint8, (3, 96, 112, 3), (3, 96, 112, 3))
    assert seen[0][3] == (sr[0, :, 4, 4] * 255).round().tolist()
    assert seen[0] == seen[1]
    inner = expected_mae(sr[..., 4:-4, 4:-4], hr[..., 4:-4, 4:-4])
    error = create_metric("mae", border=4)
    torch.testing.assert_close(error(sr, hr), inner)
    torch.testing.assert_close(
        error(sr, error.prepare(hr[:1])), expected_mae(sr[..., 4:-4, 4:-4], hr[:1, :, 4:-4, 4:-4])
    )
    assert not error.higher_is_better
    assert not error(sr.clone().requires_grad_(), hr).requires_grad
    assert describe("mae").format(3.14159) == "3.1"


def test_float_arrays_one_image_at_a_time_and_no_reference(pairs: tuple[Tensor, Tensor]) -> None:
    def one(sr: np.ndarray, hr: np.ndarray) -> float:
        assert (sr.dtype, sr.ndim) == (np.float32, 3)
        return float(np.abs(sr - hr).max())

    register_function("worst", one, higher_is_better=False, images="float", batched=False)
    sr, hr = pairs
    torch.testing.assert_close(create_metric("worst")(sr, hr), (sr - hr).abs().amax((1, 2, 3)))

    def contrast(images: np.ndarray) -> Tensor:
        return torch.from_numpy(images).double().flatten(1).std(1)

    register_function("contrast", contrast, higher_is_better=True, images="float")
    metric = create_metric("contrast")
    assert not metric.needs_reference
    torch.testing.assert_close(metric(sr), sr.flatten(1).std(1))


def test_a_function_is_a_metric_by_itself(pairs: tuple[Tensor, Tensor]) -> None:
    def closeness(sr: np.ndarray, hr: np.ndarray, power: float = 1.0) -> np.ndarray:
        return -(mae(sr, hr) ** power)

    sr, hr = pairs
    score = WeightedScore({"psnr": 1, closeness: 2}, border=2)
    value, terms = score(sr, hr)
    assert list(terms) == ["psnr", "closeness"]
    inner = expected_mae(sr[..., 2:-2, 2:-2], hr[..., 2:-2, 2:-2])
    torch.testing.assert_close(value, create_metric("psnr", border=2)(sr, hr) - 2 * inner)
    assert not score.differentiable
    with pytest.raises(UsageError, match="has no name: call register_function"):
        create_metric(lambda sr, hr: mae(sr, hr))

    def psnr(sr: np.ndarray, hr: np.ndarray) -> np.ndarray:
        return mae(sr, hr)

    with pytest.raises(UsageError, match="have the same name"):
        WeightedScore({"psnr": 1, psnr: 1})


@pytest.mark.parametrize(
    ("function", "batched", "told"),
    [
        (lambda sr, hr: np.full(len(sr), np.nan), True, "'bad' returned nan for image 0"),
        (lambda sr, hr: np.array([1.0, np.inf, 1.0]), True, "'bad' returned inf for image 1.*cap"),
        (lambda sr, hr: 1.0, True, r"shape \[\] for 3 image\(s\): return 3 finite numbers.*batched=False"),
        (lambda sr, hr: np.zeros((3, 1)), True, r"shape \[3, 1\] for 3"),
        (lambda sr, hr: "good", True, "returned str"),
        (lambda sr, hr: None, True, r"'bad' returned (nan|the shape)"),
        (lambda sr, hr: [1.0, 2.0], False, r"shape \[3, 2\] for 3 image\(s\): return one finite number"),
    ],
)
def test_wrong_returns_are_one_clear_error(
    function: Callable[..., Any], batched: bool, told: str, pairs: tuple[Tensor, Tensor]
) -> None:
    register_function("bad", function, higher_is_better=True, batched=batched)
    with pytest.raises(UsageError, match=told):
        create_metric("bad")(*pairs)


def test_a_functions_own_error_keeps_its_traceback(pairs: tuple[Tensor, Tensor]) -> None:
    def broken(sr: np.ndarray, hr: np.ndarray) -> np.ndarray:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        create_metric(broken)(*pairs)


def test_wrong_registrations_are_named() -> None:
    with pytest.raises(UsageError, match="'x': 3 is no function"):
        register_function("x", 3, higher_is_better=True)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="higher_is_better must be True or False, not 'yes'"):
        register_function("x", mae, higher_is_better="yes")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'lpips' is registered already"):
        register_function("lpips", mae, higher_is_better=True)
    with pytest.raises(UsageError, match="unknown images of metric 'x', 'rgb'"):
        register_function("x", mae, higher_is_better=True, images="rgb")  # type: ignore[arg-type]
    register_function("x", mae, higher_is_better=False)
    with pytest.raises(UsageError, match="takes no options such as 'weights'"):
        create_metric("x", weights="file")


# --- piq --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def large() -> tuple[Tensor, Tensor, Tensor]:
    """Two pictures of 176x176 with a little and with much noise, and without."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 44, 44, generator=generator)
    hr = nn.functional.interpolate(coarse, scale_factor=4, mode="bicubic").clamp(0, 1)
    noise = torch.randn(hr.shape, generator=generator)
    return (hr + 0.03 * noise).clamp(0, 1), (hr + 0.12 * noise).clamp(0, 1), hr


@pytest.mark.parametrize("name", PIQ)
def test_piq_metrics(name: str, large: tuple[Tensor, Tensor, Tensor]) -> None:
    import piq

    better, worse, hr = large
    metric = create_metric(f"piq.{name}", border=4)
    inner = [x[..., 4:-4, 4:-4] for x in ((better, hr) if metric.needs_reference else (better,))]
    values = metric(better, hr)
    torch.testing.assert_close(values[:1], getattr(piq, name)(*(x[:1] for x in inner)).reshape(1), rtol=1e-4, atol=1e-6)
    assert (metric.worsening(metric(worse, hr), values) > 0).all()
    one_by_one = torch.cat([metric(better[i : i + 1], hr[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(values, one_by_one, rtol=1e-4, atol=1e-5)
    image = better.clone().requires_grad_()
    gradient = torch.autograd.grad(metric(image, hr).sum(), image)[0]
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().max()) > 0
    side = metric.min_size + 8
    assert metric(better[..., :side, :side], hr[..., :side, :side]).isfinite().all()
    if metric.needs_reference:
        torch.testing.assert_close(metric(better, metric.prepare(hr[:1]))[:1], values[:1], rtol=1e-4, atol=1e-5)


def test_piq_metrics_in_a_score_and_with_options(large: tuple[Tensor, Tensor, Tensor]) -> None:
    better, _, hr = large
    value, terms = WeightedScore({"piq.haarpsi": 1, "piq.gmsd": 2})(better, hr)
    torch.testing.assert_close(value, terms["piq.haarpsi"] - 2 * terms["piq.gmsd"])
    assert create_metric("piq.fsim", chromatic=False)(better, hr)[0] != create_metric("piq.fsim")(better, hr)[0]
    with pytest.raises(UsageError, match=r"unknown option of metric piq.fsim 'chroma'.*chromatic"):
        create_metric("piq.fsim", chroma=False)
    with pytest.raises(UsageError, match=r"unknown metric 'piq.nope': choose one of piq.brisque, .*piq.vsi"):
        create_metric("piq.nope")


# --- pyiqa ------------------------------------------------------------------------------------------------------------


class _Model(nn.Module):
    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign, self.weight = sign, nn.Parameter(torch.ones(1))

    def forward(self, target: Tensor, ref: Tensor | None = None) -> Tensor:
        assert target.min() >= 0
        assert target.max() <= 1
        error = target if ref is None else (target - ref).abs()
        return self.weight * self.sign * error.mean((1, 2, 3))[:, None]


def test_pyiqa_metrics(monkeypatch: pytest.MonkeyPatch, pairs: tuple[Tensor, Tensor]) -> None:
    """pyiqa is large and not installed with the package: a stand-in with its interface (as of 0.1.16)."""
    table = {
        "near": {"metric_mode": "FR", "lower_better": True},
        "light": {"metric_mode": "NR"},
        "fid": {"metric_mode": "NR", "lower_better": True},
    }
    package, configs = ModuleType("pyiqa"), ModuleType("pyiqa.default_model_configs")
    made = []
    package.list_models = lambda: list(table)  # type: ignore[attr-defined]
    package.create_metric = lambda name, **options: made.append((name, options)) or _Model(1)  # type: ignore[attr-defined, func-returns-value]
    configs.DEFAULT_CONFIGS = table  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyiqa", package)
    monkeypatch.setitem(sys.modules, "pyiqa.default_model_configs", configs)
    sr, hr = pairs
    near, light = create_metric("pyiqa.near", border=4), create_metric("pyiqa.light", net="small")
    torch.testing.assert_close(near(sr, hr), (sr - hr)[..., 4:-4, 4:-4].abs().mean((1, 2, 3)))
    torch.testing.assert_close(light(sr), sr.mean((1, 2, 3)))
    assert (near.higher_is_better, light.higher_is_better, near.needs_reference, light.needs_reference) == (
        *(False, True),
        *(True, False),
    )
    assert made == [
        ("near", {"device": "cpu", "as_loss": False}),
        ("light", {"device": "cpu", "as_loss": False, "net": "small"}),
    ]
    assert describe("pyiqa.near").title == "near (pyiqa)"
    assert not any(parameter.requires_grad for parameter in near.parameters())
    with pytest.raises(UsageError, match=r"unknown metric 'pyiqa.far': choose one of near, light"):
        create_metric("pyiqa.far")
    with pytest.raises(UsageError, match=r"'pyiqa.fid' compares sets of pictures"):
        create_metric("pyiqa.fid")


def test_an_absent_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(UsageError, match=r"metrics of pyiqa need the package pyiqa.*pip install pyiqa"):
        create_metric("pyiqa.musiq")
