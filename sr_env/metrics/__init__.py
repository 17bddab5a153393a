"""Image quality metrics: one batched interface, by name, and weighted sums of them."""

from sr_env.metrics import fidelity, natural, perceptual  # noqa: F401  (they register their metrics)
from sr_env.metrics.base import Metric, Prepared, WeightedScore, available_metrics, create_metric

__all__ = ["Metric", "Prepared", "WeightedScore", "available_metrics", "create_metric"]
