"""The one place where a scene is drawn, degraded, rendered and scored."""

from sr_env.simulator.options import SceneOptions
from sr_env.simulator.scenes import Episode, Result, Scenes, Truth
from sr_env.simulator.settings import (
    CONSISTENCY,
    MAX_STEPS,
    REAL,
    REFERENCES,
    Reference,
    SimulatorSettings,
    reward_title,
)
from sr_env.simulator.simulator import UNIFORMS_PER_SCENE, Simulator

__all__ = [
    "CONSISTENCY",
    "MAX_STEPS",
    "REAL",
    "REFERENCES",
    "UNIFORMS_PER_SCENE",
    "Episode",
    "Reference",
    "Result",
    "SceneOptions",
    "Scenes",
    "Simulator",
    "SimulatorSettings",
    "Truth",
    "reward_title",
]
