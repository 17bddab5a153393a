"""Start a network from a smaller one that is trained already."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from sr_env.degradation import KernelBasis, isotropic_kernels
from sr_env.models import AMNet
from sr_env.models.amnet import AMLayer
from sr_env.utils.checks import UsageError

#: Keeps the map between codes from magnifying what the new basis tells apart and the old one does not.
_RIDGE = 1e-4


@torch.no_grad()
def translated(network: AMNet, old: KernelBasis, new: KernelBasis, old_widths: tuple[float, float]) -> AMNet:
    """A copy that takes the codes of another basis: for Gaussians it renders about what it did before.

    The layers that read codes get the affine map, by least squares, from the new codes of isotropic Gaussians of up to
    twice the widths that the network knows to the old codes, for wider ones to those of the widest. It is a start to be
    trained from. Levels of a longer code change nothing yet.

    Args:
        network: Takes codes of ``old``.
        old: Its kernel basis.
        new: The other one.
        old_widths: Range of the widths that it knows, in HR pixels.
    """
    widths = torch.linspace(old_widths[0], 2 * old_widths[1], 4000, device=new.mean.device)
    codes = new.encode(isotropic_kernels(widths, new.kernel_size))
    wanted = old.encode(isotropic_kernels(widths.clamp(*old_widths), old.kernel_size)).double()
    known = F.pad(codes, (0, 1), value=1.0).double()
    normal = known.T @ known / len(known) + _RIDGE * torch.eye(known.shape[1], device=known.device)
    solution = torch.linalg.solve(normal, known.T @ wanted / len(known)).float()
    matrix, shift = solution[:-1], solution[-1]  # [L new, L old], [L old]
    made = deepcopy(network)
    made.code_length = new.code_length
    for layer in made.modules():
        if isinstance(layer, AMLayer):
            first = layer.mlp[0]
            assert isinstance(first, nn.Linear)
            first.bias.add_(first.weight @ shift)
            first.weight = nn.Parameter(first.weight @ matrix.T)
            first.in_features = new.code_length
    return made


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
