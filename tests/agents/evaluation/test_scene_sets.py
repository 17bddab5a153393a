"""Whole photos as scenes: in their order whatever the batches, at full size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.evaluation import scene_sets
from blindsr_agents.evaluation.scene_sets import WholeScenes

from sr_env.degradation import Degradation, quantize
from sr_env.metrics import create_metric
from sr_env.models.checkpoint import load_predictor
from sr_env.photos import ArrayPhotos
from sr_env.simulator import Simulator, SimulatorSettings


@pytest.fixture
def simulator(tiny_settings: dict[str, Any]) -> Simulator:
    return Simulator(SimulatorSettings(**tiny_settings, reward={"psnr": 1.0, "ssim": 2.0}, reference="predictor"))


def test_whole_photos_by_hand(simulator: Simulator) -> None:
    """In the photos' order whatever the batches, at full size but for the rest that the scale does not divide."""
    rng = np.random.default_rng(0)
    shapes = ((70, 67), (48, 64), (70, 67), (66, 64))
    photos = ArrayPhotos([rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes])
    network = load_predictor(simulator.predictor.path).network  # type: ignore[union-attr]
    whole = WholeScenes(simulator, (0.5, 2.0), photos)
    assert whole.part_count == len(list(whole.parts())) == 3 * 2
    found = whole.score(whole.acting(network)).values
    assert set(found) == {"score", "psnr", "ssim"}
    psnr = create_metric("psnr", border=4)
    for row, width in enumerate((0.5, 2.0)):
        kernels = simulator.degradation.build(np.array([width]))
        for column, photo in enumerate(photos):
            height, breadth = (side // 4 * 4 for side in photo.shape[:2])
            top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - breadth) // 2
            cut = photo[top : top + height, left : left + breadth].copy()
            hr = torch.from_numpy(cut).permute(2, 0, 1)[None] / 255
            lr = Degradation(4)(hr, kernels)
            sr = quantize(simulator.renderer.network(lr, simulator.basis.to_code(network(lr))))
            assert found["psnr"][row, column] == pytest.approx(float(psnr(sr, hr)), abs=1e-3), (width, column)
    np.testing.assert_allclose(found["score"], found["psnr"] + 2 * found["ssim"], rtol=1e-5)


def test_whole_photos_batches_and_limits(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    alike = ArrayPhotos([np.full((64, 96, 3), 40 * i, dtype=np.uint8) for i in range(5)])
    monkeypatch.setattr(scene_sets, "_PIXELS", 2 * 64 * 96)
    sizes = [len(part.lr) for _, _, part in WholeScenes(simulator, (1.0,), alike).parts()]
    assert sizes == [2, 2, 1]
    first = WholeScenes(simulator, (1.0, 2.0), alike, max_photos=3, max_side=70, keep=False)
    assert first.count == 3
    assert first.names == alike.names[:3]
    for width, places, part in first.parts():
        assert part.hr.shape == (len(places), 3, 64, 68)
        assert part.corner.tolist() == [[0, 14]] * len(places)
        torch.testing.assert_close(part.hr[:, 0, 0, 0] * 255, torch.from_numpy(places * 40.0).float())
        torch.testing.assert_close(part.kernels.widths[0, 0].item(), first.widths[width])
    again = WholeScenes(simulator, (1.0, 2.0), alike, max_photos=3, max_side=70)
    for (_, _, one), (_, _, other) in zip(first.parts(), again.parts(), strict=True):
        assert torch.equal(one.lr, other.lr)
    assert WholeScenes(simulator, (1.0,)).photos is simulator.photos


def test_bad_whole_photos(simulator: Simulator) -> None:
    small = ArrayPhotos([np.zeros((31, 64, 3), dtype=np.uint8)])
    with pytest.raises(ValueError, match=r"photo '.*0' has 28 pixels on one side, 32 are needed"):
        WholeScenes(simulator, (1.0,), small)
    with pytest.raises(ValueError, match="max_side 30 is under 32"):
        WholeScenes(simulator, (1.0,), max_side=30)
    with pytest.raises(ValueError, match="max_photos 0"):
        WholeScenes(simulator, (1.0,), max_photos=0)
    with pytest.raises(ValueError, match="kernel widths"):
        WholeScenes(simulator, (1.0, 1.0))
