"""What is not gone on from: other settings, damaged states, another run's folder; and what a full disk leaves."""

from __future__ import annotations

import json
import resource
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_pretrain import trainer as loop
from blindsr_pretrain.amgan import AMGANSettings
from blindsr_pretrain.amnet import AMNetSettings
from blindsr_pretrain.predictor import PredictorSettings
from blindsr_pretrain.trainer import Trainer
from PIL import Image

from sr_env.degradation import load_basis
from sr_env.models import AMNet, save_checkpoint
from sr_env.utils.checks import FileInTheWayError, UsageError
from sr_env.utils.resume import CHANGEABLE, check_settings, kept_settings, read_verified


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 7, "ema": 0.5}, r"--ema was 0\.9 and is 0\.5; --seed was 0 and is 7: give what it began with"),
        ({"batch_size": 4}, "--batch-size was 2 and is 4"),
        ({"size": "amnet"}, "--size was amnet_l and is amnet"),
        ({"frequency": 0.0}, r"--frequency was 0\.05 and is 0"),
        ({"precision": "bf16"}, "--precision was fp32 and is bf16"),
    ],
)
def test_other_settings_are_refused(
    settings: AMNetSettings, changes: dict[str, Any], message: str, trainer: Callable[..., Trainer]
) -> None:
    trainer(settings)._save()
    with pytest.raises(UsageError, match=rf"cannot resume from .*run with other settings: {message}"):
        trainer(replace(settings, resume=True, **changes))


def test_other_photos_are_refused_and_the_same_elsewhere_are_not(
    settings: AMNetSettings, tmp_path: Path, trainer: Callable[..., Trainer]
) -> None:
    trainer(settings)._save()
    moved = shutil.copytree(settings.data, tmp_path / "moved")
    trainer(replace(settings, data=str(moved), resume=True))
    Image.fromarray(np.full((96, 96, 3), 9, np.uint8)).save(moved / "new.png")
    with pytest.raises(UsageError, match=r"--data was 5 photos \(digest \w+\) and is 6 photos \(digest \w+\)"):
        trainer(replace(settings, data=str(moved), resume=True))


def test_other_weights_to_start_from_are_refused_and_the_same_elsewhere_are_not(
    settings: AMNetSettings, tmp_path: Path, trainer: Callable[..., Trainer]
) -> None:
    start = save_checkpoint(
        tmp_path / "a" / "s.safetensors", AMNet(channels=4, blocks=1), load_basis("isotropic", 4), 4, {}
    )
    trainer(replace(settings, start=str(start)))._save()
    moved = shutil.copytree(start.parent, tmp_path / "b") / start.name
    trainer(replace(settings, start=str(moved), resume=True))
    other = save_checkpoint(moved, AMNet(channels=4, blocks=1), load_basis("isotropic", 4), 4, {})
    with pytest.raises(UsageError, match=r"--start was s \(digest \w+\) and is s \(digest \w+\): give what it began"):
        trainer(replace(settings, start=str(other), resume=True))
    with pytest.raises(UsageError, match=r"--start was s \(digest \w+\) and is None"):
        trainer(replace(settings, resume=True))


@pytest.mark.parametrize("kind", [AMNetSettings, AMGANSettings, PredictorSettings])
def test_every_setting_is_kept_or_may_change(kind: Any) -> None:
    """A setting added later is refused unless it is put on the list."""
    kept = kept_settings(kind())
    assert {field.name for field in fields(kind)} == kept.keys() | ({f.name for f in fields(kind)} & CHANGEABLE)
    assert kept.keys().isdisjoint({"steps", "minutes", "device", "out", "resume"})
    for name in kept:
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} was"):
            check_settings({**kept, name: "another"}, kept, Path("out"))


def test_a_run_goes_on_longer_and_by_the_clock(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    trainer(settings).run()
    longer = trainer(replace(settings, steps=8, minutes=5.0, device="auto", workers=1, log_every=3, resume=True))
    assert longer.step == 6


def test_a_state_of_before_is_gone_on_from(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    """It keeps neither settings nor digests."""
    run = trainer(settings)
    run.run()
    record = json.loads(run.checkpoint.read_text())
    for file in record["files"].values():
        torch.save(read_verified(settings.out / file), settings.out / file)
    kept = {name: record[name] for name in ("step", "seconds", "best", "files")}
    run.checkpoint.write_text(json.dumps(kept))
    again = trainer(replace(settings, resume=True, steps=7, seed=3))
    assert again.step == 6
    again.run()
    assert json.loads(run.checkpoint.read_text())["settings"]["seed"] == 3


def test_weights_of_an_earlier_run_are_in_the_way(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    """Also where its state was deleted, since they are what it was for."""
    run = trainer(settings)
    run.run()
    run.checkpoint.unlink()
    with pytest.raises(FileInTheWayError, match=r"amnet_l_x4\.safetensors of an earlier run exists: choose another"):
        trainer(settings)


@pytest.mark.parametrize("file", ["weights-0.pt", "optimizer-0.pt"])
def test_a_flipped_bit_of_a_state_is_noticed(
    settings: AMNetSettings, file: str, trainer: Callable[..., Trainer]
) -> None:
    """torch reads it without a word."""
    run = trainer(settings)
    run._save()
    path = settings.out / file
    content = bytearray(path.read_bytes())
    if file.startswith("weights"):
        known = run.average.head.bias.numpy().tobytes()
    else:  # in the pickle
        known = np.array(settings.learning_rate, ">f8").tobytes()
    content[content.index(known) + len(known) - 1] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)
    with pytest.raises(UsageError, match=rf"cannot resume from .*{file} is not what was written"):
        trainer(replace(settings, resume=True))


def test_a_changed_record_is_noticed(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    run = trainer(settings)
    run._save()
    record = json.loads(run.checkpoint.read_text())
    run.checkpoint.write_text(json.dumps({**record, "step": 3}))
    with pytest.raises(UsageError, match=r"checkpoint\.json is not what was written"):
        trainer(replace(settings, resume=True))


@pytest.mark.parametrize("full", ["weights-5.pt", "optimizer-5.pt", "checkpoint.json"])
def test_a_full_disk_leaves_the_state_of_before(
    settings: AMNetSettings, full: str, trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file has no room: one line names it and the disk, nothing of the new state stays, the old one loads."""
    run = trainer(settings)
    run._save()
    before = {path.name: path.read_bytes() for path in settings.out.iterdir() if path.is_file()}
    run.step = 5
    size = len(before[full.replace("5", "0")])
    make, limit = tempfile.mkstemp, resource.getrlimit(resource.RLIMIT_FSIZE)

    def fills(prefix: str, **options: Any) -> Any:
        if prefix.startswith(f".{Path(full).stem}."):  # the system then refuses to go on writing, as a full disk does
            resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limit[1]))
        return make(prefix=prefix, **options)

    monkeypatch.setattr(tempfile, "mkstemp", fills)
    try:
        with pytest.raises(OSError, match=r"on the disk at '/.*MB free; what was written before is kept") as caught:
            run._save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert Path(caught.value.filename).name == full
    assert {path.name: path.read_bytes() for path in settings.out.iterdir() if path.is_file()} == before
    assert trainer(replace(settings, resume=True)).step == 0


def test_room_is_asked_for_what_is_not_there_yet(
    settings: AMNetSettings, trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state and the one that replaces it; of these the first is there when a run is resumed."""
    asked: list[int] = []
    check = loop.check_writable
    monkeypatch.setattr(loop, "check_writable", lambda folder, needed: (asked.append(needed), check(folder, needed)))
    trainer(settings)._save()
    trainer(replace(settings, resume=True))
    written = sum(path.stat().st_size for path in settings.out.glob("*.pt"))
    assert asked[0] == 2 * asked[1]
    assert asked[1] < 1.5 * written + 60_000
