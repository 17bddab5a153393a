"""An upscaler of tiny networks and a photo for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_env import Upscaler


@pytest.fixture
def make(tiny_renderer: Path, tiny_predictor: Path) -> Any:
    def create(**options: Any) -> Upscaler:
        if not {"kernel", "kernel_width"} & set(options):
            options.setdefault("predictor", tiny_predictor)
        return Upscaler(tiny_renderer, device="cpu", precision="fp32", **options)

    return create


@pytest.fixture
def photo(random_photos: list[np.ndarray]) -> np.ndarray:
    return random_photos[0][:96, :130]
