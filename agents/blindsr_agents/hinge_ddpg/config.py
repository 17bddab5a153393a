"""The settings of HingeDDPG: the one place of their defaults and their meaning, for Python and the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from blindsr_agents.hinge_ddpg.losses import REWARD_CLIP, critic_loss
from sr_env.utils.checks import UsageError, check_choice

Normalisation = Literal["scene", "width", "all", "none"]
NORMALISATIONS: tuple[str, ...] = ("scene", "width", "all", "none")


@dataclass
class HingeDDPGConfig:
    """How HingeDDPG learns.

    Attributes:
        learning_rate: Of the critics.
        actor_learning_rate: Of the actor.
        buffer_size: Scenes in the replay memory (7 kB each at LR 48).
        constant_steps: Environment steps, the first ones, whose rewards say by which offset the pretrained action is
            best moved in all scenes alike. The actor begins there, and there the anchor holds it. 0 begins with the
            pretrained actor, as Algorithm 1 does.
        scene_controls: Learn the controls beside the code scene by scene too. Else they keep the offset that is best in
            all scenes alike (where ``constant_steps`` finds one), and the code alone depends on the scene.
        learning_starts: Environment steps before the first update, those for the constant among them; unlike in stock
            SB3, mu acts during them too.
        batch_size: Scenes per update.
        gradient_steps: Updates per step of all sub-environments.
        gamma: Weight of the hinge in the critic loss; nothing is discounted in one step.
        loss: Critic loss: printed, hinge_l2, hinge_l1, hinge_margin or mse.
        shift: Added to the squashed rewards and to the critics' advantages before the critic loss; 3 makes both
            non-negative, 0 lets the hinge act on negative ones.
        noise: What exploration noise changes the picture by in each direction of the action space, root mean square in
            grey levels of 255.
        noise_final: The same at the end of training; it changes linearly. None keeps it constant.
        noise_limit: Standard deviation of the noise in action units that no direction exceeds at first, however little
            it changes the picture.
        warmup_updates: Updates of the critics alone before the actor moves.
        anchor: Weight of the squared distance from where the actor began, in units of the noise.
        saturation: The actor's value before its tanh beyond which it is penalised.
        clip: Gradient norm above which gradients are scaled down.
        tau: Polyak rate of the averaged actor, which is what is validated and exported.
        train_features: Train the actor's convolutions too, not only the layers after its pooling. Much slower: the
            latter works on descriptions computed once per scene.
        critics: Size of the ensemble.
        pessimism: The actor climbs the critics' mean less this many of their standard deviations.
        normalisation: Rewards are divided by their median magnitude per range of kernel widths ("width"), over "all"
            scenes, or not ("none"), or by the root mean square of those on the same scene ("scene"), which needs
            several actions on each. Photographs as they are (``lr_photos``) have no widths: they lie in one range, so
            that "width" is "all" there.
        contrast: Weight in the critic loss of the differences between the actions on one scene.
    """

    learning_rate: float = 1e-3
    actor_learning_rate: float = 2e-4
    buffer_size: int = 20_000
    constant_steps: int = 1280
    scene_controls: bool = False
    learning_starts: int = 512
    batch_size: int = 256
    gradient_steps: int = 16
    gamma: float = 0.99
    loss: str = "hinge_l2"
    shift: float = REWARD_CLIP
    noise: float = 0.7
    noise_final: float | None = None
    noise_limit: float = 0.3
    warmup_updates: int = 200
    anchor: float = 0.003
    saturation: float = 2.0
    clip: float = 1.0
    tau: float = 0.005
    train_features: bool = False
    critics: int = 4
    pessimism: float = 1.0
    normalisation: Normalisation = "width"
    contrast: float = 3.0

    def __post_init__(self) -> None:
        critic_loss(self.loss)  # an unknown name shows here
        check_choice("normalisation", self.normalisation, NORMALISATIONS)
        for name in ("buffer_size", "batch_size", "gradient_steps", "critics"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)} is not positive: give 1 or more")
        for name in ("constant_steps", "learning_starts", "warmup_updates"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} {getattr(self, name)} is negative: give 0 or more")
        if callable(self.actor_learning_rate):
            raise UsageError(
                f"actor_learning_rate {self.actor_learning_rate!r} is no number: only learning_rate, the critics', may "
                "be a schedule"
            )
        free = () if callable(self.learning_rate) else ("learning_rate",)
        for name in (*free, "actor_learning_rate", "gamma", "anchor", "saturation", "pessimism", "contrast"):
            self._check_number(name, lowest=0.0)
        for name in ("noise", "noise_limit", "clip"):
            self._check_number(name, lowest=0.0, above=True)
        if self.noise_final is not None:
            self._check_number("noise_final", lowest=0.0)
        self._check_number("shift", lowest=-math.inf)
        self._check_number("tau", lowest=0.0, above=True)
        if self.tau > 1:
            raise UsageError(f"tau {self.tau} is no share: give a number up to 1")

    def _check_number(self, name: str, lowest: float, above: bool = False) -> None:
        """Refuse what is no finite number from ``lowest`` on, or only above it."""
        value = getattr(self, name)
        known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not known or value < lowest or (above and value == lowest):
            bound = "" if lowest == -math.inf else f" above {lowest:g}" if above else f" of {lowest:g} or more"
            raise UsageError(f"{name} {value!r} does not fit: give a number{bound}")

    @property
    def holds_controls(self) -> bool:
        """Whether the controls beside the code are the same in all scenes."""
        return self.constant_steps > 0 and not self.scene_controls

    @property
    def last_noise(self) -> float:
        """``noise_final``, or ``noise`` where that is None."""
        return self.noise if self.noise_final is None else self.noise_final
