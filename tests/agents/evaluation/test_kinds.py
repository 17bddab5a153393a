"""Kinds of pictures measured apart: which windows have straight edges, and what the table says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from blindsr_agents.evaluation.kinds import Kind, kind_cells, measure_kind, renderer_names, straight_edges
from blindsr_agents.evaluation.methods import ReconstructionMethod, create_methods
from torch import Tensor

from sr_env.degradation import Degradation, bicubic_resize
from sr_env.metrics import create_metric
from sr_env.photos import ArrayPhotos
from sr_env.utils.images import to_uint8


def striped(photo: np.ndarray, top: int, left: int) -> np.ndarray:
    """The photo with a building of 64 pixels in it: rows of windows."""
    result = photo.copy()
    rows, columns = np.mgrid[0:64, 0:64]
    result[top : top + 64, left : left + 64] = np.where((rows % 32 < 20) & (columns % 32 < 20), 40, 220)[..., None]
    return result


def test_straight_edges_are_found(random_photos: list[np.ndarray]) -> None:
    photos = [photo // 4 + 100 for photo in random_photos]
    photos[3] = striped(photos[3], 100, 160)
    half = striped(photos[1], 40, 20).astype(float) * 0.4 + photos[1] * 0.6
    photos[1] = half.astype(np.uint8)
    found = straight_edges(ArrayPhotos(photos), 80, 2, 4)
    assert found.shape == (2, 80, 80, 3)
    # The window holds the building whole, wherever its own corner is; the fainter one comes second.
    bright = [(window == 220).all(-1).sum() for window in found]
    assert bright[0] == (photos[3] == 220).all(-1).sum()
    assert bright[1] == 0
    windows = np.lib.stride_tricks.sliding_window_view(photos[1], (80, 80), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
    assert (windows == found[1]).all((2, 3, 4)).any()
    with pytest.raises(ValueError, match=r"windows of 28 pixels are too small .* give 30 or more"):
        straight_edges(ArrayPhotos(photos), 28, 2, 4)


def test_a_kind_is_the_mean_over_pictures_and_widths(random_photos: list[np.ndarray]) -> None:
    hr = torch.from_numpy(np.stack([photo[:96, :96] for photo in random_photos])).permute(0, 3, 1, 2) / 255
    seen: list[int] = []

    def enlarge(lr: Tensor, kernels: Tensor, gain: float) -> Tensor:
        seen.append(len(lr))
        return bicubic_resize(lr, (96, 96)) + gain

    methods = [ReconstructionMethod(name, partial(enlarge, gain=g)) for name, g in (("a", 0.0), ("b", 0.1))]
    metrics = {"psnr": create_metric("psnr", border=4), "niqe": create_metric("niqe")}
    degradation, widths = Degradation(4), (0.5, 2.0)
    values = measure_kind(Kind("photographs", hr), methods, metrics, degradation, widths)
    assert set(seen) == {4, 1}  # a few at once
    expected = []
    for width in widths:
        lr = degradation(hr, degradation.build(np.full(5, width)))
        sr = torch.from_numpy(to_uint8(bicubic_resize(lr, (96, 96)).clamp(0, 1))).permute(0, 3, 1, 2) / 255
        expected += [float(metrics["psnr"](sr, hr).mean())]
    assert values["a"]["psnr"] == pytest.approx(np.mean(expected), abs=1e-3)
    assert values["b"]["psnr"] < values["a"]["psnr"] - 1
    assert values["a"]["niqe"] > 0


def test_the_table_gives_loss_and_gain(tiny_renderer: Path, tiny_predictor: Path) -> None:
    methods, _ = create_methods(4, [str(tiny_renderer)], str(tiny_predictor), peers=())
    assert renderer_names(methods) == ["tiny_renderer"]
    kinds = [Kind("drawings", torch.zeros(12, 3, 8, 8)), Kind("buildings", torch.zeros(3, 3, 8, 8), seen=True)]
    found = {
        "amnet, true kernel": {"psnr": 30.0, "lpips": 0.19},
        "amnet, predicted kernel": {"psnr": 29.5, "lpips": 0.20},
        "amgan, true kernel": {"psnr": 28.0, "lpips": 0.11},
        "amgan, predicted kernel": {"psnr": 27.75, "lpips": 0.15},
    }
    _, *rows = kind_cells(kinds, {"drawings": found, "buildings": found}, ["amnet", "amgan"])
    assert rows[0] == ["drawings", "amnet", "12", "30.00", "29.50", "0.50", "0.1900", "0.2000", ""]
    assert rows[1] == ["", "amgan", "", "28.00", "27.75", "0.25", "0.1100", "0.1500", "25.0%"]
    assert rows[2][0] == "buildings (trained on)"


def test_kinds_of_a_folder(benchmark_script: Callable[[str], ModuleType], photo_folder: Path) -> None:
    program = benchmark_script("kinds")
    settings = program.Settings(data=str(photo_folder), held_out=2, side=96, straight=2, buildings=("1.png", "4"))
    kinds = program.choose_kinds(settings)
    assert {name: (len(pixels), seen) for name, (pixels, seen) in kinds.items()} == {
        "photographs": (2, False),
        "straight edges": (2, False),
        "buildings": (2, True),
        "drawings": (12, False),
    }
    assert all(pixels.shape[1:] == (96, 96, 3) for pixels, _ in kinds.values())
    whole = program.choose_kinds(program.Settings(data=str(photo_folder), held_out=0, buildings=("1.png",)))
    assert len(whole["photographs"][0]) == 5
    assert whole["buildings"][1] is False
    with pytest.raises(ValueError, match=r"no photograph of .* is named so: tower"):
        program.choose_kinds(program.Settings(data=str(photo_folder), held_out=2, buildings=("1.png", "tower")))
    with pytest.raises(ValueError, match="straight is 0"):
        program.choose_kinds(program.Settings(straight=0))
