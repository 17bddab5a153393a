"""The replay memory of one-step episodes, and the scales of the rewards it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from blindsr_agents.hinge_ddpg.config import Normalisation
from sr_env.utils import torchvision_compat as _torchvision  # noqa: F401  # before stable_baselines3, which reaches it
from sr_env.utils.checks import UsageError

from stable_baselines3.common.buffers import ReplayBuffer  # isort: skip
from stable_baselines3.common.type_aliases import ReplayBufferSamples

#: Ranges of kernel widths whose rewards have a scale of their own.
_GROUPS = 8


class SceneBatch(NamedTuple):
    """A batch from the memory, scene by scene.

    Attributes:
        observations: LR images of S scenes, uint8 [S, 3, h, w], or None where they were not asked for.
        descriptions: [S, D].
        actions: All K that were tried on each scene, [S, K, L].
        rewards: As the environment gave them, [S, K].
        scales: What to divide them by, [S, K].
    """

    observations: Tensor | None
    descriptions: Tensor
    actions: Tensor
    rewards: Tensor
    scales: Tensor


def group_widths(widths: np.ndarray, width_range: tuple[float, float]) -> np.ndarray:
    """Which of the equal ranges of ``width_range`` that have a reward scale each kernel width lies in, uint8."""
    return np.digitize(widths, np.linspace(*width_range, _GROUPS + 1)[1:-1]).astype(np.uint8)


def reward_scales(rewards: np.ndarray, groups: np.ndarray, normalisation: Normalisation) -> np.ndarray:
    """Median magnitude of the rewards per group of widths; a group seen rarely takes the median over all.

    Args:
        rewards: Any shape.
        groups: Of the same shape: see :func:`group_widths`.
        normalisation: "width" or "scene"; "all" gives the median over all everywhere, "none" ones.

    Returns:
        float32, one per group.
    """
    if normalisation == "none":
        return np.ones(_GROUPS, dtype=np.float32)
    sizes = np.abs(rewards).ravel()
    scales = np.full(_GROUPS, max(float(np.median(sizes)), 1e-8), dtype=np.float32)
    if normalisation in ("width", "scene"):
        for group in range(_GROUPS):
            own = sizes[groups.ravel() == group]
            if len(own) >= 32:
                scales[group] = max(float(np.median(own)), 1e-8)
    return scales


class SceneBuffer(ReplayBuffer):
    """Replay memory of one-step episodes: LR, its description, action, reward, and no next observation.

    Args:
        buffer_size: Scenes kept; the oldest give way.
        observation_space: uint8 images, channels first.
        action_space: Actions.
        device: Where samples go.
        n_envs: Sub-environments, which add their scenes together.
        description_size: Length D of a scene's description.
        widths: Range of the environment's kernel widths, in HR pixels.
        normalisation: Whether rewards are scaled by their median magnitude per range of widths ("width"), over "all"
            scenes, or not at all ("none"); or by the root mean square of those on the same scene ("scene"), but by no
            less than a tenth of the median of its range of widths.
        actions_per_scene: Neighbouring sub-environments that share a scene.
        **kwargs: SB3's further arguments, which have no meaning here.

    Attributes:
        times: Neighbouring sub-environments that share a scene.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        *,
        description_size: int,
        widths: tuple[float, float],
        normalisation: Normalisation = "width",
        actions_per_scene: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            buffer_size,
            observation_space,
            action_space,
            device,
            n_envs,
            optimize_memory_usage=True,  # in SB3's class this means: no array of next observations
            handle_timeout_termination=False,
        )
        self.descriptions = np.zeros((self.buffer_size, n_envs, description_size), dtype=np.float32)
        self.groups = np.zeros((self.buffer_size, n_envs), dtype=np.uint8)
        self.scales = np.ones(_GROUPS, dtype=np.float32)
        self._widths = widths
        self._normalisation, self.times = normalisation, actions_per_scene
        self._upcoming: np.ndarray | None = None
        self._fresh: list[int] = []

    @property
    def nbytes(self) -> int:
        """Bytes taken when full."""
        return sum(getattr(self, name).nbytes for name in ("observations", *self._columns))

    _columns: ClassVar[tuple[str, ...]] = ("descriptions", "groups", "actions", "rewards", "dones", "timeouts")

    def share_scenes(self, times: int, widths: tuple[float, float]) -> None:
        """Take up how the environment shares scenes and which kernel widths it draws, before any scene is kept."""
        assert self.size() == 0
        self.times, self._widths = times, widths

    def announce(self, descriptions: np.ndarray) -> None:
        """Tell the descriptions, float32 [n_envs, D], of the scenes that the next :meth:`add` brings."""
        self._upcoming = descriptions

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Keep one scene per sub-environment.

        Raises:
            UsageError: An episode goes on after the step.
            RuntimeError: The scenes' descriptions were not announced.
        """
        if self._upcoming is None:
            raise RuntimeError("scenes are kept with their descriptions: announce() them first")
        if not np.all(done):
            raise UsageError("HingeDDPG learns episodes of one step, and one went on: use BlindSR-v0")
        self.observations[self.pos] = obs
        self.actions[self.pos] = action
        self.rewards[self.pos] = reward
        self.dones[self.pos] = done
        self.descriptions[self.pos], self._upcoming = self._upcoming, None
        # Photographs as they are have no widths that anybody knows: they all lie in one range.
        widths = np.array([np.mean(info.get("kernel_width", 0.0)) for info in infos])
        self.groups[self.pos] = group_widths(widths, self._widths)
        self._fresh.append(self.pos)
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full, self.pos = True, 0

    def fresh(self) -> SceneBatch | None:
        """The scenes added since the last call, without their images."""
        if not self._fresh:
            return None
        rows = np.unique(np.array(self._fresh))
        self._fresh.clear()
        return self._whole(rows)

    def everything(self) -> SceneBatch:
        """All scenes that are kept, without their images."""
        return self._whole(np.arange(self.size()))

    def _whole(self, rows: np.ndarray) -> SceneBatch:
        """All scenes at these rows, without their images."""
        first = np.arange(0, self.n_envs, self.times)
        return self._batch(np.repeat(rows, len(first)), np.tile(first, len(rows)), images=False)

    def draw(self, batch_size: int, rng: np.random.Generator, images: bool) -> SceneBatch:
        """Draw scenes with replacement, with all actions tried on them; their LR images where asked for.

        Args:
            batch_size: Actions in all; as many scenes are drawn as have that many, one at least.
            rng: What draws them.
            images: Whether LR images are wanted.
        """
        scenes = max(1, batch_size // self.times)
        rows = rng.integers(self.size(), size=scenes)
        return self._batch(rows, rng.integers(self.n_envs // self.times, size=scenes) * self.times, images)

    def measure_scales(self) -> None:
        """Renew the scales of the rewards from what is kept; a group seen rarely takes the median over all."""
        kept = slice(self.size())
        self.scales = reward_scales(self.rewards[kept], self.groups[kept], self._normalisation)

    def _batch(self, rows: np.ndarray, first: np.ndarray, images: bool) -> SceneBatch:
        """The scenes [S] at these rows, of which ``first`` [S] tells the first of their sub-environments."""
        tried = (rows[:, None], first[:, None] + np.arange(self.times))
        # Indexing has copied already.
        return SceneBatch(
            self.to_torch(self.observations[rows, first], copy=False) if images else None,
            *(
                self.to_torch(values, copy=False)
                for values in (
                    self.descriptions[rows, first],
                    self.actions[tried],
                    self.rewards[tried],
                    self._scales(*tried),
                )
            ),
        )

    def _scales(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """What to divide the rewards of scenes by, float32 [S, K]."""
        scales: np.ndarray = self.scales[self.groups[rows, columns]]
        if self._normalisation != "scene":
            return scales
        together = np.sqrt(np.square(self.rewards[rows, columns]).mean(1, keepdims=True))
        return np.maximum(together, 0.1 * scales)

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> ReplayBufferSamples:
        """SB3's interface: the next observation is the observation, since every episode ended."""
        columns = np.random.randint(0, self.n_envs, size=len(batch_inds))  # noqa: NPY002  # as SB3 draws
        observations = self.to_torch(self.observations[batch_inds, columns])
        done, reward = (self.to_torch(a[batch_inds, columns].reshape(-1, 1)) for a in (self.dones, self.rewards))
        return ReplayBufferSamples(
            observations, self.to_torch(self.actions[batch_inds, columns]), observations, done, reward
        )

    def state(self) -> dict[str, Any]:
        """The scenes kept, as tensors."""
        kept = {name: torch.from_numpy(getattr(self, name)[: self.size()]) for name in ("observations", *self._columns)}
        return {"pos": self.pos, "full": self.full, "fresh": list(self._fresh), **kept}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave.

        Raises:
            UsageError: The sizes differ.
        """
        self.pos, self.full, self._fresh = state["pos"], state["full"], list(state["fresh"])
        for name in ("observations", *self._columns):
            own, kept = getattr(self, name), state[name].numpy()
            if own.shape[1:] != kept.shape[1:] or len(kept) != self.size():
                raise UsageError(
                    f"the memory kept {name} of shape {list(kept.shape)}, now {list(own.shape)}: resume with the "
                    "number of environments, patch size and buffer size it was begun with"
                )
            own[: len(kept)] = kept
