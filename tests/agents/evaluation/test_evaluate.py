"""The benchmark: its figures are those of the parts, and a mistake shows before any work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from blindsr_agents.evaluation import reconstructions as benchmark
from blindsr_agents.evaluation.conditions import blur_conditions
from blindsr_agents.evaluation.figures import choose_scenes
from blindsr_agents.evaluation.methods import create_methods
from blindsr_agents.evaluation.reconstructions import make_tables, published, to_markdown
from blindsr_agents.evaluation.sets import open_sets
from evaluate import Settings, main, measure
from PIL import Image
from rich.console import Console

from sr_env.degradation import Degradation, quantize
from sr_env.metrics import Metric, create_metric
from sr_env.models.checkpoint import load_predictor, load_renderer

CPU = torch.device("cpu")


def enlarged(lr: torch.Tensor) -> torch.Tensor:
    """Four times larger by PIL, whose bicubic is MATLAB's (torch's without antialiasing has another sharpness)."""
    size = (4 * lr.shape[2], 4 * lr.shape[1])
    planes = [Image.fromarray(plane.numpy(), mode="F").resize(size, Image.Resampling.BICUBIC) for plane in lr]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))[None]


def test_values_by_hand(settings: Settings, console: Console, random_photos: list[np.ndarray]) -> None:
    """Degraded, rendered and scored with nothing of the script's, image by image."""
    settings = replace(settings, metrics=("psnr", "lpips"))
    results = measure(settings, console)
    assert list(results.sets) == ["Set5", "Own"]
    rows = results.sets["Set5"].rows
    assert list(rows) == ["bicubic", "tiny_renderer, true kernel", "tiny_renderer, predicted kernel"]
    assert settings.renderers is not None
    renderer, predictor = load_renderer(settings.renderers[0]), load_predictor(str(settings.predictor))
    weights = torch.tensor([65.481, 128.553, 24.966])[:, None, None]
    degradation, lpips = Degradation(4), create_metric("lpips")
    for width in settings.widths:
        psnr: dict[str, list[float]] = {name: [] for name in rows}
        distance: dict[str, list[float]] = {name: [] for name in rows}
        for image in random_photos[:2]:
            hr = torch.from_numpy(image[:124, :128].copy()).permute(2, 0, 1)[None] / 255
            kernels = degradation.build(np.array([width]))
            lr = degradation(hr, kernels)
            every = [
                enlarged(lr[0]),
                renderer.network(lr, renderer.basis.encode(kernels.kernels)),
                renderer.network(lr, renderer.basis.to_code(predictor.network(lr))),
            ]
            for name, sr in zip(rows, every, strict=True):
                error = ((quantize(sr) - hr) * weights / 255).sum(1)[..., 4:-4, 4:-4]
                psnr[name].append(float(-10 * error.square().mean().log10()))
                distance[name].append(float(lpips(quantize(sr), hr)))  # of the whole image
        for name, row in rows.items():
            assert row.values["psnr"][f"{width:g}"] == pytest.approx(np.mean(psnr[name]), abs=0.02), (name, width)
            assert row.values["lpips"][f"{width:g}"] == pytest.approx(np.mean(distance[name]), abs=2e-3), (name, width)
            assert row.seconds_per_megapixel > 0
    true, predicted = rows["tiny_renderer, true kernel"], rows["tiny_renderer, predicted kernel"]
    assert true.values != predicted.values
    assert true.mean("psnr") == pytest.approx(np.mean(list(true.values["psnr"].values())))  # type: ignore[arg-type]


def test_seconds_are_those_of_the_reconstruction(
    settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that ticks once per reading: one second per reconstruction, whatever the metrics take."""
    ticks = iter(range(1000))
    monkeypatch.setattr(benchmark, "_clock", lambda device: float(next(ticks)))
    rows = measure(replace(settings, sets=("Set5",)), console).sets["Set5"].rows
    assert [row.seconds_per_megapixel for row in rows.values()] == pytest.approx([1e6 / (124 * 128)] * 3)


def test_reference_features_are_computed_once_per_image(
    settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    prepare = Metric.prepare
    monkeypatch.setattr(Metric, "prepare", lambda self, hr: calls.append(self.name) or prepare(self, hr))
    measure(replace(settings, sets=("Set5",)), console)
    assert calls == ["psnr", "ssim"] * 2


def test_precision(settings: Settings, console: Console) -> None:
    settings = replace(settings, sets=("Own",), metrics=("psnr",), widths=(1.0,))
    exact = measure(settings, console)
    rough = measure(replace(settings, precision="bf16"), console)
    assert (exact.about["precision"], rough.about["precision"]) == ("fp32", "bf16")
    name = "tiny_renderer, true kernel"
    pair = [results.sets["Own"].rows[name].mean("psnr") for results in (exact, rough)]
    assert pair[0] != pair[1]
    assert pair[0] == pytest.approx(pair[1], abs=0.3)


def test_what_is_wrong_shows_before_any_work(
    settings: Settings, console: Console, tmp_path: Path, tiny_renderer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluate.measure_set", lambda *_: pytest.fail("work was done"))
    wrong = [
        ({"bench_dir": tmp_path / "gone"}, FileNotFoundError, "--bench-dir names"),
        ({"sets": ("Urban100", "Manga109")}, FileNotFoundError, "none of Urban100, Manga109 is in"),
        ({"renderers": ("amnet_xl",)}, FileNotFoundError, "no renderer 'amnet_xl'"),
        ({"scale": 2}, ValueError, "is for scale 4, not 2"),
        ({"scale": 5}, ValueError, "unknown scale 5"),
        ({"predictor": str(tiny_renderer)}, ValueError, "is a renderer, not a predictor"),
        ({"metrics": ("psnr", "psnrr")}, ValueError, "unknown metric 'psnrr'"),
        ({"widths": (0.0,)}, ValueError, "positive"),
        ({"widths": ()}, ValueError, "at least one"),
        ({"widths": (1.0, 1.0)}, ValueError, "each given once"),
        ({"limit": 0}, ValueError, "limit of 0"),
        ({"precision": "fp8"}, ValueError, "unknown precision 'fp8'"),
        ({"dan": tmp_path / "dan.pth"}, FileNotFoundError, "no checkpoint"),
        ({"figure_scenes": ("Set14/baboon",)}, ValueError, "unknown set in figure scene 'Set14/baboon' 'Set14'"),
        ({"figure_scenes": ("Set5/baby",)}, ValueError, "Set5 has no image 'baby'"),
        ({"figure_scenes": ("Set5/0:3",)}, ValueError, "unknown condition in figure scene 'Set5/0:3' '3'"),
        ({"figure_scenes": ("Set5/0:wide",)}, ValueError, "unknown condition in figure scene .* 'wide'"),
    ]
    for change, error, message in wrong:
        with pytest.raises(error, match=message):
            measure(replace(settings, **change), console)  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        main(replace(settings, out=tmp_path / "file" / "x"))


def test_main_prints_tables_and_writes_the_report(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    out = settings.bench_dir / "deep" / "report"
    results = main(replace(settings, metrics=("psnr", "lpips"), figure_scenes=("Own/0.png:2", "Set5/1"), out=out))
    assert sorted(path.name for path in out.iterdir()) == ["figure.png", "finished.json", "results.json", "results.md"]
    written = json.loads((out / "results.json").read_text())
    row = results.sets["Own"].rows["bicubic"]
    assert written["sets"]["Own"]["rows"]["bicubic"]["values"] == row.values
    assert written["costs"]["bicubic"] == {"parameters": 0, "macs_per_megapixel": 0.0}
    assert written["about"]["settings"]["sets"] == ["Set5", "Own"]
    assert str(settings.bench_dir) not in json.dumps(written)
    markdown = (out / "results.md").read_text()
    assert f"| bicubic |  | {row.mean('psnr'):.2f} | {row.mean('lpips'):.4f} | 0 | 0.0 | " in markdown
    each = " | ".join(
        [f"{v:.2f}" for v in row.values["psnr"].values()] + [f"{v:.4f}" for v in row.values["lpips"].values()]
    )
    assert f"| bicubic |  | {each} |" in markdown
    assert f"{row.mean('psnr'):.2f}" in capsys.readouterr().out
    with Image.open(out / "figure.png") as figure:
        # LR, bicubic, the renderer with the predicted kernel, HR; two scenes.
        assert figure.size[0] == pytest.approx(1.9 * 4 * 150, rel=0.05)  # cut to what is drawn
        assert figure.size[1] == pytest.approx(2.6 * 2 * 150, rel=0.05)
        assert figure.getextrema() != ((255, 255),) * 4
    assert [table.row_count for table in make_tables(results, "Own")] == [3, 3]


def test_figure_shows_the_pixels(settings: Settings, console: Console, random_photos: list[np.ndarray]) -> None:
    sets, _ = open_sets(settings.bench_dir, ("Own",), 4)
    methods, _ = create_methods(4, (), None, peers=())
    scenes = choose_scenes(None, sets, ("0.5", "1", "2"))
    assert [(scene.image, scene.condition) for scene in scenes] == [("0", "1")]
    degradation = Degradation(4)
    conditions = benchmark.Conditions(
        methods, {"psnr": create_metric("psnr")}, degradation, blur_conditions(degradation, (1.0,)), CPU, "fp32"
    )
    results, (crops,) = benchmark.measure_set(conditions, "Own", sets["Own"], scenes, console)
    hr = random_photos[2][:124, :128]
    np.testing.assert_array_equal(crops.hr, hr[:124, : crops.hr.shape[1]])
    lr = degradation(torch.from_numpy(hr.copy()).permute(2, 0, 1)[None] / 255, degradation.build(np.ones(1)))
    np.testing.assert_array_equal(crops.lr, (lr[0].permute(1, 2, 0) * 255).round()[:31, :31].byte().numpy())
    assert crops.sr["bicubic"].shape == crops.hr.shape == (124, 124, 3)
    assert crops.values["bicubic"]["psnr"] == results.rows["bicubic"].values["psnr"]["1"]


def test_interrupted_run_keeps_the_sets_it_measured(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    out = settings.bench_dir / "report"
    whole = benchmark.measure_set

    def interrupted(conditions: benchmark.Conditions, name: str, *rest: object) -> object:
        if name == "Own":
            raise KeyboardInterrupt
        return whole(conditions, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("evaluate.measure_set", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(replace(settings, metrics=("psnr",), out=out))
    assert list(json.loads((out / "results.json").read_text())["sets"]) == ["Set5"]
    assert "## Set5 (2 images)" in (out / "results.md").read_text()
    assert (out / "figure.png").is_file()


def test_published_rows_only_in_the_published_setting(settings: Settings, console: Console) -> None:
    results = measure(replace(settings, sets=("Set5",), metrics=("psnr",)), console)
    assert published(results, "Set5") == {}
    results.about["conditions"] = ["0.2", "1.3", "2.6"]
    assert list(published(results, "Set5")) == ["AMGAN (published)", "AMGAN* (published)"]
    assert published(results, "Own") == {}
    assert published(replace(results, about=results.about | {"settings": {"limit": 1}}), "Set5") == {}
    assert "| AMGAN\\* (published) |  | 29.29 | - | - | - |" in to_markdown(results)
