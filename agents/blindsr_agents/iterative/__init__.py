"""HingeDDPG's ideas for BlindSRIterative-v0, whose episodes correct the code over several steps."""

from blindsr_agents.iterative.agent import IterativeHinge, evaluating
from blindsr_agents.iterative.config import IterativeHingeConfig
from blindsr_agents.iterative.corrector import Corrector, Player, load_corrector, save_corrector
from blindsr_agents.iterative.critic import CorrectionCritic
from blindsr_agents.iterative.replay import EpisodeBatch, EpisodeMemory, n_step_returns

__all__ = [
    "CorrectionCritic",
    "Corrector",
    "EpisodeBatch",
    "EpisodeMemory",
    "IterativeHinge",
    "IterativeHingeConfig",
    "Player",
    "evaluating",
    "load_corrector",
    "n_step_returns",
    "save_corrector",
]
