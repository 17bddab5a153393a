"""Names the environments for Gymnasium, whose entry point calls this at import: it must import nothing heavy."""

from __future__ import annotations

#: BlindSRIterative-v0 ends by itself after ``max_steps``; Gymnasium's own limit lies above every value that may take.
ITERATIVE_LIMIT = 64


def register_envs() -> None:
    """Register ``BlindSR-v0`` and ``BlindSRIterative-v0``, scalar and vector; a second call changes nothing."""
    from gymnasium.envs.registration import register, registry

    if "BlindSR-v0" in registry:
        return
    register(
        id="BlindSR-v0",
        entry_point="sr_env.envs.scalar:BlindSREnv",
        vector_entry_point="sr_env.envs.vector:BlindSRVectorEnv",
        max_episode_steps=1,
    )
    register(
        id="BlindSRIterative-v0",
        entry_point="sr_env.envs.scalar:BlindSRIterativeEnv",
        vector_entry_point="sr_env.envs.vector:BlindSRIterativeVectorEnv",
        max_episode_steps=ITERATIVE_LIMIT,
    )
