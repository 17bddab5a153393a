"""A run of the script: the table, what is written, resumption."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from blindsr_agents.iterative import IterativeHinge, IterativeHingeConfig, load_corrector
from blindsr_agents.iterative.run import IterativeSettings
from train_iterative import main

from sr_env.models import load_predictor
from sr_env.utils.checks import FileInTheWayError, MissingFileError, UsageError


@pytest.fixture
def small(tiny_renderer: Path, tiny_predictor: Path, photo_folder: Path, tmp_path: Path) -> IterativeSettings:
    """A run of 16 SR images on tiny networks."""
    return IterativeSettings(
        out=tmp_path / "out",
        photos=str(photo_folder),
        test_photos=str(photo_folder),
        test_count=2,
        test_side=64,
        renderer=str(tiny_renderer),
        predictor=str(tiny_predictor),
        one_step=tiny_predictor,
        patch_size=64,
        selection_photos=1,
        selection_side=64,
        selection_widths=(1.3,),
        max_steps=2,
        n_steps=None,
        steps=16,
        envs=4,
        actions_per_scene=2,
        select_every=8,
        learning_starts=8,
        warmup_updates=1,
        gradient_steps=2,
        batch_size=8,
        actor_learning_rate=1e-2,
        device="cpu",
        precision="fp32",
    )


def test_script_tells_the_improvement_after_each_correction(
    small: IterativeSettings, tiny_predictor: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = small
    table = main(settings)
    told = capsys.readouterr().out
    assert "2-step returns" in told
    assert list(table) == ["pretrained actor", "one-step agent", "1 correction", "2 corrections", "true kernel"]
    assert table["one-step agent"]["improvement"] == 0  # the same predictor
    written = json.loads((settings.out / "iterative.json").read_text())
    assert written["table"] == table
    assert list(table["2 corrections"]["per_width"]) == ["0.2", "1.3", "2.6"]
    assert [point["step"] for point in written["selection"]] == [0, 8, 16]
    kept = load_corrector(settings.out / "corrector_x4.safetensors", load_predictor(tiny_predictor))
    corrects = any(parameter.abs().max() > 0 for parameter in kept.head[-1].parameters())
    assert corrects == (written["kept"] != "no correction")
    assert corrects == (table["2 corrections"]["improvement"] != 0)
    with pytest.raises(FileInTheWayError, match=r"state\.pt exists: add --resume to go on, or choose another --out"):
        main(settings)
    with pytest.raises(UsageError, match=r"with other settings: --max-steps was 2 and is 3: give what it began with"):
        main(replace(settings, resume=True, max_steps=3))
    settings.resume, settings.steps = True, 24
    main(settings)
    assert "steps 16 to 24" in capsys.readouterr().out.replace("\n", " ")


def test_a_saved_corrector_is_measured_beside(small: IterativeSettings) -> None:
    small.keep_last = True
    first = main(small)
    assert first["2 corrections"]["improvement"] != 0
    small.earlier = small.out / "corrector_x4.safetensors"
    small.out, small.steps, small.max_steps = small.out.parent / "again", 8, 1
    second = main(small)
    assert list(second)[:4] == ["pretrained actor", "one-step agent", "earlier corrector", "1 correction"]
    assert second["earlier corrector"] == first["2 corrections"]


def test_mistakes_show_before_the_training(small: IterativeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IterativeHinge, "learn", lambda *_: pytest.fail("trained"))
    small.earlier = small.out / "absent.safetensors"
    with pytest.raises(MissingFileError, match=r"no corrector at .*absent"):
        main(small)
    for wrong, message in (
        ({"discount": 1.5}, "discount 1.5"),
        ({"critics": 0}, "critics 0 is not positive"),
        ({"normalisation": "scene"}, "unknown normalisation 'scene'"),
    ):
        with pytest.raises(UsageError, match=message):
            IterativeSettings(**wrong)  # type: ignore[arg-type]


def test_the_command_line_has_the_classes_defaults() -> None:
    settings, config = IterativeSettings(), IterativeHingeConfig()
    assert all(getattr(settings, field.name) == getattr(config, field.name) for field in fields(config))
