"""Batches: the same for the same seed and step, wherever they are cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_pretrain.amnet import AMNetSettings, AMNetTask
from blindsr_pretrain.batches import DeviceCutter, HostCutter, as_images, make_cutter, plan_batch
from blindsr_pretrain.data import Diet, make_diet, split_photos
from blindsr_pretrain.trainer import Trainer

from sr_env.degradation import quantize, soften
from sr_env.photos import open_photos


def test_a_batch_depends_on_seed_and_step_alone(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    run = trainer(settings)
    whole = list(run._batches())
    assert len(whole) == 6
    run.step = 4
    late = list(run._batches())
    assert len(late) == 2
    for (patches, uniforms), (again, uniforms_again) in zip(whole[4:], late, strict=True):
        np.testing.assert_array_equal(patches, again)
        np.testing.assert_array_equal(uniforms, uniforms_again)
    assert whole[0][0].shape == (2, 64, 64, 3)
    assert whole[0][0].dtype == torch.uint8
    assert not np.array_equal(whole[0][0], whole[1][0])
    other = next(trainer(replace(settings, seed=1))._batches())
    assert not np.array_equal(other[1], whole[0][1])


def test_softness_softens_every_second_patch_on_average_and_a_copy_of_what_is_held_out(
    settings: AMNetSettings, trainer: Callable[..., Trainer]
) -> None:
    run = trainer(replace(settings, softness=1.5))
    assert isinstance(run.task, AMNetTask)
    sharp, soft = run.task.held_out.hr.chunk(2)
    seen: list[torch.Tensor] = []
    rewarded = run.task.loss
    run.task.loss = lambda network, hr, *rest: seen.append(hr) or rewarded(network, hr, *rest)  # type: ignore[method-assign,func-returns-value]
    patches, uniforms = next(run._batches())
    uniforms[:, 3] = np.linspace(0, 0.999, len(uniforms))
    run._update(patches, uniforms)

    def roughness(images: torch.Tensor) -> torch.Tensor:
        return images.diff(dim=-1).abs().mean((1, 2, 3))

    given = patches.permute(0, 3, 1, 2) / 255
    changed = roughness(seen[0]) < 0.999 * roughness(given)
    assert changed.tolist() == (uniforms[:, 3] > 0.6).tolist()
    assert bool((roughness(soft) < roughness(sharp)).all())


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_softness_is_of_one_size_in_lr_pixels(
    settings: AMNetSettings, trainer: Callable[..., Trainer], scale: Any
) -> None:
    """At x2 a width of 1.5 HR pixels would be three quarters of the widest kernel, and could not be told from it."""
    run = trainer(replace(settings, softness=1.5, scale=scale, patch_size=60))
    assert isinstance(run.task, AMNetTask)
    sharp, soft = run.task.held_out.hr.chunk(2)
    width = sharp.new_full((len(sharp),), 0.75 * scale / 4)
    torch.testing.assert_close(soft, quantize(soften(sharp, width)))
    widest: list[torch.Tensor] = []
    loss = run.task.loss
    run.task.loss = lambda network, hr, *rest: widest.append(hr) or loss(network, hr, *rest)  # type: ignore[method-assign,func-returns-value]
    patches, uniforms = next(run._batches())
    uniforms[:, 3] = 1
    run._update(patches, uniforms)
    hr = as_images(patches)
    torch.testing.assert_close(widest[0], quantize(soften(hr, hr.new_full((len(hr),), 1.5 * scale / 4))))


@pytest.fixture
def diet(settings: AMNetSettings) -> Diet:
    source, indices, _ = split_photos(settings)
    return make_diet(replace(settings, drawings=0.3), source, indices)


def test_patches_cut_on_the_device_are_those_cut_on_the_host(settings: AMNetSettings, diet: Diet) -> None:
    cpu = torch.device("cpu")
    host = HostCutter(diet.pictures, 64, cpu)
    device = DeviceCutter(diet.pictures, np.flatnonzero(diet.chances), 64, cpu, threads=2)
    many = replace(settings, batch_size=40)
    seen = set()
    for step in range(3):
        plan = plan_batch(diet, many, step)
        assert torch.equal(host.finish(host.prepare(plan)), device.finish(device.prepare(plan)))
        seen |= {tuple(way) for way in plan.ways.T.tolist()}
    assert len(seen) == 8
    assert isinstance(make_cutter(diet, 64, cpu, 1), HostCutter)


def test_a_patch_is_what_the_plan_says() -> None:
    """Worked by hand: a picture whose pixels name their place."""
    rows, columns = np.mgrid[:40, :50].astype(np.uint8)
    source = open_photos([np.stack((rows, columns, 0 * rows), 2)])
    diet = Diet(source, np.ones(1))
    plan = plan_batch(diet, AMNetSettings(patch_size=32, batch_size=64), 0)
    cutter = DeviceCutter(source, np.arange(1), 32, torch.device("cpu"))
    patches = cutter.finish(cutter.prepare(plan)).numpy()
    for number, patch in enumerate(patches):
        top, left = plan.tops[number], plan.lefts[number]
        upside_down, mirrored, transposed = plan.ways[:, number]
        first = (31, 0) if transposed else (0, 31)  # where the corner right above lies before transposing
        row = top + (31 - first[0] if upside_down else first[0])
        column = left + (31 - first[1] if mirrored else first[1])
        assert patch[0, 31].tolist() == [row, column, 0]


def test_shares_of_processes_make_the_whole_batch(settings: AMNetSettings, diet: Diet) -> None:
    whole = plan_batch(diet, replace(settings, batch_size=6), 5)
    parts = [plan_batch(diet, replace(settings, batch_size=2), 5, 3, slice(number, None, 3)) for number in range(3)]
    for name in ("picture", "tops", "lefts", "uniforms"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, np.concatenate([getattr(whole, name)[n::3] for n in range(3)]))


def test_as_images() -> None:
    patches = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    assert torch.equal(as_images(patches), torch.tensor([0, 0.2, 1.0]).reshape(1, 3, 1, 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_the_same_on_cuda(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    here = list(trainer(settings)._batches())
    there = list(trainer(replace(settings, device="cuda", out=settings.out / "cuda"))._batches())
    for (patches, uniforms), (others, same) in zip(here, there, strict=True):
        assert torch.equal(patches, others.cpu())
        np.testing.assert_array_equal(uniforms, same)
