"""Exploration noise that changes the picture alike in every direction of the action space.

A renderer answers to some directions of the code twenty times as strongly as to others: to the kernel's width most, to
what tells the kernel from a Gaussian least. Noise of one size in all components spends itself on wrong widths, which
always cost, and hardly tries the directions in which a sharper or softer look is to be had at little loss.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sr_env.simulator import UNIFORMS_PER_SCENE, Simulator
from sr_env.utils.checks import UsageError

#: Batches of scenes on which the renderer's answer is measured, and their size.
_BATCHES, _BATCH = 4, 6


def opposite_pairs(rng: np.random.Generator, scenes: int, times: int, length: int) -> np.ndarray:
    """Unit normal noise [scenes * times, length]; the ``times`` draws for a scene lie in opposite pairs."""
    drawn = rng.standard_normal((scenes, (times + 1) // 2, length))
    pairs = np.stack((drawn, -drawn), axis=2).reshape(scenes, -1, length)[:, :times]
    return pairs.reshape(scenes * times, length)


def noise_shape(change: Tensor, noise: float, limit: float) -> Tensor:
    """The matrix S, symmetric [L, L], that makes ``e @ S`` exploration noise of unit normal e.

    Args:
        change: How strongly actions change the picture, [L, L]: see :meth:`~sr_env.simulator.Simulator.change`.
        noise: What noise changes the picture by in each direction, root mean square in grey levels.
        limit: Standard deviation in action units that no direction exceeds, however little it changes the picture.

    Raises:
        UsageError: ``noise`` or ``limit`` is not positive.
    """
    for name, value in (("noise", noise), ("noise_limit", limit)):
        if not 0 < value < float("inf"):
            raise UsageError(f"{name} {value} does not fit: give a positive number")
    variances, directions = torch.linalg.eigh(change.double())
    sizes = (noise / variances.clamp_min(1e-12).sqrt()).clamp(max=limit)
    return (directions * sizes @ directions.T).float()


def measured_noise_shape(simulator: Simulator, noise: float, limit: float, seed: int | None) -> Tensor:
    """:func:`noise_shape` of what actions around the reference's change on some scenes of a simulator.

    Args:
        simulator: Draws and renders.
        noise: As in :func:`noise_shape`.
        limit: As in :func:`noise_shape`.
        seed: Of the scenes, whose kernel widths are drawn like any.
    """
    noise_shape(torch.eye(1), noise, limit)  # a wrong number shows before the work
    length = simulator.controls.length
    change = torch.zeros(length, length, device=simulator.device)
    for uniforms in np.random.default_rng(seed).random((_BATCHES, _BATCH, UNIFORMS_PER_SCENE)):
        scenes = simulator.draw(uniforms)
        change += simulator.change(scenes, simulator.reconstruct(scenes)[1]) / _BATCHES
    return noise_shape(change, noise, limit)
