"""Tiles leave no trace, have one shape and keep to the memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sr_env import Upscaler
from sr_env.degradation import load_basis
from sr_env.models import AMNet
from sr_env.models.checkpoint import save_checkpoint


def rendered(up: Upscaler, photo: np.ndarray) -> Tensor:
    """One forward pass of the networks themselves, float [1, 3, H, W], not clamped."""
    lr = torch.from_numpy(photo.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        code = up.codes.kernel if up.codes.predictor is None else up.basis.to_code(up.codes.predictor(lr))
        return up.renderer(lr, code)


def levels(a: Any, b: Any) -> int:
    """Largest difference in grey levels."""
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


@pytest.mark.parametrize(("scale", "smooth"), [(2, False), (3, True), (4, False), (4, True)])
def test_tiles_leave_no_trace(
    tmp_path: Path, photo: np.ndarray, scale: int, smooth: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(scale)
    network = AMNet(scale, channels=8, blocks=2, smooth=smooth)
    with torch.no_grad():  # a tail so strong that a border in the wrong place shows
        network.tail.weight.mul_(20)
    path = save_checkpoint(tmp_path / "r.safetensors", network, load_basis("isotropic", scale), scale, {})
    up = Upscaler(path, kernel_width=1.0, device="cpu", precision="fp32")
    whole = rendered(up, photo)[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().numpy()
    one, many = up.upscale(photo), up.upscale(photo, max_memory=2.2e6 * scale**2 / 16)
    assert (one.tiles, many.tiles > 5) == (1, True)
    assert levels(one.pixels, whole) <= 1
    assert levels(many.pixels, whole) <= 1
    monkeypatch.setattr(AMNet, "receptive_radius", 2)
    up = Upscaler(path, kernel_width=1.0, device="cpu", precision="fp32")
    assert levels(up.upscale(photo, max_memory=2.2e6 * scale**2 / 16).pixels, whole) > 1


@pytest.mark.parametrize("smooth", [False, True])
def test_receptive_radius_is_what_gradients_see(smooth: bool) -> None:
    torch.manual_seed(0)
    network = AMNet(4, channels=4, blocks=1, smooth=smooth).double()
    lr = torch.rand(1, 3, 25, 25, dtype=torch.float64, requires_grad=True)
    sr = network(lr, torch.zeros(1, 10, dtype=torch.float64))
    sr[..., 48:52, 48:52].abs().sum().backward()  # the SR pixels of LR pixel 12
    assert lr.grad is not None
    rows = lr.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert (12 - int(rows[0]), int(rows[-1]) - 12) == (network.receptive_radius,) * 2


def test_tiles_have_one_shape_and_go_in_batches(make: Any, photo: np.ndarray) -> None:
    up, seen = make(), []
    up.renderer.register_forward_hook(lambda module, given, result: seen.append(tuple(given[0].shape)))
    up._plan = lambda *a: (*Upscaler._plan(up, *a[:-1], 2e6)[:2], 3)
    calls: list[tuple[int, int]] = []
    tiles = up.upscale(photo, progress=lambda done, total: calls.append((done, total))).tiles
    assert tiles == sum(shape[0] for shape in seen) > 5
    assert len({shape[1:] for shape in seen}) == 1
    assert max(shape[0] for shape in seen) == 3
    assert calls[-1] == (tiles, tiles)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_plan_keeps_to_the_memory(make: Any) -> None:
    up = make()
    for memory in (6e6, 20e6, 90e6):
        rows, columns, batch = up._plan((1, 700, 900, 3), memory)
        assert 1024 * rows.size * columns.size * batch <= memory
        for axis in (rows, columns):
            spans = [axis.span(i) for i in range(len(axis.starts))]
            assert [a for a, _ in spans[1:]] == [b for _, b in spans[:-1]]  # hard cuts, no gap
            assert (spans[0][0], spans[-1][1]) == (0, axis.length)
            for (a, b), start in zip(spans, axis.starts, strict=True):
                assert a == 0 or a - start >= up.renderer.receptive_radius
                assert b == axis.length or start + axis.size - b >= up.renderer.receptive_radius
    with pytest.raises(ValueError, match=r"900x700 pixels need \d+ MB .* raise max_memory"):
        up._plan((1, 700, 900, 3), 1e6)


def test_a_renderer_that_sees_everything_takes_the_picture_whole(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AMNet, "receptive_radius", 10_000)
    up = make()
    rows, columns, batch = up._plan((1, 1500, 1200, 3), 1e12)
    assert ((rows.size, columns.size), len(rows.starts) * len(columns.starts), batch >= 1) == ((1500, 1200), 1, True)
