"""The kernel predictor: it learns through the renderer, and its file fits it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import train_predictor
from blindsr_pretrain.amnet import AMNetSettings
from blindsr_pretrain.data import split_photos
from blindsr_pretrain.predictor import PredictorSettings, PredictorTask
from blindsr_pretrain.trainer import Trainer
from torch import nn

from sr_env.degradation import KernelBasis, bicubic_resize, load_basis
from sr_env.models import KernelPredictor, base, load_predictor, load_renderer, register_renderer, save_checkpoint


def test_predictor_learns_a_fixed_batch_through_the_renderer(
    settings: AMNetSettings, tiny_renderer: Path, trainer: Callable[..., Trainer], common: Callable[..., dict[str, Any]]
) -> None:
    shared = common(settings)
    own = PredictorSettings(
        **{**shared, "learning_rate": 2e-3, "steps": 60}, renderer=str(tiny_renderer), code_steps=30
    )
    task = PredictorTask(own, split_photos(own)[2])
    run = trainer(own, task)  # type: ignore[arg-type]
    before = {k: v.clone() for k, v in task.renderer.state_dict().items()}
    batch = next(run._batches())
    logs = []
    for _ in range(60):
        logs.append({k: float(v) for k, v in run._update(*batch).items()})
        run.step += 1
    assert logs[-1]["code"] < 0.5 * logs[0]["code"]
    assert "render" not in logs[29]
    assert logs[-1]["render"] < 0.8 * logs[30]["render"]
    assert all(torch.equal(before[k], v) for k, v in task.renderer.state_dict().items())  # frozen


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_of_the_predictor_see_8_bit_images_in_any_precision(
    settings: AMNetSettings,
    tiny_renderer: Path,
    precision: Any,
    trainer: Callable[..., Trainer],
    common: Callable[..., dict[str, Any]],
) -> None:
    shared = common(settings)
    own = PredictorSettings(**{**shared, "precision": precision}, renderer=str(tiny_renderer), code_steps=1)
    run = trainer(own, PredictorTask(own, split_photos(own)[2]))  # type: ignore[arg-type]
    seen: list[torch.Tensor] = []
    run.task.network.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    for batch in run._batches():
        run._update(*batch)
        run.step += 1
    assert run.bad_steps == 0
    assert len(seen) == own.steps
    for lr in seen:
        assert lr.dtype == torch.float32
        torch.testing.assert_close(lr * 255, (lr * 255).round(), atol=1e-4, rtol=0)


def test_predictor_run_exports_for_its_renderer(
    settings: AMNetSettings, tiny_renderer: Path, common: Callable[..., dict[str, Any]]
) -> None:
    shared = common(settings)
    own = PredictorSettings(**{**shared, "steps": 2}, renderer=str(tiny_renderer), code_steps=1)
    figures = train_predictor.main(own)
    assert "psnr_true_kernel" in figures
    basis = load_renderer(tiny_renderer).basis
    loaded = load_predictor(own.out / "predictor_x4.safetensors", scale=4, basis=basis)
    assert re.match(r"\w+/tiny_renderer\.safetensors, ", loaded.card["renderer"])
    # And training goes on from it.
    start = replace(own, out=own.out / "next", start=str(loaded.path), steps=1, target="hr", code_steps=0)
    assert train_predictor.main(start)["psnr"] == pytest.approx(figures["psnr"], abs=1.0)


def test_predictor_starts_from_one_of_another_scale(
    settings: AMNetSettings, tiny_renderer: Path, tmp_path: Path, common: Callable[..., dict[str, Any]]
) -> None:
    network = KernelPredictor(channels=8)
    other = save_checkpoint(tmp_path / "x2.safetensors", network, load_basis("isotropic", 2), 2, {})
    start = PredictorSettings(
        **{**common(settings), "steps": 1, "learning_rate": 1e-9}, renderer=str(tiny_renderer), start=str(other)
    )
    train_predictor.main(start)
    went_on = load_predictor(start.out / "predictor_x4.safetensors", scale=4).network
    for name, value in went_on.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[name], rtol=0, atol=1e-6)

    full = load_basis("isotropic", 4)
    short = KernelBasis(full.mean, full.components[:3], full.scale[:3], full.centre[:3], full.half_range[:3])
    wrong = save_checkpoint(tmp_path / "short.safetensors", KernelPredictor(channels=8, code_length=3), short, 4, {})
    with pytest.raises(ValueError, match=r"short.*codes of 3 numbers, renderer .*tiny_renderer.* takes 10"):
        train_predictor.main(replace(start, start=str(wrong)))


def test_predictor_learns_for_a_registered_renderer(
    settings: AMNetSettings, common: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any network that maps an LR image and a code to SR will do."""
    monkeypatch.setattr(base, "_RENDERERS", dict(base._RENDERERS))

    @register_renderer("tinted")
    class Tinted(nn.Module):
        receptive_radius = 2

        def __init__(self, scale: int = 4, code_length: int = 10) -> None:
            super().__init__()
            self.scale, self.code_length = scale, code_length
            self.tint = nn.Linear(code_length, 3)

        def forward(self, lr: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
            return bicubic_resize(lr, (4 * lr.shape[-2], 4 * lr.shape[-1])) + self.tint(code)[:, :, None, None]

    own = PredictorSettings(**{**common(settings), "steps": 2}, renderer="tinted", code_steps=0)
    task = PredictorTask(own, split_photos(own)[2])
    loss, terms = task.loss(task.network, torch.rand(2, 3, 64, 64), np.full((2, 6), 0.5), 0)
    loss.backward()
    assert terms["render"] > 0
    assert "psnr_true_kernel" in train_predictor.main(own)
