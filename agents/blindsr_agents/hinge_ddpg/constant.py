"""Where the actor begins: the pretrained action moved by the offset that the first rewards say is best for all scenes.

One offset is few numbers, which every reward tells something of; what depends on the scene is many, of which each
reward tells little. An actor that learns both at once from a few thousand rewards mistakes the one for the other. So
the first rewards settle the offset, and the actor learns what depends on the scene from there.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: How often the offset is settled anew while it is explored around: each time it may move by one unit of the noise.
ROUNDS = 4
#: Standard errors that a slope must exceed to move the offset.
_ERRORS = 2.0


def best_offset(moves: Tensor, values: Tensor, before: Tensor) -> Tensor:
    """The offset that is best in the mean over scenes, by least squares.

    What a move is worth is fitted by a parabola in each direction of the action space, which begins at zero, as rewards
    above the pretrained actor's do. A direction whose slope is within two standard errors is left as it is pretrained.

    Args:
        moves: What was tried: actions less the pretrained ones, in units of the noise, [N, L].
        values: What each was worth, [N].
        before: The offset that was explored around, [L].

    Returns:
        The offset, [L], in those units; in no direction more than one of them from ``before``.
    """
    length = moves.shape[1]
    terms = torch.cat((moves, -moves.square() / 2), dim=1).double()
    inverse = torch.linalg.pinv(terms.T @ terms, hermitian=True)
    fitted = inverse @ (terms.T @ values.double())
    left = max(len(values) - 2 * length, 1)
    noise = (values - terms @ fitted).square().sum() / left
    errors = (noise * inverse.diagonal()).clamp_min(0).sqrt()
    slope, curvature = fitted.split(length)
    slope_error, curvature_error = errors.split(length)
    slope = slope.sign() * (slope.abs() - _ERRORS * slope_error).clamp_min(0)
    best = slope / torch.maximum(curvature, curvature_error).clamp_min(1e-6)  # a bend that is unknown may be as large
    return torch.clamp(best.float(), before - 1, before + 1)
