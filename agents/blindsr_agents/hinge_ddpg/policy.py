"""Actor and critics: SB3's TD3Policy with the pretrained kernel predictor as the actor.

The actor mu is the kernel predictor itself, so that it takes an LR image of any size and is exported as a plain
predictor. The critics judge an action by the scene's *description*, what the pretrained predictor sees in the LR image:
its pooled features and its own action mu0. The description never changes during training, so it is computed once per
scene, and any number of actions is scored against it.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from blindsr_agents.hinge_ddpg.ensemble import QEnsemble
from sr_env.utils import torchvision_compat as _torchvision  # noqa: F401  # before stable_baselines3, whose imports reach torchvision

from stable_baselines3.common.policies import BaseModel, BasePolicy  # isort: skip
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.td3.policies import TD3Policy

from sr_env.models import Checkpoint, KernelPredictor
from sr_env.utils.checks import UsageError

#: Largest action whose value before the tanh is told from it.
_INSIDE = 1 - 1e-6


class KernelActor(BasePolicy):
    """mu: LR image -> action.

    Args:
        observation_space: uint8 images, channels first.
        action_space: Actions in [-1, 1].
        predictor: Its architecture and first weights (copied).
        train_features: Whether the convolutions are trained, or only the layers after the pooling.
        learned: How many numbers of the action, the first ones, are trained; None for all. The others have only a bias,
            which :meth:`begin` sets.

    Attributes:
        predictor: The network.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        predictor: KernelPredictor,
        train_features: bool = False,
        learned: int | None = None,
    ) -> None:
        super().__init__(observation_space, action_space, squash_output=True)
        self.learned = learned
        self.predictor = deepcopy(predictor).requires_grad_(train_features)
        self.predictor.head.requires_grad_(True)

    def features(self, observations: Tensor) -> Tensor:
        """Pooled features [B, F] of uint8 images [B, 3, h, w]."""
        return self.predictor.features(to_lr(observations, self.observation_space))

    def logits(self, features: Tensor) -> Tensor:
        """Features [B, F] -> the action before its tanh, float32 [B, L]."""
        logits: Tensor = self.predictor.head(features).float()
        if self.learned is None:
            return logits
        return torch.cat((logits[:, : self.learned], logits[:, self.learned :].detach()), dim=1)

    @torch.no_grad()
    def begin(self, start: KernelPredictor, offset: Tensor) -> None:
        """Give the last layer a bias, of ``start`` moved by ``offset`` [L]."""
        own, before = self.predictor.head[-1], start.head[-1]
        assert isinstance(own, nn.Linear)
        assert isinstance(before, nn.Linear)
        own.bias.copy_(before.bias + offset)

    def forward(self, observations: Tensor) -> Tensor:
        """uint8 images [B, 3, h, w] -> actions in (-1, 1), float32 [B, L]."""
        return torch.tanh(self.logits(self.features(observations)))

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        return self(observation)


class KernelCritic(BaseModel):
    """An ensemble of critics on what the pretrained predictor sees.

    Args:
        observation_space: uint8 images, channels first.
        action_space: Actions in [-1, 1].
        predictor: The pretrained predictor (copied, frozen).
        noise_shape: What turns unit normal numbers into exploration noise, [L, L]: see
            :mod:`blindsr_agents.exploration`. The critics see moves from mu0 in its units.
        n_critics: Size of the ensemble.
        hidden: Width of the hidden layers.
        dropout: Share of the inputs and hidden units left out in training.

    Attributes:
        pretrained: The frozen copy.
        offset: Where the actor begins: by how much it moves every pretrained action before its tanh, [L].
    """

    noise_shape: Tensor
    into_units: Tensor
    offset: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        predictor: KernelPredictor,
        noise_shape: Tensor,
        n_critics: int,
        hidden: int = 256,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(observation_space, action_space)
        self.pretrained = deepcopy(predictor).requires_grad_(False).eval()
        self.register_buffer("noise_shape", noise_shape.detach().clone())
        self.register_buffer("into_units", torch.linalg.inv(noise_shape.detach()))
        self.register_buffer("offset", torch.zeros(len(noise_shape)))
        self.description_size = predictor.feature_size + predictor.code_length
        self.q_networks = QEnsemble(n_critics, self.description_size, predictor.code_length, hidden, dropout)

    @torch.no_grad()
    def describe(self, observations: Tensor) -> Tensor:
        """uint8 images [B, 3, h, w] -> descriptions [B, F + L]: the pretrained features, then the action mu0."""
        features = self.pretrained.features(to_lr(observations, self.observation_space))
        return torch.cat((features, torch.tanh(self.pretrained.head(features).float())), dim=1)

    def split(self, description: Tensor) -> tuple[Tensor, Tensor]:
        """Descriptions [B, F + L] -> pretrained features [B, F] and actions mu0 [B, L]."""
        return description[:, : self.pretrained.feature_size], description[:, self.pretrained.feature_size :]

    def score(self, description: Tensor, actions: Tensor) -> Tensor:
        """Advantages over the pretrained action, by every critic.

        Args:
            description: [B, F + L].
            actions: [B, L], or [B, K, L] for K actions per scene.

        Returns:
            [n_critics, B], or [n_critics, B, K].
        """
        advantages: Tensor = self.q_networks(description, self.moved(description, actions))
        return advantages

    def moved(self, description: Tensor, actions: Tensor) -> Tensor:
        """Differences of actions [B, L] or [B, K, L] from mu0, in units of the exploration noise."""
        start = self.split(description)[1]
        return (actions - (start[:, None] if actions.ndim == 3 else start)) @ self.into_units

    def begun(self, description: Tensor) -> Tensor:
        """The actions [B, L] at which the actor began: mu0, moved by the offset."""
        start = self.split(description)[1]
        moved = torch.tanh(torch.atanh(start.clamp(-_INSIDE, _INSIDE)) + self.offset)
        return torch.where(self.offset == 0, start, moved)

    def forward(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        """SB3's interface: uint8 images and actions -> one [B, 1] per critic."""
        return tuple(self.score(self.describe(observations), actions)[..., None].unbind(0))

    def q1_forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """SB3's interface: the first critic's values [B, 1]."""
        return self(observations, actions)[0]


class KernelPolicy(TD3Policy):
    """Actor, critics and their Polyak averages.

    Episodes of one step bootstrap nothing, so ``critic_target`` serves no loss; ``actor_target``, the average of the
    actors on the way, is what is validated and exported.

    Args:
        observation_space: uint8 images, channels first (SB3 transposes the environment's).
        action_space: Actions in [-1, 1].
        lr_schedule: Learning rate of the critics.
        predictor: The pretrained predictor with its kernel basis.
        noise_shape: What turns unit normal numbers into exploration noise, [L, L]; None makes a tenth of the action
            range's half width of each.
        n_critics: Size of the ensemble.
        hidden: Width of the critics' hidden layers.
        dropout: Share of the critics' inputs and hidden units left out in training.
        train_features: Whether the actor's convolutions are trained too.
        learned: How many numbers of the action, the first ones, the actor learns; None for all.
        **kwargs: Further arguments of SB3's TD3Policy; the optimiser is Adam, fused.

    Raises:
        UsageError: The actions are not as long as the predictor's code.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        *,
        predictor: Checkpoint[KernelPredictor],
        noise_shape: Tensor | None = None,
        n_critics: int = 4,
        hidden: int = 256,
        dropout: float = 0.2,
        train_features: bool = False,
        learned: int | None = None,
        **kwargs: Any,
    ) -> None:
        if action_space.shape != (predictor.network.code_length,):
            raise UsageError(
                f"the predictor gives {predictor.network.code_length} numbers, the actions have shape "
                f"{action_space.shape}: use a predictor trained for this environment's kernel basis"
            )
        self.pretrained_predictor = predictor
        self.noise_shape = 0.1 * torch.eye(predictor.network.code_length) if noise_shape is None else noise_shape
        self.n_critics, self.hidden, self.dropout = n_critics, hidden, dropout
        self.train_features, self.learned = train_features, learned
        if "optimizer_class" not in kwargs:  # Adam, of which a fused step costs less than half
            kwargs["optimizer_kwargs"] = {"fused": True, **(kwargs.get("optimizer_kwargs") or {})}
        super().__init__(observation_space, action_space, lr_schedule, n_critics=n_critics, **kwargs)

    def make_actor(self, features_extractor: Any = None) -> KernelActor:  # type: ignore[override]
        """A copy of the pretrained predictor."""
        predictor = self.pretrained_predictor.network
        settings = (self.train_features, self.learned)
        actor = KernelActor(self.observation_space, self.action_space, predictor, *settings)  # type: ignore[arg-type]
        return actor.to(self.device)

    def make_critic(self, features_extractor: Any = None) -> KernelCritic:  # type: ignore[override]
        """New critics around a frozen copy of the pretrained predictor."""
        critic = KernelCritic(
            self.observation_space,
            self.action_space,  # type: ignore[arg-type]
            self.pretrained_predictor.network,
            self.noise_shape,
            self.n_critics,
            self.hidden,
            self.dropout,
        )
        return critic.to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {
            "predictor": self.pretrained_predictor,
            "noise_shape": self.noise_shape,
            "n_critics": self.n_critics,
            "hidden": self.hidden,
            "dropout": self.dropout,
            "train_features": self.train_features,
            "learned": self.learned,
        }


def to_lr(observations: Tensor, space: spaces.Space[Any]) -> Tensor:
    """uint8 images [B, 3, h, w] -> LR images, float32 in [0, 1]."""
    lr = preprocess_obs(observations, space)
    assert isinstance(lr, Tensor)
    return lr
