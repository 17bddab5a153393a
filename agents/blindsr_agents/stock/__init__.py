"""Algorithms of Stable-Baselines3 and sb3-contrib, and what any algorithm is judged by: its reward before and after."""

from blindsr_agents.stock.algorithms import (
    ALGORITHMS,
    HYPERPARAMETERS,
    Features,
    FeaturesVecEnv,
    StockAgent,
    algorithm_class,
    load_hyperparameters,
)
from blindsr_agents.stock.before_after import Actor, BeforeAfter, HeldOutScenes, LearningSettings
from blindsr_agents.stock.features import SceneFeatures
from blindsr_agents.stock.run import StockSettings, train

__all__ = [
    "ALGORITHMS",
    "HYPERPARAMETERS",
    "Actor",
    "BeforeAfter",
    "Features",
    "FeaturesVecEnv",
    "HeldOutScenes",
    "LearningSettings",
    "SceneFeatures",
    "StockAgent",
    "StockSettings",
    "algorithm_class",
    "load_hyperparameters",
    "train",
]
