"""What every way of improving the pretrained actor shares: photos, selection, and the checkpoint it writes.

HingeDDPG (``agents/train_ddpg.py``) and what it is measured against (``agents/train_baseline.py``) train on the same
photos, are selected on the same held-out ones, and write the same kind of file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from blindsr_agents.evaluation.scene_sets import WholeScenes
from blindsr_agents.training.selection import Selection
from blindsr_agents.training.settings import ImprovementSettings
from blindsr_agents.training.state import STATE, check_state, save_actor
from sr_env.models import Checkpoint, KernelPredictor, widened
from sr_env.photos import BundledPhotos, Part, PhotoSource, Softened, Subset, fingerprint, hold_out, open_photos
from sr_env.simulator import Simulator, SimulatorSettings
from sr_env.utils.digests import tensor_digest
from sr_env.utils.provenance import command_line, commit, hardware, public_path
from sr_env.utils.resume import kept_settings

#: Bytes of decoded photos kept, so that a whole run stays under 2 GB.
_PHOTO_MEMORY = 512 * 1024**2


class Improvement:
    """Photos to train on, and the selection of actors on others.

    Args:
        settings: The run's.
        photos: HR photos to train on and to hold some out of, as ``open_photos`` takes them (a list of uint8 RGB
            arrays, say); None takes the settings'.

    Attributes:
        settings: As given.
        photos: Photos to train on.
        few: Whether there are so few that parts of them are held out, in place of whole ones.
        simulator: Degrades, renders and scores the held-out photos.
        pretrained: The actor to be improved: the predictor, which gives zeros for the controls beside the code.
        selection: Keeps the best actor.
        kept: What the state keeps of the settings, and what a resumed run must have.

    Raises:
        UsageError: A setting is wrong, nothing can be held out, a folder or checkpoint does not exist, or the run is to
            go on from a state of other settings.
    """

    def __init__(
        self, settings: ImprovementSettings, photos: PhotoSource | Sequence[NDArray[np.uint8]] | None = None
    ) -> None:
        self.settings = settings
        source = open_photos(
            settings.photos if photos is None else photos,
            split="train",
            min_size=settings.patch_size,
            memory_budget=_PHOTO_MEMORY,
        )
        self.photos, held_out = self._split(source)
        self.few = isinstance(held_out, Part)
        others = f"ends of {len(held_out)} of them" if self.few else f"{len(held_out)} others"
        self._whose = public_path(settings.photos) if photos is None else "the caller's own"
        self._data = f"{len(self.photos)} photographs of {self._whose}; {others} held out to select by"
        if settings.softness != 0:
            self.photos = Softened(self.photos, settings.softness, both=True)
            held_out = Softened(held_out, settings.softness, both=False)
        self.simulator = Simulator(
            SimulatorSettings(photos=held_out, info_metrics=tuple(settings.guards), **settings.environment())
        )
        self.simulator.check_patches()
        assert self.simulator.predictor is not None
        self.pretrained: Checkpoint[KernelPredictor] = widened(self.simulator.predictor, settings.controls)
        self.kept = kept_settings(
            settings,
            photos=fingerprint(source),
            renderer=_identity(self.simulator.renderer),
            predictor=_identity(self.simulator.predictor),
        )
        if settings.resume:
            check_state(settings.out / STATE, self.kept)
        scenes = WholeScenes(self.simulator, settings.selection_widths, max_side=settings.selection_side)
        self.selection = Selection(scenes, self.pretrained.network, settings.guards)

    def _split(self, source: PhotoSource) -> tuple[PhotoSource, PhotoSource]:
        count, size = self.settings.selection_photos, self.settings.patch_size
        if not isinstance(source, BundledPhotos) and len(source) >= 2 * count:
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

        Where the pretrained actor is released, the file holds what differs from it.

        Args:
            actor: The actor that was chosen.
            card: What is known of the training: method, steps, seconds, ...
        """
        settings = self.settings
        gain = dict(self.selection.history)[self.selection.best_step]
        digest = self.simulator.renderer.card.get("digest")
        full = {
            "start": self.pretrained.path.stem,
            "renderer": self.simulator.renderer.path.stem,
            **({"renderer_digest": digest} if digest else {}),
            "reward": dict(settings.reward),
            **card,
            "selection": {f"{width:g}": value for width, value in zip(settings.selection_widths, gain, strict=True)},
            "data": self._data,
            "hardware": hardware(self.simulator.device),
            "torch": torch.__version__,
            "seed": settings.seed,
            "command": command_line(),
            "commit": commit(),
            "settings": {k: public_path(v) if isinstance(v, Path | str) else v for k, v in asdict(settings).items()}
            | {"photos": self._whose},
            "licence": "Apache-2.0",
        }
        return save_actor(settings.out / f"actor_x{settings.scale}.safetensors", actor, self.pretrained, full)


def _identity(checkpoint: Checkpoint[Any]) -> str:
    """A network's name, and what tells it from others of that name."""
    return f"{checkpoint.path.stem} (digest {tensor_digest(checkpoint.network.state_dict())})"
