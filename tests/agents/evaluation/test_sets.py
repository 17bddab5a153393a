"""The sets and metrics that are at hand: what is missing or cannot be measured is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from blindsr_agents.evaluation import sets
from blindsr_agents.evaluation.reconstructions import mean_cells, to_markdown
from blindsr_agents.evaluation.sets import open_sets
from evaluate import Settings, measure
from PIL import Image
from rich.console import Console

from sr_env.metrics import Metric, create_metric
from sr_env.utils.checks import WeightsUnavailable


def text(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_image_too_small_for_a_metric(settings: Settings, console: Console, random_photos: list[np.ndarray]) -> None:
    """It is left out of that metric's mean alone, and counted; where none is left there is no value."""
    Image.fromarray(random_photos[3][:64, :64]).save(settings.bench_dir / "Set5" / "small.png")
    (settings.bench_dir / "Own" / "0.png").unlink()
    Image.fromarray(random_photos[3][:64, :64]).save(settings.bench_dir / "Own" / "small.png")
    settings = replace(settings, metrics=("psnr", "niqe"), widths=(1.0,))
    results = measure(settings, console)
    assert results.sets["Set5"].left_out == {"niqe": 1}
    assert results.sets["Own"].rows["bicubic"].values["niqe"] == {"1": None}
    (settings.bench_dir / "Set5" / "small.png").unlink()
    without = measure(replace(settings, sets=("Set5",)), console).sets["Set5"]
    with_ = results.sets["Set5"]
    assert without.left_out == {}
    assert with_.rows["bicubic"].values["niqe"] == without.rows["bicubic"].values["niqe"]
    assert with_.rows["bicubic"].values["psnr"] != without.rows["bicubic"].values["psnr"]
    assert "niqe: 1 of 3 images are too small" in text(console)
    assert "NIQE is the mean of 2 images: 1 are too small for it." in to_markdown(results)
    assert mean_cells(results, "Own")[1][3] == "-"


def test_metric_without_weights(settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    real = create_metric

    def no_vgg(name: str, **options: object) -> Metric:
        if name == "dists":
            raise WeightsUnavailable("the weights of vgg16 could not be had")
        return real(name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sets, "create_metric", no_vgg)
    results = measure(replace(settings, sets=("Own",), metrics=("psnr", "dists"), widths=(1.0,)), console)
    assert list(results.about["metrics"]) == ["psnr"]
    assert "skipped: dists: the weights of vgg16 could not be had" in text(console)


def test_missing_set_is_named_and_skipped(settings: Settings, console: Console) -> None:
    results = measure(replace(settings, sets=("Own", "Urban100"), metrics=("psnr",)), console)
    assert list(results.sets) == ["Own"]
    assert "skipped: Urban100: no such folder" in text(console)


def test_limit(settings: Settings) -> None:
    sets, _ = open_sets(settings.bench_dir, ("Set5",), 4, limit=1)
    assert sets["Set5"].names == ("0.png",)
