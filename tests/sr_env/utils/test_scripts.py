"""What every script stands on: atomic files, one-line errors, devices and precisions."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import tyro
from torch import nn

from sr_env.utils.checks import check_choice, check_lr_size
from sr_env.utils.devices import autocast, channels_last, resolve_device, uses_bf16
from sr_env.utils.files import atomic_write, check_writable
from sr_env.utils.script import Weights, parse_weights, run_script

# ------------------------------------------------------------------------------------------------------------ files


def test_atomic_write_publishes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.txt"
    with atomic_write(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_atomic_write_keeps_the_old_file_on_any_error(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_atomic_write_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a") as temporary:
            temporary.write_text("x")
    finally:
        assert os.umask(before) == 0o027  # left as it was
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").touch()
    for call in (lambda: check_writable(tmp_path / "file"), lambda: check_writable(tmp_path / "file" / "under")):
        with pytest.raises(OSError, match="file"):
            call()
    with pytest.raises(OSError, match="file"), atomic_write(tmp_path / "file" / "x"):
        pass


# ---------------------------------------------------------------------------------------------------------- scripts


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


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, FileExistsError, FloatingPointError])
def test_mistakes_end_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: type[Exception]
) -> None:
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, error("no photo in 'x': give another folder"))
    assert caught.value.code == 2
    told = capsys.readouterr()
    assert told.err == "error: no photo in 'x': give another folder\n"
    assert told.out == ""


def test_interrupt_and_bugs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, KeyboardInterrupt())
    assert caught.value.code == 130
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        call(monkeypatch, ZeroDivisionError())


def test_bad_argument(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, None, "--count", "many")
    assert caught.value.code == 2
    assert "many" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["pretrain/train_amnet.py", "pretrain/train_predictor.py", "agents/evaluate.py"])
def test_help_explains_every_setting(script: str) -> None:
    """Run as a user does, from another folder than the checkout; help is quick and complete."""
    path = Path(__file__).resolve().parents[3] / script
    done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, cwd=path.parents[1])
    assert done.returncode == 0, done.stderr
    assert "--device" in done.stdout
    assert "cuda" in done.stdout


# ---------------------------------------------------------------------------------------------------------- devices


def test_auto_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


def test_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name in ("cuda", "cuda:0", torch.device("cuda")):
        with pytest.raises(ValueError, match=r"asked for, but torch sees 0 CUDA devices: use 'cpu' or 'auto'"):
            resolve_device(name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="torch sees 2"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "CPU0"])
def test_unknown_device(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown device .* choose auto, cpu, cuda or cuda:N"):
        resolve_device(name)


def test_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert uses_bf16("bf16", cpu)
    assert not uses_bf16("fp32", cpu)
    for capabilities, fast in (
        ({}, False),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True}, False),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, True),
        ({"cpu_name": "AMD EPYC"}, False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda told=capabilities: told)
        assert uses_bf16("auto", cpu) == fast
    for call in (uses_bf16, autocast):
        with pytest.raises(ValueError, match=r"'fp16'.*auto, fp32, bf16"):
            call("fp16", cpu)  # type: ignore[operator]
    a = torch.ones(2, 2)
    with autocast("bf16", cpu):
        assert (a @ a).dtype == torch.bfloat16
    with autocast("fp32", cpu):
        assert (a @ a).dtype == torch.float32


def test_channels_last_keeps_the_numbers() -> None:
    conv = nn.Conv2d(3, 8, 3)
    before = conv.weight.detach().clone()
    assert channels_last(conv) is conv
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(conv.weight, before)


# ----------------------------------------------------------------------------------------------------------- checks


def test_checks() -> None:
    check_choice("colour", "red", ("red", "blue"))
    with pytest.raises(ValueError, match="unknown colour 'green': choose one of red, blue"):
        check_choice("colour", "green", iter(("red", "blue")))
    check_lr_size(8, 8)
    with pytest.raises(ValueError, match="LR size 8x7"):
        check_lr_size(8, 7)


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
