"""What actors and reconstructions are worth: fixed scenes, scores, the one verdict, and the benchmark sets."""

from blindsr_agents.evaluation.scene_sets import (
    BICUBIC,
    PRETRAINED,
    TRUE_KERNEL,
    FixedScenes,
    Method,
    SceneSet,
    WholeScenes,
    acting,
    true_kernel,
)
from blindsr_agents.evaluation.scores import Scores, reward_title, verdict
from blindsr_agents.evaluation.tables import columns, console_table, markdown_table, score_table

__all__ = [
    "BICUBIC",
    "PRETRAINED",
    "TRUE_KERNEL",
    "FixedScenes",
    "Method",
    "SceneSet",
    "Scores",
    "WholeScenes",
    "acting",
    "columns",
    "console_table",
    "markdown_table",
    "reward_title",
    "score_table",
    "true_kernel",
    "verdict",
]
