"""Names the environments for Gymnasium; ``import sr_env`` imports this, so that nothing heavy may be imported here."""

from __future__ import annotations


def register_envs() -> None:
    """Register ``BlindSR-v0``, ``BlindSRControls-v0``, ``BlindSRIterative-v0`` and ``BlindSRReal-v0``.

    Each is there scalar and as a vector.
    A second call changes nothing. ``BlindSRControls-v0`` is the first with one more number in the action: sharpening
    works with every renderer and costs next to nothing, where blending takes two renderers.

    There is no limit of steps: episodes end by themselves, and a limit would call that a truncation.
    """
    from gymnasium.envs.registration import register, registry

    if "BlindSR-v0" in registry:
        return
    register(
        id="BlindSR-v0",
        entry_point="sr_env.envs.scalar:BlindSREnv",
        vector_entry_point="sr_env.envs.vector:BlindSRVectorEnv",
    )
    register(
        id="BlindSRControls-v0",
        entry_point="sr_env.envs.scalar:BlindSREnv",
        vector_entry_point="sr_env.envs.vector:BlindSRVectorEnv",
        kwargs={"controls": ("code", "sharpen")},
    )
    register(
        id="BlindSRIterative-v0",
        entry_point="sr_env.envs.scalar:BlindSRIterativeEnv",
        vector_entry_point="sr_env.envs.vector:BlindSRIterativeVectorEnv",
    )
    register(
        id="BlindSRReal-v0",
        entry_point="sr_env.envs.scalar:BlindSRRealEnv",
        vector_entry_point="sr_env.envs.vector:BlindSRRealVectorEnv",
    )
