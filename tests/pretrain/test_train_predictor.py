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
from blindsr_pretrain.predictor import PredictorSettings, PredictorTask, decibels_lost, doubt_loss, with_outputs
from blindsr_pretrain.trainer import Trainer
from torch import nn

from sr_env.degradation import bicubic_resize, load_basis
from sr_env.models import (
    AMNet,
    KernelPredictor,
    base,
    load_predictor,
    load_renderer,
    register_renderer,
    save_checkpoint,
)
from sr_env.utils.checks import UsageError


def test_predictor_learns_a_fixed_batch_through_the_renderer(
    settings: AMNetSettings, tiny_renderer: Path, trainer: Callable[..., Trainer], common: Callable[..., dict[str, Any]]
) -> None:
    shared = common(settings)
    own = PredictorSettings(
        **{**shared, "learning_rate": 2e-3, "steps": 60}, renderers=(str(tiny_renderer),), code_steps=30
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
    own = PredictorSettings(**{**shared, "precision": precision}, renderers=(str(tiny_renderer),), code_steps=1)
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
    own = PredictorSettings(**{**shared, "steps": 2}, renderers=(str(tiny_renderer),), code_steps=1)
    figures = train_predictor.main(own)
    assert "psnr_true_kernel" in figures
    basis = load_renderer(tiny_renderer).basis
    loaded = load_predictor(own.out / "predictor_x4.safetensors", scale=4, basis=basis)
    assert re.match(r"\w+/tiny_renderer\.safetensors, ", loaded.card["renderers"][0])
    # And training goes on from it.
    start = replace(own, out=own.out / "next", start=str(loaded.path), steps=1, target="hr", code_steps=0)
    assert train_predictor.main(start)["psnr"] == pytest.approx(figures["psnr"], abs=1.0)


def test_predictor_starts_from_one_of_another_scale(
    settings: AMNetSettings, tiny_renderer: Path, tmp_path: Path, common: Callable[..., dict[str, Any]]
) -> None:
    network = KernelPredictor(channels=8)
    other = save_checkpoint(tmp_path / "x2.safetensors", network, load_basis("isotropic", 2), 2, {})
    start = PredictorSettings(
        **{**common(settings), "steps": 1, "learning_rate": 1e-9}, renderers=(str(tiny_renderer),), start=str(other)
    )
    train_predictor.main(start)
    went_on = load_predictor(start.out / "predictor_x4.safetensors", scale=4).network
    for name, value in went_on.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[name], rtol=0, atol=1e-6)


def test_predictor_starts_from_one_of_another_code_and_learns_to_doubt() -> None:
    torch.manual_seed(0)
    trained = KernelPredictor(channels=4, hidden=8)
    wider = with_outputs(trained, 18, doubt=True)
    assert wider.code_length == 18
    lr = torch.rand(2, 3, 16, 16)
    assert torch.equal(wider.features(lr), trained.features(lr))
    assert torch.equal(wider.head[0].weight, trained.head[0].weight)
    assert torch.equal(with_outputs(trained, 10, doubt=False)(lr), trained(lr))
    assert with_outputs(wider, 18, doubt=False).spread is not None  # what it has learned is not thrown away


def test_doubt_becomes_the_size_of_the_errors_and_moves_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(4096, 2, generator=generator)
    actions = (true + torch.tensor([0.1, 0.5]) * torch.randn(4096, 2, generator=generator)).requires_grad_()
    doubt = torch.full((2,), 0.3, requires_grad=True)
    optimiser = torch.optim.Adam([doubt], lr=0.01)
    for _ in range(150):
        optimiser.zero_grad()
        doubt_loss(actions, true, doubt.expand(4096, 2)).backward()
        optimiser.step()
    assert doubt.tolist() == pytest.approx([0.1, 0.5], rel=0.05)
    assert actions.grad is None


def test_a_predictor_of_longer_codes_is_trained_with_its_doubt(
    settings: AMNetSettings, tmp_path: Path, common: Callable[..., dict[str, Any]]
) -> None:
    basis = load_basis("real", 4)
    renderer = save_checkpoint(tmp_path / "real.safetensors", AMNet(channels=8, blocks=1, code_length=18), basis, 4, {})
    own = PredictorSettings(
        **{**common(settings), "steps": 2, "code_steps": 1, "kernels": "real"}, renderers=(str(renderer),), doubt=True
    )
    train_predictor.main(own)
    loaded = load_predictor(own.out / "predictor_x4.safetensors", basis=basis).network
    assert loaded.architecture["doubt"]
    both = loaded(torch.rand(2, 3, 16, 16), doubtful=True)
    assert both.shape == (2, 36)
    assert (both[:, 18:] > 0.01).all()
    with pytest.raises(UsageError, match="does not say how sure it is"):
        KernelPredictor(channels=4)(torch.rand(1, 3, 16, 16), doubtful=True)


def test_decibels_lost_are_those_of_a_mean_psnr() -> None:
    """Errors that are independent add up: the wrong code costs what it adds, whatever the patch's contrast."""
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 2, 3, 64, 64))).float()
    hr = torch.full_like(noise[0], 0.5)
    best = hr + 0.1 * noise[1]
    assert float(decibels_lost(best, best, hr)) == 0
    assert float(decibels_lost(best + 0.1 * noise[2], best, hr)) == pytest.approx(10 * np.log10(2), rel=0.02)
    contrast = torch.tensor([1.0, 4.0])[
        :, None, None, None
    ]  # both patches lose as much, the second is four times as far
    sr, far = hr + contrast * 0.05 * (noise[1] + noise[2]), hr + contrast * 0.05 * noise[1]
    assert float(decibels_lost(sr, far, hr)) == pytest.approx(10 * np.log10(2), rel=0.02)
    flat = hr + 1e-4
    assert float(decibels_lost(flat, hr, hr)) < 0.02  # a flat patch rendered well has no PSNR to lose


def test_predictor_goes_through_several_renderers_in_turn(
    settings: AMNetSettings, tiny_renderer: Path, tmp_path: Path, common: Callable[..., dict[str, Any]]
) -> None:
    torch.manual_seed(1)
    second = save_checkpoint(
        tmp_path / "second.safetensors",
        AMNet(scale=4, channels=8, blocks=1),
        load_renderer(tiny_renderer).basis,
        4,
        {},
    )
    own = PredictorSettings(
        **{**common(settings), "steps": 2},
        renderers=(str(tiny_renderer), str(second)),
        code_steps=0,
        target="decibels",
        render_size=32,
    )
    task = PredictorTask(own, split_photos(own)[2])
    shapes: list[tuple[int, torch.Size]] = []
    for number, rendering in enumerate(task.renderings):
        rendering.register_forward_pre_hook(  # type: ignore[attr-defined]
            lambda module, arguments, number=number: shapes.append((number, arguments[0].shape))
        )
    hr, uniforms = torch.rand(2, 3, 64, 64), np.full((2, 6), 0.5)
    for step in range(3):
        task.loss(task.network, hr, uniforms, step)[0].backward()
    assert [number for number, _ in shapes] == [0, 0, 1, 1, 0, 0]  # predicted, then true code
    assert {shape for _, shape in shapes} == {torch.Size((2, 3, 8, 8))}  # the middle alone is rendered
    assert all(parameter.grad is not None for parameter in task.network.parameters())
    assert len(task.card()["renderers"]) == 2
    assert "render_decibels" in task.card()["losses"]

    with pytest.raises(ValueError, match="renderer 'amnet_l_x2' has another scale or kernel basis than"):
        PredictorTask(replace(own, renderers=(str(tiny_renderer), "amnet_l_x2")), split_photos(own)[2])
    with pytest.raises(ValueError, match="renderers is empty"):
        replace(own, renderers=())
    with pytest.raises(ValueError, match="render_size is 66: give at least 1 and at most the patch_size of 64"):
        replace(own, render_size=66)
    with pytest.raises(ValueError, match="render_size is 30: give a multiple of the scale, 4"):
        PredictorTask(replace(own, render_size=30), split_photos(own)[2])


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

    own = PredictorSettings(**{**common(settings), "steps": 2}, renderers=("tinted",), code_steps=0)
    task = PredictorTask(own, split_photos(own)[2])
    loss, terms = task.loss(task.network, torch.rand(2, 3, 64, 64), np.full((2, 6), 0.5), 0)
    loss.backward()
    assert terms["render"] > 0
    assert "psnr_true_kernel" in train_predictor.main(own)
