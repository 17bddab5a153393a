"""Critic losses: Algorithm 1's hinge as printed, forms of it that can learn, and the squared error of stock DDPG.

Algorithm 1 of "Learning the Non-differentiable Optimization for Blind Super-Resolution" (Hui, Li, Wang, Gao, CVPR
2021) fits the critic to the reward r of a one-step episode. Critic losses take Q and r of one shape and return the mean
over all elements; :func:`squash` makes r of the environment's rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_env.utils.checks import check_choice

#: Squashed rewards are clipped to this magnitude, and shifted by it.
REWARD_CLIP = 3.0
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
        UsageError: Unknown name, listing the valid ones.
    """
    check_choice("critic loss", name, CRITIC_LOSSES)
    return CRITIC_LOSSES[name]


def squash(rewards: Tensor, scale: Tensor | float) -> Tensor:
    """What the critics are fitted to: ``asinh(r / scale)``, clipped to [-REWARD_CLIP, REWARD_CLIP].

    In a one-step episode any increasing function of the reward has the same best action in every scene. This one, about
    linear up to ``scale`` and logarithmic beyond, keeps the scenes with the largest rewards (in practice those of one
    kernel width) from ruling the mean, and a reward of zero, which is the pretrained actor's, apart from small ones.
    """
    return torch.asinh(rewards / scale).clamp(-REWARD_CLIP, REWARD_CLIP)


def contrast(q: Tensor, target: Tensor, times: int) -> Tensor:
    """How badly critics tell the actions on one scene apart: mean Huber loss of their differences, in units of these.

    Once the actor has moved, most of the reward's variance is how well the move suits a scene, much of which no critic
    can see in the LR image. It is the same for all actions on that scene, and the actor climbs differences.

    Args:
        q: Advantages by every critic, [n_critics, B].
        target: What they should be, of the same shape.
        times: Neighbours that share a scene, a divisor of B.
    """
    given, true = (x.unflatten(-1, (-1, times)) - x.unflatten(-1, (-1, times)).mean(-1, True) for x in (q, target))
    size = true.square().mean().sqrt().clamp_min(1e-6)
    return F.smooth_l1_loss(given / size, true / size)
