"""Train PPO, SAC, TD3 (Stable-Baselines3) or TQC (sb3-contrib) on BlindSR-v0, and test the actor before and after.

    python examples/sb3_algorithms.py --algorithm sac --steps 4000
    python examples/sb3_algorithms.py --algorithm ppo --features cnn   # learn to see from nothing, too

Nothing of the actor is pretrained; with ``--features pretrained`` the convolutions in front of it are, and are frozen.
TQC needs ``pip install "blindsr-gym[algorithms]"``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blindsr_agents.stock.algorithms import HYPERPARAMETERS, Agent, Features, load_hyperparameters
from blindsr_agents.stock.before_after import LearningSettings, Outcome

from sr_env import BlindSRVecEnv, BlindSRVectorEnv
from sr_env.utils.files import check_writable
from sr_env.utils.script import run_script


@dataclass
class Settings(LearningSettings):
    """Train one of Stable-Baselines3's algorithms.

    Attributes:
        algorithm: The algorithm.
        features: What the actor sees: the frozen pretrained predictor's description of the LR image, or the image
            through a small network that is trained along.
        hyperparameters: YAML file with a block per algorithm.
        out: File that SB3's model is saved to (zip); None saves nothing.
    """

    algorithm: Literal["ppo", "sac", "td3", "tqc"] = "sac"
    features: Features = "pretrained"
    hyperparameters: Path = HYPERPARAMETERS
    out: Path | None = None


def main(settings: Settings) -> Outcome:
    """Train, test and print."""
    settings.check()
    hyperparameters = load_hyperparameters(settings.algorithm, settings.hyperparameters)
    if settings.out is not None:
        check_writable(settings.out.parent)
    held_out = settings.held_out()
    env = BlindSRVecEnv(BlindSRVectorEnv(hyperparameters.get("n_envs", 1), **settings.environment()))
    agent = Agent(settings.algorithm, env, hyperparameters, settings.features, settings.predictor, settings.seed)
    outcome = Outcome.of(held_out, agent.act, lambda: agent.learn(settings.steps))
    print(outcome.sentence(f"{settings.algorithm}, {settings.features} features, seed {settings.seed}"))
    if settings.out is not None:
        print(f"model: {agent.save(settings.out)}")
    env.close()
    return outcome


if __name__ == "__main__":
    run_script(Settings, main)
