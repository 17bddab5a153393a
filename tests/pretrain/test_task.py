"""What tasks share: degradation in full precision, patches without blur, the renderer's kernel family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from blindsr_pretrain.amnet import AMNetSettings
from blindsr_pretrain.data import split_photos
from blindsr_pretrain.predictor import PredictorSettings, PredictorTask
from blindsr_pretrain.trainer import Trainer

from sr_env.degradation import Degradation, KernelFamily, bicubic_resize, families, load_basis, quantize
from sr_env.models import load_renderer
from sr_env.utils.checks import UsageError


@pytest.fixture
def hr() -> torch.Tensor:
    return torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_degrade_draws_kernels_and_their_codes(
    settings: AMNetSettings, hr: torch.Tensor, trainer: Callable[..., Trainer]
) -> None:
    uniforms = np.random.default_rng(0).random((4, 6))
    lr, code = trainer(settings).task.degrade(hr, uniforms)
    degradation = Degradation(4)
    kernels = degradation.build(0.2 + 3.8 * uniforms[:, 0])
    torch.testing.assert_close(lr, degradation(hr, kernels))
    torch.testing.assert_close(code, load_basis("isotropic", 4).encode(kernels.kernels))


def test_unblurred_patches_are_only_reduced(
    settings: AMNetSettings, hr: torch.Tensor, trainer: Callable[..., Trainer]
) -> None:
    uniforms = np.full((4, 6), 0.6)
    uniforms[:, 5] = (0.05, 0.15, 0.95, 0.1)
    task = trainer(replace(settings, unblurred=0.12)).task
    lr, code = task.degrade(hr, uniforms)
    plain = quantize(bicubic_resize(hr, (16, 16)))
    close = (lr - plain).abs().amax((1, 2, 3)) < 1.5 / 255
    assert close.tolist() == [True, False, False, True]
    delta = torch.zeros(1, 21, 21)
    delta[0, 10, 10] = 1
    torch.testing.assert_close(code[[0, 3]], task.basis.encode(delta).expand(2, -1))
    blurred = trainer(replace(settings, out=settings.out / "other")).task.degrade(hr, uniforms)
    assert torch.equal(lr[1:3], blurred[0][1:3])


def test_degradation_is_exact_whatever_precision_is_set(
    settings: AMNetSettings, hr: torch.Tensor, trainer: Callable[..., Trainer]
) -> None:
    task, uniforms = trainer(settings).task, np.full((4, 6), 0.3)
    exact = task.degrade(hr, uniforms)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        rough = task.degrade(hr, uniforms)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(exact[0], rough[0])
    assert torch.equal(exact[1], rough[1])


def test_another_kernel_family(settings: AMNetSettings, hr: torch.Tensor, trainer: Callable[..., Trainer]) -> None:
    run = trainer(replace(settings, kernels="anisotropic", steps=1))
    assert run.task.basis.digest == load_basis("anisotropic", 4).digest
    uniforms = np.random.default_rng(0).random((4, 6))
    degradation = Degradation(4, kernels="anisotropic")
    torch.testing.assert_close(run.task.degrade(hr, uniforms)[0], degradation(hr, degradation.draw(uniforms)))
    figures = run.run()
    assert list(figures) == ["psnr", "psnr_kernel_1", "psnr_kernel_2", "psnr_kernel_3"]
    with pytest.raises(ValueError, match="unknown kernel family 'motion'"):
        trainer(replace(settings, kernels="motion", out=settings.out / "other"))


def test_a_renderer_of_another_family_is_refused(settings: AMNetSettings, tiny_renderer: Path) -> None:
    own = PredictorSettings(
        data=settings.data, device="cpu", kernels="anisotropic", renderers=(str(tiny_renderer),), validation_photos=2
    )
    with pytest.raises(UsageError, match=r"tiny_renderer.* takes the codes of isotropic kernels, not of .*anisotropic"):
        PredictorTask(own, split_photos(settings)[2])


def test_a_family_of_the_user_s_own(
    settings: AMNetSettings,
    hr: torch.Tensor,
    trainer: Callable[..., Trainer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kernels that are no Gaussians, by the name under which they are registered."""
    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))

    @families.register_family
    class Boxes(KernelFamily):
        name = "boxes"

        def width_range(self, scale: int) -> tuple[float, float]:
            return 1.0, 4.0

        def kernels(self, widths: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
            offsets = torch.arange(-10, 11, device=widths.device).abs()
            inside = (widths[:, :1] - offsets).clamp(0, 1).to(widths.dtype)
            taps = inside / inside.sum(1, keepdim=True)
            return taps[:, :, None] * taps[:, None, :]

    run = trainer(replace(settings, kernels="boxes", steps=1))
    uniforms = np.random.default_rng(0).random((4, 6))
    degradation = Degradation(4, kernels="boxes")
    torch.testing.assert_close(run.task.degrade(hr, uniforms)[0], degradation(hr, degradation.draw(uniforms[:, :3])))
    assert "psnr_kernel_3" in run.run()
    loaded = load_renderer(run.weights, family="boxes")
    assert loaded.card["kernels"] == "boxes, 21x21"
