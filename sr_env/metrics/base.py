"""The one interface of all metrics, and their registry."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from sr_env.utils.checks import UsageError
from sr_env.utils.devices import resolve_device
from sr_env.utils.plugins import import_named

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
    the values, where no reference is needed); :func:`register` makes it available by its name.

    Args:
        border: Pixels cropped from every side, of whatever metric, before anything is computed: nothing of the border
            reaches a value. Papers report PSNR and SSIM with ``border = scale``, which the environments use.

    Attributes:
        name: Name in the registry.
        title: Name as papers write it; empty takes ``name``.
        decimals: Digits behind the point that its values deserve in tables.
        higher_is_better: Direction.
        needs_reference: Whether HR images are needed.
        differentiable: Whether gradients reach the SR images.
        unit: Unit for display, ``"dB"`` or empty.
        min_size: Smallest height and width after cropping.
        learned: Whether it looks through a trained network, which may then run in less than float32.
        full_precision: Compute everything in float32. Set it to False on a learned metric, as for a training loss, and
            the ambient autocast reaches its backbone; comparing stays in float32.

    Raises:
        UsageError: ``border`` is not a non-negative integer.
    """

    name: str
    title: str = ""
    decimals: int = 4
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
            raise UsageError(f"border must be a number of pixels >= 0, not {border!r}")
        self.border = border

    def prepare(self, hr: Tensor) -> Prepared:
        """Compute what depends on the HR images alone; pass the result to the call in their place.

        Args:
            hr: Images [B, 3, H, W] in [0, 1].

        Raises:
            UsageError: The metric needs no reference, or the shape or type is wrong.
        """
        if not self.needs_reference:
            raise UsageError(f"{self.name} needs no reference: call it with the SR images alone")
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
            UsageError: A shape or type is wrong, the images are too small, or a reference is missing or was prepared
                by another metric. What the metric itself returns is not one value per image.
        """
        self._check(sr, "sr")
        if not self.needs_reference:
            with self._precision(sr), torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
                return self._one_each(self._encode(self._crop(sr)), sr)
        if hr is None:
            raise UsageError(f"{self.name} compares with a reference: call it as metric(sr, hr)")
        reference = hr if isinstance(hr, Prepared) else self.prepare(hr)
        if (reference.metric, reference.border) != (self.name, self.border):
            raise UsageError(
                f"the reference was prepared by {reference.metric} with border {reference.border}, not by "
                f"{self.name} with border {self.border}: prepare it with the metric that is called"
            )
        if reference.shape[1:] != sr.shape[1:] or reference.shape[0] not in (1, sr.shape[0]):
            raise UsageError(
                f"sr {list(sr.shape)} and hr {list(reference.shape)} must have the same size, and hr as many "
                f"images as sr or one"
            )
        with self._precision(sr):
            encoded = self._encode(self._crop(sr))
        with torch.autocast(sr.device.type, enabled=False):
            return self._one_each(self._compare(encoded, reference.data), sr)

    def worsening(self, values: Values, reference: Values) -> Values:
        """How much worse values are than others, in the metric's unit; negative where they are better."""
        return reference - values if self.higher_is_better else values - reference

    def check_size(self, height: int, width: int) -> None:
        """Raise :class:`UsageError` where images of this size are too small for it."""
        needed = self.min_size + 2 * self.border
        if min(height, width) < needed:
            raise UsageError(
                f"{self.name} with border {self.border} needs images of at least {needed}x{needed} pixels, not "
                f"{height}x{width}: use larger patches, a smaller border, or another metric"
            )

    def extra_repr(self) -> str:
        """Shown by ``print(metric)``."""
        return f"name={self.name}, border={self.border}"

    def _precision(self, image: Tensor) -> AbstractContextManager[object]:
        return torch.autocast(image.device.type, enabled=False) if self.full_precision else nullcontext()

    def _encode(self, image: Tensor) -> Any:
        """Turn cropped float32 images [B, 3, H, W] into what ``_compare`` takes, or into values [B]."""
        raise NotImplementedError(f"metric {self.name!r} has no method _encode(image): write one")

    def _compare(self, sr: Any, hr: Any) -> Tensor:
        """Values [B] from two encodings."""
        raise NotImplementedError(
            f"metric {self.name!r} has no method _compare(sr, hr): write one, or set needs_reference = False"
        )

    def _one_each(self, values: Any, sr: Tensor) -> Tensor:
        if not isinstance(values, Tensor) or values.shape != (len(sr),):
            found = f"the shape {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise UsageError(
                f"metric {self.name!r} returned {found} for {len(sr)} image(s): return a tensor [{len(sr)}], one value "
                "per image"
            )
        return values.float()

    def _crop(self, image: Tensor) -> Tensor:
        image = image.float()
        b = self.border
        return image[..., b : image.shape[-2] - b, b : image.shape[-1] - b] if b else image

    def _check(self, image: Tensor, what: str) -> None:
        if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            found = f"{image.dtype} {list(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            raise UsageError(
                f"{what} must be a float tensor [B, 3, H, W] in [0, 1], not {found}: "
                f"divide 8-bit images by 255 and put the channels first"
            )
        self.check_size(image.shape[-2], image.shape[-1])


@dataclass(frozen=True)
class MetricInfo:
    """What tables say of a metric.

    Attributes:
        name: Name in rewards, files and ``info``.
        title: Name as papers write it.
        decimals: Digits behind the point that its values deserve.
        unit: Unit, ``"dB"`` or empty.
        higher_is_better: Direction.
    """

    name: str
    title: str
    decimals: int
    unit: str
    higher_is_better: bool

    @property
    def arrow(self) -> str:
        """Direction as a sign."""
        return "↑" if self.higher_is_better else "↓"

    def format(self, value: float | None) -> str:
        """A value with as many digits as it deserves; a dash for none."""
        return "-" if value is None else f"{value:.{self.decimals}f}"


class MetricFactory(Protocol):
    """What the registry holds: a class of :class:`Metric`, or what makes one; its attributes need no weights."""

    @property
    def name(self) -> str:
        """Name in the registry."""

    @property
    def title(self) -> str:
        """Name as papers write it."""

    @property
    def decimals(self) -> int:
        """Digits behind the point."""

    @property
    def unit(self) -> str:
        """Unit or empty."""

    @property
    def higher_is_better(self) -> bool:
        """Direction."""

    @property
    def needs_reference(self) -> bool:
        """Whether HR images are needed."""

    def __call__(self, border: int = 0, **options: Any) -> Metric:
        """Make the metric."""


M = TypeVar("M", bound=type[Metric])
_REGISTRY: dict[str, MetricFactory] = {}
#: What ``info`` of the environments holds under names of its own.
_RESERVED = (
    *("action_true", "blend", "code", "code_true", "consistency", "crop"),
    *("photo", "reward", "score", "sharpen", "sr"),
)


def register(metric: M) -> M:
    """Class decorator: make a subclass of :class:`Metric` available by its name.

    Raises:
        UsageError: It has no name or no direction, or its name is taken.
    """
    if not isinstance(getattr(metric, "higher_is_better", None), bool):
        raise UsageError(f"metric {metric.__name__} has no direction: set the class attribute higher_is_better")
    add_factory(metric, f"{metric.__module__}.{metric.__qualname__}")
    metric.title = metric.title or metric.name
    return metric


def add_factory(factory: Any, origin: str) -> None:
    """Put into the registry what makes a metric.

    Args:
        factory: See :class:`MetricFactory`.
        origin: Where it is defined: the same definition may come again, as when a notebook's cell is run again.

    Raises:
        UsageError: It has no name, or its name is reserved or that of another metric.
    """
    name = getattr(factory, "name", None)
    if not isinstance(name, str) or not name:
        raise UsageError(f"metric {origin} has no name: give it one, such as 'sharpness'")
    if name in _RESERVED or "." in name:
        raise UsageError(f"metric name {name!r} is reserved or has a point: choose another one")
    if name in _REGISTRY and _ORIGINS[name] != origin:
        raise UsageError(f"a metric {name!r} is registered already, {_ORIGINS[name]}: choose another name")
    _REGISTRY[name], _ORIGINS[name] = factory, origin


_ORIGINS: dict[str, str] = {}


def available_metrics() -> tuple[str, ...]:
    """Names of the registered metrics; ``"piq.NAME"`` and ``"pyiqa.NAME"`` are understood beside them."""
    return tuple(_REGISTRY)


def find_metric(spec: Any) -> MetricFactory:
    """What makes the metric of a name, or of a function; loads no weights.

    Args:
        spec: A registered name, ``"module:NAME"`` where the module that registers it is to be imported,
            ``"piq.NAME"``, ``"pyiqa.NAME"``, or a function as :func:`register_function` takes it,
            which counts as better when higher.

    Raises:
        UsageError: It is none of these (the message lists the names), or the package is not installed.
    """
    from sr_env.metrics import adapters  # which registers into this module

    if isinstance(spec, str):
        if (name := import_named("metric", spec)) in _REGISTRY:
            return _REGISTRY[name]
        package, _, name = spec.partition(".")
        if name and package in adapters.PACKAGES:
            return adapters.PACKAGES[package](name)
    elif callable(spec):
        return adapters.as_function(spec)
    raise UsageError(
        f"unknown metric {spec!r}: choose one of {', '.join(available_metrics())}, 'piq.NAME' or 'pyiqa.NAME', "
        "or give a function of (sr, hr)"
    )


def check_without_reference(specs: Iterable[Any]) -> None:
    """Refuse metrics that compare with HR, where there is none; loads no weights.

    Args:
        specs: As in :func:`create_metric`.

    Raises:
        UsageError: One needs HR, or is unknown; the message names those that need none.
    """
    from sr_env.metrics.adapters import PIQ

    for spec in specs:
        if (found := find_metric(spec)).needs_reference:
            known = [name for name, each in {**_REGISTRY, **PIQ}.items() if not each.needs_reference]
            raise UsageError(
                f"metric {found.name!r} compares with HR, which photographs as they are (lr_photos) lack: take one of "
                f"{', '.join(known)}, one of pyiqa's without reference ('pyiqa.musiq', 'pyiqa.clipiqa'), or a function "
                "of (sr)"
            )


def describe(spec: Any) -> MetricInfo:
    """What tables say of a metric, without its weights.

    Args:
        spec: As in :func:`create_metric`.

    Raises:
        UsageError: As :func:`create_metric`.
    """
    found = find_metric(spec)
    return MetricInfo(found.name, found.title, found.decimals, found.unit, found.higher_is_better)


def create_metric(spec: Any, *, border: int = 0, device: torch.device | str = "cpu", **options: Any) -> Metric:
    """Make a metric; metrics on one device share the weights of their backbones.

    Args:
        spec: One of :func:`available_metrics` (``"module:NAME"`` imports a module that registers it first, as command
            lines need it), ``"piq.NAME"`` for a function of piq (``"piq.haarpsi"``),
            ``"pyiqa.NAME"`` for a metric of pyiqa where it is installed (``"pyiqa.musiq"``), or a function of
            ``(sr, hr)`` on uint8 arrays [B, H, W, 3] that gives B values, which counts as better when higher
            (:func:`register_function` says more).
        border: Pixels cropped from every side first.
        device: Where the metric's weights live; give it images on the same device.
        **options: Further arguments of that metric, for example ``weights`` (a file) of lpips, lpips_vgg and dists.

    Raises:
        UsageError: Unknown name (the message lists the valid ones), bad border, a device or package that is absent.
        WeightsUnavailable: A backbone's weights cannot be had (names everything tried).
    """
    return find_metric(spec)(border=border, **options).to(resolve_device(device)).eval()
