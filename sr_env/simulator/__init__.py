"""The one place where a scene is drawn, degraded, rendered and scored."""

from sr_env.simulator.simulator import CONSISTENCY, UNIFORMS_PER_SCENE, Result, Scenes, Simulator, SimulatorSettings

__all__ = ["CONSISTENCY", "UNIFORMS_PER_SCENE", "Result", "Scenes", "Simulator", "SimulatorSettings"]
