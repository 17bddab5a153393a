"""Measuring benchmark sets: the figures are those of the parts, and what is missing is named."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from agents.evaluate import Settings, main, measure, table
from sr_env.checkpoint import load_predictor, load_renderer
from sr_env.degradation import Degradation, quantize


@pytest.fixture
def settings(tmp_path: Path, tiny_renderer: Path, tiny_predictor: Path, random_photos: list[np.ndarray]) -> Settings:
    for name, images in (("Set5", random_photos[:2]), ("Own", random_photos[2:3])):
        (tmp_path / "bench" / name).mkdir(parents=True)
        for number, image in enumerate(images):
            # Sides that the scale does not divide: what is left over is cut off.
            Image.fromarray(image[:125, :130]).save(tmp_path / "bench" / name / f"{number}.png")
    return Settings(
        bench_dir=tmp_path / "bench",
        sets=("Set5", "Own"),
        renderer=str(tiny_renderer),
        predictor=str(tiny_predictor),
        widths=(0.5, 2.0),
        metrics=("psnr", "ssim"),
        device="cpu",
    )


def enlarged(lr: torch.Tensor) -> torch.Tensor:
    """Four times larger by PIL, whose bicubic is MATLAB's (torch's without antialiasing has another sharpness)."""
    size = (4 * lr.shape[2], 4 * lr.shape[1])
    planes = [Image.fromarray(plane.numpy(), mode="F").resize(size, Image.Resampling.BICUBIC) for plane in lr]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))[None]


def test_psnr_by_hand(settings: Settings, random_photos: list[np.ndarray]) -> None:
    """Degraded, rendered and scored with nothing of the script's, image by image."""
    figures = measure(settings, Console(file=io.StringIO()))
    assert list(figures) == ["Set5", "Own"]
    assert list(figures["Set5"]) == ["bicubic", "predicted kernel", "true kernel"]
    renderer, predictor = load_renderer(settings.renderer), load_predictor(str(settings.predictor))
    weights = torch.tensor([65.481, 128.553, 24.966])[:, None, None]
    degradation = Degradation(4)
    for width in settings.widths:
        found: dict[str, list[float]] = {"bicubic": [], "predicted kernel": [], "true kernel": []}
        for image in random_photos[:2]:
            hr = torch.from_numpy(image[:124, :128].copy()).permute(2, 0, 1)[None] / 255
            kernels = degradation.build(np.array([width]))
            lr = degradation(hr, kernels)
            every = {
                "bicubic": enlarged(lr[0]),
                "predicted kernel": renderer.network(lr, renderer.basis.to_code(predictor.network(lr))),
                "true kernel": renderer.network(lr, renderer.basis.encode(kernels.kernels)),
            }
            for method, sr in every.items():
                error = ((quantize(sr) - hr) * weights / 255).sum(1)[..., 4:-4, 4:-4]
                found[method].append(float(-10 * error.square().mean().log10()))
        for method, values in found.items():
            told = figures["Set5"][method]["psnr"][str(width)]
            assert told == pytest.approx(np.mean(values), abs=0.02), (method, width)
    assert figures["Set5"]["true kernel"] != figures["Set5"]["predicted kernel"]


def test_main_prints_a_table_and_writes_the_figures(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    out = settings.bench_dir / "deep" / "figures.json"
    figures = main(replace(settings, sets=("Own",), metrics=("psnr",), out=out))
    assert json.loads(out.read_text()) == figures
    mean = np.mean(list(figures["Own"]["bicubic"]["psnr"].values()))
    assert f"{mean:.2f}" in capsys.readouterr().out
    assert table(figures, replace(settings, metrics=("psnr",))).row_count == 3


def test_metrics_without_a_reference_take_part(settings: Settings) -> None:
    figures = measure(replace(settings, sets=("Own",), metrics=("niqe",), widths=(1.0,)), Console(file=io.StringIO()))
    assert np.isfinite(figures["Own"]["bicubic"]["niqe"]["1.0"])


def test_missing_set_is_named_and_skipped(settings: Settings) -> None:
    console = Console(file=io.StringIO(), width=200)
    figures = measure(replace(settings, sets=("Own", "Urban100"), metrics=("psnr",)), console)
    assert list(figures) == ["Own"]
    assert "Urban100: no such folder" in console.file.getvalue()  # type: ignore[attr-defined]


def test_what_is_wrong_shows_before_any_work(settings: Settings, tmp_path: Path, tiny_renderer: Path) -> None:
    console = Console(file=io.StringIO())
    with pytest.raises(FileNotFoundError, match="--bench-dir names"):
        measure(replace(settings, bench_dir=tmp_path / "gone"), console)
    with pytest.raises(FileNotFoundError, match="none of Urban100, Manga109 is in"):
        measure(replace(settings, sets=("Urban100", "Manga109")), console)
    with pytest.raises(FileNotFoundError, match="no renderer 'amnet_xl'"):
        measure(replace(settings, renderer="amnet_xl"), console)
    with pytest.raises(ValueError, match="is a renderer, not a predictor"):
        measure(replace(settings, predictor=str(tiny_renderer)), console)
    with pytest.raises(ValueError, match="psnrr"):
        measure(replace(settings, metrics=("psnrr",)), console)
    with pytest.raises(ValueError, match="positive"):
        measure(replace(settings, widths=(0.0,)), console)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        main(replace(settings, out=tmp_path / "file" / "x.json"))
