"""What cards say of how weights were made does not describe the machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sr_env.utils.provenance import command_line, public_path


def test_absolute_paths_are_cut_to_their_end() -> None:
    assert public_path("/home/somebody/data/photos") == "data/photos"
    assert public_path(Path("runs/ddpg")) == "runs/ddpg"
    assert public_path(3) == "3"


def test_the_command_names_the_script_as_in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["/home/somebody/blindsr/agents/train_ddpg.py", "--data", "/home/somebody/x/photos"]
    )
    assert command_line() == "python agents/train_ddpg.py --data x/photos"
