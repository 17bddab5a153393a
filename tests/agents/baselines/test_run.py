"""A run of the script: what is written, what is shown, and how it ends."""

from __future__ import annotations

import signal
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from blindsr_agents.baselines import Baseline, FineTuneConfig, RandomSearch, RandomSearchConfig
from blindsr_agents.baselines.run import BaselineSettings
from train_baseline import main

from sr_env.models import load_predictor, read_card
from sr_env.utils.checks import FileInTheWayError, UsageError
from sr_env.utils.digests import content_digest
from sr_env.utils.resume import read_verified


@pytest.fixture
def small(tiny_renderer: Path, tiny_predictor: Path, photo_folder: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "out": tmp_path / "run",
        "photos": str(photo_folder),
        "controls": ("code",),
        "renderer": str(tiny_renderer),
        "predictor": str(tiny_predictor),
        "patch_size": 64,
        "calls": 48,
        "batch": 4,
        "select_every": 16,
        "selection_photos": 2,
        "selection_side": 96,
        "test_crops": 0,
        "device": "cpu",
    }


@pytest.mark.parametrize("method", ["gradient", "random", "constant"])
def test_script(method: Any, small: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    rate = {"gradient": 3e-3, "random": 1.0, "constant": 1.0}[method]
    told = main(BaselineSettings(method=method, reward={"psnr": 1.0}, learning_rate=rate, **small))
    path = small["out"] / "actor_x4.safetensors"
    card = read_card(path)
    assert {name: card[name] for name in told} == told
    assert (card["method"], card["renderer_calls"], card["reward"]) == (method, 48, {"psnr": 1.0})
    assert (card["renderer"], card["ended"]) == ("tiny_renderer", "calls")
    assert card["kept"].startswith("step")
    assert card["data"].endswith("; 2 others held out to select by")
    assert min(card["selection"].values()) >= 0
    assert load_predictor(path, scale=4).network.code_length == 10
    shown = capsys.readouterr().out
    assert "48 renderer calls" in shown
    assert "selection scenes" in shown


def test_ctrl_c_keeps_the_best_so_far(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    step = RandomSearch.step

    def interrupted(self: RandomSearch, calls: int | None = None) -> float:
        if self.steps == 3:
            signal.raise_signal(signal.SIGINT)
        return step(self, calls)

    monkeypatch.setattr(RandomSearch, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(BaselineSettings(method="random", learning_rate=1.0, **small))
    card = read_card(small["out"] / "actor_x4.safetensors")
    assert (card["ended"], card["steps"], card["renderer_calls"]) == ("stopped", 4, 32)
    assert card["kept"].startswith("step")


@pytest.mark.parametrize("method", ["gradient", "random"])
def test_resumed_run_is_the_uninterrupted_one(
    method: Any, small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between two validations, or killed after one, it ends as one that was not."""
    rate = {"gradient": 3e-3, "random": 1.0}[method]
    common = {**small, "method": method, "reward": {"psnr": 1.0}, "learning_rate": rate}
    whole = main(BaselineSettings(**common))
    step = Baseline.step

    def interrupted(self: Baseline, calls: int | None = None) -> float:
        if self.steps in (1, 5):
            signal.raise_signal(signal.SIGINT)
        if self.steps == 7:
            raise MemoryError  # the run ends here as by SIGKILL, without a word
        return step(self, calls)

    cut = {**common, "out": tmp_path / "cut"}
    monkeypatch.setattr(Baseline, "step", interrupted)
    for resume in (False, True):
        with pytest.raises(KeyboardInterrupt):
            main(BaselineSettings(resume=resume, **cut))
    if method == "gradient":
        with pytest.raises(MemoryError):
            main(BaselineSettings(resume=True, **cut))
    monkeypatch.setattr(Baseline, "step", step)
    told = main(BaselineSettings(resume=True, **cut))
    assert {**told, "seconds": 0} == {**whole, "seconds": 0}
    one, other = (read_verified(folder / "state.pt") for folder in (small["out"], cut["out"]))
    assert content_digest(one["baseline"]) == content_digest(other["baseline"])
    assert content_digest(one["extra"]["selection"]) == content_digest(other["extra"]["selection"])
    with pytest.raises(UsageError, match=rf"--learning-rate was {rate:g} and is 0\.5"):
        main(BaselineSettings(resume=True, **{**cut, "learning_rate": 0.5}))
    with pytest.raises(FileInTheWayError, match="add --resume to go on"):
        main(BaselineSettings(**cut))


def test_the_script_refuses_niqe_by_gradient(small: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no gradient passes niqe"):
        main(BaselineSettings(method="gradient", reward={"niqe": 1.0}, **{**small, "patch_size": 128}))
    assert not small["out"].exists()


@pytest.mark.parametrize("config", [FineTuneConfig(), RandomSearchConfig()])
def test_the_command_line_has_the_classes_defaults(config: Any) -> None:
    settings = BaselineSettings()
    assert all(getattr(settings, field.name) == getattr(config, field.name) for field in fields(config))


def test_wrong_settings_are_named_before_the_work(small: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"tau 2.0 does not fit"):
        BaselineSettings(tau=2.0, **small)
    with pytest.raises(ValueError, match=r"select_every 0"):
        BaselineSettings(**{**small, "select_every": 0})
