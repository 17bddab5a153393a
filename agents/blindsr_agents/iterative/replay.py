"""The replay memory of whole episodes, and the n-step returns that the critics are fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from blindsr_agents.hinge_ddpg import Normalisation, group_widths, reward_scales
from sr_env.utils.checks import UsageError


def n_step_returns(rewards: Tensor, starts: Tensor, n: int, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Discounted sums of up to n rewards.

    Args:
        rewards: Of whole episodes of T steps, [B, T].
        starts: Step at which each sum begins, int64 [B].
        n: Rewards added up, fewer where the episode ends.
        gamma: Discount.

    Returns:
        The sums [B]; the step after the last reward of each, int64 [B], T where the episode ended; and the discount
        of what would follow, [B], 0 where the episode ended.
    """
    length = rewards.shape[1]
    after = torch.arange(length, device=rewards.device) - starts[:, None]
    weights = torch.where((after >= 0) & (after < n), gamma ** after.clamp(min=0).to(rewards.dtype), 0.0)
    ends = (starts + n).clamp(max=length)
    discounts = torch.where(ends < length, gamma ** (ends - starts).to(rewards.dtype), 0.0)
    return (weights * rewards).sum(1), ends, discounts


class EpisodeBatch(NamedTuple):
    """Steps out of the memory.

    Attributes:
        states: Of their whole episodes, [B, T, D].
        actions: Corrections of the whole episodes, [B, T, L].
        rewards: As the environment gave them, [B, T].
        scales: What to divide them by, [B].
        steps: Which step was drawn, int64 [B].
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    scales: Tensor
    steps: Tensor

    def at(self, steps: Tensor) -> Tensor:
        """States [B, D] at steps [B] of the episodes."""
        return self.states[torch.arange(len(steps), device=steps.device), steps]


class EpisodeMemory:
    """Replay memory of whole episodes; the oldest give way.

    Args:
        episodes: Episodes kept.
        max_steps: Steps T of each.
        state_size: Length D of a state.
        action_size: Length L of an action.
        width_range: Range of the environment's kernel widths, in HR pixels.
        normalisation: As in :func:`~blindsr_agents.hinge_ddpg.replay.reward_scales`.

    Raises:
        UsageError: Nothing could be kept.
    """

    def __init__(
        self,
        episodes: int,
        max_steps: int,
        state_size: int,
        action_size: int,
        width_range: tuple[float, float],
        normalisation: Normalisation,
    ) -> None:
        if episodes < 1:
            raise UsageError(f"a memory of {episodes} episodes keeps nothing: give buffer_size at least an episode")
        self.columns = {
            "states": torch.zeros(episodes, max_steps, state_size),
            "actions": torch.zeros(episodes, max_steps, action_size),
            "rewards": torch.zeros(episodes, max_steps),
            "groups": torch.zeros(episodes, dtype=torch.uint8),
        }
        self.capacity, self._width_range, self._normalisation = episodes, width_range, normalisation
        self.position, self.size = 0, 0
        self.scales = torch.from_numpy(reward_scales(np.ones(1), np.zeros(1), "none"))

    def add(self, states: Tensor, actions: Tensor, rewards: Tensor, widths: np.ndarray) -> None:
        """Keep N episodes: states [N, T, D], actions [N, T, L], rewards [N, T], kernel widths [N]."""
        rows = torch.arange(self.position, self.position + len(rewards)) % self.capacity
        groups = torch.from_numpy(group_widths(widths, self._width_range))
        for name, value in zip(self.columns, (states, actions, rewards, groups), strict=True):
            self.columns[name][rows] = value.to("cpu", self.columns[name].dtype)
        self.position = (self.position + len(rewards)) % self.capacity
        self.size = min(self.size + len(rewards), self.capacity)

    def measure_scales(self) -> None:
        """Renew the scales of the rewards from what is kept."""
        rewards, groups = (self.columns[name][: self.size] for name in ("rewards", "groups"))
        alike = groups[:, None].expand_as(rewards)
        self.scales = torch.from_numpy(reward_scales(rewards.numpy(), alike.numpy(), self._normalisation))

    def draw(self, batch_size: int, rng: np.random.Generator, device: torch.device) -> EpisodeBatch:
        """Draw steps with replacement."""
        rows = torch.from_numpy(rng.integers(self.size, size=batch_size))
        steps = torch.from_numpy(rng.integers(self.columns["rewards"].shape[1], size=batch_size))
        states, actions, rewards, groups = (column[rows] for column in self.columns.values())
        parts = (states, actions, rewards, self.scales[groups.long()], steps)
        return EpisodeBatch(*(part.to(device) for part in parts))

    def state(self) -> dict[str, Any]:
        """The episodes kept, as tensors."""
        kept = {name: column[: self.size].clone() for name, column in self.columns.items()}
        return {"position": self.position, "size": self.size, "scales": self.scales, **kept}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave.

        Raises:
            ValueError: The sizes differ.
        """
        for name, column in self.columns.items():
            if state[name].shape[1:] != column.shape[1:] or len(state[name]) > self.capacity:
                raise ValueError(f"the memory kept {name} of shape {list(state[name].shape)}, now {list(column.shape)}")
            column[: len(state[name])] = state[name]
        self.position, self.size, self.scales = state["position"], state["size"], state["scales"]
