"""Image quality metrics: one batched interface, by name or as functions, and weighted sums of them."""

from sr_env.metrics import fidelity, natural, perceptual  # noqa: F401  (they register their metrics)
from sr_env.metrics.adapters import register_function
from sr_env.metrics.base import (
    Metric,
    MetricInfo,
    Prepared,
    available_metrics,
    check_without_reference,
    create_metric,
    describe,
    register,
)
from sr_env.metrics.features import ARCHITECTURES, ConvFeatures
from sr_env.metrics.weighted import WeightedScore
from sr_env.metrics.weights import find_local, vgg16_features, vgg19_features

__all__ = [
    "ARCHITECTURES",
    "ConvFeatures",
    "Metric",
    "MetricInfo",
    "Prepared",
    "WeightedScore",
    "available_metrics",
    "check_without_reference",
    "create_metric",
    "describe",
    "find_local",
    "register",
    "register_function",
    "vgg16_features",
    "vgg19_features",
]
