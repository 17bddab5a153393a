"""Metrics of others: any Python function on arrays, the functions of piq, the metrics of pyiqa."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sr_env.metrics.base import Metric, MetricFactory, add_factory
from sr_env.utils.checks import UsageError, WeightsUnavailable, check_choice

Images = Literal["uint8", "float"]

# --- functions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Function:
    """A function as a metric; the attributes are those of :func:`register_function`."""

    name: str
    function: Callable[..., Any]
    higher_is_better: bool = True
    title: str = ""
    decimals: int = 4
    unit: str = ""
    needs_reference: bool = True
    images: Images = "uint8"
    batched: bool = True
    min_size: int = 1

    def __call__(self, border: int = 0, **options: Any) -> Metric:
        """Make the metric."""
        if options:
            raise UsageError(f"metric {self.name!r} is a function and takes no options such as {next(iter(options))!r}")
        return FunctionMetric(self, border)


class FunctionMetric(Metric):
    """A function on arrays as a metric; no gradient passes it.

    Args:
        function: The function and what is known of it.
        border: Pixels cropped from every side first.
    """

    differentiable = False

    def __init__(self, function: Function, border: int = 0) -> None:
        super().__init__(border)
        self.function = function
        self.name, self.title, self.unit = function.name, function.title, function.unit
        self.decimals, self.min_size = function.decimals, function.min_size
        self.higher_is_better, self.needs_reference = function.higher_is_better, function.needs_reference

    def _encode(self, image: Tensor) -> Tensor:
        """The images as the function takes them, or its values where there is no reference."""
        arrays = image.detach().clamp(0, 1).permute(0, 2, 3, 1)
        if self.function.images == "uint8":
            arrays = (arrays * 255).round().to(torch.uint8)
        return arrays if self.needs_reference else self._values(arrays).to(image.device)

    def _compare(self, sr: Tensor, hr: Tensor) -> Tensor:
        return self._values(sr, hr.expand_as(sr)).to(sr.device)

    def _values(self, *images: Tensor) -> Tensor:
        # Copies: the function may write into its arguments.
        arrays = [x.cpu().contiguous().numpy().copy() for x in images]
        call = self.function.function
        returned = call(*arrays) if self.function.batched else [call(*each) for each in zip(*arrays, strict=True)]
        count = len(arrays[0])
        wanted = f"{count} finite numbers, one per image" if self.function.batched else "one finite number"
        if isinstance(returned, Tensor):
            returned = returned.detach().cpu()
        try:
            values = np.asarray(returned, dtype=np.float64)
        except (TypeError, ValueError):
            raise UsageError(f"metric {self.name!r} returned {type(returned).__name__}: return {wanted}") from None
        if values.shape != (count,):
            remedy = f"return {wanted}"
            if self.function.batched:
                remedy += ", or register it with batched=False if it takes one image at a time"
            raise UsageError(
                f"metric {self.name!r} returned the shape {list(values.shape)} for {count} image(s): {remedy}"
            )
        if not np.isfinite(values).all():
            wrong = int(np.flatnonzero(~np.isfinite(values))[0])
            raise UsageError(
                f"metric {self.name!r} returned {values[wrong]} for image {wrong}: return finite numbers, "
                "cap what has no limit"
            )
        return torch.from_numpy(values)


def register_function(
    name: str,
    function: Callable[..., Any],
    *,
    higher_is_better: bool,
    title: str = "",
    decimals: int = 4,
    unit: str = "",
    needs_reference: bool | None = None,
    images: Images = "uint8",
    batched: bool = True,
    min_size: int = 1,
) -> None:
    """Make a Python function available as a metric, for rewards, ``info_metrics`` and the benchmark.

    Args:
        name: Its name.
        function: ``(sr, hr) -> values``: arrays [B, H, W, 3] without the border, copies that it may write to, and B
            numbers, finite; arrays and tensors alike.
        higher_is_better: Direction.
        title: Name for tables; empty takes ``name``.
        decimals: Digits behind the point in tables.
        unit: Unit for display.
        needs_reference: Whether it is called as ``function(sr, hr)`` or ``function(sr)``; None counts the arguments
            that it needs.
        images: ``"uint8"`` arrays or ``"float"`` ones, float32 in [0, 1].
        batched: False for a function of one image [H, W, 3] that gives one number: it is called for each, which takes
            longer.
        min_size: Smallest height and width that it takes.

    Raises:
        UsageError: The name is empty, reserved or taken, or what is given is no function.
    """
    if not callable(function):
        raise UsageError(f"metric {name!r}: {function!r} is no function of (sr, hr)")
    if not isinstance(higher_is_better, bool):
        raise UsageError(f"metric {name!r}: higher_is_better must be True or False, not {higher_is_better!r}")
    check_choice(f"images of metric {name!r},", images, ("uint8", "float"))
    if needs_reference is None:
        needs_reference = _arguments(function) != 1
    made = Function(
        name, function, higher_is_better, title or name, decimals, unit, needs_reference, images, batched, min_size
    )
    add_factory(made, f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}")


def as_function(function: Callable[..., Any]) -> Function:
    """A function that was not registered, as a metric that is better when higher.

    Raises:
        UsageError: It has no name of its own.
    """
    name = getattr(function, "__name__", "")
    if not name.isidentifier():
        raise UsageError(
            f"metric {function!r} has no name: call register_function('mine', function, higher_is_better=...) and "
            "give the name"
        )
    return Function(name, function, title=name, needs_reference=_arguments(function) != 1)


def _arguments(function: Callable[..., Any]) -> int:
    """Positional arguments without a default; two where the function does not say."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins
        return 2
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is inspect.Parameter.empty for p in parameters)


# --- piq --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piq:
    """A function of piq as a metric.

    Attributes:
        name: Ours, ``"piq.NAME"``.
        title: Name as papers write it.
        higher_is_better: As piq's losses have it.
        decimals: For tables.
        min_size: Smallest side, measured with piq 0.8.
        needs_reference: Whether it compares.
        unit: For display.
        single: It lets images of a batch influence each other, and is called for each alone.
    """

    name: str
    title: str
    higher_is_better: bool = True
    decimals: int = 4
    min_size: int = 1
    needs_reference: bool = True
    unit: str = ""
    single: bool = False

    def __call__(self, border: int = 0, **options: Any) -> Metric:
        """Make the metric; options are piq's own."""
        return PiqMetric(self, border, options)


#: The functions of piq, by our names.
PIQ: Mapping[str, Piq] = {
    spec.name: spec
    for spec in (
        Piq("piq.brisque", "BRISQUE (piq)", False, 2, 32, needs_reference=False),
        Piq("piq.dss", "DSS", min_size=32),
        Piq("piq.fsim", "FSIMc", min_size=2),
        Piq("piq.gmsd", "GMSD", False, min_size=2),
        Piq("piq.haarpsi", "HaarPSI", min_size=16),
        Piq("piq.information_weighted_ssim", "IW-SSIM", min_size=161),
        Piq("piq.mdsi", "MDSI", False),
        Piq("piq.multi_scale_gmsd", "MS-GMSD", False, min_size=17),
        Piq("piq.multi_scale_ssim", "MS-SSIM", min_size=161),
        Piq("piq.psnr", "PSNR-RGB (piq)", decimals=2, unit="dB"),
        Piq("piq.srsim", "SR-SIM", min_size=40, single=True),
        Piq("piq.ssim", "SSIM (piq)", min_size=11),
        Piq("piq.total_variation", "TV", False, 2, 2, needs_reference=False),
        Piq("piq.vif_p", "VIFp", min_size=41),
        Piq("piq.vsi", "VSI", min_size=2),
    )
}


class PiqMetric(Metric):
    """A function of piq: RGB images in [0, 1], gradients flow.

    Args:
        spec: Which one.
        border: Pixels cropped from every side first.
        options: Further arguments of piq's function.
    """

    def __init__(self, spec: Piq, border: int, options: Mapping[str, Any]) -> None:
        super().__init__(border)
        self.spec, self.options = spec, dict(options)
        self.name, self.title, self.unit = spec.name, spec.title, spec.unit
        self.decimals, self.min_size = spec.decimals, spec.min_size
        self.higher_is_better, self.needs_reference = spec.higher_is_better, spec.needs_reference
        self._function = getattr(_package("piq"), spec.name.removeprefix("piq."))
        known = inspect.signature(self._function).parameters
        for option in options:
            check_choice(
                f"option of metric {spec.name}", option, [o for o in known if o not in ("x", "y", "reduction")]
            )

    def _encode(self, image: Tensor) -> Tensor:
        image = image.clamp(0, 1)  # piq refuses others
        return image if self.needs_reference else self._values(image)

    def _compare(self, sr: Tensor, hr: Tensor) -> Tensor:
        return self._values(sr, hr.expand_as(sr))

    def _values(self, *images: Tensor) -> Tensor:
        if self.spec.single:
            each = zip(*(x.split(1) for x in images), strict=True)
            return torch.cat([self._function(*pair, reduction="none", **self.options).reshape(1) for pair in each])
        try:
            values: Tensor = self._function(*images, reduction="none", **self.options)
        except OSError as error:  # brisque's model is downloaded when it is first used
            raise WeightsUnavailable(f"{self.name} needs a file that piq downloads ({error}): use brisque") from error
        return values.reshape(len(images[0]))


def _piq(name: str) -> MetricFactory:
    if (found := PIQ.get(f"piq.{name}")) is None:
        raise UsageError(
            f"unknown metric 'piq.{name}': choose one of {', '.join(PIQ)}, or register a function that calls what piq "
            "has beside these"
        )
    return found


# --- pyiqa ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pyiqa:
    """A metric of pyiqa; the attributes are those of :class:`Piq`."""

    name: str
    title: str
    higher_is_better: bool
    needs_reference: bool
    decimals: int = 4
    unit: str = ""

    def __call__(self, border: int = 0, **options: Any) -> Metric:
        """Make the metric; options are pyiqa's own."""
        return PyiqaMetric(self, border, options)


class PyiqaMetric(Metric):
    """A metric of pyiqa, without gradient.

    Args:
        spec: Which one.
        border: Pixels cropped from every side first.
        options: Further arguments of ``pyiqa.create_metric``.

    Raises:
        WeightsUnavailable: Its weights cannot be downloaded.
    """

    differentiable = False
    learned = True

    def __init__(self, spec: Pyiqa, border: int, options: Mapping[str, Any]) -> None:
        super().__init__(border)
        self.name, self.title, self.unit, self.decimals = spec.name, spec.title, spec.unit, spec.decimals
        self.higher_is_better, self.needs_reference = spec.higher_is_better, spec.needs_reference
        name = spec.name.removeprefix("pyiqa.")
        try:
            self.metric = _package("pyiqa").create_metric(name, device="cpu", as_loss=False, **options)
        except OSError as error:
            raise WeightsUnavailable(f"the weights of {spec.name} cannot be had ({error})") from error
        self.metric.requires_grad_(False)

    def _encode(self, image: Tensor) -> Tensor:
        image = image.clamp(0, 1)
        return image if self.needs_reference else self._values(image)

    def _compare(self, sr: Tensor, hr: Tensor) -> Tensor:
        return self._values(sr, hr.expand_as(sr))

    def _values(self, *images: Tensor) -> Tensor:
        values: Tensor = self.metric(*images)
        return values.reshape(len(images[0]))


def _pyiqa(name: str) -> MetricFactory:
    known = _package("pyiqa").list_models()
    if name not in known:
        raise UsageError(f"unknown metric 'pyiqa.{name}': choose one of {', '.join(known)}")
    about = import_module("pyiqa.default_model_configs").DEFAULT_CONFIGS[name]
    if about.get("metric_mode") not in ("FR", "NR") or "fid" in name or name == "inception_score":
        raise UsageError(f"metric 'pyiqa.{name}' compares sets of pictures: choose one that scores single pictures")
    # As pyiqa's own InferenceModel reads its table.
    return Pyiqa(f"pyiqa.{name}", f"{name} (pyiqa)", not about.get("lower_better", False), about["metric_mode"] == "FR")


def _package(name: str) -> Any:
    import sr_env.utils.torchvision_compat  # noqa: F401  (before what imports torchvision)

    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(f"metrics of {name} need the package {name} ({error}): pip install {name}") from error


#: Prefix of a name -> what makes the metric of the rest.
PACKAGES: Mapping[str, Callable[[str], MetricFactory]] = {"piq": _piq, "pyiqa": _pyiqa}
