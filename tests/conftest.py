"""Shared fixtures: one torch thread (two on tiny nets are ten times slower) and the optional data folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder with calibration images and benchmarks (``BLINDSR_SHARED``, else ``../shared``); skips where absent."""
    path = Path(os.environ.get("BLINDSR_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (path / "reference").is_dir():
        pytest.skip(f"no calibration data at {path}; set BLINDSR_SHARED to the folder that holds it")
    return path
