"""Settings of a small environment."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def small(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    return tiny_settings | {"patch_size": 160}  # Stable-Baselines3's checker wants images of 36 pixels at least
