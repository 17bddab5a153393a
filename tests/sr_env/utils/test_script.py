"""Scripts: settings arrive, mistakes are one line, bugs keep their traceback."""

from __future__ import annotations

import errno
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tyro

from sr_env.utils.checks import (
    FileInTheWayError,
    MissingFileError,
    UsageError,
    WeightsUnavailable,
)
from sr_env.utils.script import Weights, parse_weights, run_script


@dataclass
class Settings:
    """A script.

    Attributes:
        count: A number.
    """

    count: int = 1


def call(monkeypatch: pytest.MonkeyPatch, error: BaseException | None, *argv: str) -> list[Settings]:
    seen: list[Settings] = []

    def main(settings: Settings) -> None:
        seen.append(settings)
        if error is not None:
            raise error

    monkeypatch.setattr(sys, "argv", ["script.py", *argv])
    run_script(Settings, main)
    return seen


def test_script_passes_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, None, "--count", "3") == [Settings(3)]


def test_threads_are_settled_for_the_settings_device(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class OnDevice(Settings):
        """A script that computes.

        Attributes:
            device: Where.
        """

        device: str = "auto"

    done: list[object] = []
    monkeypatch.setattr("sr_env.utils.devices.settle_threads", lambda *given: done.append(given))
    monkeypatch.setattr(sys, "argv", ["script.py", "--device", "cuda"])
    run_script(OnDevice, done.append, threads="one")
    monkeypatch.setattr(sys, "argv", ["script.py"])
    run_script(Settings, done.append, threads="fastest")
    run_script(OnDevice, done.append)
    assert done == [("one", "cuda"), OnDevice(device="cuda"), ("fastest", "auto"), Settings(), OnDevice()]


@pytest.mark.parametrize(
    "error", [UsageError, MissingFileError, FileInTheWayError, WeightsUnavailable, FloatingPointError]
)
def test_mistakes_end_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: type[Exception]
) -> None:
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, error("no photo in 'x': give another folder"))
    assert caught.value.code == 2
    told = capsys.readouterr()
    assert told.err == "error: no photo in 'x': give another folder\n"
    assert told.out == ""


def test_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, KeyboardInterrupt())
    assert caught.value.code == 130


@pytest.mark.parametrize(
    "error",
    [
        *(ZeroDivisionError(), ValueError("too many values to unpack"), KeyError("scale"), TypeError("got an int")),
        *(FileNotFoundError("said by the code"), OSError("an unknown state"), ConnectionResetError(104, "reset")),
    ],
)
def test_bugs_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    with pytest.raises(type(error)) as caught:
        call(monkeypatch, error)
    assert caught.value is error
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/out/a.png"), "'/out/a.png': Permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a"), "'a': No such file or directory"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/out"), "'/out': Is a directory"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), "'a/b': Not a directory"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "aaa"), "'aaa': File name too long"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (UsageError("two\nlines"), "two lines"),
    ],
)
def test_what_the_machine_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, error)
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(["--count", ""], "--count"), (["--count="], "--count"), ([""], "an argument"), (["-o", ""], "-o")],
)
def test_empty_arguments_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], name: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, None, *arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"error: {name} has an empty value: give one or leave it out\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--count", "many"], ("Error parsing --count", "'many'")),
        (["--cuont", "1"], ("Unrecognized options: --cuont", "perhaps you meant --count")),
        (["--count"], ("--count",)),
    ],
)
def test_a_command_line_that_does_not_parse_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], words: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, None, *arguments)
    assert caught.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert not set(told.err) & set("│╭╰─")
    for word in (*words, "script.py --help explains all options"):
        assert word in told.err


def test_help_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, None, "--help")
    assert not caught.value.code
    told = capsys.readouterr()
    assert "A number." in told.out
    assert told.err == ""


@pytest.mark.parametrize("script", ["pretrain/train_amnet.py", "pretrain/train_predictor.py", "agents/evaluate.py"])
def test_help_explains_every_setting(script: str) -> None:
    """Run as a user does, from another folder than the checkout; help is quick and complete."""
    path = Path(__file__).resolve().parents[3] / script
    done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, cwd=path.parents[1])
    assert done.returncode == 0, done.stderr
    assert "--device" in done.stdout
    assert "cuda" in done.stdout


def test_weights_are_one_argument() -> None:
    @dataclass
    class Settings:
        reward: Weights = field(default_factory=lambda: {"psnr": 1.0})

    assert tyro.cli(Settings, args=[]).reward == {"psnr": 1.0}
    assert tyro.cli(Settings, args=["--reward", "lpips=20,niqe=0.5"]).reward == {"lpips": 20.0, "niqe": 0.5}
    with pytest.raises(SystemExit):
        tyro.cli(Settings, args=["--reward", "psnr"])
    with pytest.raises(ValueError, match=r"'psnr' is not NAME=WEIGHT"):
        parse_weights("lpips=1,psnr")
    assert parse_weights("piq.haarpsi=1, psnr = 2") == {"piq.haarpsi": 1.0, "psnr": 2.0}
    for text, message in (("psnr=1,psnr=2", "repeats a name"), ("=1", "lacks a name"), ("psnr=", "'psnr=' is not")):
        with pytest.raises(UsageError, match=message):
            parse_weights(text)
