"""DAN, which is blind: it estimates the kernel's code and restores in turn."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from blindsr_agents.peers.weight_files import count_blocks, fill, read_state
from sr_env.utils.checks import UsageError


class _ChannelAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // 16
        self.body = nn.Sequential(
            nn.Conv2d(channels, narrow, 1), nn.LeakyReLU(0.2), nn.Conv2d(narrow, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.body(x.mean((2, 3), keepdim=True))


class _ConditionalBlock(nn.Module):
    """Residual block whose convolutions also see a condition (maps of the code, or features of the other image)."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        both = channels + condition
        self.body = nn.Sequential(
            nn.Conv2d(both, both, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(both, channels, 3, padding=1),
            _ChannelAttention(channels),
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return x + self.body(torch.cat((x, condition), 1))


class _Restorer(nn.Module):
    """LR and kernel code -> SR."""

    def __init__(self, scale: int, channels: int, blocks: int, code_length: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.ModuleList(_ConditionalBlock(channels, code_length) for _ in range(blocks))
        self.fusion = nn.Conv2d(channels, channels, 3, padding=1)
        steps = (2, 2) if scale == 4 else (scale,)
        upscale: list[nn.Module] = []
        for step in steps:
            upscale += [nn.Conv2d(channels, channels * step**2, 3, padding=1), nn.PixelShuffle(step)]
        self.upscale = nn.Sequential(*upscale, nn.Conv2d(channels, 3, 3, padding=1))

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        maps = code[:, :, None, None].expand(-1, -1, *lr.shape[-2:])
        features = self.head(lr)
        for block in self.body:
            features = block(features, maps)
        return self.upscale(self.fusion(features))


class _Estimator(nn.Module):
    """SR and LR -> kernel code."""

    def __init__(self, scale: int, channels: int, blocks: int, code_length: int) -> None:
        super().__init__()
        self.head_LR = nn.Conv2d(3, channels, 1)
        self.head_HR = nn.Conv2d(3, channels, 9, stride=scale, padding=4)
        self.body = nn.ModuleList(_ConditionalBlock(channels, channels) for _ in range(blocks))
        self.out = nn.Conv2d(channels, code_length, 3, padding=1)

    def forward(self, sr: Tensor, lr: Tensor) -> Tensor:
        features, condition = self.head_LR(lr), self.head_HR(sr)
        for block in self.body:
            features = block(features, condition)
        return self.out(features).mean((2, 3))


class DAN(nn.Module):
    """DAN (version 1): restore with the present kernel code, estimate the code from the result, and so on.

    Source: Luo et al., "Unfolding the Alternating Optimization for Blind Super Resolution", NeurIPS 2020.

    Args:
        scale: Magnification, 2, 3 or 4.
        channels: Width of the restorer.
        blocks: Blocks of the restorer.
        estimator_channels: Width of the estimator.
        estimator_blocks: Blocks of the estimator.
        code_length: Length of the kernel code.
        kernel_size: Kernel side.
        loops: Number of restorations.
    """

    init_ker_map: Tensor

    def __init__(
        self,
        scale: int = 4,
        channels: int = 64,
        blocks: int = 40,
        estimator_channels: int = 32,
        estimator_blocks: int = 5,
        code_length: int = 10,
        kernel_size: int = 21,
        loops: int = 4,
    ) -> None:
        super().__init__()
        self.scale, self.loops = scale, loops
        # The authors' names, so that their files fit.
        self.Restorer = _Restorer(scale, channels, blocks, code_length)
        self.Estimator = _Estimator(scale, estimator_channels, estimator_blocks, code_length)
        self.register_buffer("encoder", torch.zeros(1, kernel_size**2, code_length))
        self.register_buffer("init_kernel", torch.zeros(1, kernel_size, kernel_size))
        self.register_buffer("init_ker_map", torch.zeros(1, code_length))

    def forward(self, lr: Tensor) -> Tensor:
        """LR images [B, 3, h, w] in [0, 1] -> SR [B, 3, s*h, s*w]."""
        sr = self.Restorer(lr, self.init_ker_map.expand(len(lr), -1))
        for _ in range(self.loops - 1):
            sr = self.Restorer(lr, self.Estimator(sr, lr))
        return sr


def load_dan(path: Path, scale: int = 4) -> DAN:
    """DAN from its authors' file (``danv1_x4_setting1.pth``); its sizes are read off the tensors.

    Raises:
        MissingFileError: No such file.
        UsageError: It is damaged, for another scale, or not DAN's first version (the second is another network).
    """
    state = read_state(path)
    if "Restorer.head1.weight" in state:
        raise UsageError(f"{str(path)!r} is DAN's second version: give a file of the first, such as danv1_x4_setting1")
    try:
        channels = state["Restorer.head.weight"].shape[0]
        first = len(state["Restorer.upscale.0.bias"]) // channels  # x4 enlarges twice by two
        found = 4 if "Restorer.upscale.4.weight" in state else math.isqrt(first)
        network = DAN(
            scale=found,
            channels=channels,
            blocks=count_blocks(state, r"Restorer\.body\.(\d+)\."),
            estimator_channels=state["Estimator.head_LR.weight"].shape[0],
            estimator_blocks=count_blocks(state, r"Estimator\.body\.(\d+)\."),
            code_length=state["encoder"].shape[2],
            kernel_size=math.isqrt(state["encoder"].shape[1]),
        )
    except (KeyError, IndexError) as error:
        raise UsageError(
            f"{str(path)!r} does not hold DAN: {error} is missing; give a file such as danv1_x4_setting1.pth"
        ) from error
    if found != scale:
        raise UsageError(f"DAN in {str(path)!r} is for scale {found}, not {scale}: give the file for that scale")
    return fill(network, state, str(path))
