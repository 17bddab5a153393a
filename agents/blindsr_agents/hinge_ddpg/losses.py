"""Critic losses: Algorithm 1's hinge as printed, forms of it that can learn, and the squared error of stock DDPG.

Algorithm 1 of "Learning the Non-differentiable Optimization for Blind Super-Resolution" (Hui, Li, Wang, Gao, CVPR
2021) fits the critic to the reward r of a one-step episode. All functions take Q and r of one shape and return the
mean over all elements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor

from sr_env.utils.checks import check_choice

CriticLoss = Callable[[Tensor, Tensor, float], Tensor]


def printed(q: Tensor, reward: Tensor, gamma: float) -> Tensor:
    """``mean(max(0, -gamma Q) + (r - Q))``, the line of Algorithm 1 as it is printed.

    Its gradient with respect to Q is -1 where Q > 0 and -(1 + gamma) where Q < 0, whatever r is: Q grows without bound
    and learns nothing. It is here to show that.
    """
    return (F.relu(-gamma * q) + (reward - q)).mean()


def hinge_l2(q: Tensor, reward: Tensor, gamma: float) -> Tensor:
    """``mean(max(0, -gamma Q) + (r - Q)^2)``: Algorithm 1 with the difference squared, the default.

    A sample's loss is least at Q = r where r >= 0, at Q = 0 where -gamma/2 <= r < 0, and at Q = r + gamma/2 below. So
    the hinge cannot tell small negative rewards from none: give it non-negative ones.
    """
    return (F.relu(-gamma * q) + (reward - q).square()).mean()


def hinge_l1(q: Tensor, reward: Tensor, gamma: float) -> Tensor:
    """``mean(max(0, -gamma Q) + |r - Q|)``: Algorithm 1 with the difference's magnitude.

    Least at Q = r (for gamma < 1 also where r < 0).
    """
    return (F.relu(-gamma * q) + (reward - q).abs()).mean()


def hinge_margin(q: Tensor, reward: Tensor, gamma: float) -> Tensor:
    """``mean(max(0, r - (1 + gamma) Q))``: Algorithm 1's terms under one hinge.

    Zero for every Q >= r / (1 + gamma): Q is pushed up to that bound, and nothing pulls an overestimate down.
    """
    return F.relu(reward - (1 + gamma) * q).mean()


def mse(q: Tensor, reward: Tensor, gamma: float) -> Tensor:
    """``mean((r - Q)^2)``: DDPG's critic loss for episodes of one step; ``gamma`` plays no part."""
    return F.mse_loss(q, reward)


CRITIC_LOSSES: Mapping[str, CriticLoss] = {
    "printed": printed,
    "hinge_l2": hinge_l2,
    "hinge_l1": hinge_l1,
    "hinge_margin": hinge_margin,
    "mse": mse,
}


def critic_loss(name: str) -> CriticLoss:
    """Look a loss up by name.

    Raises:
        ValueError: Unknown name, listing the valid ones.
    """
    check_choice("critic loss", name, CRITIC_LOSSES)
    return CRITIC_LOSSES[name]
