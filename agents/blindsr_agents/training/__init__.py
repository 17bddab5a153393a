"""What every training of an agent does."""

from blindsr_agents.training.progress import Ended, Progress
from blindsr_agents.training.report import (
    Constant,
    draw_before_after,
    draw_curves,
    measure_test,
    peak_memory,
    verdict,
)
from blindsr_agents.training.selection import Selection
from blindsr_agents.training.settings import ImprovementSettings
from blindsr_agents.training.setup import Improvement
from blindsr_agents.training.state import (
    STATE,
    check_state,
    check_zip,
    load_weights,
    reading_state,
    save_actor,
    save_weights,
    set_torch_generators,
    torch_generators,
    write_state,
)
from blindsr_agents.training.tensorboard import Board, Learner

__all__ = [
    "STATE",
    "Board",
    "Constant",
    "Ended",
    "Improvement",
    "ImprovementSettings",
    "Learner",
    "Progress",
    "Selection",
    "check_state",
    "check_zip",
    "draw_before_after",
    "draw_curves",
    "load_weights",
    "measure_test",
    "peak_memory",
    "reading_state",
    "save_actor",
    "save_weights",
    "set_torch_generators",
    "torch_generators",
    "verdict",
    "write_state",
]
