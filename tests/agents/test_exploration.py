"""Noise that changes the picture alike in every direction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.exploration import measured_noise_shape, noise_shape, opposite_pairs

from sr_env.simulator import UNIFORMS_PER_SCENE, Simulator, SimulatorSettings


@pytest.fixture
def simulator(tiny_renderer: Path, tiny_predictor: Path) -> Simulator:
    photos: Any = [np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)]
    files = {"renderer": str(tiny_renderer), "predictor": str(tiny_predictor)}
    return Simulator(SimulatorSettings(photos=photos, patch_size=64, reference="predictor", device="cpu", **files))


def test_noise_changes_the_picture_alike_in_every_direction_up_to_the_limit() -> None:
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    change = turn @ torch.diag(torch.tensor([20.0, 5.0, 0.5]) ** 2) @ turn.T  # grey levels per action unit
    shape = noise_shape(change, noise=0.5, limit=0.3)
    torch.testing.assert_close(shape, shape.T)
    sizes = turn.T @ shape @ turn
    torch.testing.assert_close(sizes, torch.diag(torch.tensor([0.5 / 20, 0.5 / 5, 0.3])), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("noise", "limit", "message"), [(0.0, 0.3, "noise 0.0"), (0.5, -1.0, "noise_limit -1.0")])
def test_noise_and_its_limit_are_positive(noise: float, limit: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        noise_shape(torch.eye(2), noise, limit)


def test_a_small_move_changes_the_picture_by_what_was_measured(simulator: Simulator) -> None:
    rng = np.random.default_rng(1)
    scenes = simulator.draw(rng.random((6, UNIFORMS_PER_SCENE)))
    actions = simulator.reconstruct(scenes)[1]
    change = simulator.change(scenes, actions, step=0.002)
    assert change.shape == (10, 10)
    torch.testing.assert_close(change, change.T)
    for _ in range(3):
        move = torch.from_numpy(rng.normal(0, 0.002, 10)).float()
        with torch.no_grad():
            before, after = (
                simulator.renderer.network(scenes.lr, simulator.basis.to_code(a)) for a in (actions, actions + move)
            )
        told = (move @ change @ move).sqrt()
        assert float(told) == pytest.approx(255 * float((after - before).square().mean().sqrt()), rel=0.1)


def test_the_same_seed_measures_the_same(simulator: Simulator) -> None:
    shapes = [measured_noise_shape(simulator, 0.5, 0.3, seed) for seed in (0, 0, 1)]
    assert torch.equal(shapes[0], shapes[1])
    assert not torch.equal(shapes[0], shapes[2])


def test_draws_for_one_scene_lie_opposite_each_other() -> None:
    pairs = opposite_pairs(np.random.default_rng(0), scenes=2, times=3, length=4)
    assert pairs.shape == (6, 4)
    np.testing.assert_array_equal(pairs[0], -pairs[1])
    np.testing.assert_array_equal(pairs[3], -pairs[4])
    assert not np.isin(pairs[2], pairs[:2]).any()
