"""The settings of IterativeHinge: their defaults and what they mean, for the class and the command line alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from blindsr_agents.hinge_ddpg import REWARD_CLIP, critic_loss
from sr_env.utils.checks import UsageError, check_choice

#: Over which scenes rewards share a scale; episodes of several steps have no scale per scene.
Normalisation = Literal["width", "all", "none"]


@dataclass
class IterativeHingeConfig:
    """How :class:`~blindsr_agents.iterative.agent.IterativeHinge` learns.

    Attributes:
        learning_rate: Of the critics.
        actor_learning_rate: Of the actor.
        buffer_size: SR images whose steps the memory keeps (1.6 kB each with the released predictor and 4 steps).
        learning_starts: SR images rendered before the first update; the actor acts, with noise, during them too.
        batch_size: Steps per update.
        discount: Of later rewards; 1, since the episodes are short and the rewards add up.
        n_steps: Rewards that a target adds up before it bootstraps, 1 to the episode's length, which bootstraps
            nothing; None takes that.
        gradient_steps: Updates per step of all sub-environments.
        loss: Critic loss: printed, hinge_l2, hinge_l1, hinge_margin or mse.
        hinge: Weight of the hinge in the critic loss (the gamma of Algorithm 1).
        noise: What exploration noise changes the picture by at each step in each direction of the action space, root
            mean square in grey levels of 255.
        noise_limit: Standard deviation of the noise in action units that no direction exceeds.
        warmup_updates: Updates of the critics alone before the actor moves.
        anchor: Weight of the squared total move from the pretrained code, in units of the noise.
        saturation: The actor's value before its tanh beyond which it is penalised.
        clip: Gradient norm above which gradients are scaled down.
        tau: Polyak rate of the averaged actor and critics.
        critics: Size of the ensemble; 2 are twin critics.
        pessimism: Values are the critics' mean less this many of their standard deviations.
        normalisation: Rewards are divided by their median magnitude per range of kernel widths ("width"), over "all"
            scenes, or not ("none"). Photographs as they are have no widths: there "width" is "all".
        shift: Added to squashed returns and values before the critic loss, so that the hinge meets none that is
            negative.
        hidden: Width of the critics' hidden layers.
        dropout: Share of the critics' inputs and hidden units left out in training.
        seed: Seed of scenes, exploration, networks and batches (it seeds torch's global generator, as SB3 does).

    Raises:
        UsageError: A setting is wrong, whatever the environment.
    """

    learning_rate: float = 1e-3
    actor_learning_rate: float = 4e-4
    buffer_size: int = 20_000
    learning_starts: int = 512
    batch_size: int = 256
    discount: float = 1.0
    n_steps: int | None = 1
    gradient_steps: int = 16
    loss: str = "hinge_l2"
    hinge: float = 0.99
    noise: float = 0.7
    noise_limit: float = 0.3
    warmup_updates: int = 200
    anchor: float = 0.03
    saturation: float = 2.0
    clip: float = 1.0
    tau: float = 0.005
    critics: int = 4
    pessimism: float = 1.0
    normalisation: Normalisation = "width"
    shift: float = REWARD_CLIP
    hidden: int = 256
    dropout: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        critic_loss(self.loss)
        check_choice("normalisation", self.normalisation, get_args(Normalisation))
        if not 0 <= self.discount <= 1:
            raise UsageError(f"discount {self.discount} is outside [0, 1]: it weighs later rewards")
        for name in ("critics", "batch_size", "gradient_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)} is not positive: give 1 or more")
