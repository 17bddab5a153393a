"""The vector environments: thin shells over a :class:`~sr_env.simulator.Simulator` with batch N."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from sr_env.envs.scalar import RENDER_MODES, action_space, observation_space
from sr_env.simulator import UNIFORMS_PER_SCENE, Simulator, SimulatorSettings
from sr_env.utils.checks import check_choice


class BlindSRVectorEnv(VectorEnv[Any, np.ndarray, np.ndarray]):
    """N copies of :class:`~sr_env.envs.scalar.BlindSREnv` that are degraded, rendered and scored in one batch.

    Spaces, rewards and information are those of the scalar environment, with a leading axis of length N.
    Sub-environment i draws from its own generator; `reset(seed=s)` seeds them with s, s+1, ..., as Gymnasium's
    SyncVectorEnv does, so that it sees the scenes of a scalar environment with the same seed.

    Autoreset happens in the same step: when an episode ends, the observation returned is the first one of the next
    episode, `infos["final_obs"]` holds the last one of the ended episode (one array for all sub-environments, a dict of
    arrays where observations are dicts) and `infos["final_info"]` its information. Sub-environments are in step, so
    that all episodes end together. `reset(options=...)` takes single values, for all, or sequences of length N.

    With `actions_per_scene=K`, K sub-environments in a row see the same scene, drawn by the generator of the first of
    them: the scene and its reference are computed once and K actions are compared on it. Options that are sequences
    then have length N / K.

    Args:
        num_envs: Number N of sub-environments.
        actions_per_scene: Number K of sub-environments that share a scene; it divides N.
        max_episode_steps: Steps after which an episode is truncated, as `gym.make` does with a scalar environment;
            None never truncates.
        render_mode: None or "rgb_array"; `render()` then gives one panel per sub-environment (of the new episodes,
            where a step ended the old ones).
        **settings: See :class:`~sr_env.simulator.SimulatorSettings`.

    Raises:
        ValueError: A setting is unknown or wrong; the message lists what is valid.
        FileNotFoundError: A folder or checkpoint does not exist.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # as Gymnasium types it
        "render_modes": [mode for mode in RENDER_MODES if mode != "human"],
        "render_fps": 2,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }
    _iterative = False

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        actions_per_scene: int = 1,
        **settings: Any,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs {num_envs} is not positive: ask for at least one environment")
        check_choice("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        if actions_per_scene < 1 or num_envs % actions_per_scene:
            raise ValueError(
                f"actions_per_scene {actions_per_scene} does not divide num_envs {num_envs}: give a divisor of it"
            )
        self.num_envs, self.actions_per_scene = num_envs, actions_per_scene
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self.simulator = Simulator(SimulatorSettings.from_kwargs(settings), self._iterative)
        self.single_action_space = action_space(self.simulator)
        self.single_observation_space = observation_space(self.simulator)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._generators: list[np.random.Generator] = []

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every sub-environment.

        Args:
            seed: An integer s (sub-environment i gets s + i), one seed each, or None to go on with the generators.
            options: Parts of the scenes to fix: photo, crop, kernel_width, kernel_angle.

        Returns:
            Observations and information, batched.

        Raises:
            ValueError: The seeds are not N, or an option is unknown or does not fit.
        """
        if isinstance(seed, int | np.integer):
            seed = [int(seed) + index for index in range(self.num_envs)]
        if seed is None and not self._generators:
            seed = [None] * self.num_envs
        if seed is not None:
            if len(seed) != self.num_envs:
                raise ValueError(
                    f"{len(seed)} seeds for {self.num_envs} environments: give one integer or one seed each"
                )
            fresh = [None if value is None and self._generators else seeding.np_random(value)[0] for value in seed]
            self._generators = [new or self._generators[index] for index, new in enumerate(fresh)]
        self._begin(options)
        return self.simulator.observation(), self._information()

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act in every sub-environment; where episodes end, the next ones begin in the same step.

        Args:
            actions: float32 in [-1, 1], [N, 10].

        Returns:
            Observations, rewards float64 [N], terminations and truncations bool [N], information.

        Raises:
            ValueError: Wrong shape, NaN, or a value outside [-1, 1].
            RuntimeError: There was no reset yet.
        """
        rewards = self.simulator.step(actions)
        truncated = self.max_episode_steps is not None and self.simulator.steps >= self.max_episode_steps
        terminations = np.full(self.num_envs, self.simulator.over)
        truncations = np.full(self.num_envs, truncated)
        observations, infos = self.simulator.observation(), self._information()
        if self.simulator.over or truncated:
            final_obs, final_info = observations, infos
            self._begin(None)
            observations, infos = self.simulator.observation(), self._information()
            everywhere = np.ones(self.num_envs, dtype=bool)
            infos |= {"final_obs": final_obs, "_final_obs": everywhere}
            infos |= {"final_info": final_info, "_final_info": everywhere}
        return observations, rewards, terminations, truncations, infos

    def _begin(self, options: dict[str, Any] | None) -> None:
        self._before = [rng.bit_generator.state for rng in self._generators]
        # Gymnasium's contract gives every sub-environment its own generator; all else works on the stacked numbers.
        leaders = self._generators[:: self.actions_per_scene]
        uniforms = np.stack([rng.random(UNIFORMS_PER_SCENE) for rng in leaders])
        self.simulator.reset(uniforms, options, self.actions_per_scene)

    def state(self) -> list[Mapping[str, Any]]:
        """Where the generators stood when the running episodes began, for :meth:`load_state`."""
        return list(self._before)

    def load_state(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Put the generators where :meth:`state` found them: `reset()` without a seed then begins those episodes again.

        Raises:
            ValueError: The state is of another number of environments.
        """
        if len(state) != self.num_envs:
            raise ValueError(f"the state is of {len(state)} environments, not {self.num_envs}: resume with as many")
        self._generators = [seeding.np_random(0)[0] for _ in state]
        for generator, kept in zip(self._generators, state, strict=True):
            generator.bit_generator.state = dict(kept)

    def _information(self) -> dict[str, Any]:
        infos: dict[str, Any] = self.simulator.info()
        return infos | {f"_{name}": np.ones(self.num_envs, dtype=bool) for name in infos}

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One labelled panel, uint8 [H, W, 3], per sub-environment in mode "rgb_array", else None.

        Raises:
            RuntimeError: There was no reset yet.
        """
        if self.render_mode != "rgb_array":
            return None
        return tuple(self.simulator.panel(index) for index in range(self.num_envs))


class BlindSRIterativeVectorEnv(BlindSRVectorEnv):
    """N copies of :class:`~sr_env.envs.scalar.BlindSRIterativeEnv` in one batch; see :class:`BlindSRVectorEnv`."""

    _iterative = True
