"""A run of one algorithm from settings to verdict: what ``agents/train_sb3.py`` calls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from blindsr_agents.stock.algorithms import HYPERPARAMETERS, Algorithm, Features, StockAgent, load_hyperparameters
from blindsr_agents.stock.before_after import BeforeAfter, LearningSettings
from sr_env.envs.sb3 import BlindSRVecEnv
from sr_env.envs.vector import BlindSRVectorEnv
from sr_env.utils.files import check_writable
from sr_env.utils.resume import check_out


@dataclass
class StockSettings(LearningSettings):
    """Train one of Stable-Baselines3's or sb3-contrib's algorithms.

    Attributes:
        algorithm: The algorithm; crossq, tqc and trpo need sb3-contrib.
        features: What the actor sees: the frozen pretrained predictor's description of the LR image, or the image
            through a small network that is trained along.
        hyperparameters: YAML file with a block per algorithm.
        out: File that SB3's model is saved to (.zip), with the policy's weights beside it (.safetensors), neither of
            which may be there; None saves nothing.
    """

    algorithm: Algorithm = "sac"
    features: Features = "pretrained"
    hyperparameters: Path = HYPERPARAMETERS
    out: Path | None = None


def train(settings: StockSettings) -> BeforeAfter:
    """Train an algorithm, test its actor before and after, print what came of it and save it.

    Raises:
        FileInTheWayError: ``out`` holds another model.
        UsageError: A setting is wrong.
    """
    hyperparameters = load_hyperparameters(settings.algorithm, settings.hyperparameters)
    if settings.out is not None:
        files = [settings.out.with_suffix(suffix).name for suffix in (".zip", ".safetensors")]
        check_out(settings.out.parent, None, files)
        check_writable(settings.out.parent)
    held_out = settings.held_out()
    env = BlindSRVecEnv(BlindSRVectorEnv(hyperparameters.get("n_envs", 1), **settings.environment()))
    agent = StockAgent(settings.algorithm, env, hyperparameters, settings.features, settings.predictor, settings.seed)
    result = BeforeAfter.of(held_out, agent.act, lambda: agent.learn(settings.steps))
    print(result.sentence(f"{settings.algorithm}, {settings.features} features, seed {settings.seed}"))
    if settings.out is not None:
        print(f"model: {agent.save(settings.out)}")
    env.close()
    return result
