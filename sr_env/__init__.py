"""Blind super-resolution as a Gymnasium environment.

Importing this package registers the environments with Gymnasium: after ``import sr_env`` (and, for linters,
``gym.register_envs(sr_env)``) ``gym.make("BlindSR-v0")`` works; ``gym.make("sr_env:BlindSR-v0")`` needs no import.
The names below are imported when first used, so that registration alone does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from sr_env.registration import register_envs

__version__ = "0.2.0"

_HOMES = {
    "BlindSREnv": "envs.scalar",
    "BlindSRIterativeEnv": "envs.scalar",
    "BlindSRRealEnv": "envs.scalar",
    "BlindSRVectorEnv": "envs.vector",
    "BlindSRIterativeVectorEnv": "envs.vector",
    "BlindSRRealVectorEnv": "envs.vector",
    "BlindSRVecEnv": "envs.sb3",
    "Simulator": "simulator",
    "Upscaler": "upscale.upscaler",
    "SimulatorSettings": "simulator",
    "available_checkpoints": "models",
    "load_predictor": "models",
    "load_renderer": "models",
    "available_metrics": "metrics",
    "create_metric": "metrics",
}
__all__ = ["__version__", "register_envs", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


if find_spec("gymnasium") is not None:  # networks can be trained on a machine without it
    register_envs()
