"""Convolution features of AlexNet, VGG16 and VGG19 in torchvision's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_env.utils.checks import UsageError

# torchvision's layout of `features`: output channels of a 3x3 convolution with its ReLU, "M" for a 2x2 max pooling.
_VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
_VGG19 = (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4)
ARCHITECTURES = ("alexnet", "vgg16", "vgg19")


def torchvision_layers(arch: str) -> list[nn.Module]:
    """The layers of torchvision's ``features``, at the same indices (the last pooling, never needed, is left out)."""
    if arch == "alexnet":
        return [
            *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True)),
        ]
    layers: list[nn.Module] = []
    channels = 3
    for item in _VGG16 if arch == "vgg16" else _VGG19:
        if isinstance(item, int):
            layers += [nn.Conv2d(channels, item, 3, padding=1), nn.ReLU(inplace=True)]
            channels = item
        else:
            layers.append(nn.MaxPool2d(2, 2))
    return layers


class L2Pool(nn.Module):
    """Square root of the Hann-weighted local mean of squares, stride 2: the pooling of DISTS.

    Source: Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity", TPAMI 2020, Eq. 3.
    """

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.hann_window(5, periodic=False, dtype=torch.float64)[1:-1]
        window = torch.outer(taps, taps)
        self.register_buffer("window", (window / window.sum()).float()[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``x`` [B, C, H, W] to [B, C, ceil(H/2), ceil(W/2)]."""
        channels = x.shape[1]
        window = self.window.expand(channels, 1, 3, 3)
        return (F.conv2d(x.square(), window, stride=2, padding=1, groups=channels) + 1e-12).sqrt()


class ConvFeatures(nn.Module):
    """Frozen ImageNet features: ReLU outputs of AlexNet, VGG16 or VGG19 for images in [0, 1].

    Args:
        arch: ``"alexnet"``, ``"vgg16"`` or ``"vgg19"``.
        layers: Ascending indices into torchvision's ``features``; each must be a ReLU, for example
            (1, 6, 11, 18, 25) for relu1_1 .. relu5_1 of VGG16 and (1, 6, 11, 20, 29) of VGG19.
        state: ``features.N.weight`` / ``features.N.bias`` tensors; modules given the same tensors share their memory.
            None leaves a random initialisation (tests).
        source: Where the weights came from, kept as the attribute of that name.
        l2_pooling: Replace the max pooling by :class:`L2Pool`, as DISTS does.

    Raises:
        UsageError: ``arch`` is unknown, or ``layers`` is empty, not ascending, or names something other than a ReLU.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        arch: str,
        layers: Sequence[int],
        state: Mapping[str, Tensor] | None = None,
        *,
        source: str = "random",
        l2_pooling: bool = False,
    ) -> None:
        super().__init__()
        check_arch(arch)
        with torch.device("cpu" if state is None else "meta"):  # no random numbers drawn for weights that come
            modules = torchvision_layers(arch)
        relus = [index for index, module in enumerate(modules) if isinstance(module, nn.ReLU)]
        self.layers = tuple(layers)
        if not self.layers or list(self.layers) != sorted(set(self.layers) & set(relus)):
            raise UsageError(f"layers of {arch} must be ascending ReLU indices out of {relus}, not {list(layers)}")
        self.arch = arch
        self.source = source
        used = modules[: self.layers[-1] + 1]
        if l2_pooling:
            used = [L2Pool() if isinstance(module, nn.MaxPool2d) else module for module in used]
        self.features = nn.Sequential(*used)
        if state is not None:
            own = {key: value for key, value in state.items() if key in self.state_dict()}
            self.load_state_dict(own, assign=True)
        self.requires_grad_(False)
        self.eval()
        # ImageNet statistics. LPIPS' scaling layer for images in [-1, 1] is the same map.
        self.register_buffer(
            "mean", torch.tensor([0.485, 0.456, 0.406], dtype=torch.float32)[:, None, None], persistent=False
        )
        self.register_buffer(
            "std", torch.tensor([0.229, 0.224, 0.225], dtype=torch.float32)[:, None, None], persistent=False
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """ReLU outputs of ``image`` [B, 3, H, W] in [0, 1], one [B, C_l, H_l, W_l] for each of ``layers``."""
        x = (image - self.mean) / self.std
        outputs = []
        for index, module in enumerate(self.features):
            x = module(x)
            if index in self.layers:
                outputs.append(x)
        return outputs


def check_arch(arch: str) -> None:
    """Raise :class:`UsageError` unless the backbone is known."""
    if arch not in ARCHITECTURES:
        raise UsageError(f"unknown backbone {arch!r}; choose one of {', '.join(ARCHITECTURES)}")
