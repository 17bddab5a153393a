"""What every way of improving the pretrained actor shares: settings, photos, selection, and the checkpoint it writes.

HingeDDPG (``agents/train_ddpg.py``) and what it is measured against (``agents/train_baseline.py``) train on the same
photos, are selected on the same held-out ones, and write the same kind of file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from blindsr_agents.evaluation.scene_sets import Selection, WholeScenes
from sr_env.models.checkpoint import RELEASED, Checkpoint, save_checkpoint
from sr_env.models.predictor import KernelPredictor
from sr_env.photos import Part, PhotoSource, Softened, Subset, hold_out, open_photos
from sr_env.simulator import Simulator, SimulatorSettings
from sr_env.utils.devices import Precision
from sr_env.utils.provenance import command_line, commit, hardware, public_path
from sr_env.utils.script import Weights

#: Bytes of decoded photos kept, so that a whole run stays under 2 GB.
_PHOTO_MEMORY = 512 * 1024**2


@dataclass
class ImprovementSettings:
    """Settings shared by everything that improves a pretrained actor.

    Attributes:
        out: Folder for everything that is written; files of a run before are replaced.
        photos: Folder of HR photos to train on, searched recursively; "bundled" takes scikit-image's photographs.
        reward: Metrics and weights that the actor is paid by, such as ``--reward psnr=1,lpips=20``.
        renderer: Name or path of the frozen renderer; None takes ``amnet_l_x{scale}``.
        predictor: Name or path of the pretrained actor; None takes ``predictor_x{scale}``.
        scale: Magnification.
        patch_size: HR patch side in pixels.
        minutes: Training stops after so many minutes.
        select_every: SR images rendered between validations on the selection scenes.
        selection_photos: Photos of the folder held out to select actors by. Where there are too few photos (as in the
            bundled source) a quarter of each is held out instead.
        selection_side: Longest side in HR pixels of what is taken of them; None takes them whole.
        softness: Every photo is there twice, as it is and softened by a Gaussian of a width up to this in HR pixels; of
            those held out every second is softened. 0 softens none, and trains for photographs as sharp as these are:
            on softer ones an actor trained for LPIPS sharpens too much. See docs/rl.md.
        selection_widths: Kernel widths of the selection scenes; an actor that loses at one of them is not taken.
        guards: How much worse other metrics may become on the selection scenes, such as ``--guards psnr=0.1``, in their
            own units, as the mean over widths.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: Of the renderer: "auto" (bf16 where the device computes in it), "fp32" or "bf16".
        metric_precision: The same for the networks in lpips, lpips_vgg and dists, in training and selection; reports
            are made in fp32.
        seed: Seed of scenes, exploration, networks and batches.
    """

    out: Path = Path("runs/ddpg")
    photos: str = "bundled"
    reward: Weights = field(default_factory=lambda: {"lpips": 1.0})
    renderer: str | None = None
    predictor: str | None = None
    scale: int = 4
    patch_size: int = 192
    minutes: float = 3.5
    select_every: int = 640
    selection_photos: int = 16
    selection_side: int | None = 288
    softness: float = 0.0
    selection_widths: tuple[float, ...] = (0.2, 1.3, 2.6, 3.6)
    guards: Weights = field(default_factory=dict)
    device: str = "auto"
    precision: Precision = "auto"
    metric_precision: Precision = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("select_every", "selection_photos"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is not positive: give 1 or more")
        if not self.minutes > 0:
            raise ValueError(f"minutes {self.minutes} leave no time to train: give a positive number")

    def environment(self) -> dict[str, Any]:
        """Keywords of the environment, but for its photos."""
        return {
            "scale": self.scale,
            "patch_size": self.patch_size,
            "renderer": self.renderer,
            "predictor": self.predictor,
            "reward": self.reward,
            "reference": "predictor",
            "device": self.device,
            "precision": self.precision,
            "metric_precision": self.metric_precision,
        }

    def reporting(self) -> dict[str, Any]:
        """The same for what is reported at the end: PSNR and LPIPS whatever the reward, and metrics in float32."""
        return self.environment() | {"info_metrics": ("psnr", "lpips"), "metric_precision": "fp32"}


class Improvement:
    """Photos to train on, and the selection of actors on others.

    Args:
        settings: The run's.

    Attributes:
        settings: As given.
        photos: Photos to train on.
        simulator: Degrades, renders and scores the held-out photos.
        pretrained: The actor to be improved.
        selection: Keeps the best actor.

    Raises:
        ValueError: A setting is wrong, or nothing can be held out.
        FileNotFoundError: A folder or checkpoint does not exist.
    """

    def __init__(self, settings: ImprovementSettings) -> None:
        self.settings = settings
        source = open_photos(settings.photos, split="train", min_size=settings.patch_size, memory_budget=_PHOTO_MEMORY)
        self.photos, held_out = self._split(source)
        others = f"ends of {len(held_out)} of them" if isinstance(held_out, Part) else f"{len(held_out)} others"
        self._data = f"{len(self.photos)} photographs of {public_path(settings.photos)}; {others} held out to select by"
        if settings.softness != 0:
            self.photos = Softened(self.photos, settings.softness, both=True)
            held_out = Softened(held_out, settings.softness, both=False)
        self.simulator = Simulator(
            SimulatorSettings(photos=held_out, info_metrics=tuple(settings.guards), **settings.environment())
        )
        assert self.simulator.predictor is not None
        self.pretrained: Checkpoint[KernelPredictor] = self.simulator.predictor
        scenes = WholeScenes(self.simulator, settings.selection_widths, max_side=settings.selection_side)
        self.selection = Selection(scenes, self.pretrained.network, settings.guards)

    def _split(self, source: PhotoSource) -> tuple[PhotoSource, PhotoSource]:
        count, size = self.settings.selection_photos, self.settings.patch_size
        if self.settings.photos != "bundled" and len(source) >= 2 * count:
            kept, left = hold_out(len(source), count)
            return Subset(source, kept), Subset(source, left)
        return Part(source, size, held_out=False), Part(source, size, held_out=True)

    def choose(self, actor: KernelPredictor, console: Console) -> str:
        """Give an actor the weights that were selected, say which, and return that for the card."""
        if self.selection.best is None:
            console.print(
                "No actor beat the pretrained one on the selection scenes without losing at some kernel width"
                + (" or breaking a guard" if self.settings.guards else "")
                + ": the PRETRAINED actor is kept and exported as it was."
            )
            actor.load_state_dict(self.pretrained.network.state_dict())
            return "pretrained"
        step, gain = self.selection.best_step, self.selection.best_gain
        console.print(f"Kept the actor of step {step}, {gain:+.4f} on the selection scenes.")
        actor.load_state_dict(self.selection.best)
        return f"step {step}"

    def save(self, actor: KernelPredictor, card: Mapping[str, Any]) -> Path:
        """Write ``actor_x{scale}.safetensors`` and its card.

        Where the pretrained actor ships, the file holds what differs from it.

        Args:
            actor: The actor that was chosen.
            card: What is known of the training: method, steps, seconds, ...
        """
        settings, start = self.settings, self.pretrained.path
        gain = dict(self.selection.history)[self.selection.best_step]
        full = {
            "start": start.stem,
            "renderer": self.simulator.renderer.path.stem,
            "reward": dict(settings.reward),
            **card,
            "selection": {f"{width:g}": value for width, value in zip(settings.selection_widths, gain, strict=True)},
            "data": self._data,
            "hardware": hardware(self.simulator.device),
            "torch": torch.__version__,
            "seed": settings.seed,
            "command": command_line(),
            "commit": commit(),
            "settings": {k: public_path(v) if isinstance(v, Path | str) else v for k, v in asdict(settings).items()},
            "licence": "Apache-2.0",
        }
        path = settings.out / f"actor_x{settings.scale}.safetensors"
        base = start.stem if start.parent == RELEASED else None
        return save_checkpoint(path, actor, self.simulator.basis, settings.scale, full, base)
