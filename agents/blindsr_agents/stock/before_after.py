"""What any algorithm's training run is judged by: the held-out reward of its actor before and after."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from blindsr_agents.evaluation import scores as rules
from blindsr_agents.evaluation.scene_sets import FixedScenes
from blindsr_agents.evaluation.scores import Scores
from blindsr_agents.training.setup import split_lr_photos
from sr_env.degradation import REPORTED_WIDTHS
from sr_env.photos import PhotoSource, open_photos
from sr_env.simulator import Simulator, SimulatorSettings
from sr_env.utils.checks import UsageError
from sr_env.utils.devices import Precision
from sr_env.utils.images import to_uint8
from sr_env.utils.script import Weights

#: uint8 LR images [B, h, w, 3] -> actions, float32 [B, L].
Actor = Callable[[np.ndarray], np.ndarray]
#: Seed of the held-out scenes: the same ones whatever the training's seed.
_HELD_OUT_SEED = 3
#: LR photographs held out at most.
_HELD_OUT = 16


@dataclass
class LearningSettings:
    """Train an agent and compare its actor on held-out photographs with its own start.

    Attributes:
        steps: Environment steps in all.
        seed: Seed of scenes, exploration, networks and batches.
        photos: Folder of HR photos to train on, searched recursively; "bundled" takes scikit-image's photographs.
        test_photos: Folder of HR photos to test on; "bundled" takes the scikit-image photographs not trained on.
        lr_photos: Folder of photographs to train on as they are, in place of ``photos``: they are the LR images, and
            metrics must need no HR. A quarter of them, 16 at most, is held out to test on, unless ``test_photos`` names
            LR photographs for that.
        kernels: Kernel family, the renderer's own; None takes "isotropic", or "real" with ``lr_photos``.
        reward: Metrics and weights that the agent is paid by, such as ``--reward psnr=1,lpips=20``.
        reference: What the reward is counted from: the bicubic enlargement, or the renderer with the predictor's code.
        renderer: Name or path of the frozen renderer; None takes ``amnet_l_x{scale}``, or ``amnet_real_x{scale}`` for
            the kernels "real".
        predictor: Name or path of the kernel predictor; None takes ``predictor_x{scale}``, or
            ``predictor_real_x{scale}`` for the kernels "real".
        scale: Magnification.
        patch_size: HR patch side in pixels.
        test_crops: Crops of the test photos.
        test_widths: Kernel widths at which each is tested; None takes those that are reported for the scale.
            ``lr_photos`` have none.
        controls: What an action holds: code, and after it any of sharpen and blend, in this order.
        blend_renderer: Name or path of the renderer at the other end of "blend"; None takes the released one.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: Of the renderer: "auto" (bf16 where the device computes in it), "fp32" or "bf16".

    Raises:
        UsageError: A number of steps or crops is not positive, or both kinds of photos are given.
    """

    steps: int = 4000
    seed: int = 0
    photos: str = "bundled"
    test_photos: str = "bundled"
    lr_photos: str | None = None
    kernels: str | None = None
    reward: Weights = field(default_factory=lambda: {"psnr": 1.0})
    reference: Literal["bicubic", "predictor"] = "bicubic"
    renderer: str | None = None
    predictor: str | None = None
    scale: int = 4
    patch_size: int = 192
    test_crops: int = 24
    test_widths: tuple[float, ...] | None = None
    controls: tuple[str, ...] = ("code",)
    blend_renderer: str | None = None
    device: str = "auto"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "test_crops"):
            if (value := getattr(self, name)) < 1:
                raise UsageError(f"{name} {value} is not positive: give 1 or more")
        if self.lr_photos is not None and self.photos != "bundled":
            raise UsageError("photos and lr_photos are both given: give photos with HR, or those without, alone")

    def environment(self) -> dict[str, Any]:
        """Keywords for ``gym.make`` and ``gym.make_vec``."""
        trained: Any = self.photos if self.lr_photos is None else self._lr_photos()[0]
        return {
            "photos" if self.lr_photos is None else "lr_photos": trained,
            "kernels": self.kernels or ("isotropic" if self.lr_photos is None else "real"),
            "reward": self.reward,
            "reference": self.reference,
            "renderer": self.renderer,
            "predictor": self.predictor,
            "scale": self.scale,
            "patch_size": self.patch_size,
            "controls": self.controls,
            "blend_renderer": self.blend_renderer,
            "device": self.device,
            "precision": self.precision,
        }

    def held_out(self) -> HeldOutScenes:
        """The scenes on which actors are compared.

        Raises:
            UsageError: A setting is wrong.
            MissingFileError: A folder or checkpoint does not exist.
        """
        if self.lr_photos is None:
            name, photos = "photos", open_photos(self.test_photos, split="test", min_size=self.patch_size)
        else:
            name, photos = "lr_photos", self._lr_photos()[1]
        simulator = Simulator(SimulatorSettings(**self.environment() | {name: photos}))
        widths = () if simulator.without_hr else self.test_widths or REPORTED_WIDTHS[self.scale]
        return HeldOutScenes(simulator, self.test_crops, widths)

    def _lr_photos(self) -> tuple[PhotoSource, PhotoSource]:
        """Photographs to train on as they are, and others to test on."""
        assert self.lr_photos is not None
        size = self.patch_size // self.scale
        source = open_photos(self.lr_photos, split="train", min_size=size)
        if self.test_photos != "bundled":
            return source, open_photos(self.test_photos, min_size=size)
        train, test = split_lr_photos(source, size, _HELD_OUT, sets=1)
        return train, test


class HeldOutScenes:
    """Fixed scenes on which actors are compared.

    Args:
        simulator: Draws and scores.
        crops: Crops in all.
        widths: Kernel widths in HR pixels; none for photographs as they are.

    Attributes:
        scenes: The scenes.
        reference: Scores of what the reward is counted from.
    """

    def __init__(self, simulator: Simulator, crops: int, widths: Sequence[float]) -> None:
        self.scenes = FixedScenes(simulator, crops, widths, _HELD_OUT_SEED)
        self.reference = self.scenes.score(lambda scenes: simulator.reconstruct(scenes)[0])

    def score(self, actor: Actor) -> Scores:
        """Scores of an actor."""

        def act(lr: Tensor) -> Tensor:
            return torch.from_numpy(actor(to_uint8(lr))).to(lr.device)

        return self.scenes.score(self.scenes.acting(act))

    def reward(self, scores: Scores) -> float:
        """Mean reward: the score above the reference's."""
        return float(scores.gain(self.reference).mean())


@dataclass(frozen=True)
class BeforeAfter:
    """What came of one training run on held-out scenes.

    Attributes:
        before: Scores of the untrained actor.
        after: Scores of the trained actor.
        reward_before: Mean reward of the untrained actor.
        reward_after: Mean reward of the trained actor.
        steps: Environment steps taken.
        seconds: Wall time of the training, without the tests.
    """

    before: Scores
    after: Scores
    reward_before: float
    reward_after: float
    steps: int
    seconds: float

    @classmethod
    def of(cls, held_out: HeldOutScenes, actor: Actor, train: Callable[[], int]) -> BeforeAfter:
        """Test an actor, train it, and test it again.

        Args:
            held_out: Where it is tested.
            actor: Acts with what ``train`` changes.
            train: Trains; returns the environment steps taken.
        """
        before = held_out.score(actor)
        begun = time.monotonic()
        steps = train()
        seconds = time.monotonic() - begun
        after = held_out.score(actor)
        return cls(before, after, held_out.reward(before), held_out.reward(after), steps, seconds)

    @property
    def gain(self) -> float:
        """Mean reward after over before."""
        return self.reward_after - self.reward_before

    @property
    def standard_error(self) -> float:
        """Of the gain; a crop, which is seen at every width, counts as one sample. NaN of one crop."""
        return self.after.standard_error(self.before)

    @property
    def verdict(self) -> str:
        """Whether the trained actor is better than its start."""
        return rules.verdict(self.gain, self.standard_error, "its start")

    def sentence(self, name: str) -> str:
        """What came of it, in one line."""
        return (
            f"{name}: held-out reward {self.reward_before:+.3f} -> {self.reward_after:+.3f} (gain {self.gain:+.3f}, "
            f"standard error {self.standard_error:.3f}) after {self.steps} steps in {self.seconds:.0f} s: "
            f"{self.verdict}"
        )
