"""Perceptual distances in the features of trained networks: LPIPS and DISTS."""

from __future__ import annotations

import importlib.util
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from sr_env.metrics.base import Metric, register
from sr_env.metrics.features import ConvFeatures
from sr_env.metrics.weights import alexnet_features, load_asset, vgg16_features
from sr_env.utils.checks import WeightsUnavailable


def _lpips_heads(net: str) -> list[Tensor]:
    """The learned channel weights of LPIPS v0.1, from the installed lpips package (read, not imported)."""
    spec = importlib.util.find_spec("lpips")
    if spec is None or not spec.submodule_search_locations:
        raise WeightsUnavailable("LPIPS needs the package lpips for its learned weights: pip install 'lpips>=0.1.4'")
    path = Path(spec.submodule_search_locations[0]) / "weights" / "v0.1" / f"{net}.pth"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsUnavailable(f"{path} cannot be used ({error}): install lpips again") from error
    return [state[f"lin{index}.model.1.weight"].flatten() for index in range(5)]


class _LPIPS(Metric):
    """Learned perceptual image patch similarity, version 0.1: weighted squared distance of unit-length features.

    Equal to the authors' package ``lpips`` given the same trunk; written here because there the features of the
    reference cannot be computed once for several SR candidates.

    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, Eq. 1.
    """

    higher_is_better = False
    learned = True
    net: str
    layers: tuple[int, ...]
    features: Callable[..., ConvFeatures]

    def __init__(
        self,
        border: int = 0,
        *,
        weights: str | os.PathLike[str] | None = None,
        backbone: ConvFeatures | None = None,
    ) -> None:
        super().__init__(border)
        self.backbone = backbone or self.features(self.layers, weights=weights)
        self.heads = nn.ParameterList(nn.Parameter(head, requires_grad=False) for head in _lpips_heads(self.net))

    def _encode(self, image: Tensor) -> list[Tensor]:
        features = (x.float() for x in self.backbone(image))
        return [x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + 1e-10) for x in features]

    def _compare(self, sr: list[Tensor], hr: list[Tensor]) -> Tensor:
        distances = [
            (x - y).square_().sum((2, 3)) @ head / (x.shape[2] * x.shape[3])
            for x, y, head in zip(sr, hr, self.heads, strict=True)
        ]
        return torch.stack(distances).sum(0)


@register
class LPIPSAlex(_LPIPS):
    """LPIPS on AlexNet features, the variant that papers report. Lower is better; works offline.

    Args:
        border: Pixels cropped from every side first.
        weights: File with AlexNet's weights to use instead of those in the package.
        backbone: Ready features (ReLUs 1, 4, 7, 9, 11 of AlexNet) to use instead.
    """

    name = "lpips"
    title = "LPIPS"
    net = "alex"
    layers = (1, 4, 7, 9, 11)
    features = staticmethod(alexnet_features)
    min_size = 31


@register
class LPIPSVGG(_LPIPS):
    """LPIPS on VGG16 features. Lower is better.

    Args:
        border: Pixels cropped from every side first.
        weights: File with VGG16's weights; None finds or fetches them, see :mod:`sr_env.metrics.weights`.
        backbone: Ready features (ReLUs 3, 8, 15, 22, 29 of VGG16) to use instead.

    Raises:
        WeightsUnavailable: VGG16's weights cannot be had (names everything tried).
    """

    name = "lpips_vgg"
    title = "LPIPS-VGG"
    net = "vgg"
    layers = (3, 8, 15, 22, 29)
    features = staticmethod(vgg16_features)
    min_size = 16


@register
class DISTS(Metric):
    """Deep image structure and texture similarity on VGG16 features with L2 pooling. Lower is better.

    Computed at the images' own size, as the authors' code does unless it is asked to resize.

    Source: Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity", TPAMI 2020, Eq. 4-6.

    Args:
        border: Pixels cropped from every side first.
        weights: File with VGG16's weights; None finds or fetches them, see :mod:`sr_env.metrics.weights`.
        backbone: Ready features (ReLUs 3, 8, 15, 22, 29 of VGG16 with L2 pooling) to use instead.

    Raises:
        WeightsUnavailable: VGG16's weights cannot be had (names everything tried).
    """

    name = "dists"
    title = "DISTS"
    higher_is_better = False
    learned = True
    min_size = 2
    alpha: Tensor
    beta: Tensor

    def __init__(
        self,
        border: int = 0,
        *,
        weights: str | os.PathLike[str] | None = None,
        backbone: ConvFeatures | None = None,
    ) -> None:
        super().__init__(border)
        self.backbone = backbone or vgg16_features((3, 8, 15, 22, 29), weights=weights, l2_pooling=True)
        learned, _ = load_asset("dists.safetensors")
        total = learned["alpha"].sum() + learned["beta"].sum()
        self.register_buffer("alpha", learned["alpha"] / total, persistent=False)
        self.register_buffer("beta", learned["beta"] / total, persistent=False)

    def _encode(self, image: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Features, and their mean and variance over each map."""
        encoded = []
        for x in (image, *(features.float() for features in self.backbone(image))):
            variance, mean = torch.var_mean(x, (2, 3), correction=0)
            encoded.append((x, mean, variance))
        return encoded

    def _compare(self, sr: list[tuple[Tensor, Tensor, Tensor]], hr: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        c = 1e-6
        texture, structure = [], []
        for (x, mean_x, variance_x), (y, mean_y, variance_y) in zip(sr, hr, strict=True):
            texture.append((2 * mean_x * mean_y + c) / (mean_x.square() + mean_y.square() + c))
            covariance = (x * y).mean((2, 3)) - mean_x * mean_y
            structure.append((2 * covariance + c) / (variance_x + variance_y + c))
        return 1 - torch.cat(texture, 1) @ self.alpha - torch.cat(structure, 1) @ self.beta
