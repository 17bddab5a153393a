"""Agents on photographs as they are: training, selection, reports and comparisons without HR."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import evaluate_agents
import numpy as np
import pytest
import train_baseline
import train_ddpg
import train_iterative
import train_sb3
from blindsr_agents.baselines.run import BaselineSettings
from blindsr_agents.evaluation.scene_sets import BICUBIC, PRETRAINED, FixedScenes, WholeScenes
from blindsr_agents.evaluation.settings import EvaluationSettings
from blindsr_agents.iterative.run import IterativeSettings
from blindsr_agents.stock import StockSettings
from blindsr_agents.training import Improvement, ImprovementSettings, Selection
from blindsr_agents.training.setup import split_lr_photos
from PIL import Image
from rich.console import Console

from sr_env.cli import upscale
from sr_env.models import load_predictor
from sr_env.photos import ArrayPhotos, BundledPhotos, Part
from sr_env.simulator import Simulator, SimulatorSettings
from sr_env.utils.checks import UsageError

_REWARD = {"brisque": 1.0, "consistency": 0.1}


@pytest.fixture
def scans(tmp_path: Path, random_photos: list[np.ndarray]) -> Path:
    """A folder of nine small photographs, of two shapes."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(9):
        Image.fromarray(random_photos[number % 5][: 40 + 8 * (number % 2), 10 * number : 10 * number + 48]).save(
            folder / f"{number}.png"
        )
    return folder


@pytest.fixture
def common(scans: Path, tmp_path: Path, tiny_real: dict[str, str]) -> dict[str, Any]:
    """Settings that all trainings share."""
    return {
        "out": tmp_path / "out",
        "lr_photos": str(scans),
        "reward": _REWARD,
        "guards": {"consistency": 1.0, "niqe": 50.0},
        "patch_size": 128,
        "selection_side": 160,
        "select_every": 8,
        "device": "cpu",
        "precision": "fp32",
        **tiny_real,
    }


def test_photographs_are_held_out_twice() -> None:
    photos = ArrayPhotos([np.full((40, 40, 3), number, np.uint8) for number in range(20)])
    train, select, report = ({int(photo[0, 0, 0]) for photo in part} for part in split_lr_photos(photos, 32, 16))
    assert [len(part) for part in (train, select, report)] == [10, 5, 5]
    assert train | select | report == set(range(20))
    train, test = ({int(photo[0, 0, 0]) for photo in part} for part in split_lr_photos(photos, 32, 3, sets=1))
    assert [len(part) for part in (train, test)] == [17, 3]


def test_few_photographs_are_cut_and_the_bundled_ones_have_others() -> None:
    photos = ArrayPhotos([np.zeros((40, 100, 3), np.uint8)] * 7)
    train, select, report = split_lr_photos(photos, 32, 16)
    assert isinstance(select, Part)
    assert train.shapes[0] == (40, 68)
    assert select is report
    _, select, report = split_lr_photos(BundledPhotos("train"), 48, 16)
    assert isinstance(select, Part)
    assert not set(report.names) & set(select.names)


def test_ddpg_trains_reports_and_exports(
    common: dict[str, Any], scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {"steps": 16, "envs": 4, "actions_per_scene": 2, "learning_starts": 4, "warmup_updates": 1}
    run |= {"gradient_steps": 1, "batch_size": 8, "buffer_size": 64, "test_crops": 3, "actor_learning_rate": 1e-2}
    run |= {"constant_renderings": 16}
    trained = train_ddpg.main(train_ddpg.Settings(**common, **run))
    told = " ".join(capsys.readouterr().out.split())
    assert "3 crops of 2 LR photographs" in told
    for name in ("NIQE", "BRISQUE", "consistency", BICUBIC, PRETRAINED):
        assert name in told
    for name in ("PSNR", "LPIPS", "kernel width", "true kernel", "HR"):
        assert name not in told
    for name in ("curves.png", "before_after.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    actor = load_predictor(trained.path, scale=4, controls=("code", "sharpen"))
    assert list(actor.card["selection"]) == ["photographs"]
    assert actor.card["settings"]["lr_photos"].endswith("scans")
    assert "scans; 2 others held out to select by" in actor.card["data"]
    assert actor.card["data"].startswith("5 photographs")
    assert (trained.agent.memory.groups == 0).all()

    train_ddpg.main(train_ddpg.Settings(**common, **run | {"steps": 24}, resume=True))
    assert "steps 16 to 24" in " ".join(capsys.readouterr().out.split())
    (scans / "0.png").unlink()
    with pytest.raises(UsageError, match=r"cannot resume from .* with other settings: --lr-photos was 9 photos"):
        train_ddpg.main(train_ddpg.Settings(**common, **run, resume=True))


def test_what_is_trained_enlarges(
    common: dict[str, Any], scans: Path, tmp_path: Path, tiny_renderer: Path, tiny_predictor: Path
) -> None:
    networks = {"kernels": "isotropic", "renderer": str(tiny_renderer), "predictor": str(tiny_predictor)}
    train_baseline.main(BaselineSettings(**common | networks, method="constant", calls=8, batch=2, test_crops=0))
    actor = str(tmp_path / "out" / "actor_x4.safetensors")
    models = {"model": str(tiny_renderer), "predictor": actor}
    upscale.main(upscale.Settings((str(scans / "1.png"),), out=tmp_path / "large.png", device="cpu", **models))
    with Image.open(scans / "1.png") as small, Image.open(tmp_path / "large.png") as large:
        assert large.size == (small.width * 4, small.height * 4)


def test_the_consistency_is_guarded_where_it_is_not_paid(common: dict[str, Any]) -> None:
    improvement = Improvement(ImprovementSettings(**common | {"reward": {"niqe": 1.0}, "guards": {"consistency": 0.5}}))
    selection = improvement.selection
    before = selection.pretrained.values["consistency"]
    assert before.shape == (1, 2)
    for lost, broken in ((0.4, ()), (0.6, ("consistency",))):
        values = {"score": selection.pretrained.values["score"] + 1, "consistency": before - lost}
        selection.scenes.score = lambda method, values=values: type(selection.pretrained)(values)  # type: ignore
        assert selection.consider(improvement.pretrained.network, 1).tolist() == pytest.approx([1.0])
        assert selection.broken == broken
    with pytest.raises(UsageError, match="unknown guard 'psnr': choose one of niqe, consistency"):
        Selection(selection.scenes, improvement.pretrained.network, {"psnr": 0.1})


def test_iterative_trains_and_reports(common: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run = {"steps": 16, "envs": 4, "actions_per_scene": 2, "learning_starts": 8, "warmup_updates": 1}
    run |= {"gradient_steps": 1, "batch_size": 8, "max_steps": 2, "test_side": 160}
    table = train_iterative.main(IterativeSettings(**common, **run))
    assert list(table) == [PRETRAINED, "1 correction", "2 corrections"]
    assert table["2 corrections"]["per_width"] == {}
    assert set(table[PRETRAINED]["metrics"]) == {"niqe", "brisque", "consistency"}
    told = " ".join(capsys.readouterr().out.split())
    assert "2 LR photographs" in told
    assert "kernel width" not in told


@pytest.mark.parametrize("method", ["random", "constant"])
def test_baselines_train_and_report(method: Any, common: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    card = train_baseline.main(BaselineSettings(**common, method=method, calls=16, batch=2, test_crops=2))
    assert set(card["test"]) == {"gain", "standard_error"}
    assert "kernel width" not in capsys.readouterr().out


def test_stock_algorithms_train(scans: Path, tiny_real: dict[str, str], tmp_path: Path) -> None:
    block = tmp_path / "short.yml"
    block.write_text("ppo: {n_steps: 4, batch_size: 8, n_envs: 2}")
    settings = StockSettings(
        algorithm="ppo",
        hyperparameters=block,
        lr_photos=str(scans),
        reward=_REWARD,
        reference="predictor",
        steps=8,
        test_crops=2,
        patch_size=128,
        device="cpu",
        **tiny_real,
    )
    held_out = settings.held_out().scenes.simulator.photos
    assert not set(held_out.names) & set(settings.environment()["lr_photos"].names)
    result = train_sb3.train(settings)
    assert result.after.values["consistency"].shape == (1, 2)


def test_comparisons_have_tables_without_hr(
    scans: Path, tiny_real: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = evaluate_agents.Settings(
        lr_photos=scans,
        renderers=(tiny_real["renderer"],),
        predictor=tiny_real["predictor"],
        actors=(f"mine={tiny_real['predictor']}",),
        max_side=160,
        device="cpu",
        out=tmp_path / "report",
    )
    (table,) = evaluate_agents.main(settings).tables
    assert (table.set, table.images, table.widths) == ("scans", 9, [])
    assert table.reward == {"niqe": 1.0, "consistency": 0.1}
    assert list(table.rows) == [BICUBIC, "mean code", PRETRAINED, "mine"]
    assert table.rows["mine"].gain == [0.0]
    assert list(table.columns) == ["niqe", "brisque", "consistency"]
    for told in (capsys.readouterr().out, (tmp_path / "report" / "agents.md").read_text()):
        assert "hotographs as they are" in " ".join(told.split())
        assert "lowest at a width" not in told
        assert "mine is not measurably better" in " ".join(told.split())
    assert json.loads((tmp_path / "report" / "agents.json").read_text())["about"]["widths"] == []


@pytest.mark.parametrize(
    "given",
    [{"bench_dir": Path("bench")}, {"widths": (1.0,)}, {"oracle_evaluations": 10}],
    ids=lambda given: next(iter(given)),
)
def test_comparisons_refuse_what_needs_hr(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="needs HR or its kernel, which lr_photos lack"):
        evaluate_agents.Settings(lr_photos=Path("scans"), **given)


def test_no_folder_of_sets_is_one_error() -> None:
    with pytest.raises(UsageError, match="add --bench-dir FOLDER"):
        evaluate_agents.measure(evaluate_agents.Settings(device="cpu"), Console())
    assert EvaluationSettings().measured == ("psnr", "ssim", "lpips", "dists", "niqe")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"photos": "mine"}, "photos and lr_photos are both given"),
        ({"softness": 1.0}, r"softness 1\.0 changes lr_photos"),
    ],
)
def test_trainings_refuse_what_does_not_go_with_photographs(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        ImprovementSettings(lr_photos="scans", **given)


def test_a_reward_that_needs_hr_shows_before_the_training(common: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="metric 'lpips' compares with HR"):
        Improvement(ImprovementSettings(**common | {"reward": {"lpips": 1.0}}))
    with pytest.raises(UsageError, match="photos and lr_photos are both given"):
        Improvement(ImprovementSettings(**common), [np.zeros((128, 128, 3), np.uint8)])


def test_scene_sets_are_the_photographs(random_photos: list[np.ndarray], tiny_real: dict[str, str]) -> None:
    settings = SimulatorSettings(
        lr_photos=random_photos, patch_size=128, reward=_REWARD, kernels="real", device="cpu", **tiny_real
    )
    simulator = Simulator(settings)
    whole = WholeScenes(simulator, (), max_side=320)
    for _, places, scenes in whole.parts():
        assert scenes.lr.shape[-2:] == (80, 80)
        for place, lr, (top, left) in zip(places, scenes.lr, scenes.corner, strict=True):
            shown = random_photos[place][top : top + 80, left : left + 80]
            np.testing.assert_array_equal((lr.permute(1, 2, 0) * 255).round().numpy(), shown)
    assert FixedScenes(simulator, 3, (), seed=0).score(simulator.bicubic).values["score"].shape == (1, 3)
    with pytest.raises(UsageError, match="blur nothing in lr_photos"):
        WholeScenes(simulator, (1.0,))
    with pytest.raises(UsageError, match="has 28, enlarged, pixels on one side, 32 are needed"):
        WholeScenes(simulator, (), ArrayPhotos([np.zeros((7, 160, 3), np.uint8)]))
