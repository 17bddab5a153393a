"""What trains networks imports on a machine that lacks what environments, metrics and command lines need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import sr_env

ABSENT = ("gymnasium", "stable_baselines3", "tyro", "lpips", "piq", "rich", "accelerate", "matplotlib")
ROOMS = ("sr_env.utils.files", "sr_env.utils.signals", "sr_env.photos", "sr_env.degradation", "sr_env.models")


def test_rooms_below_the_environments_import_alone() -> None:
    hidden = f"import sys; sys.modules.update(dict.fromkeys({ABSENT}))"  # None there makes an import fail
    environment = {**os.environ, "PYTHONPATH": str(Path(sr_env.__file__).parents[1])}
    code = f"{hidden}; import {', '.join(ROOMS)}"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
