"""The vector environments: thin shells over a :class:`~sr_env.simulator.Simulator` with batch N."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate

from sr_env.envs.panel import scene_panel
from sr_env.envs.scalar import RENDER_MODES, action_space, check_open, observation_space, warn_of_no_mode
from sr_env.simulator import REAL, UNIFORMS_PER_SCENE, Episode, Simulator, SimulatorSettings
from sr_env.simulator.settings import whole
from sr_env.utils.checks import UsageError, check_choice
from sr_env.utils.images import to_uint8


class BlindSRVectorEnv(VectorEnv[Any, np.ndarray, np.ndarray]):
    """N copies of :class:`~sr_env.envs.scalar.BlindSREnv` that are degraded, rendered and scored in one batch.

    Spaces, rewards and information are those of the scalar environment, with a leading axis of length N.
    Sub-environment i draws from its own generator; `reset(seed=s)` seeds them with s, s+1, ..., as Gymnasium's
    SyncVectorEnv does, so that it sees the scenes of a scalar environment with the same seed.

    Sub-environments begin together and have equally many steps, so that all episodes end together. What happens then
    is `autoreset_mode` (https://farama.org/Vector-Autoreset-Mode):

    * `"SameStep"`: the observation returned is the first one of the next episode, `infos["final_obs"]` holds the last
      one of each ended episode (an object array of N observations) and `infos["final_info"]` their information.
    * `"NextStep"`: the last observation is returned, and the next `step` ignores the actions and begins the next
      episodes, with rewards of zero. In the one-step environment every second step is then such a one.
    * `"Disabled"`: nothing; `reset(options={"reset_mask": mask})` begins episodes where a mask, bool [N], is True.

    `reset(options=...)` takes single values, for all, or sequences of length N, in which None leaves a value to chance.

    With `actions_per_scene=K`, K sub-environments in a row see the same scene, drawn by the generator of the first of
    them: the scene and its reference are computed once and K actions are compared on it. Options that are sequences
    then have length N / K, and a reset mask is the same for all K.

    Args:
        num_envs: Number N of sub-environments.
        actions_per_scene: Number K of sub-environments that share a scene; it divides N.
        max_episode_steps: Steps after which an episode that has not ended by itself is truncated, as by `gym.make`;
            None or -1 never truncates.
        render_mode: None or "rgb_array"; `render()` then gives one panel per sub-environment, of the finished episodes
            after a step that ended them.
        autoreset_mode: A value of Gymnasium's `AutoresetMode`: "SameStep", "NextStep" or "Disabled".
        **settings: See :class:`~sr_env.simulator.SimulatorSettings`.

    Raises:
        TypeError: A setting is unknown; the message lists the valid ones.
        UsageError: A setting is wrong; the message says what is valid. A folder or checkpoint does not exist.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # as Gymnasium types it
        "render_modes": [mode for mode in RENDER_MODES if mode != "human"],
        "render_fps": 2,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }
    _iterative = False
    _defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        actions_per_scene: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        **settings: Any,
    ) -> None:
        if whole("num_envs", num_envs) < 1:
            raise UsageError(f"num_envs {num_envs} is not positive: ask for at least one environment")
        check_choice("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        if whole("actions_per_scene", actions_per_scene) < 1 or num_envs % actions_per_scene:
            raise UsageError(
                f"actions_per_scene {actions_per_scene} does not divide num_envs {num_envs}: give a divisor of it"
            )
        if max_episode_steps is not None and (
            whole("max_episode_steps", max_episode_steps) < -1 or not max_episode_steps
        ):
            raise UsageError(f"max_episode_steps {max_episode_steps} is not positive: give 1 or more, or None")
        if not isinstance(autoreset_mode, AutoresetMode):
            check_choice("autoreset_mode", autoreset_mode, [mode.value for mode in AutoresetMode])
        self.num_envs, self.actions_per_scene = num_envs, actions_per_scene
        self.max_episode_steps = None if max_episode_steps == -1 else max_episode_steps
        self.render_mode = render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        own = ("num_envs", "max_episode_steps", "render_mode", "actions_per_scene", "autoreset_mode")
        settings = {**self._defaults, **settings}
        self.simulator = Simulator(SimulatorSettings.from_kwargs(settings, own), self._iterative)
        self.simulator.check_patches()
        self.single_action_space = action_space(self.simulator)
        self.single_observation_space = observation_space(self.simulator)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._generators: list[np.random.Generator] = []
        self._seeds: list[int] = []
        self._before: list[Mapping[str, Any]] = []
        self._ended = np.zeros(num_envs, dtype=bool)
        self._finished: Episode | None = None

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every sub-environment, or in those of a mask.

        Args:
            seed: An integer s (sub-environment i gets s + i), one seed each, or None to go on with the generators.
            options: Parts of the scenes to fix: photo, crop, kernel_width, kernel_angle, kernel, noise, jpeg_quality,
                sharpening. With autoreset "Disabled" also reset_mask, bool [N]: where episodes begin; the others go on
                as they are, keep their generators, and their rows of the information are marked as absent.

        Returns:
            Observations and information, batched.

        Raises:
            UsageError: The seeds are not N, or an option is unknown or does not fit.
            ClosedEnvironmentError: The environment was closed.
        """
        check_open(self.closed)
        if options is not None and not isinstance(options, Mapping):
            raise UsageError(f"reset options {options!r} are no mapping: give such as {{'photo': 0}}")
        others = {name: value for name, value in (options or {}).items() if name != "reset_mask"}
        mask = self._mask(options["reset_mask"]) if options and "reset_mask" in options else None
        seeds = self._seeds_of(seed)
        self.simulator.parse(others, self.num_envs // self.actions_per_scene)  # a mistake moves no generator
        where = np.ones(self.num_envs, dtype=bool) if mask is None else mask
        self._seed(seeds, where)
        self._begin(others, where)
        return self.simulator.observation(), self._information(where)

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act in every sub-environment; where episodes end, `autoreset_mode` says what follows.

        Args:
            actions: float32 in [-1, 1], [N, 10], and one more for each further control.

        Returns:
            Observations, rewards float64 [N], terminations and truncations bool [N], information. An episode that
            ended by itself is never truncated.

        Raises:
            UsageError: Wrong shape or type, NaN, or a value outside [-1, 1].
            RuntimeError: There was no reset yet, or with autoreset "Disabled" an episode that ended was not reset.
            ClosedEnvironmentError: The environment was closed.
        """
        check_open(self.closed)
        everywhere, nowhere = np.ones(self.num_envs, dtype=bool), np.zeros(self.num_envs, dtype=bool)
        if self._ended.any():
            if self.autoreset_mode is AutoresetMode.DISABLED:
                raise RuntimeError(
                    f"the episodes of sub-environments {np.flatnonzero(self._ended).tolist()} have ended: reset them "
                    "with options={'reset_mask': ...}"
                )
            self._begin({}, everywhere)
            return self.simulator.observation(), np.zeros(self.num_envs), nowhere, nowhere.copy(), self._information()
        rewards = self.simulator.step(actions)
        self._finished = None
        terminations = self.simulator.over
        late = nowhere if self.max_episode_steps is None else self.simulator.episode.steps >= self.max_episode_steps
        truncations = late & ~terminations
        self._ended = terminations | truncations
        observations, infos = self.simulator.observation(), self._information()
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._ended.any():
            final_obs = np.empty(self.num_envs, dtype=object)
            for index, observation in enumerate(iterate(self.observation_space, observations)):
                final_obs[index] = observation
            finished, final_info = self.simulator.episode, infos
            self._begin({}, everywhere)
            self._finished = finished
            observations, infos = self.simulator.observation(), self._information()
            infos |= {"final_obs": final_obs, "_final_obs": everywhere}
            infos |= {"final_info": final_info, "_final_info": everywhere.copy()}
        return observations, rewards, terminations, truncations, infos

    def _mask(self, given: Any) -> np.ndarray:
        """Option ``reset_mask`` -> bool [N]."""
        if self.autoreset_mode is not AutoresetMode.DISABLED:
            raise UsageError(
                f"reset_mask does not go with autoreset_mode {self.autoreset_mode.value!r}, which resets by itself: "
                "make the environment with autoreset_mode='Disabled', or leave the mask out"
            )
        mask = np.asarray(given)
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise UsageError(
                f"reset_mask {mask.tolist()!r} does not fit: give {self.num_envs} booleans, one of them True at least"
            )
        groups = mask.reshape(-1, self.actions_per_scene)
        if (groups != groups[:, :1]).any():
            raise UsageError(
                f"reset_mask {mask.tolist()!r} parts sub-environments that share a scene: give each "
                f"{self.actions_per_scene} in a row the same"
            )
        if not self._generators and not mask.all():
            raise UsageError("reset_mask before the first reset leaves some without an episode: reset all first")
        return mask.copy()

    def _seeds_of(self, seed: Any) -> list[int | None]:
        """Argument ``seed`` of :meth:`reset` -> one each."""
        if seed is None:
            return [None] * self.num_envs
        if not isinstance(seed, list | tuple | np.ndarray):
            first = whole("seed", seed)
            return [first + index for index in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise UsageError(f"{len(seed)} seeds for {self.num_envs} environments: give one integer or one seed each")
        return [None if value is None else whole("seed", value) for value in seed]

    def _seed(self, seeds: Sequence[int | None], where: np.ndarray) -> None:
        """Give the sub-environments of a mask [N] new generators where there is a seed, or no generator yet."""
        if not self._generators:
            fresh = [seeding.np_random(seed) for seed in seeds]
            self._generators, self._seeds = [new for new, _ in fresh], [seed for _, seed in fresh]
            return
        for index in np.flatnonzero(where).tolist():
            if (seed := seeds[index]) is not None:
                self._generators[index], self._seeds[index] = seeding.np_random(seed)

    def _begin(self, options: Mapping[str, Any], where: np.ndarray) -> None:
        """Begin the episodes of a mask [N]."""
        self._before = [
            rng.bit_generator.state if begins else before
            for rng, begins, before in zip(self._generators, where, self._before or [{}] * self.num_envs, strict=True)
        ]
        # Gymnasium's contract gives every sub-environment its own generator; all else works on the stacked numbers.
        leaders, drawn = self._generators[:: self.actions_per_scene], where[:: self.actions_per_scene]
        unused = np.zeros(UNIFORMS_PER_SCENE)
        uniforms = np.stack(
            [rng.random(UNIFORMS_PER_SCENE) if begins else unused for rng, begins in zip(leaders, drawn, strict=True)]
        )
        self.simulator.reset(uniforms, options, self.actions_per_scene, drawn)
        self._ended = self._ended & ~where
        self._finished = None

    @property  # type: ignore[misc]  # read-only, and one each, as Gymnasium's SyncVectorEnv has it
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generators of the sub-environments."""
        self._seed([None] * self.num_envs, np.zeros(self.num_envs, dtype=bool))
        return tuple(self._generators)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seeds of the sub-environments: s, s+1, ... after ``reset(seed=s)``; -1 where a state was loaded."""
        self._seed([None] * self.num_envs, np.zeros(self.num_envs, dtype=bool))
        return tuple(self._seeds)

    def state(self) -> list[Mapping[str, Any]]:
        """Where the generators stood when the running episodes began, for :meth:`load_state`."""
        return list(self._before)

    def load_state(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Put the generators where :meth:`state` found them: `reset()` without a seed then begins those episodes again.

        Raises:
            UsageError: The state is of another number of environments.
        """
        if len(state) != self.num_envs:
            raise UsageError(f"the state is of {len(state)} environments, not {self.num_envs}: resume with as many")
        self._generators, self._seeds = [seeding.np_random(0)[0] for _ in state], [-1] * self.num_envs
        for generator, kept in zip(self._generators, state, strict=True):
            generator.bit_generator.state = dict(kept)

    def _information(self, where: np.ndarray | None = None) -> dict[str, Any]:
        infos: dict[str, Any] = self.simulator.info()
        present = np.ones(self.num_envs, dtype=bool) if where is None else where
        return infos | {f"_{name}": present.copy() for name in infos}

    @property
    def sr(self) -> np.ndarray:
        """What the last actions made, uint8 [N, P, P, 3]; after a reset, the reference reconstructions."""
        return to_uint8((self._finished or self.simulator.episode).current.sr)

    @property
    def hr(self) -> np.ndarray:
        """The sharp patches that belong to :attr:`sr`, uint8 [N, P, P, 3].

        Raises:
            UsageError: Scenes are photographs as they are (``lr_photos``).
        """
        return to_uint8((self._finished or self.simulator.episode).scenes.hr)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One labelled panel, uint8 [H, W, 3], per sub-environment in mode "rgb_array", else None.

        After a step that ended episodes it shows these, with what the last actions made of them.

        Raises:
            RuntimeError: There was no reset yet.
        """
        if self.render_mode is None:
            warn_of_no_mode(self, "gym.make_vec")
            return None
        return tuple(scene_panel(self.simulator, index, self._finished) for index in range(self.num_envs))


class BlindSRIterativeVectorEnv(BlindSRVectorEnv):
    """N copies of :class:`~sr_env.envs.scalar.BlindSRIterativeEnv` in one batch; see :class:`BlindSRVectorEnv`."""

    _iterative = True


class BlindSRRealVectorEnv(BlindSRVectorEnv):
    """N copies of :class:`~sr_env.envs.scalar.BlindSRRealEnv` in one batch; see :class:`BlindSRVectorEnv`."""

    _defaults = REAL
