"""Settings: what is out of range is refused by name."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace
from typing import Any

import pytest
from blindsr_pretrain.amgan import AMGANSettings
from blindsr_pretrain.amnet import AMNetSettings
from blindsr_pretrain.interpolation import InterpolationSettings
from blindsr_pretrain.predictor import PredictorSettings

from sr_env.utils.checks import UsageError


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"patch_size": -4},
        {"workers": 0},
        {"log_every": 0},
        {"validate_every": 0},
        {"validation_photos": 0},
        {"learning_rate": float("nan")},
        {"learning_rate": -1.0},
        {"warmup_steps": -1},
        {"final_lr_ratio": 2.0},
        {"ema": 1.0},
        {"clip": 0.0},
        {"checkpoint_minutes": -1.0},
        {"minutes": 0.0},
        {"reduced": -0.1},
        {"drawings": 1.5},
        {"unblurred": float("nan")},
        {"softness": -1.0},
        {"frequency": -1.0},
        {"squared_share": 1.5},
    ],
)
def test_settings_out_of_range(settings: AMNetSettings, wrong: dict[str, Any]) -> None:
    (name, value) = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"^{name} is {value}"):
        replace(settings, **wrong)


def test_shares_of_a_batch_sum_to_at_most_one(settings: AMNetSettings) -> None:
    assert replace(settings, reduced=0.5, drawings=0.5).drawings == 0.5
    with pytest.raises(UsageError, match=r"reduced is 0\.6 and drawings is 0\.5: shares of one batch sum to at most 1"):
        replace(settings, reduced=0.6, drawings=0.5)


@pytest.mark.parametrize("cls", [AMNetSettings, AMGANSettings, PredictorSettings, InterpolationSettings])
def test_every_setting_is_explained_once(cls: type) -> None:
    """In the docstring of the class that brings it, or of the one that gives it another meaning."""
    explained = {
        name
        for home in cls.__mro__
        for name in re.findall(r"^        (\w+): ", home.__doc__ or "", re.MULTILINE)
        if dataclasses.is_dataclass(home)
    }
    assert explained == {field.name for field in dataclasses.fields(cls)}
