"""Evaluations that are stopped in the middle of a set and go on: equal results, nothing measured twice, no mixture."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import evaluate
import evaluate_agents
import numpy as np
import pytest
import torch
from blindsr_agents.evaluation import reconstructions
from blindsr_agents.evaluation import settings as told
from blindsr_agents.evaluation.figures import SceneCrops, packed, unpacked
from blindsr_agents.evaluation.methods import ReconstructionMethod, identities
from blindsr_agents.evaluation.reconstructions import Cost
from evaluate import Settings
from PIL import Image

from sr_env.models import load_predictor, save_checkpoint
from sr_env.simulator import Simulator
from sr_env.utils.checks import FileInTheWayError, UsageError
from sr_env.utils.finished import FINISHED


class Stop:
    """Counts the calls of a function, and ends that of a number by SIGTERM."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.calls, self.at = 0, -1
        self._whole = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *arguments, **more: self._call(*arguments, **more))

    def _call(self, *arguments: Any, **more: Any) -> Any:
        if self.calls == self.at:
            signal.raise_signal(signal.SIGTERM)
        self.calls += 1
        return self._whole(*arguments, **more)

    def run(self, main: Callable[[Any], object], settings: Any, at: int = -1) -> int:
        """Run, to the end or to this call; returns how many calls came to an end."""
        self.calls, self.at = 0, at
        if at < 0:
            main(settings)
        else:
            with pytest.raises(SystemExit):
                main(settings)
        return self.calls


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Stop:
    return Stop(monkeypatch, reconstructions, "_timed")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds and has no part in this: costs are not counted, and of the figure the crops are written."""

    def draw(path: Path, crops: Sequence[SceneCrops], columns: object) -> None:
        pixels = [(crop.lr.tobytes(), crop.hr.tobytes(), *map(bytes, crop.sr.values())) for crop in crops]
        path.write_text(f"{[(crop.scene, crop.values, *crop.sr) for crop in crops]} {pixels}")

    monkeypatch.setattr(evaluate, "measure_cost", lambda *_: Cost(0, 0.0))
    monkeypatch.setattr(reconstructions, "draw_figure", draw)


def report(folder: Path, stem: str) -> tuple[Any, str]:
    """What was written, without times."""
    whole = json.loads((folder / f"{stem}.json").read_text())
    for measured in whole.get("sets", {}).values():
        for row in measured["rows"].values():
            assert row.pop("seconds_per_megapixel") > 0
    for name in ("out", "resume"):
        del whole["about"]["settings"][name]
    markdown = (folder / f"{stem}.md").read_text()
    return whole, re.sub(r"[\d.e-]+ \|$", "", markdown, flags=re.MULTILINE) if stem == "results" else markdown


@pytest.mark.parametrize("degradation", ["blur", "real"])
def test_a_stopped_evaluation_ends_as_one_that_was_not(degradation: Any, settings: Settings, stop: Stop) -> None:
    """Stopped in the second image of the first set, of which the figure shows both, and again in the next set."""
    scenes = ("Set5/0", "Set5/1", "Own/0") if degradation == "real" else ("Set5/0:2", "Set5/1:0.5", "Set5/0:0.5")
    settings = replace(settings, degradation=degradation, metrics=("psnr",), figure_scenes=scenes)
    cut, whole = (replace(settings, out=settings.bench_dir / "out" / name) for name in ("cut", "whole"))
    assert whole.out is not None
    assert cut.out is not None
    methods, conditions = (3, 2) if degradation == "blur" else (2, 11)
    image = methods * conditions
    assert stop.run(evaluate.main, whole) == 2 * methods + 3 * image  # a set begins with a first call of each method
    stop.run(evaluate.main, cut, at=methods + image + 2)
    assert list(json.loads((cut.out / FINISHED).read_text())["units"]) == ["Set5/0.png"]
    assert not (cut.out / "results.json").exists()
    cut = replace(cut, resume=True)
    stop.run(evaluate.main, cut, at=2 * methods + image + 1)
    assert list(json.loads((cut.out / FINISHED).read_text())["units"]) == ["Set5/0.png", "Set5/1.png"]
    assert stop.run(evaluate.main, cut) == 2 * methods + image
    assert report(cut.out, "results") == report(whole.out, "results")
    assert (cut.out / "figure.png").read_bytes() == (whole.out / "figure.png").read_bytes()
    assert stop.run(evaluate.main, cut) == 2 * methods  # of a finished one, the report again


def test_seconds_are_kept(settings: Settings, stop: Stop, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(settings, out=settings.bench_dir / "out", metrics=("psnr",), sets=("Set5",))
    ticks = iter(range(1000))
    monkeypatch.setattr(reconstructions, "_clock", lambda device: float(next(ticks)))
    stop.run(evaluate.main, settings, at=11)
    stop.at = -1
    rows = evaluate.main(replace(settings, resume=True)).sets["Set5"].rows
    assert [row.seconds_per_megapixel for row in rows.values()] == pytest.approx([1e6 / (124 * 128)] * 3)


def test_no_evaluation_goes_over_another(settings: Settings, stop: Stop) -> None:
    settings = replace(settings, out=settings.bench_dir / "out", metrics=("psnr",))
    assert settings.out is not None
    with pytest.raises(FileNotFoundError, match=r"nothing to resume: .*finished\.json does not exist"):
        evaluate.main(replace(settings, resume=True))
    with pytest.raises(UsageError, match="--resume without --out"):
        evaluate.main(replace(settings, out=None, resume=True))
    stop.run(evaluate.main, settings, at=10)
    with pytest.raises(FileInTheWayError, match=r"finished\.json exists: add --resume to go on, or choose another"):
        evaluate.main(settings)
    (settings.out / FINISHED).unlink()
    (settings.out / "results.json").touch()
    with pytest.raises(FileInTheWayError, match=r"results\.json of an earlier run exists: choose another --out"):
        evaluate.main(settings)


def test_other_settings_are_refused(settings: Settings, stop: Stop, tiny_textured: Path, tmp_path: Path) -> None:
    settings = replace(settings, out=tmp_path / "out", metrics=("psnr",))
    assert settings.out is not None
    stop.run(evaluate.main, settings, at=10)
    moved = Path(shutil.copytree(settings.bench_dir, tmp_path / "moved"))
    other = load_predictor(str(settings.predictor))
    with torch.no_grad():
        other.network.head[-1].bias[0] += 1
    predictor = save_checkpoint(tmp_path / "b" / "tiny_predictor.safetensors", other.network, other.basis, 4, {})
    digest = r"\(?digest \w+\)?"
    for change, message in (
        ({"widths": (0.5, 1.0)}, "--widths was 0.5 2 and is 0.5 1"),
        ({"metrics": ("psnr", "ssim")}, "--metrics was psnr and is psnr ssim"),
        ({"degradation": "real"}, "--degradation was blur and is real"),
        ({"precision": "bf16"}, "--precision was fp32 and is bf16"),
        ({"figure_scenes": ("Set5/1",)}, "--figure-scenes was None and is Set5/1"),
        ({"sets": ("Set5",)}, f"--sets was Set5: 2 photos {digest} Own: 1 photos {digest} and is Set5: 2 photos "),
        ({"predictor": str(predictor)}, f"--predictor was {digest} and is {digest}: give"),
        ({"renderers": (str(tiny_textured),)}, f"--renderers was tiny_renderer, true kernel {digest} tiny_renderer, "),
    ):
        with pytest.raises(UsageError, match=f"cannot resume from .*out with other settings: .*{message}"):
            evaluate.main(replace(settings, resume=True, **change))  # type: ignore[arg-type]
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(moved / "Set5" / "2.png")
    with pytest.raises(UsageError, match=r"--sets was Set5: 2 photos .* and is Set5: 3 photos"):
        evaluate.main(replace(settings, bench_dir=moved, resume=True))
    (settings.out / FINISHED).write_text((settings.out / FINISHED).read_text().replace("psnr", "ssim", 3))
    with pytest.raises(UsageError, match=r"finished\.json is not what was written.*delete it to start anew"):
        evaluate.main(replace(settings, resume=True))


@pytest.mark.parametrize("kind", [Settings, evaluate_agents.Settings])
def test_every_setting_is_kept_or_says_where_files_lie(kind: Any) -> None:
    kept = told.kept_settings(kind(bench_dir=Path("bench")), told._CHANGEABLE)
    names = {field.name for field in fields(kind)}
    where = {"out", "resume", "bench_dir", "lr_photos", "peers_dir", "dan", "usrgan"}
    assert names - kept.keys() == names & where


def test_a_report_says_what_was_measured_with_something_else(
    settings: Settings, stop: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(settings, out=settings.bench_dir / "out", metrics=("psnr",))
    assert settings.out is not None
    with monkeypatch.context() as patch:
        patch.setattr(told, "commit", lambda: "0123abc")
        stop.run(evaluate.main, settings, at=10)
    stop.at = -1
    results = evaluate.main(replace(settings, resume=True))
    assert [each["commit"] for each in results.about["earlier"]] == ["0123abc"]
    assert "A part was measured before with commit 0123abc, hardware " in (settings.out / "results.md").read_text()


def test_crops_are_kept_as_they_are(random_photos: list[np.ndarray]) -> None:
    np.testing.assert_array_equal(unpacked(packed(random_photos[0])), random_photos[0])


def test_networks_are_told_apart_by_the_setting_that_asks_for_them() -> None:
    networks = [torch.nn.Linear(1, 1) for _ in range(2)]
    methods = [
        ReconstructionMethod("bicubic", lambda lr, kernels: lr),
        ReconstructionMethod("a", lambda lr, kernels: lr, (networks[0], networks[1])),
        ReconstructionMethod("b", lambda lr, kernels: lr, (networks[1],), "peers"),
    ]
    found = identities(methods)
    assert [len(each) for each in found.values()] == [1, 1, 1]
    assert found["peers"][0] == f"b ({found['predictor'][0]})"


def test_a_stopped_comparison_ends_as_one_that_was_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tiny_predictor: Path, tmp_path: Path
) -> None:
    start = load_predictor(tiny_predictor)
    with torch.no_grad():
        start.network.head[-1].bias[0] += 0.3
    actor = save_checkpoint(tmp_path / "actor.safetensors", start.network, start.basis, 4, {})
    whole = evaluate_agents.Settings(
        bench_dir=settings.bench_dir,
        out=tmp_path / "whole",
        sets=("Set5", "Own"),
        actors=(f"mine={actor},{tiny_predictor}",),
        renderers=settings.renderers,
        predictor=settings.predictor,
        rewards=("psnr=1", "ssim=1"),
        widths=(0.5, 2.0),
        metrics=("psnr",),
        device="cpu",
        max_side=64,
        oracle_evaluations=11,
        limit=1,
    )
    cut = replace(whole, out=tmp_path / "cut")
    assert whole.out is not None
    assert cut.out is not None
    stop = Stop(monkeypatch, Simulator, "score")
    calls = stop.run(evaluate_agents.main, whole)
    stop.run(evaluate_agents.main, cut, at=calls // 3)
    assert 0 < len(json.loads((cut.out / FINISHED).read_text())["units"]) < 64
    cut = replace(cut, resume=True)
    stop.run(evaluate_agents.main, cut, at=calls // 3)
    assert stop.run(evaluate_agents.main, cut) < calls / 2
    units = json.loads((cut.out / FINISHED).read_text())["units"]
    assert next(iter(units)) == "Set5/table 0/condition 0/from 0/bicubic, 0"
    assert len(units) == 2 * 2 * 2 * 8  # sets, tables, widths, methods and seeds
    assert report(cut.out, "agents") == report(whole.out, "agents")
    for change, message in (
        ({"oracle_evaluations": 13, "seed": 1}, "--oracle-evaluations was 11 and is 13; --seed was 0 and is 1"),
        (
            {"rewards": ("psnr=1",), "actors": (f"mine={actor}",)},
            r"--actors was mine=actor \(digest \w+\) mine=tiny_predictor .*--rewards was psnr=1 ssim=1 and is psnr",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            evaluate_agents.main(replace(cut, **change))  # type: ignore[arg-type]
