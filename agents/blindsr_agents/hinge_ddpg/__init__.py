"""HingeDDPG: the paper's agent."""

from blindsr_agents.hinge_ddpg.agent import HingeDDPG
from blindsr_agents.hinge_ddpg.config import NORMALISATIONS, HingeDDPGConfig, Normalisation
from blindsr_agents.hinge_ddpg.ensemble import EnsembleLinear, EnsembleNorm, QEnsemble
from blindsr_agents.hinge_ddpg.losses import CRITIC_LOSSES, REWARD_CLIP, contrast, critic_loss, squash
from blindsr_agents.hinge_ddpg.policy import KernelActor, KernelCritic, KernelPolicy
from blindsr_agents.hinge_ddpg.replay import SceneBatch, SceneBuffer, group_widths, reward_scales
from blindsr_agents.hinge_ddpg.run import HingeDDPGSettings, Trained, build, train

__all__ = [
    "CRITIC_LOSSES",
    "NORMALISATIONS",
    "REWARD_CLIP",
    "EnsembleLinear",
    "EnsembleNorm",
    "HingeDDPG",
    "HingeDDPGConfig",
    "HingeDDPGSettings",
    "KernelActor",
    "KernelCritic",
    "KernelPolicy",
    "Normalisation",
    "QEnsemble",
    "SceneBatch",
    "SceneBuffer",
    "Trained",
    "build",
    "contrast",
    "critic_loss",
    "group_widths",
    "reward_scales",
    "squash",
    "train",
]
