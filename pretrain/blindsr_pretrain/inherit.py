"""Start a network from a smaller one that is trained already."""

from __future__ import annotations

import torch
from torch import nn

from sr_env.models import AMNet
from sr_env.utils.checks import UsageError


@torch.no_grad()
def inherit(network: AMNet, smaller: nn.Module) -> None:
    """Start a network from a trained one that is as large or smaller.

    At the same scale the result renders what the smaller one renders, to rounding (unless one has the box filter and
    the other has not): the channels and blocks that it adds feed into nothing yet, but receive gradients from the first
    step on (Net2Net, Chen et al., 2016). At another scale the tail, whose shape hangs on the scale, keeps its fresh
    initialisation.

    Args:
        network: A freshly initialised network; changed in place.
        smaller: What to start from.

    Raises:
        UsageError: ``smaller`` is no AMNet, or has more channels or blocks, or another code length.
    """
    if not isinstance(smaller, AMNet):
        raise UsageError(f"a {type(smaller).__name__} has no place in an AMNet: start from an AMNet, or from scratch")
    own, other = network.architecture, smaller.architecture
    if other["code_length"] != own["code_length"] or any(other[key] > own[key] for key in ("channels", "blocks")):
        raise UsageError(f"a renderer of {other} does not fit into one of {own}: choose a larger --size")
    channels = other["channels"]

    into, trained = network.state_dict(), smaller.state_dict()  # views: writing to them changes the network
    for name, source in trained.items():
        target = into[name]
        if name.startswith("tail.") and own["scale"] != other["scale"]:
            continue
        if name.endswith("modulation.mlp.2.weight") or name.endswith("modulation.mlp.2.bias"):
            source, target = source.unflatten(0, (2, -1)), target.unflatten(0, (2, -1))  # scales, then shifts
            rows: tuple[slice, ...] = (slice(None), slice(channels))
        else:
            rows = (slice(len(source)),)
        target[rows] = 0
        target[(*rows, *(slice(side) for side in source.shape[len(rows) :]))] = source
    for name, target in into.items():
        if ".conv2." in name and name not in trained:
            target.zero_()
