"""The one interface of all metrics, their registry, and weighted sums of metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from sr_env.utils.devices import resolve_device

Values = TypeVar("Values", Tensor, np.ndarray)


@dataclass(frozen=True)
class Prepared:
    """HR images as one metric needs them, so that several SR candidates are scored against them at the cost of one.

    Attributes:
        metric: Name of the metric that made it.
        border: The border that metric crops.
        shape: Shape [B, 3, H, W] of the HR images.
        data: Whatever the metric compares.
    """

    metric: str
    border: int
    shape: torch.Size
    data: Any

    def repeat(self, times: int) -> Prepared:
        """The same with every image ``times`` times in a row, for several SR candidates of each."""
        data = tree_map(lambda tensor: tensor.repeat_interleave(times, 0), self.data)
        return replace(self, shape=torch.Size((self.shape[0] * times, *self.shape[1:])), data=data)


class Metric(nn.Module):
    """One image quality metric: a batch of images in, one float32 value per image out.

    A subclass sets the class attributes and implements ``_encode`` and ``_compare`` (or only ``_encode``, returning
    the values, where no reference is needed).

    Args:
        border: Pixels cropped from every side before anything is computed (papers report PSNR and SSIM with
            ``border = scale``).

    Attributes:
        name: Name in the registry.
        higher_is_better: Direction.
        needs_reference: Whether HR images are needed.
        differentiable: Whether gradients reach the SR images.
        unit: Unit for display, ``"dB"`` or empty.
        min_size: Smallest height and width after cropping.
        learned: Whether it looks through a trained network, which may then run in less than float32.
        full_precision: Compute everything in float32. Set it to False on a learned metric, as for a training loss, and
            the ambient autocast reaches its backbone; comparing stays in float32.

    Raises:
        ValueError: ``border`` is not a non-negative integer.
    """

    name: str
    higher_is_better: bool
    needs_reference: bool = True
    differentiable: bool = True
    unit: str = ""
    min_size: int = 1
    learned: bool = False
    full_precision: bool = True

    def __init__(self, border: int = 0) -> None:
        super().__init__()
        if isinstance(border, bool) or not isinstance(border, int) or border < 0:
            raise ValueError(f"border must be a number of pixels >= 0, not {border!r}")
        self.border = border

    def prepare(self, hr: Tensor) -> Prepared:
        """Compute what depends on the HR images alone; pass the result to the call in their place.

        Args:
            hr: Images [B, 3, H, W] in [0, 1].

        Raises:
            ValueError: The metric needs no reference, or the shape or type is wrong.
        """
        if not self.needs_reference:
            raise ValueError(f"{self.name} needs no reference: call it with the SR images alone")
        self._check(hr, "hr")
        with self._precision(hr):
            return Prepared(self.name, self.border, hr.shape, self._encode(self._crop(hr)))

    def forward(self, sr: Tensor, hr: Tensor | Prepared | None = None) -> Tensor:
        """Score images; gradients flow where ``differentiable`` and no graph is built where nothing asks for one.

        Args:
            sr: Images [B, 3, H, W] in [0, 1] (not checked: it would cost a synchronisation), any float type.
            hr: References of the same size, B or one of them, or the result of :meth:`prepare`. Ignored by metrics
                that need none.

        Returns:
            Values [B], float32, on the device of ``sr``.

        Raises:
            ValueError: A shape or type is wrong, the images are too small, or a reference is missing or was prepared
                by another metric.
        """
        self._check(sr, "sr")
        if not self.needs_reference:
            with self._precision(sr), torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
                values: Tensor = self._encode(self._crop(sr))
                return values.float()
        if hr is None:
            raise ValueError(f"{self.name} compares with a reference: call it as metric(sr, hr)")
        reference = hr if isinstance(hr, Prepared) else self.prepare(hr)
        if (reference.metric, reference.border) != (self.name, self.border):
            raise ValueError(
                f"the reference was prepared by {reference.metric} with border {reference.border}, not by "
                f"{self.name} with border {self.border}: prepare it with the metric that is called"
            )
        if reference.shape[1:] != sr.shape[1:] or reference.shape[0] not in (1, sr.shape[0]):
            raise ValueError(
                f"sr {list(sr.shape)} and hr {list(reference.shape)} must have the same size, and hr as many "
                f"images as sr or one"
            )
        with self._precision(sr):
            encoded = self._encode(self._crop(sr))
        with torch.autocast(sr.device.type, enabled=False):
            return self._compare(encoded, reference.data).float()

    def worsening(self, values: Values, reference: Values) -> Values:
        """How much worse values are than others, in the metric's unit; negative where they are better."""
        return reference - values if self.higher_is_better else values - reference

    def extra_repr(self) -> str:
        """Shown by ``print(metric)``."""
        return f"name={self.name}, border={self.border}"

    def _precision(self, image: Tensor) -> AbstractContextManager[object]:
        return torch.autocast(image.device.type, enabled=False) if self.full_precision else nullcontext()

    def _encode(self, image: Tensor) -> Any:
        """Turn cropped float32 images [B, 3, H, W] into what ``_compare`` takes, or into values [B]."""
        raise NotImplementedError

    def _compare(self, sr: Any, hr: Any) -> Tensor:
        """Values [B] from two encodings."""
        raise NotImplementedError

    def _crop(self, image: Tensor) -> Tensor:
        image = image.float()
        b = self.border
        return image[..., b : image.shape[-2] - b, b : image.shape[-1] - b] if b else image

    def _check(self, image: Tensor, what: str) -> None:
        if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            found = f"{image.dtype} {list(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(
                f"{what} must be a float tensor [B, 3, H, W] in [0, 1], not {found}: "
                f"divide 8-bit images by 255 and put the channels first"
            )
        needed = self.min_size + 2 * self.border
        if min(image.shape[-2:]) < needed:
            raise ValueError(
                f"{self.name} with border {self.border} needs images of at least {needed}x{needed} pixels, not "
                f"{image.shape[-2]}x{image.shape[-1]}: use larger patches, a smaller border, or another metric"
            )


M = TypeVar("M", bound=type[Metric])
_REGISTRY: dict[str, Callable[..., Metric]] = {}


def register(metric: M) -> M:
    """Class decorator: make a metric available by its name."""
    _REGISTRY[metric.name] = metric
    return metric


def available_metrics() -> tuple[str, ...]:
    """Names that :func:`create_metric` knows."""
    return tuple(_REGISTRY)


def create_metric(name: str, *, border: int = 0, device: torch.device | str = "cpu", **options: Any) -> Metric:
    """Make a metric by name; metrics on one device share the weights of their backbones.

    Args:
        name: One of :func:`available_metrics`.
        border: Pixels cropped from every side first.
        device: Where the metric's weights live; give it images on the same device.
        **options: Further arguments of that metric, for example ``weights`` (a file) of lpips, lpips_vgg and dists.

    Raises:
        ValueError: Unknown name (the message lists the valid ones), bad border, or a device that is absent.
        RuntimeError: A backbone's weights cannot be had (names everything tried).
    """
    if name not in _REGISTRY:
        raise ValueError(f"unknown metric {name!r}; choose one of {', '.join(available_metrics())}")
    return _REGISTRY[name](border=border, **options).to(resolve_device(device)).eval()


class WeightedScore(nn.Module):
    """A weighted sum of metrics in which every term counts so that higher is better.

    ``{"psnr": 1, "lpips": 20}`` is ``PSNR - 20 LPIPS``: metrics where lower is better enter with a minus.

    Args:
        weights: Metric name -> positive, finite weight.
        border: Pixels cropped from every side, for all metrics.
        device: Where the metrics' weights live.

    Attributes:
        weights: The weights as given.
        signed_weights: The weights with the sign of each metric's direction.

    Raises:
        ValueError: Empty mapping, unknown metric, or a weight that is not a positive finite number.
        RuntimeError: A metric's weights cannot be had.
    """

    def __init__(self, weights: Mapping[str, float], *, border: int = 0, device: torch.device | str = "cpu") -> None:
        super().__init__()
        if not isinstance(weights, Mapping) or not weights:
            raise ValueError(
                f"a weighted score needs a mapping such as {{'psnr': 1, 'lpips': 20}} with names out of "
                f"{', '.join(available_metrics())}, not {weights!r}"
            )
        for name, weight in weights.items():
            if isinstance(weight, bool) or not isinstance(weight, Real) or not math.isfinite(weight) or weight <= 0:
                raise ValueError(
                    f"the weight of {name!r} must be a positive finite number, not {weight!r}: the direction of a "
                    f"metric is known, so lpips needs no minus, and leave out what must not count"
                )
            if name not in available_metrics():  # before any backbone is fetched
                raise ValueError(f"unknown metric {name!r}; choose from {', '.join(available_metrics())}")
        self.weights = {name: float(weight) for name, weight in weights.items()}
        self.metrics: Mapping[str, Metric] = nn.ModuleDict(  # type: ignore[assignment]
            {name: create_metric(name, border=border, device=device) for name in weights}
        )
        self.signed_weights = {
            name: weight if self.metrics[name].higher_is_better else -weight for name, weight in self.weights.items()
        }

    @property
    def needs_reference(self) -> bool:
        """Whether any term compares with HR images."""
        return any(metric.needs_reference for metric in self.metrics.values())

    @property
    def differentiable(self) -> bool:
        """Whether gradients of every term reach the SR images."""
        return all(metric.differentiable for metric in self.metrics.values())

    def prepare(self, hr: Tensor) -> dict[str, Prepared]:
        """What depends on ``hr`` [B, 3, H, W] alone, to score several SR candidates against it."""
        return {name: metric.prepare(hr) for name, metric in self.metrics.items() if metric.needs_reference}

    def metric_terms(self, sr: Tensor, hr: Tensor | Mapping[str, Prepared] | None = None) -> dict[str, Tensor]:
        """Raw, unweighted values [B] of every metric; arguments as in :meth:`forward`."""
        if isinstance(hr, Mapping):
            return {name: metric(sr, hr.get(name)) for name, metric in self.metrics.items()}
        return {name: metric(sr, hr) for name, metric in self.metrics.items()}

    def combine(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The score [B] of raw values such as :meth:`metric_terms` returns."""
        return torch.stack([weight * terms[name] for name, weight in self.signed_weights.items()]).sum(0)

    def forward(
        self, sr: Tensor, hr: Tensor | Mapping[str, Prepared] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Score images.

        Args:
            sr: Images [B, 3, H, W] in [0, 1].
            hr: References, or the result of :meth:`prepare`; may be None where no metric needs one.

        Returns:
            The score [B], higher is better, and the raw value [B] of each metric by name.

        Raises:
            ValueError: As :meth:`Metric.forward`.
        """
        terms = self.metric_terms(sr, hr)
        return self.combine(terms), terms
