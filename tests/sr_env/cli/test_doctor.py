"""The doctor tells what is there and what is wrong, and its exit status agrees."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from sr_env.cli import doctor
from sr_env.cli import main as cli
from sr_env.cli.doctor import Settings, examine
from sr_env.metrics import weights
from sr_env.models import checkpoint
from sr_env.models.checkpoint import available_checkpoints, read_card


def test_what_is_there(monkeypatch: pytest.MonkeyPatch, tiny_renderer: Path) -> None:
    monkeypatch.setattr(doctor, "default_model", lambda scale: str(tiny_renderer))
    found = examine(Settings(device="cpu", seconds=0.05))
    json.dumps(found)
    assert found["problems"] == []
    assert [card["name"] for card in found["checkpoints"]] == list(available_checkpoints())
    card = next(card for card in found["checkpoints"] if card["name"] == "amnet_l_x4")
    told = read_card("amnet_l_x4")
    assert (card["steps"], card["seconds"], card["validation"]) == (told["steps"], told["seconds"], told["validation"])
    assert found["device"] == "cpu"
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["speed"]["seconds_per_megapixel"] > 0
    assert examine(Settings(device="cpu", seconds=0))["speed"] is None


def test_backbones_are_found_without_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "_resolve", lambda arch: pytest.fail("looked further"))
    monkeypatch.setenv("BLINDSR_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("BLINDSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights.torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "vgg16.safetensors").touch()
    found = examine(Settings(device="cpu", seconds=0))["backbones"]
    assert found["vgg16"] == str(tmp_path / "vgg16.safetensors")
    assert found["vgg19"] is None
    assert found["alexnet"].endswith("alexnet_features.safetensors")


def test_damage_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("amnet_l_x4", "predictor_x4"):
        for suffix in (".json", ".safetensors"):
            shutil.copy(checkpoint.RELEASED / f"{name}{suffix}", tmp_path)
    whole = (tmp_path / "amnet_l_x4.safetensors").read_bytes()
    (tmp_path / "amnet_l_x4.safetensors").write_bytes(whole[:1000])
    for module in (checkpoint, doctor):
        monkeypatch.setattr(module, "RELEASED", tmp_path)
    monkeypatch.setattr(sys, "argv", ["blindsr", "doctor", "--json", "--seconds", "0", "--device", "cpu"])
    with pytest.raises(SystemExit) as ended:
        cli.run()
    assert ended.value.code == 1
    found = json.loads(capsys.readouterr().out)
    assert len(found["problems"]) == 1
    assert "amnet_l_x4.safetensors' is damaged" in found["problems"][0]
    assert [card["name"] for card in found["checkpoints"]] == ["predictor_x4"]


def test_tables(monkeypatch: pytest.MonkeyPatch, tiny_renderer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "default_model", lambda scale: str(tiny_renderer))
    monkeypatch.setattr(sys, "argv", ["blindsr", "doctor", "--seconds", "0.01", "--device", "cpu"])
    cli.run()
    shown = capsys.readouterr().out
    for part in ("torch", "amgan_x4", "alexnet:", "s per output megapixel", "bf16"):
        assert part in shown
    assert "problem" not in shown


@pytest.mark.parametrize("arguments", [["--device", "gpu7"], ["--seconds", "-1"]])
def test_wrong_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["blindsr", "doctor", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.run()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
