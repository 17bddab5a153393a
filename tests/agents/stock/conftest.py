"""Settings of small runs, and programs as modules."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], ModuleType]:
    """Imports a program out of a folder of the repository."""

    def load(folder: str, name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(ROOT / folder))
        sys.modules.pop(name, None)
        return import_module(name)

    return load


@pytest.fixture
def settings(tiny_settings: dict[str, Any], photo_folder: Path) -> dict[str, Any]:
    """Keywords of a script's settings for a small environment."""
    return tiny_settings | {
        "photos": str(photo_folder),
        "test_photos": str(photo_folder),
        "precision": "fp32",
        "test_crops": 4,
        "test_widths": (0.5, 2.0),
    }
