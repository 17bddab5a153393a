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
from sr_env.utils.checks import UsageError
from sr_env.utils.provenance import command_line, commit, hardware, public_path
from sr_env.utils.resume import kept_settings

#: Bytes of decoded photos kept, so that a whole run stays under 2 GB.
_PHOTO_MEMORY = 512 * 1024**2


def split_photos(source: PhotoSource, size: int, count: int, sets: int = 1) -> tuple[PhotoSource, ...]:
    """Photos to train on, and others.

    Args:
        source: The photos.
        size: Pixels that either side of a part must have.
        count: Photos in each set of others.
        sets: How many sets of others.

    Returns:
        Those to train on, and the sets. Where the sets would leave less than half of the photos to train on, and of the
        bundled ones, every set is the same: the ends of the photos, of which the rest is trained on.

    Raises:
        UsageError: No photo is long enough to be cut.
    """
    held = count * sets
    if not isinstance(source, BundledPhotos) and count > 0 and len(source) >= 2 * held:
        kept, left = hold_out(len(source), held)
        return (Subset(source, kept), *(Subset(source, part) for part in np.split(left, sets)))
    return (Part(source, size, held_out=False), *[Part(source, size, held_out=True)] * sets)


def split_lr_photos(source: PhotoSource, size: int, count: int, sets: int = 2) -> tuple[PhotoSource, ...]:
    """:func:`split_photos` of a user's own photographs: to train on, to select by, and to report on.

    Each set of others is a quarter of them, or ``count`` where that is less; under eight photographs are cut instead.
    Of the bundled ones those that nothing is trained on are the last set.
    """
    quarter = len(source) // 4 if len(source) >= 8 else 0
    train, *others = split_photos(source, size, min(count, quarter), sets)
    if isinstance(source, BundledPhotos):
        others[-1] = BundledPhotos("test", min_size=size)
    return (train, *others)


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
        if settings.without_hr and photos is not None:
            raise UsageError("photos and lr_photos are both given: give photos with HR, or those without, alone")
        given = settings.photos if settings.lr_photos is None else settings.lr_photos
        size = settings.patch_size // (settings.scale if settings.without_hr else 1)
        self._reported: PhotoSource | None = None
        source = open_photos(
            given if photos is None else photos, split="train", min_size=size, memory_budget=_PHOTO_MEMORY
        )
        if settings.without_hr:
            self.photos, held_out, self._reported = split_lr_photos(source, size, settings.selection_photos)
        else:
            self.photos, held_out = split_photos(source, size, settings.selection_photos)
        self.few = isinstance(held_out, Part)
        others = f"ends of {len(held_out)} of them" if self.few else f"{len(held_out)} others"
        self._whose = public_path(given) if photos is None else "the caller's own"
        self._data = f"{len(self.photos)} photographs of {self._whose}; {others} held out to select by"
        if settings.softness != 0:
            self.photos = Softened(self.photos, settings.softness, both=True)
            held_out = Softened(held_out, settings.softness, both=False)
        self.simulator = Simulator(
            SimulatorSettings(info_metrics=tuple(settings.guards), **settings.environment(held_out))
        )
        self.simulator.check_patches()
        assert self.simulator.predictor is not None
        self.pretrained: Checkpoint[KernelPredictor] = widened(self.simulator.predictor, settings.controls)
        self.kept = kept_settings(
            settings,
            **{self._source: fingerprint(source)},
            renderer=self.simulator.renderer.identity,
            predictor=self.simulator.predictor.identity,
        )
        if settings.resume:
            check_state(settings.out / STATE, self.kept)
        widths = () if settings.without_hr else settings.selection_widths
        scenes = WholeScenes(self.simulator, widths, max_side=settings.selection_side)
        self.selection = Selection(scenes, self.pretrained.network, settings.guards)

    @property
    def _source(self) -> str:
        """Name of the setting that the photos are of."""
        return "lr_photos" if self.settings.without_hr else "photos"

    @property
    def reported(self) -> PhotoSource:
        """Photographs to report on: the bundled test photos, or of ``lr_photos`` those left for it.

        They are neither trained on nor selected by, unless there are too few.
        """
        return self._reported or BundledPhotos("test", min_size=self.settings.patch_size)

    @property
    def reported_title(self) -> str:
        """What is reported on, for a table's title."""
        if not self.settings.without_hr:
            return ", ".join(self.reported.names)
        same = self.reported.names == self.simulator.photos.names
        return f"{len(self.reported)} LR photographs" + (", the parts that actors were selected by" if same else "")

    def choose(self, actor: KernelPredictor, console: Console) -> str:
        """Give an actor the weights that were selected, say which, and return that for the card."""
        if self.selection.best is None:
            console.print(
                "No actor beat the pretrained one on the selection scenes"
                f"{self.selection.conditions}: the PRETRAINED actor is kept and exported as it was."
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
            "selection": self.selection.scenes.by_width(gain) or {"photographs": gain[0]},
            "data": self._data,
            "hardware": hardware(self.simulator.device),
            "torch": torch.__version__,
            "seed": settings.seed,
            "command": command_line(),
            "commit": commit(),
            "settings": {k: public_path(v) if isinstance(v, Path | str) else v for k, v in asdict(settings).items()}
            | {self._source: self._whose},
            "licence": "Apache-2.0",
        }
        return save_actor(settings.out / f"actor_x{settings.scale}.safetensors", actor, self.pretrained, full)
