"""Stopping and going on: a run that was stopped ends as one that was not, whatever stopped it."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_pretrain.amnet import AMNetSettings, AMNetTask
from blindsr_pretrain.data import split_photos
from blindsr_pretrain.state import save_state
from blindsr_pretrain.trainer import Trainer
from torch import nn

from sr_env.models import amnet, load_renderer
from sr_env.utils.checks import UsageError
from sr_env.utils.resume import read_verified


def arguments(settings: AMNetSettings, **changed: Any) -> list[str]:
    """Command line of a run with these settings."""
    given = {k: v for k, v in vars(settings).items() if k not in ("compile", "resume", "start", "smooth")} | changed
    return ["--no-compile", *(f"--{name.replace('_', '-')}={value}" for name, value in given.items())]


def as_before(out: Path) -> None:
    """Rewrite a state as it was written before states kept settings and digests."""
    record = json.loads((out / "checkpoint.json").read_text())
    for file in record["files"].values():
        torch.save(read_verified(out / file), out / file)
    (out / "checkpoint.json").write_text(
        json.dumps({k: v for k, v in record.items() if k not in ("settings", "digest")})
    )


class Interrupted(AMNetTask):
    """Does something in the midst of a step's loss."""

    def __init__(self, settings: AMNetSettings, at: int, what: Any) -> None:
        super().__init__(settings, split_photos(settings)[2])
        self.at, self.what = at, what

    def loss(self, network: nn.Module, hr: torch.Tensor, uniforms: np.ndarray, step: int) -> Any:
        if step == self.at:
            self.what()
        return super().loss(network, hr, uniforms, step)


def test_resume_equals_a_run_never_stopped(
    settings: AMNetSettings,
    tmp_path: Path,
    trainer: Callable[..., Trainer],
    state: Callable[..., dict[str, torch.Tensor]],
    assert_same: Callable[..., None],
    shown: Callable[[Trainer], str],
) -> None:
    whole = trainer(settings)
    whole.run()
    part = replace(settings, out=tmp_path / "stopped")
    stopped = trainer(part, Interrupted(part, 3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert stopped.step == 4  # the step under way is finished
    assert "stopped at step 4" in shown(stopped)
    resumed = trainer(replace(part, resume=True))
    assert resumed.step == 4
    assert_same(state(resumed), state(stopped))
    resumed.run()
    assert_same(state(resumed), state(whole))
    assert resumed.best == whole.best
    one, other = load_renderer(whole.weights), load_renderer(resumed.weights)
    assert_same(dict(one.network.state_dict()), dict(other.network.state_dict()))
    assert one.card["steps"] == other.card["steps"]


def test_resume_after_a_kill_goes_on_from_the_last_checkpoint(
    settings: AMNetSettings,
    trainer: Callable[..., Trainer],
    state: Callable[..., dict[str, torch.Tensor]],
    assert_same: Callable[..., None],
) -> None:
    """A process that is killed between two steps, or while it writes, leaves a whole checkpoint and no harm."""
    whole = trainer(replace(settings, steps=40, validate_every=40, out=settings.out / "whole"))
    whole.run()
    part = replace(settings, steps=40, validate_every=40, checkpoint_minutes=0, out=settings.out / "part")
    code = (
        "import torch, tyro; import train_amnet; from blindsr_pretrain import validation\n"
        "from sr_env.models import amnet\n"
        f"torch.set_num_threads(1); amnet.SIZES = {amnet.SIZES!r}; validation._VALIDATION_CROP = 48\n"
        "train_amnet.main(tyro.cli(train_amnet.Settings))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, *arguments(part)], stdout=subprocess.DEVNULL)
    checkpoint = part.out / "checkpoint.json"
    while not checkpoint.is_file():
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()  # SIGKILL, at whatever it is doing
    process.wait()
    step = json.loads(checkpoint.read_text())["step"]
    assert 1 <= step < 40
    resumed = trainer(replace(part, resume=True, checkpoint_minutes=1e9))
    assert resumed.step == step
    resumed.run()
    assert_same(state(resumed), state(whole))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_save(
    settings: AMNetSettings, number: signal.Signals, trainer: Callable[..., Trainer], shown: Callable[[Trainer], str]
) -> None:
    before = signal.getsignal(number)
    run = trainer(settings, Interrupted(settings, 1, lambda: os.kill(os.getpid(), number)))
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert signal.getsignal(number) is before
    assert json.loads(run.checkpoint.read_text())["step"] == 2
    assert "add --resume" in shown(run)


def test_a_second_ctrl_c_stops_at_once_and_saves_no_half_step(
    settings: AMNetSettings, trainer: Callable[..., Trainer]
) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    run = trainer(settings, Interrupted(settings, 1, twice))
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert run.step == 1
    assert not run.checkpoint.exists()


def test_checkpoints_by_the_clock(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    steps = []
    run = trainer(replace(settings, checkpoint_minutes=0))
    save = run._save
    run._save = lambda: (steps.append(run.step), save())[1]  # type: ignore[method-assign, func-returns-value]
    run.run()
    assert steps == [1, 2, 3, 4, 5, 6]


def test_resuming_a_finished_run_scores_it_again(
    settings: AMNetSettings,
    trainer: Callable[..., Trainer],
    state: Callable[..., dict[str, torch.Tensor]],
    assert_same: Callable[..., None],
    shown: Callable[[Trainer], str],
) -> None:
    figures = trainer(settings).run()
    done = trainer(replace(settings, resume=True))
    before = state(done)
    assert done.run() == figures
    assert "nothing left to train" in shown(done)
    assert_same(state(done), before)


def test_overwriting_and_resuming_nothing_are_refused(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        trainer(replace(settings, resume=True))
    trainer(replace(settings, steps=1)).run()
    with pytest.raises(FileExistsError, match="add --resume to go on"):
        trainer(settings)


STATE = ("checkpoint.json", "weights-0.pt", "optimizer-0.pt")


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *((file, damage) for file in STATE for damage in ("cut", "empty", "text")),
        ("weights-0.pt", "missing"),
        ("optimizer-0.pt", "missing"),
    ],
)
def test_damaged_state_is_one_clear_error(
    settings: AMNetSettings, file: str, damage: str, trainer: Callable[..., Trainer]
) -> None:
    trainer(settings)._save()
    path = settings.out / file
    if damage == "cut":
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("hello")
    else:
        path.unlink()
    with pytest.raises(UsageError, match=r"cannot resume from .* damaged or of another network; delete it") as caught:
        trainer(replace(settings, resume=True))
    assert "\n" not in str(caught.value)


def test_state_of_another_network_is_one_clear_error(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    trainer(settings)._save()
    as_before(settings.out)  # a state that keeps no settings
    with pytest.raises(UsageError, match=r"cannot resume from .* damaged or of another network; delete it") as caught:
        trainer(replace(settings, resume=True, size="amnet"))
    assert "\n" not in str(caught.value)


def test_state_names_no_file_elsewhere(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    run = trainer(settings)
    run._save()
    record = json.loads(run.checkpoint.read_text())
    record["files"]["weights"] = f"../{settings.out.name}/{record['files']['weights']}"
    del record["digest"]
    run.checkpoint.write_text(json.dumps(record))
    with pytest.raises(UsageError, match="names files outside its folder"):
        trainer(replace(settings, resume=True))


def test_a_run_goes_on_in_another_folder(
    settings: AMNetSettings,
    tmp_path: Path,
    trainer: Callable[..., Trainer],
    state: Callable[..., dict[str, torch.Tensor]],
    assert_same: Callable[..., None],
) -> None:
    """The record and the files that it names are all that another machine needs."""
    whole = trainer(settings)
    whole.run()
    first = trainer(
        replace(settings, out=tmp_path / "first"),
        Interrupted(settings, 1, partial(os.kill, os.getpid(), signal.SIGTERM)),
    )
    with pytest.raises(KeyboardInterrupt):
        first.run()
    other = tmp_path / "elsewhere"
    other.mkdir()
    for name in ("checkpoint.json", "weights-2.pt", "optimizer-2.pt"):
        shutil.copy(first.settings.out / name, other)
    second = trainer(replace(settings, out=other, resume=True))
    second.run()
    assert_same(state(second), state(whole))


def test_a_state_replaces_the_one_before(settings: AMNetSettings, trainer: Callable[..., Trainer]) -> None:
    (settings.out).mkdir()
    (settings.out / "mine-1.pt").write_bytes(b"not ours")
    run = trainer(settings)
    run._save()
    run.step = 3
    run._save()
    files = sorted(path.name for path in settings.out.glob("*.pt"))
    assert files == ["mine-1.pt", "optimizer-3.pt", "weights-3.pt"]


def test_no_file_of_amnet_s_state_is_over_16_mib(tmp_path: Path) -> None:
    network = amnet.create_amnet("amnet", 4)
    assert 1_400_000 < sum(p.numel() for p in network.parameters()) < 1_600_000
    optimizer = torch.optim.AdamW(network.parameters())
    sum(p.sum() for p in network.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    weights = {"network": network.state_dict(), "average": copy.deepcopy(network).state_dict()}
    save_state(tmp_path, {"step": 7}, {"weights": weights, "optimizer": optimizer.state_dict()})
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("*.pt")}
    assert sizes.keys() == {"weights-7.pt", "optimizer-7.pt"}
    assert all(2**23 < size < 2**24 for size in sizes.values()), sizes
