"""USRNet and USRGAN, which are given the kernel: a data step and a prior step in turn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blindsr_agents.peers.weight_files import count_blocks, fill, read_state
from sr_env.degradation import bicubic_resize
from sr_env.utils.checks import UsageError


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.res = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.res(x)


class _ResUNet(nn.Module):
    """The prior step: a denoiser told the noise level in a fourth channel."""

    def __init__(self, channels: Sequence[int], blocks: int) -> None:
        super().__init__()
        a, b, c, d = channels

        def stage(width: int) -> list[nn.Module]:
            return [_ResidualBlock(width) for _ in range(blocks)]

        def down(before: int, after: int) -> nn.Sequential:
            return nn.Sequential(*stage(before), nn.Conv2d(before, after, 2, stride=2, bias=False))

        def up(before: int, after: int) -> nn.Sequential:
            return nn.Sequential(nn.ConvTranspose2d(before, after, 2, stride=2, bias=False), *stage(after))

        self.m_head = nn.Conv2d(4, a, 3, padding=1, bias=False)
        self.m_down1, self.m_down2, self.m_down3 = down(a, b), down(b, c), down(c, d)
        self.m_body = nn.Sequential(*stage(d))
        self.m_up3, self.m_up2, self.m_up1 = up(d, c), up(c, b), up(b, a)
        self.m_tail = nn.Conv2d(a, 3, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
        one = self.m_head(x)
        two = self.m_down1(one)
        three = self.m_down2(two)
        four = self.m_down3(three)
        x = self.m_up3(self.m_body(four) + four)
        x = self.m_up1(self.m_up2(x + three) + two)
        return self.m_tail(x + one)[..., :height, :width]


class _HyperParameters(nn.Module):
    """Noise level and scale -> the weights of every iteration."""

    def __init__(self, iterations: int, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            *(nn.Conv2d(2, channels, 1), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 1)),
            *(nn.ReLU(inplace=True), nn.Conv2d(channels, 2 * iterations, 1), nn.Softplus()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) + 1e-6


class USRNet(nn.Module):
    """USRNet, of which USRGAN is the weights trained adversarially: alternate a data step and a prior step.

    Its model of the LR image is a periodic blur and every ``scale``-th pixel. Ours is a blur with replicated border and
    bicubic reduction: the bicubic filter is therefore convolved into the kernel, its half-pixel shift included, and
    the LR image is extended so that it continues periodically.

    Source: Zhang et al., "Deep Unfolding Network for Image Super-Resolution", CVPR 2020.

    Args:
        scale: Magnification; the weights serve all.
        channels: Widths of the four stages of the denoiser.
        blocks: Residual blocks per stage.
        iterations: Number of unfolded iterations.
        hidden: Width of the hyper-parameter module.
    """

    reducer: Tensor
    _EXTENSION = 8  # LR pixels over which the far edge passes into the near one

    def __init__(
        self,
        scale: int = 4,
        channels: Sequence[int] = (64, 128, 256, 512),
        blocks: int = 2,
        iterations: int = 8,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        self.scale, self.iterations = scale, iterations
        self.p = _ResUNet(channels, blocks)
        self.h = _HyperParameters(iterations, hidden)
        # The bicubic reduction's weights for offsets -3s .. 3s from the pixel that decimation would keep.
        identity = torch.eye(16 * scale)[None, None]
        row = bicubic_resize(identity, (16, 16 * scale))[0, 0, 8]
        self.register_buffer("reducer", row[5 * scale : 11 * scale + 1].clone(), persistent=False)

    def decimation_kernel(self, kernels: Tensor) -> Tensor:
        """The kernels whose convolution and decimation equal ours with bicubic reduction: [B, K, K] -> [B, K', K']."""
        taps = self.reducer.flip(0)
        spread = F.conv2d(kernels[:, None], torch.outer(taps, taps)[None, None], padding=len(taps) - 1)
        return spread[:, 0].flip(1, 2)  # ours correlate

    def data_step(self, x: Tensor, lr: Tensor, spectrum: Tensor, weight: Tensor) -> Tensor:
        """The minimiser of |lr - decimate(blur(z))|^2 + weight |z - x|^2 over z (Eq. 8-9 of the paper).

        Args:
            x: Present estimate, [B, C, s*h, s*w].
            lr: LR images, [B, C, h, w].
            spectrum: Fourier transform of the kernels, [B, 1, s*h, s*w].
            weight: Shape [B, 1, 1, 1].
        """
        s, (height, width) = self.scale, lr.shape[-2:]
        spread = lr.new_zeros(x.shape)
        spread[..., ::s, ::s] = lr
        right = spectrum.conj() * torch.fft.fft2(spread) + torch.fft.fft2(weight * x)

        def folded(y: Tensor) -> Tensor:
            return y.unflatten(-1, (s, width)).unflatten(-3, (s, height)).mean((-4, -2))

        inverse = folded(spectrum * right) / (folded(spectrum.abs().square()) + weight)
        return torch.fft.ifft2((right - spectrum.conj() * inverse.repeat(1, 1, s, s)) / weight).real

    def forward(self, lr: Tensor, kernels: Tensor) -> Tensor:
        """LR images [B, 3, h, w] in [0, 1] and kernels [B, K, K] summing to one -> SR [B, 3, s*h, s*w]."""
        height, width = (self.scale * side for side in lr.shape[-2:])
        y = _periodic(_periodic(lr.float(), self._EXTENSION, 2), self._EXTENSION, 3)
        size = tuple(self.scale * side for side in y.shape[-2:])
        kernel = self.decimation_kernel(kernels.float())
        kernel = F.pad(kernel, (0, size[1] - kernel.shape[-1], 0, size[0] - kernel.shape[-2]))
        reach = (kernels.shape[-1] + len(self.reducer) - 1) // 2
        spectrum = torch.fft.fft2(kernel.roll((-reach, -reach), (1, 2)))[:, None]
        x = F.interpolate(y, scale_factor=self.scale, mode="nearest")
        noise_and_scale = y.new_tensor([0.0, self.scale]).view(1, 2, 1, 1)  # our LR images carry no noise
        weights = self.h(noise_and_scale).float()
        for step in range(self.iterations):
            x = self.data_step(x, y, spectrum, weights[:, step : step + 1])
            level = weights[:, self.iterations + step, None].expand(len(x), 1, *size)
            x = self.p(torch.cat((x, level), 1)).float()
        return x[..., :height, :width]


def _periodic(x: Tensor, length: int, dim: int) -> Tensor:
    """Extend one axis at its end by a ramp from its last to its first entry, so that it has no jump when repeated."""
    shape = [1] * x.ndim
    shape[dim] = length
    ramp = (torch.arange(1, length + 1, device=x.device, dtype=x.dtype) / (length + 1)).view(shape)
    first, last = x.narrow(dim, 0, 1), x.narrow(dim, x.shape[dim] - 1, 1)
    return torch.cat((x, last + ramp * (first - last)), dim)


def load_usrgan(path: Path, scale: int = 4) -> USRNet:
    """USRGAN (or USRNet, or the tiny ones) from its authors' file; its sizes are read off the tensors.

    Raises:
        MissingFileError: No such file.
        UsageError: It is damaged or holds something else.
    """
    state = read_state(path)
    try:
        network = USRNet(
            scale,
            channels=[
                state["p.m_head.weight"].shape[0],
                *(state[f"p.m_up{stage}.0.weight"].shape[0] for stage in (1, 2, 3)),
            ],
            blocks=count_blocks(state, r"p\.m_body\.(\d+)\."),
            iterations=len(state["h.mlp.4.bias"]) // 2,
            hidden=len(state["h.mlp.0.bias"]),
        )
    except (KeyError, IndexError) as error:
        raise UsageError(
            f"{str(path)!r} does not hold USRNet: {error} is missing; give a file such as usrgan.pth"
        ) from error
    return fill(network, state, str(path))
