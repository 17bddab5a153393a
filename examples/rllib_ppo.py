"""Train RLlib's PPO on BlindSR-v0, and test the actor before and after.

    python -m venv rllib-venv && rllib-venv/bin/pip install -e ".[rllib]"
    rllib-venv/bin/python examples/rllib_ppo.py --steps 4000

Ray holds Gymnasium at an older version than the newest, so that it needs an environment of its own. Everything runs in
one process: RLlib's runners make their own copies of the scalar environment, and each copy holds its own renderer.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, cast

import gymnasium as gym
import numpy as np
import ray
import torch
from blindsr_agents.stock import BeforeAfter, LearningSettings, SceneFeatures
from gymnasium.wrappers import RescaleAction, TransformObservation
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env

from sr_env.envs.scalar import BlindSREnv
from sr_env.utils.script import run_script

_ENVIRONMENT = "blindsr-features"


@dataclass
class Settings(LearningSettings):
    """Train RLlib's PPO.

    Attributes:
        envs: Copies of the scalar environment.
        rollout: Environment steps between two trainings.
        epochs: Passes over them.
        minibatch: Scenes per update.
        hidden: Width of the hidden layers.
        learning_rate: Of both networks.
        spread: Standard deviation of the actions at the start.
    """

    envs: int = 4
    rollout: int = 128
    epochs: int = 8
    minibatch: int = 32
    hidden: int = 64
    learning_rate: float = 1e-3
    spread: float = 0.3


def make_env(config: dict[str, Any]) -> gym.Env[np.ndarray, np.ndarray]:
    """The scalar environment, seen through the frozen pretrained predictor's features.

    Args:
        config: The environment's settings, and ``spread``: RLlib's Gaussians begin with standard deviation 1, so that
            actions are counted in units of it.
    """
    settings = dict(config)
    limit = 1 / settings.pop("spread")
    env = RescaleAction(gym.make("BlindSR-v0", **settings), np.float32(-limit), np.float32(limit))
    features = SceneFeatures.of(cast(BlindSREnv, env.unwrapped).simulator, settings["predictor"])
    return TransformObservation(env, features, features.space)


def configure(settings: Settings) -> PPOConfig:
    """PPO for episodes of one step, in one process."""
    return (
        PPOConfig()
        .environment(
            _ENVIRONMENT,
            env_config=settings.environment() | {"spread": settings.spread},
            normalize_actions=False,
            clip_actions=True,
        )
        .env_runners(num_env_runners=0, num_envs_per_env_runner=settings.envs, rollout_fragment_length="auto")
        .learners(num_learners=0)
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=[settings.hidden],
                fcnet_activation="tanh",
                vf_share_layers=False,
                free_log_std=True,
            )
        )
        .training(
            lr=settings.learning_rate,
            gamma=0.0,
            lambda_=0.0,
            train_batch_size_per_learner=settings.rollout,
            minibatch_size=settings.minibatch,
            num_epochs=settings.epochs,
            clip_param=0.2,
            use_kl_loss=False,
            vf_clip_param=float("inf"),
            grad_clip=0.5,
        )
        .debugging(seed=settings.seed, log_level="ERROR")
    )


def main(settings: Settings) -> BeforeAfter:
    """Train, test and print."""
    held_out = settings.held_out()
    describe = SceneFeatures.of(held_out.scenes.simulator, settings.predictor)
    ray.init(num_cpus=1, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    register_env(_ENVIRONMENT, make_env)
    algorithm = configure(settings).build_algo()
    length = held_out.scenes.simulator.controls.length

    @torch.no_grad()
    def act(images: np.ndarray) -> np.ndarray:
        seen = {Columns.OBS: torch.from_numpy(describe(images))}
        told = algorithm.get_module().forward_inference(seen)[Columns.ACTION_DIST_INPUTS]
        return (settings.spread * told[:, :length]).clamp(-1, 1).numpy()  # the means; the spreads follow

    def learn() -> int:
        steps = 0
        while steps < settings.steps:
            steps = int(algorithm.train()["num_env_steps_sampled_lifetime"])
        return steps

    outcome = BeforeAfter.of(held_out, act, learn)
    print(outcome.sentence(f"RLlib {ray.__version__} PPO, seed {settings.seed}"))
    algorithm.stop()
    ray.shutdown()
    return outcome


if __name__ == "__main__":
    run_script(Settings, main)
