"""Settings of an environment small enough for other libraries' training loops."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def small(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    return tiny_settings | {"reference": "predictor"}
