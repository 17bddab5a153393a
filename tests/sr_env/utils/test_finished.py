"""A run that is stopped between, or in, units of work: what is kept, when it is on the disk, and what is refused."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_env.utils import finished as module
from sr_env.utils.checks import FileInTheWayError, MissingFileError, UsageError
from sr_env.utils.finished import FINISHED, Finished, anew, open_run, within

SETTINGS = {"seed": 0, "widths": [0.2, 1.3]}


def units(folder: Path) -> Any:
    return json.loads((folder / FINISHED).read_text())["units"]


def test_what_is_finished_is_not_made_again(tmp_path: Path) -> None:
    made: list[str] = []

    def make(name: str) -> Any:
        made.append(name)
        return {"value": np.float64(1 / 3), "lost": math.nan, "pair": (1, 2)}

    with Finished(tmp_path, SETTINGS) as finished:
        fresh = finished.take("a", lambda: make("a"))
        assert finished.take("a", lambda: make("a")) is fresh
    with Finished(tmp_path, SETTINGS, resume=True) as finished:
        again, new = (finished.take(name, lambda name=name: make(name)) for name in "ab")
    assert made == ["a", "b"]
    assert repr(fresh) == repr(again) == repr(new) == repr({"value": 1 / 3, "lost": math.nan, "pair": [1, 2]})
    assert list(units(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit), (None, MemoryError)]
)
def test_whatever_stops_a_run_leaves_its_finished_units(
    tmp_path: Path, number: signal.Signals | None, error: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped() -> int:
        if number is None:
            raise MemoryError
        signal.raise_signal(number)
        return 4

    before = signal.getsignal(signal.SIGTERM)
    interrupts = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background

    def run() -> None:
        with Finished(tmp_path, SETTINGS) as finished:
            for value in range(3):
                finished.take(str(value), lambda value=value: value)
            finished.take("3", stopped)

    try:
        with pytest.raises(error) as caught:
            run()
    finally:
        signal.signal(signal.SIGINT, interrupts)
    assert units(tmp_path) == {"0": 0, "1": 1, "2": 2}
    assert signal.getsignal(signal.SIGTERM) is before
    if isinstance(caught.value, SystemExit):
        assert caught.value.code == 128 + signal.SIGTERM
    assert ("--resume goes on from it" in capsys.readouterr().err) == (number is not None)


def test_units_are_on_the_disk_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a run loses little by SIGKILL and a power cut."""
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    with Finished(tmp_path, SETTINGS) as finished:
        for now, there in ((100.0, 1), (101.0, 1), (101.9, 1), (102.0, 4), (103.0, 4), (104.5, 6)):
            finished.take(str(now), lambda: 0)
            assert len(units(tmp_path)) == there


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Finished(None, SETTINGS) as finished:
        assert finished.take("a", lambda: 1) == finished.take("a", lambda: 2) == 1
    open_run(None, ["results.json"], resume=False)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="--resume without --out has nothing to go on from"):
        open_run(None, ["results.json"], resume=True)


def test_parts_of_a_whole_go_by_both_names(tmp_path: Path) -> None:
    with Finished(tmp_path, SETTINGS) as finished:
        for take in (within(finished.take, "Set5"), within(within(finished.take, "Set5"), "x"), anew):
            assert take("a", lambda: 1) == 1
    assert units(tmp_path) == {"Set5/a": 1, "Set5/x/a": 1}


def test_a_run_begins_and_goes_on_where_nothing_is_lost(tmp_path: Path) -> None:
    open_run(tmp_path / "new", ["results.json"], resume=False)
    assert (tmp_path / "new").is_dir()
    with pytest.raises(MissingFileError, match=r"nothing to resume: .*finished\.json does not exist"):
        open_run(tmp_path, ["results.json"], resume=True)
    (tmp_path / "results.json").touch()
    with pytest.raises(FileInTheWayError, match=r"results\.json of an earlier run exists: choose another --out"):
        open_run(tmp_path, ["results.json"], resume=False)
    (tmp_path / FINISHED).touch()
    with pytest.raises(FileInTheWayError, match=r"finished\.json exists: add --resume to go on"):
        open_run(tmp_path, ["results.json"], resume=False)
    open_run(tmp_path, ["results.json"], resume=True)


def test_other_settings_are_named(tmp_path: Path) -> None:
    with Finished(tmp_path, SETTINGS) as finished:
        finished.take("a", lambda: 1)
    with pytest.raises(UsageError, match=r"with other settings: --seed was 0 and is 1; --widths was 0\.2 1\.3 and is "):
        Finished(tmp_path, {"seed": 1, "widths": [0.2]}, resume=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace('"a": 0.25', '"a": 0.75'), r"ValueError: finished\.json is not what was written"),
        (lambda text: text[: len(text) // 2], "JSONDecodeError"),
        (lambda text: "", "JSONDecodeError"),
        (lambda text: "[1, 2]", "holds no record"),
        (lambda text: '{"step": 3}', "KeyError: 'settings'"),
        (lambda text: '{"settings": {}, "units": 3, "made_with": []}', "TypeError"),
        (lambda text: "[" * 100_000, "RecursionError"),
    ],
)
def test_a_damaged_state_is_one_clear_error(tmp_path: Path, damage: Any, message: str) -> None:
    with Finished(tmp_path, SETTINGS) as finished:
        finished.take("a", lambda: 0.25)
    path = tmp_path / FINISHED
    path.write_text(damage(path.read_text()))
    with pytest.raises(UsageError, match=rf"cannot resume from .*finished\.json \(.*{message}.*; delete it to start"):
        Finished(tmp_path, SETTINGS, resume=True)


def test_what_was_made_with_something_else_is_told(tmp_path: Path) -> None:
    first, second = ({"commit": name, "torch": "2", "command": name} for name in "ab")
    with Finished(tmp_path, SETTINGS, about=first) as finished:
        finished.take("a", lambda: 1)
    assert Finished(tmp_path, SETTINGS, True, {**first, "command": "other"}).earlier == []
    with Finished(tmp_path, SETTINGS, True, second) as finished:
        assert finished.earlier == [{"commit": "a", "torch": "2"}]
        finished.take("b", lambda: 1)
    assert Finished(tmp_path, SETTINGS, True, first).earlier == [{"commit": "b", "torch": "2"}]
