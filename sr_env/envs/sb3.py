"""Stable-Baselines3's VecEnv over the vector environment (SB3 has no adapter for Gymnasium's vector environments)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from sr_env.utils import torchvision_compat as _torchvision  # noqa: F401  # before stable_baselines3, whose imports reach torchvision

from stable_baselines3.common.vec_env import VecEnv  # isort: skip
from sr_env.envs.vector import BlindSRVectorEnv
from sr_env.utils.checks import UsageError


class BlindSRVecEnv(VecEnv):
    """Gives Stable-Baselines3 a :class:`~sr_env.envs.vector.BlindSRVectorEnv`.

    Each sub-environment's ``info`` has the scalar environment's entries, ``terminal_observation`` where an episode
    ended, and ``episode`` (return ``r``, length ``l``, seconds ``t``) as SB3's Monitor would add it.

    ``set_options`` takes one dict for all sub-environments, or a list of one each.

    Args:
        env: The vector environment, with autoreset "SameStep".

    Raises:
        UsageError: It resets otherwise.
    """

    def __init__(self, env: BlindSRVectorEnv) -> None:
        if env.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise UsageError(
                f"Stable-Baselines3 expects the next episode in the same step, not autoreset_mode "
                f"{env.autoreset_mode.value!r}: make the environment with 'SameStep'"
            )
        self.env = env
        self.render_mode = env.render_mode
        self._returns = np.zeros(env.num_envs)
        self._length = 0
        self._started = time.time()
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """Begin an episode in every sub-environment, with the seeds and options set before; return observations."""
        seed = self._seeds if any(value is not None for value in self._seeds) else None
        observations, infos = self.env.reset(seed=seed, options=self._merged_options())
        self.reset_infos = self._split(infos)
        self._reset_seeds()
        self._reset_options()
        self._returns[:] = 0
        self._length = 0
        return observations

    def set_options(self, options: Any = None) -> None:
        """Fix parts of the scenes of the next reset: one mapping for all sub-environments, or a sequence of one each.

        Raises:
            UsageError: It is neither, or of another length.
        """
        given = {} if options is None else options
        each = [given] * self.num_envs if isinstance(given, Mapping) else given
        if not isinstance(each, list | tuple) or not all(isinstance(entry, Mapping) for entry in each):
            raise UsageError(
                f"reset options {options!r} are no mapping: give such as {{'photo': 0}}, or a list of them"
            )
        if len(each) != self.num_envs:
            raise UsageError(f"{len(each)} options for {self.num_envs} environments: give one mapping or one each")
        super().set_options([dict(entry) for entry in each])

    def load_state(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Go on where the vector environment's :meth:`~sr_env.envs.vector.BlindSRVectorEnv.state` was taken."""
        self.env.load_state(state)
        self._reset_seeds()  # those waiting for the next reset would undo it

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Act; returns observations, rewards float32 [N], dones bool [N] and a list of infos."""
        observations, rewards, terminations, truncations, infos = self.env.step(self._actions)
        self._returns += rewards
        self._length += 1
        dones = terminations | truncations
        if not dones.any():
            return observations, rewards.astype(np.float32), dones, self._split(infos)
        ended = self._split(infos["final_info"])
        for index, info in enumerate(ended):  # SB3 wants one dict per sub-environment
            info["terminal_observation"] = infos["final_obs"][index]
            info["TimeLimit.truncated"] = bool(truncations[index] and not terminations[index])
            elapsed = round(time.time() - self._started, 6)
            info["episode"] = {"r": float(self._returns[index]), "l": self._length, "t": elapsed}
        self.reset_infos = self._split(infos)
        self._returns[:] = 0
        self._length = 0
        return observations, rewards.astype(np.float32), dones, ended

    def _merged_options(self) -> dict[str, list[Any]] | None:
        """The options of :meth:`set_options`, one dict each, as the vector environment takes them.

        Raises:
            UsageError: Sub-environments that share a scene have different ones.
        """
        shared = self.env.actions_per_scene
        leaders = self._options[::shared]
        for index, options in enumerate(self._options):
            if repr(options) != repr(leaders[index // shared]):
                raise UsageError(
                    f"the options {options!r} of sub-environment {index} are not those of the ones it shares a scene "
                    f"with: give each {shared} in a row the same"
                )
        names = dict.fromkeys(name for options in leaders for name in options)
        return {name: [options.get(name) for options in leaders] for name in names} or None

    def _split(self, infos: dict[str, Any]) -> list[dict[str, Any]]:
        """Batched information -> one dict per sub-environment."""
        names = [name for name in infos if not name.startswith(("_", "final_"))]
        return [{name: infos[name][index] for name in names} for index in range(self.num_envs)]

    def close(self) -> None:
        """Close the vector environment."""
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One panel per sub-environment, of the finished episodes after a step that ended them."""
        return self.env.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the vector environment, once per sub-environment asked for."""
        return [getattr(self.env, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the vector environment, which all sub-environments share.

        Raises:
            UsageError: Only some sub-environments are named.
        """
        self._check_all(indices)
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the vector environment, which all sub-environments share.

        Raises:
            UsageError: Only some sub-environments are named.
        """
        self._check_all(indices)
        return [getattr(self.env, method_name)(*method_args, **method_kwargs)] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Whether SB3's Monitor is there (its work is done here); no other wrapper is."""
        from stable_baselines3.common.monitor import Monitor

        return [wrapper_class is Monitor] * len(list(self._get_indices(indices)))

    def _check_all(self, indices: Any) -> None:
        chosen: Iterable[int] = self._get_indices(indices)
        if sorted(chosen) != list(range(self.num_envs)):
            raise UsageError(
                f"indices {indices!r} name some environments only: they share one simulator, leave indices out"
            )
