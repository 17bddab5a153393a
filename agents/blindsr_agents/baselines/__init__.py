"""What the agent is measured against: the same actor improved by gradient, by blind search, or moved as a whole."""

from blindsr_agents.baselines.base import Baseline, BaselineConfig, RenderCounter
from blindsr_agents.baselines.constant import ConstantOffset
from blindsr_agents.baselines.fine_tune import DifferentiableScore, FineTune, FineTuneConfig, check_gradient
from blindsr_agents.baselines.random_search import RandomSearch, RandomSearchConfig
from blindsr_agents.baselines.run import METHODS, Run, best_constant, train

__all__ = [
    "METHODS",
    "Baseline",
    "BaselineConfig",
    "ConstantOffset",
    "DifferentiableScore",
    "FineTune",
    "FineTuneConfig",
    "RandomSearch",
    "RandomSearchConfig",
    "RenderCounter",
    "Run",
    "best_constant",
    "check_gradient",
    "train",
]
