"""What the pretrained kernel predictor sees in an LR image: a short description for agents that learn on top of it.

Recognising blur takes a convolutional network that was trained for it, which a few thousand rewards cannot replace.
Its convolutions stay frozen, so a scene is described once, and replay memories hold 192 numbers instead of an image.
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from sr_env.models import KernelPredictor, default_predictor, load_predictor
from sr_env.simulator import UNIFORMS_PER_SCENE, Simulator
from sr_env.utils.checks import UsageError
from sr_env.utils.images import to_images

#: Scenes over which the features' mean and spread are measured, and the seed they are drawn with.
_SCENES, _SEED = 64, 0


class SceneFeatures:
    """LR images -> the predictor's pooled features, with mean 0 and spread 1 over scenes.

    Args:
        predictor: The pretrained predictor; it is not trained.
        lr: LR images over which mean and spread are measured, float32 in [0, 1], [B, 3, h, w], B > 1.

    Attributes:
        space: Of one description: float32 [F].

    Raises:
        UsageError: Fewer than two images.
    """

    def __init__(self, predictor: KernelPredictor, lr: Tensor) -> None:
        if len(lr) < 2:
            raise UsageError(f"{len(lr)} LR image(s) tell no spread of the features: give two or more")
        self._predictor = predictor.eval()
        with torch.no_grad():
            features = predictor.features(lr).float()
        self._mean = features.mean(0)
        # A feature that never changes tells nothing, and must not become large where it does change a little.
        self._spread = features.std(0).clamp_min(1e-3)
        self.space = spaces.Box(-np.inf, np.inf, (predictor.feature_size,), np.float32)

    @classmethod
    def of(cls, simulator: Simulator, predictor: str | None = None) -> SceneFeatures:
        """Features of a simulator's LR images, measured over scenes of its photos (the same in every call).

        Args:
            simulator: Draws the scenes.
            predictor: Name or path of a kernel predictor; None takes ``predictor_x{scale}``.

        Raises:
            UsageError: The predictor is for another scale.
            MissingFileError: There is no such predictor.
        """
        name = predictor or default_predictor(simulator.renderer)
        network = load_predictor(name, scale=simulator.scale, device=simulator.device).network
        scenes = simulator.draw(np.random.default_rng(_SEED).random((_SCENES, UNIFORMS_PER_SCENE)))
        return cls(network, scenes.lr)

    @torch.no_grad()
    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """uint8 images [N, h, w, 3] (or one, [h, w, 3]) -> float32 [N, F] (or [F])."""
        single = observations.ndim == 3
        lr = to_images(observations[None] if single else observations, self._mean.device)
        features = (self._predictor.features(lr).float() - self._mean) / self._spread
        array: np.ndarray = features.cpu().numpy()
        return array[0] if single else array
