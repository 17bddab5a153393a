"""Weighted sums of metrics."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from sr_env.metrics.base import Metric, Prepared, available_metrics, create_metric, find_metric
from sr_env.utils.checks import UsageError

#: Largest weight: scores stay far from float32's limits, and a weight beyond it is a slip.
_LARGEST = 1e9


class WeightedScore(nn.Module):
    """A weighted sum of metrics in which every term counts so that higher is better.

    ``{"psnr": 1, "lpips": 20}`` is ``PSNR - 20 LPIPS``: metrics where lower is better enter with a minus.

    Args:
        weights: Metric -> positive, finite weight; metrics as in :func:`~sr_env.metrics.create_metric`, by name or as
            functions.
        border: Pixels cropped from every side, for all metrics.
        device: Where the metrics' weights live.

    Attributes:
        weights: The weights by metric name.
        metrics: The metrics by name.
        signed_weights: The weights with the sign of each metric's direction.

    Raises:
        UsageError: Empty mapping, unknown metric, or a weight that is not a positive finite number.
        WeightsUnavailable: A metric's weights cannot be had.
    """

    def __init__(self, weights: Mapping[Any, float], *, border: int = 0, device: torch.device | str = "cpu") -> None:
        super().__init__()
        if not isinstance(weights, Mapping) or not weights:
            raise UsageError(
                f"a weighted score needs a mapping such as {{'psnr': 1, 'lpips': 20}} with names out of "
                f"{', '.join(available_metrics())}, not {weights!r}"
            )
        for spec, weight in weights.items():
            if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 < weight <= _LARGEST:
                raise UsageError(
                    f"the weight of {spec!r} must be a positive finite number, not {weight!r}, and at most "
                    f"{_LARGEST:g}: the direction of a metric is known, so lpips needs no minus, and leave out what "
                    "must not count"
                )
        names = {find_metric(spec).name: spec for spec in weights}  # unknown ones show before any backbone is fetched
        if len(names) < len(weights):
            raise UsageError(f"two of the metrics {list(weights)!r} have the same name: leave one out or rename it")
        self.weights = {name: float(weights[spec]) for name, spec in names.items()}
        self.metrics: Mapping[str, Metric] = {
            name: create_metric(spec, border=border, device=device) for name, spec in names.items()
        }
        self._modules_of_metrics = nn.ModuleList(self.metrics.values())  # names such as piq.fsim fit no ModuleDict
        self.signed_weights = {
            name: weight if self.metrics[name].higher_is_better else -weight for name, weight in self.weights.items()
        }

    @property
    def differentiable(self) -> bool:
        """Whether gradients of every term reach the SR images."""
        return all(metric.differentiable for metric in self.metrics.values())

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
            hr: References, or what :meth:`Metric.prepare` made of them, by metric name; may be None where no metric
                needs one.

        Returns:
            The score [B], higher is better, and the raw value [B] of each metric by name.

        Raises:
            UsageError: As :meth:`Metric.forward`.
        """
        terms = self.metric_terms(sr, hr)
        return self.combine(terms), terms
