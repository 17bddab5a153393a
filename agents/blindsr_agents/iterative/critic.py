"""Critics of corrections: what a correction gains, and what the steps after it are worth."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blindsr_agents.hinge_ddpg import EnsembleLinear, EnsembleNorm, QEnsemble
from blindsr_agents.iterative.corrector import Corrector, silence


class CorrectionCritic(nn.Module):
    """An ensemble of critics of corrections.

    A critic's value is what the correction gains, plus what the steps after it are worth if nothing is corrected now.
    The first is a difference of one network's values at the code after the correction and at the code before, so that
    no correction gains nothing, as in the environment, and all steps share what is learned of the scene's landscape.
    The second is zero at the last step.

    Args:
        corrector: Whose states are judged.
        n_critics: Size of the ensemble.
        hidden: Width of the hidden layers.
        dropout: Share of the inputs and hidden units left out in training.
    """

    def __init__(self, corrector: Corrector, n_critics: int, hidden: int = 256, dropout: float = 0.2) -> None:
        super().__init__()
        size, length = corrector.state_size, corrector.pretrained.code_length
        self.landscapes = QEnsemble(n_critics, size, length, hidden, dropout)
        self.prospects = _prospects(n_critics, size, hidden, dropout)

    def gain(self, corrector: Corrector, states: Tensor, actions: Tensor) -> Tensor:
        """Values of corrections [B, L] in states [B, D] above that of none, by every critic, [n_critics, B]."""
        code = corrector.split(states).code
        both = torch.stack([corrector.moved(states, c) for c in (code, corrector.correct(code, actions))], dim=1)
        values = self.landscapes.values(corrector.inputs(states), both)
        return values[..., 1] - values[..., 0]

    def prospect(self, corrector: Corrector, states: Tensor) -> Tensor:
        """Values of correcting nothing in states [B, D], by every critic, [n_critics, B]."""
        inputs, last = corrector.inputs(states), corrector.split(states).step[:, -1]
        prospects: Tensor = self.prospects(inputs.expand(len(self.landscapes), -1, -1))[..., 0]
        return prospects * (1 - last)

    def forward(self, corrector: Corrector, states: Tensor, actions: Tensor) -> Tensor:
        """Values of corrections [B, L] in states [B, D], by every critic, [n_critics, B]."""
        return self.gain(corrector, states, actions) + self.prospect(corrector, states)


def _prospects(members: int, size: int, hidden: int, dropout: float) -> nn.Sequential:
    """Inputs [n, B, size] of n members -> [n, B, 1], zeros at first."""
    last = EnsembleLinear(members, hidden, 1)
    silence(last)
    first = (nn.Dropout(dropout), EnsembleLinear(members, size, hidden), EnsembleNorm(members, hidden), nn.SiLU())
    return nn.Sequential(*first, nn.Dropout(dropout), last)
