"""Algorithms of Stable-Baselines3 and sb3-contrib on the vector environment, by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml
from gymnasium import spaces
from torch import Tensor, nn

from blindsr_agents.stock.features import SceneFeatures
from blindsr_agents.training import load_weights, save_weights
from sr_env.envs.sb3 import BlindSRVecEnv
from sr_env.utils.checks import MissingFileError, UsageError, check_choice
from sr_env.utils.files import atomic_write

from stable_baselines3 import A2C, DDPG, PPO, SAC, TD3  # isort: skip  # after sr_env.envs.sb3, which mends torchvision
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

#: What the agents see: the frozen predictor's description of the LR image, or the image itself.
Features = Literal["pretrained", "cnn"]
#: Algorithms for continuous actions that have a block in the released hyperparameters.
Algorithm = Literal["a2c", "crossq", "ddpg", "ppo", "sac", "td3", "tqc", "trpo"]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)
_OWN_CLASSES: Mapping[str, type[BaseAlgorithm]] = {"a2c": A2C, "ddpg": DDPG, "ppo": PPO, "sac": SAC, "td3": TD3}
_CONTRIB_CLASSES: Mapping[str, str] = {"crossq": "CrossQ", "tqc": "TQC", "trpo": "TRPO"}
#: The released hyperparameters.
HYPERPARAMETERS = Path(__file__).with_name("hyperparameters.yml")
#: Entries of a block that are no arguments of the algorithm's constructor.
_OWN = ("n_envs", "noise_std")


def algorithm_class(name: str) -> type[BaseAlgorithm]:
    """The class of an algorithm.

    Raises:
        UsageError: It is unknown, or one of sb3-contrib's, which is not installed.
    """
    check_choice("algorithm", name, ALGORITHMS)
    if name in _OWN_CLASSES:
        return _OWN_CLASSES[name]
    try:
        import sb3_contrib
    except ImportError:
        raise UsageError(f'algorithm {name} needs sb3-contrib: pip install "blindsr-gym[algorithms]"') from None
    found: type[BaseAlgorithm] = getattr(sb3_contrib, _CONTRIB_CLASSES[name])
    return found


def load_hyperparameters(name: str, path: Path = HYPERPARAMETERS) -> dict[str, Any]:
    """An algorithm's block of a YAML file.

    Args:
        name: The algorithm.
        path: The file.

    Raises:
        MissingFileError: There is no such file.
        UsageError: As :func:`algorithm_class`, or the file is no YAML mapping, lacks the algorithm, or names something
            that its constructor does not take.
    """
    chosen = algorithm_class(name)
    try:
        blocks = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError(f"no hyperparameters at {path}: give a YAML file with a block per algorithm") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no YAML file: {error}") from None
    if not isinstance(blocks, dict) or not isinstance(blocks.get(name), dict):
        raise UsageError(f"{path} has no block {name!r}: give it one, with the constructor's arguments as entries")
    block: dict[str, Any] = blocks[name]
    known = [*_OWN, *(set(inspect.signature(chosen).parameters) - {"env", "policy"})]
    for entry in block:
        check_choice(f"hyperparameter of {name}", entry, sorted(known))
    return block


class FeaturesVecEnv(VecEnvWrapper):
    """Shows agents descriptions of the LR images, float32 [N, F], in place of the images.

    SB3 has policies carry a features extractor, which would describe a scene anew in every update. The description is
    frozen, so that here each scene is described once. The image does not change during an episode.

    Args:
        venv: Shows LR images.
        features: Describes them.

    Raises:
        UsageError: The observations are no images.
    """

    def __init__(self, venv: VecEnv, features: SceneFeatures) -> None:
        space = venv.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 3:
            raise UsageError(f"observations {space} are no images: use BlindSR-v0's vector environment")
        super().__init__(venv, observation_space=features.space)
        self.features = features
        self._shown = np.zeros((venv.num_envs, *features.space.shape), np.float32)

    def reset(self) -> np.ndarray:
        """Begin an episode in every sub-environment; returns descriptions."""
        images = self.venv.reset()
        assert isinstance(images, np.ndarray)
        self._shown = self.features(images)
        return self._shown

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Act; returns descriptions, rewards, dones and infos."""
        images, rewards, dones, infos = self.venv.step_wait()
        assert isinstance(images, np.ndarray)
        for shown, info in zip(self._shown, infos, strict=True):
            if "terminal_observation" in info:
                info["terminal_observation"] = shown
        if dones.any():
            self._shown = self.features(images)
        return self._shown, rewards, dones, infos


class SmallCnn(BaseFeaturesExtractor):
    """Features of LR images learned from nothing; blur is local and shows at edges, so positions are averaged out.

    Args:
        observation_space: uint8 images, channels first.
        features_dim: Length of the description.
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 64) -> None:
        super().__init__(observation_space, features_dim)
        self.body = nn.Sequential(
            nn.Conv2d(observation_space.shape[0], 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, features_dim, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, observations: Tensor) -> Tensor:
        """Images in [0, 1], [B, 3, h, w] -> [B, features_dim]."""
        features: Tensor = self.body(2 * observations - 1)
        return features


class StockAgent:
    """One of Stable-Baselines3's algorithms, made for an environment.

    Args:
        name: The algorithm.
        env: Shows LR images.
        hyperparameters: A block of :func:`load_hyperparameters`.
        features: What it sees: the frozen predictor's description of the LR image, or the image through a
            :class:`SmallCnn` that it trains.
        predictor: Name or path of the predictor that describes; None takes ``predictor_x{scale}``.
        seed: Seed of scenes, exploration, networks and batches.

    Attributes:
        model: SB3's model.

    Raises:
        UsageError: The algorithm is unknown or not installed, or the predictor does not fit.
    """

    def __init__(
        self,
        name: str,
        env: BlindSRVecEnv,
        hyperparameters: Mapping[str, Any],
        features: Features = "pretrained",
        predictor: str | None = None,
        seed: int = 0,
    ) -> None:
        check_choice("features", features, get_args(Features))
        chosen = algorithm_class(name)
        arguments = deepcopy({key: value for key, value in hyperparameters.items() if key not in _OWN})
        simulator = env.env.simulator
        seen: VecEnv = env
        self._describe: SceneFeatures | None = None
        if features == "pretrained":
            self._describe = SceneFeatures.of(simulator, predictor)
            seen = FeaturesVecEnv(env, self._describe)
        else:
            arguments.setdefault("policy_kwargs", {})["features_extractor_class"] = SmallCnn
        if (noise := hyperparameters.get("noise_std")) is not None:
            length = simulator.controls.length
            arguments["action_noise"] = NormalActionNoise(np.zeros(length), np.full(length, noise))
        policy = "MlpPolicy" if features == "pretrained" else "CnnPolicy"
        if policy not in chosen.policy_aliases:
            raise UsageError(f"{name} has no policy for images: take features 'pretrained', or another algorithm")
        self.model = chosen(policy=policy, env=seen, seed=seed, device=simulator.device, **arguments)

    def learn(self, steps: int) -> int:
        """Train; returns the environment steps taken, which whole rollouts may carry beyond ``steps``."""
        self.model.learn(steps)
        return int(self.model.num_timesteps)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Best actions for LR images: uint8 [B, h, w, 3] -> float32 [B, L]."""
        seen = observations if self._describe is None else self._describe(observations)
        actions: np.ndarray = self.model.predict(seen, deterministic=True)[0]
        return actions

    def save(self, path: Path) -> Path:
        """Write SB3's model, and the policy's weights beside it.

        The .zip is SB3's own format, which runs pickled code when it is loaded: load none that is not yours, and give
        others the .safetensors file, which :meth:`load` takes.

        Args:
            path: File to write; what ends it becomes .zip.

        Returns:
            The path of the .zip.
        """
        path = path.with_suffix(".zip")
        with atomic_write(path) as temporary:
            self.model.save(temporary)
        save_weights(path.with_suffix(".safetensors"), self.model.policy)
        return path

    def load(self, path: Path) -> None:
        """Take up the policy's weights that :meth:`save` wrote as .safetensors, made with the same settings.

        Raises:
            MissingFileError: No such file.
            UsageError: It holds no weights of such a policy.
        """
        load_weights(path.with_suffix(".safetensors"), self.model.policy)
