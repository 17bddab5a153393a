"""The ablation: what it reports, and that one that was stopped between runs ends as one that was not."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ablation
import pytest
from blindsr_agents.hinge_ddpg import HingeDDPGSettings

from sr_env.utils.checks import FileInTheWayError, UsageError


@pytest.fixture
def settings(
    tiny_renderer: Path, tiny_predictor: Path, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ablation.Settings:
    @dataclass
    class Small(HingeDDPGSettings):
        predictor: str | None = str(tiny_predictor)
        patch_size: int = 64
        warmup_updates: int = 2
        batch_size: int = 32
        critics: int = 2
        selection_widths: tuple[float, ...] = (0.5, 2.0)

        def __post_init__(self) -> None:
            self.learning_starts = 32
            super().__post_init__()

    monkeypatch.setattr(ablation, "draw", lambda path, *_: path.touch())
    monkeypatch.setattr(ablation, "HingeDDPGSettings", Small)
    return ablation.Settings(
        out=tmp_path / "whole",
        variants=("hinge_l2", "noise 2"),
        seeds=2,
        photos=str(photo_folder),
        reward={"psnr": 1.0},
        renderer=str(tiny_renderer),
        steps=40,
        points=2,
        selection_photos=2,
        selection_side=64,
        device="cpu",
    )


def test_a_stopped_ablation_ends_as_one_that_was_not(
    settings: ablation.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ablation.main(settings)
    assert [(run.variant, run.seed) for run in whole] == [("hinge_l2", 0), ("noise 2", 0), ("hinge_l2", 1)]
    assert [[step for step, _ in run.curve] for run in whole] == [[32, 64]] * 3
    assert len({run.gain for run in whole}) > 1  # actors were trained
    run, begun = ablation.run, []

    def stopped(*arguments: Any) -> ablation.Outcome:
        begun.append(arguments[2])
        if len(begun) == 2:
            signal.raise_signal(signal.SIGTERM)
        return run(*arguments)

    monkeypatch.setattr(ablation, "run", stopped)
    cut = replace(settings, out=tmp_path / "cut")
    with pytest.raises(SystemExit):
        ablation.main(cut)
    with pytest.raises(FileInTheWayError, match=r"finished\.json exists: add --resume"):
        ablation.main(cut)
    for change, message in (
        ({"steps": 7}, "--steps was 40 and is 7"),
        ({"photos": "bundled"}, "--photos was 5 photos"),
    ):
        with pytest.raises(UsageError, match=f"cannot resume from .*cut with other settings: {message}"):
            ablation.main(replace(cut, resume=True, **change))  # type: ignore[arg-type]
    ablation.main(replace(cut, resume=True))
    assert begun == ["hinge_l2", "noise 2", "noise 2", "hinge_l2"]
    one, other = (json.loads((folder / "ablation.json").read_text()) for folder in (settings.out, cut.out))
    assert one == other
    assert (settings.out / "ablation.md").read_text() == (cut.out / "ablation.md").read_text()
    assert len(ablation.main(replace(cut, resume=True, other_seeds=2))) == 4  # more may be asked for
    assert begun[4:] == ["noise 2"]
