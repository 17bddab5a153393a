"""Several critics as one network: their weights lie side by side, and every layer is one batched product.

The networks are small, so that apart from each other they spend as long on being called as on computing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_env.utils.checks import UsageError


class EnsembleLinear(nn.Module):
    """A linear layer of each of n networks.

    Args:
        members: n.
        inputs: Numbers taken.
        outputs: Numbers given.
        bias: Whether a bias is added.

    Attributes:
        weight: [n, outputs, inputs]; a member's is that of :class:`torch.nn.Linear`, and so is its start.
        bias: [n, outputs], or None.
    """

    bias: Tensor | None

    def __init__(self, members: int, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(members, outputs, inputs).uniform_(-bound, bound))
        self.register_parameter(
            "bias", nn.Parameter(torch.empty(members, outputs).uniform_(-bound, bound)) if bias else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Rows [n, R, inputs], or [R, inputs] for all members -> [n, R, outputs]."""
        x, weight = x.expand(len(self.weight), -1, -1), self.weight.transpose(1, 2)
        return torch.bmm(x, weight) if self.bias is None else torch.baddbmm(self.bias[:, None], x, weight)


class EnsembleNorm(nn.Module):
    """A layer normalisation of each of n networks.

    Args:
        members: n.
        size: Numbers in a row.

    Attributes:
        weight: [n, size].
        bias: [n, size].
    """

    def __init__(self, members: int, size: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(members, size)), nn.Parameter(torch.zeros(members, size))

    def forward(self, x: Tensor) -> Tensor:
        """Rows [n, R, size] -> the same, normalised."""
        return torch.addcmul(self.bias[:, None], F.layer_norm(x, x.shape[-1:]), self.weight[:, None])


class QEnsemble(nn.Module):
    """n critics: description and move -> advantage of the moved action over the pretrained one, smooth in the move.

    A critic is asked twice, about the move and about staying, and the difference counts: it is zero where the action is
    the pretrained one, as the reward is by definition, so that nothing has to be learned of how good a scene is.

    A run sees a few thousand scenes, and a description has hundreds of numbers: without dropout the critics learn the
    scenes by heart within a thousand updates, and the actor climbs what they made up in between.

    Args:
        members: n.
        description_size: D.
        action_size: L.
        hidden: Width of the hidden layers.
        dropout: Share of the inputs and hidden units left out in training: the same for all moves of a scene, which
            makes them comparable, and others for every critic.

    Raises:
        UsageError: ``dropout`` is outside [0, 1).
    """

    def __init__(self, members: int, description_size: int, action_size: int, hidden: int, dropout: float) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout {dropout} is no share of the units to leave out: give 0 or more, under 1")
        self.dropout = dropout
        self.scene = EnsembleLinear(members, description_size, hidden)
        self.action = EnsembleLinear(members, action_size, hidden, bias=False)
        # A critic with normalised layers extrapolates less wildly where the actor has not been.
        self.first = nn.Sequential(EnsembleNorm(members, hidden), nn.SiLU())
        self.second = nn.Sequential(EnsembleLinear(members, hidden, hidden), EnsembleNorm(members, hidden), nn.SiLU())
        self.last = EnsembleLinear(members, hidden, 1, bias=False)

    def __len__(self) -> int:
        return len(self.last.weight)

    def forward(self, description: Tensor, move: Tensor) -> Tensor:
        """Descriptions [B, D] and moves [B, L] (or [B, K, L], K for each scene) -> [n, B] (or [n, B, K])."""
        moves = move if move.ndim == 3 else move[:, None]
        values = self.values(description, torch.cat((torch.zeros_like(moves[:, :1]), moves), dim=1))
        advantages = values[..., 1:] - values[..., :1]
        return advantages if move.ndim == 3 else advantages[..., 0]

    def values(self, description: Tensor, moves: Tensor) -> Tensor:
        """Descriptions [B, D] and moves [B, K, L] -> values [n, B, K], of which only differences mean something."""
        scenes, count = moves.shape[:2]
        n = len(self)
        scene = self.scene(self._drop(description[None, :, None].expand(n, -1, -1, -1)).squeeze(2))
        x = scene[:, :, None] + self.action(moves.flatten(0, 1)).unflatten(1, (scenes, count))
        x = self._drop(self.first(x.flatten(1, 2)).unflatten(1, (scenes, count)))
        x = self._drop(self.second(x.flatten(1, 2)).unflatten(1, (scenes, count)))
        values: Tensor = self.last(x.flatten(1, 2)).view(n, scenes, count)
        return values

    def _drop(self, x: Tensor) -> Tensor:
        """Dropout of [n, B, K, H] that leaves out the same units for all moves of a scene."""
        if not (self.training and self.dropout):
            return x
        # Four units share the bits of one random number, which takes a fifth of the time of Bernoulli's.
        size = x.shape[3]
        bits = torch.empty((*x.shape[:2], 1, -(-size // 4)), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        kept = bits.view(torch.int16)[..., :size] >= round(2**16 * self.dropout) - 2**15
        return x * kept.to(x.dtype).div_(1 - self.dropout)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        if f"{prefix}0.scene.weight" in state_dict:
            raise UsageError(
                "its critics were saved one by one, as by earlier versions, and are now one ensemble: train the agent "
                "anew (an actor that it exported still loads)"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
