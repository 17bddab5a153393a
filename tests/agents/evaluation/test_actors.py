"""Whole photos as scenes, and the comparison of agents: its figures are those of the parts, and every gap is named."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.evaluation import actors as compare
from blindsr_agents.evaluation import scene_sets as scenes
from blindsr_agents.evaluation.actors import (
    MEAN_CODE,
    ORACLE,
    RANDOM_SEARCH,
    Actor,
    Comparisons,
    make_row,
    mean_cells,
    parse_actor,
    plan,
    shipped_actors,
    to_markdown,
    verdicts,
    width_cells,
)
from blindsr_agents.evaluation.scene_sets import BICUBIC, PRETRAINED, TRUE_KERNEL, WholeScenes
from blindsr_agents.evaluation.scores import Scores
from evaluate import Settings, main, measure_agents
from PIL import Image
from rich.console import Console

from sr_env.degradation import Degradation, quantize
from sr_env.metrics import create_metric
from sr_env.models import checkpoint
from sr_env.models.checkpoint import load_predictor, load_renderer, save_checkpoint
from sr_env.models.predictor import KernelPredictor
from sr_env.photos import ArrayPhotos
from sr_env.simulator import Simulator, SimulatorSettings


@pytest.fixture
def simulator(tiny_settings: dict[str, Any]) -> Simulator:
    return Simulator(SimulatorSettings(**tiny_settings, reward={"psnr": 1.0, "ssim": 2.0}, reference="predictor"))


@pytest.fixture
def settings(tmp_path: Path, tiny_renderer: Path, tiny_predictor: Path, random_photos: list[np.ndarray]) -> Settings:
    (tmp_path / "bench" / "Set5").mkdir(parents=True)
    for number, image in enumerate(random_photos[:3]):
        Image.fromarray(image[:130, :125]).save(tmp_path / "bench" / "Set5" / f"{number}.png")
    return Settings(
        bench_dir=tmp_path / "bench",
        out=tmp_path / "out",
        sets=("Set5",),
        renderers=(str(tiny_renderer),),
        predictor=str(tiny_predictor),
        rewards=("psnr=1",),
        widths=(0.5, 2.0),
        metrics=("psnr", "ssim"),
        device="cpu",
        agents=True,
        max_side=64,
    )


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=300)


def text(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def write_actor(path: Path, predictor: Path, shift: float, **card: Any) -> Path:
    """A predictor whose first logit is off by so much."""
    start = load_predictor(predictor)
    network = KernelPredictor(**start.network.architecture)
    network.load_state_dict(start.network.state_dict())
    with torch.no_grad():
        network.head[-1].bias[0] += shift
    return save_checkpoint(path, network, start.basis, 4, card)


# -------------------------------------------------------------------------------------------------------- whole photos


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
    monkeypatch.setattr(scenes, "_PIXELS", 2 * 64 * 96)
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


# ---------------------------------------------------------------------------------------------------------- the actors


def test_shipped_actors_are_grouped(tmp_path: Path, tiny_predictor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, card in {
        "actor_lpips_amnet_l_x4_s1": {"renderer": "amnet_l_x4", "reward": {"lpips": 1.0}, "seed": 1},
        "actor_lpips_amnet_l_x4_s0": {"renderer": "amnet_l_x4", "reward": {"lpips": 1.0}, "seed": 0},
        "actor_niqe_amnet_l_x4_s0": {"renderer": "amnet_l_x4", "reward": {"niqe": 1.0}, "seed": 0},
        "predictor_x4": {},
    }.items():
        write_actor(tmp_path / f"{name}.safetensors", tiny_predictor, 0, **card)
    monkeypatch.setattr(checkpoint, "RELEASED", tmp_path)
    lpips, niqe = shipped_actors(4)
    assert lpips == Actor(
        "actor_lpips_amnet_l_x4",
        ("actor_lpips_amnet_l_x4_s0", "actor_lpips_amnet_l_x4_s1"),
        "amnet_l_x4",
        {"lpips": 1.0},
    )
    assert niqe.predictors == ("actor_niqe_amnet_l_x4_s0",)
    assert shipped_actors(2) == []
    assert lpips.fits("some/amnet_l_x4.safetensors", {"lpips": 1})
    assert not lpips.fits("amnet_x4", {"lpips": 1})
    assert not lpips.fits("amnet_l_x4", {"niqe": 1})


def test_given_actors(tmp_path: Path, tiny_predictor: Path) -> None:
    one = write_actor(tmp_path / "a.safetensors", tiny_predictor, 0, reward={"psnr": 1.0}, renderer="r")
    two = write_actor(tmp_path / "b.safetensors", tiny_predictor, 0, reward={"lpips": 1.0}, renderer="r")
    assert parse_actor(f"mine={one},{one}") == Actor("mine", (str(one), str(one)), "r", {"psnr": 1.0})
    pretrained = write_actor(tmp_path / "c.safetensors", tiny_predictor, 0, renderer="r, validation 30 dB")
    assert parse_actor(f"mine={pretrained}") == Actor("mine", (str(pretrained),))
    with pytest.raises(ValueError, match="'mine' were trained for several rewards"):
        parse_actor(f"mine={one},{two}")
    for bad in ("mine", "mine=", f"={one}"):
        with pytest.raises(ValueError, match="is not LABEL=FILE"):
            parse_actor(bad)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        parse_actor("mine=nowhere.safetensors")


def test_plan() -> None:
    lpips, niqe = Actor("a", ("a",), "r", {"lpips": 1.0}), Actor("b", ("b",), "s", {"niqe": 1.0})

    def pairs(*arguments: Any) -> list[tuple[str, dict[str, float]]]:
        return [(task.renderer, dict(task.reward)) for task in plan(*arguments)]

    assert pairs([], 4, None, None) == [("amnet_l_x4", {"lpips": 1.0})]
    assert pairs([lpips, lpips, niqe], 4, None, None) == [("r", {"lpips": 1.0}), ("s", {"niqe": 1.0})]
    assert pairs([lpips, niqe], 4, ["t"], None) == [("t", {"lpips": 1.0}), ("t", {"niqe": 1.0})]
    assert pairs([lpips], 4, None, [{"psnr": 1.0}]) == [("r", {"psnr": 1.0})]


# --------------------------------------------------------------------------------------------------------- the figures


def test_row_by_hand() -> None:
    pretrained = Scores({"score": np.array([[1.0, 2.0], [3.0, 4.0]]), "psnr": np.array([[1.0, 2.0], [3.0, 4.0]])})
    oracle = Scores({"score": pretrained.values["score"] + 2})

    def shifted(*by: float) -> Scores:
        return Scores({name: value + np.array(by)[:, None] for name, value in pretrained.values.items()})

    row = make_row([shifted(1.0, -0.5), shifted(2.0, -0.5)], pretrained, oracle, 2)
    assert row.gain == [1.5, -0.5]
    assert row.spread == pytest.approx(np.std([0.25, 0.75], ddof=1))
    assert row.share == pytest.approx(0.25)
    assert row.values == {"psnr": [3.0, 3.0]}
    assert row.spreads == {"psnr": row.spread}
    assert row.standard_error == 0
    table = compare.Comparison(
        "folder/r.safetensors", {"psnr": 1.0}, "Set5", 2, [0.2, 2.6], {PRETRAINED: row, "a": row}
    )
    row.seeds = 2
    table.rows[PRETRAINED] = make_row([pretrained], pretrained)
    (line,) = verdicts(table)
    assert "a is better than the pretrained actor (+0.5000 ± 0.0000); it falls at kernel width 2.6 (-0.5000)." in line
    assert mean_cells(table)[2][:5] == ["a", "2", "+0.5000 ± 0.0000 (sd 0.3536)", "25% ± 0%", "-0.5000 at 2.6"]
    assert width_cells(table)[-1] == ["a", "2.6", "-0.5000", "3.00"]
    assert table.title == "Set5 (2 images), r, reward psnr"


def test_standard_error_counts_photos() -> None:
    """A photo at several widths is one sample; a seed is none."""
    base = Scores({"score": np.zeros((3, 4))})
    gains = np.array([0.1, 0.3, -0.2, 0.6])
    row = make_row([Scores({"score": np.tile(gains, (3, 1))})] * 5, base, None, 5)
    assert row.standard_error == pytest.approx(gains.std(ddof=1) / 2)
    assert row.share is None
    table = compare.Comparison("r", {"psnr": 1.0}, "Set5", 4, [1.0, 2.0, 3.0], {"a": row})
    assert "not measurably better than" in verdicts(table)[0]


def test_comparison_end_to_end(settings: Settings, console: Console, tmp_path: Path, tiny_predictor: Path) -> None:
    seeds = [write_actor(tmp_path / f"actor_s{i}.safetensors", tiny_predictor, 0.2 * i) for i in range(2)]
    settings = replace(settings, actors=(f"mine={seeds[0]},{seeds[1]}",), oracle_evaluations=12)
    results = main(settings)
    assert isinstance(results, Comparisons)
    (table,) = results.tables
    assert list(table.rows) == [BICUBIC, MEAN_CODE, TRUE_KERNEL, PRETRAINED, "mine", RANDOM_SEARCH, ORACLE]
    assert (table.set, table.images, table.widths) == ("Set5", 3, [0.5, 2.0])
    rows = table.rows
    assert rows[PRETRAINED].gain == [0.0, 0.0]
    assert rows["mine"].seeds == 2
    assert rows["mine"].spread is not None
    assert rows["mine"].spread > 0
    for method in (MEAN_CODE, TRUE_KERNEL, PRETRAINED):  # where the searches started
        for search in (RANDOM_SEARCH, ORACLE):
            assert np.greater_equal(rows[search].values["psnr"], np.array(rows[method].values["psnr"]) - 1e-3).all()
    assert rows[ORACLE].share == 1
    assert rows[PRETRAINED].share == 0
    # The first seed is the pretrained actor itself: the second's gain, halved.
    alone = measure_agents(replace(settings, actors=(f"mine={seeds[1]}",), oracle_evaluations=0), console)
    np.testing.assert_allclose(np.array(alone.tables[0].rows["mine"].gain) / 2, rows["mine"].gain, atol=1e-6)

    written = json.loads((tmp_path / "out" / "agents.json").read_text())
    assert written["tables"][0]["rows"]["mine"]["gain"] == pytest.approx(alone.tables[0].rows["mine"].gain)
    assert "| mine | 1 |" in (tmp_path / "out" / "agents.md").read_text()
    assert str(tmp_path) not in json.dumps(written)
    assert "12 renderings" in to_markdown(results)


def test_guards_of_the_oracle(settings: Settings, console: Console) -> None:
    settings = replace(settings, oracle_evaluations=12, metrics=("ssim",), oracle_guards={"lpips": 1e-3})
    results = measure_agents(settings, console)
    rows = results.tables[0].rows
    for search in (RANDOM_SEARCH, ORACLE):
        lost = np.array(rows[search].values["lpips"]) - rows[PRETRAINED].values["lpips"]
        assert (lost <= 1e-3 + 1e-5).all()
        assert min(rows[search].gain) >= 0
    assert "worse than the pretrained actor's: lpips by more than 0.001." in to_markdown(results)


def test_rows_by_hand(settings: Settings, console: Console, random_photos: list[np.ndarray]) -> None:
    (table,) = measure_agents(settings, console).tables
    assert settings.renderers is not None
    renderer, metric = load_renderer(settings.renderers[0]), create_metric("psnr", border=4)
    for row, width in enumerate((0.5, 2.0)):
        values: dict[str, list[float]] = {MEAN_CODE: [], TRUE_KERNEL: []}
        for photo in random_photos[:3]:
            cut = photo[33:97, 30:94].copy()  # 64x64 around the centre of 130x125
            hr = torch.from_numpy(cut).permute(2, 0, 1)[None] / 255
            kernels = Degradation(4).build(np.array([width]))
            lr, code = Degradation(4)(hr, kernels), renderer.basis.encode(kernels.kernels)
            for method, given in ((MEAN_CODE, torch.zeros_like(code)), (TRUE_KERNEL, code)):
                values[method].append(float(metric(quantize(renderer.network(lr, given)), hr)))
        for method, each in values.items():
            assert table.rows[method].values["psnr"][row] == pytest.approx(np.mean(each), abs=1e-3)


def test_what_is_missing_is_named(settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "available_checkpoints", lambda kind: ())
    results = measure_agents(replace(settings, sets=("Set5", "Set14"), metrics=("psnr", "niqe")), console)
    assert "skipped: trained actors: none for scale 4 ships" in text(console)
    assert "skipped: Set14: no such folder" in text(console)
    assert "niqe: needs images of 104 pixels a side, the smallest has 64" in text(console)
    assert list(results.tables[0].rows) == [BICUBIC, MEAN_CODE, TRUE_KERNEL, PRETRAINED]
    assert "Left out: trained actors" in to_markdown(results)


def test_actors_of_other_tables_are_left_out(
    settings: Settings, console: Console, tmp_path: Path, tiny_predictor: Path
) -> None:
    path = write_actor(tmp_path / "a.safetensors", tiny_predictor, 0.1, renderer="other", reward={"psnr": 1.0})
    results = measure_agents(replace(settings, actors=(f"mine={path}",)), console)
    assert "mine" not in results.tables[0].rows
    assert "trained actors: none for tiny_renderer, reward psnr" in text(console)


def test_bad_comparisons(settings: Settings, console: Console, tiny_predictor: Path) -> None:
    for change, message in (
        ({"actors": (f"{BICUBIC}={tiny_predictor}",)}, "two rows would be called 'bicubic'"),
        ({"actors": (f"a={tiny_predictor}", f"a={tiny_predictor}")}, "two rows would be called 'a'"),
        ({"rewards": ("niqe=1",)}, "no comparison by the reward niqe: niqe: needs images of 104"),
        ({"rewards": ("nice=1",)}, "unknown metric 'nice'"),
        ({"oracle_evaluations": 1}, "1 evaluations per scene are too few"),
        ({"oracle_evaluations": 12, "oracle_guards": {"niqe": 1.0}}, "no comparison by the guard niqe: niqe: needs"),
        ({"oracle_evaluations": 12, "oracle_guards": {"psnr": -1.0}}, "guard psnr=-1 of the oracle is not a positive"),
        ({"oracle_guards": {"psnr": 0.1}}, "oracle_guards without oracle_evaluations"),
        ({"oracle_evaluations": -1}, "-1 evaluations per scene are too few"),
        ({"max_side": 30}, "max_side 30 is under 32"),
        ({"widths": (1.0, 1.0)}, "kernel widths"),
    ):
        with pytest.raises(ValueError, match=message):
            measure_agents(replace(settings, **change), console)  # type: ignore[arg-type]
    assert "reward gain" not in text(console)  # nothing was measured before the mistake showed
