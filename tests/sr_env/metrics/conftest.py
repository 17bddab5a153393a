"""Pictures that the tests of metrics share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor


@pytest.fixture(scope="module")
def pairs() -> tuple[Tensor, Tensor]:
    """Three different 8-bit (sr, hr) pairs of 104x120 with smooth content."""
    rng = np.random.default_rng(3)
    noise = ndimage.gaussian_filter(rng.standard_normal((3, 3, 104, 120)), (0, 0.3, 2, 2)) * 1.2 + 0.5
    grain = 0.03 * np.array([1.0, 2.0, 3.0])[:, None, None, None] * rng.standard_normal(noise.shape)
    hr = torch.from_numpy(noise).float().clamp(0, 1).mul(255).round() / 255
    sr = torch.from_numpy(noise + grain).float().clamp(0, 1).mul(255).round() / 255
    return sr, hr
