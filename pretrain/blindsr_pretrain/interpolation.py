"""Averages of the weights of two renderers.

Network interpolation (Wang et al., "ESRGAN", 2018, section 3.4): theta = (1 - share) theta_first + share theta_second.
It only means something where one was fine-tuned from the other, or both from a third.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blindsr_pretrain.data import split_photos
from blindsr_pretrain.settings import DataSettings
from blindsr_pretrain.state import named_weights
from blindsr_pretrain.task import code_predictor
from blindsr_pretrain.validation import ValidationSet
from sr_env.degradation import Degradation
from sr_env.models import Checkpoint, load_renderer, save_checkpoint
from sr_env.photos import fingerprint
from sr_env.utils.checks import UsageError
from sr_env.utils.devices import resolve_device
from sr_env.utils.finished import Finished, open_run
from sr_env.utils.provenance import command_line, commit, hardware, public_path
from sr_env.utils.resume import kept_settings

#: What a card says of each of the two; the rest of it is the first one's.
_KEPT = ("steps", "seconds", "command", "commit", "start", "losses", "codes", "validation", "notes", "interpolated")

#: Settings that a resumed measurement may change: where it runs and writes.
_CHANGEABLE = frozenset({"out", "resume", "device"})


@dataclass(kw_only=True)
class InterpolationSettings(DataSettings):
    """Average two renderers, and measure the result on the photos that were held out of their training.

    Attributes:
        first: Name or path of a renderer.
        second: Name or path of another of the same architecture and kernel basis.
        share: Share of the second, in [0, 1].
        predictor: Name or path of a kernel predictor to measure the result with; None measures with the true codes.
        device: "auto", "cpu", "cuda" or "cuda:N".
        out: Folder for the average, under the first one's file name, and for the state to resume from.
        resume: Go on from the state in ``out``: what is measured there is not measured again.
    """

    first: str
    second: str
    share: float = 0.5
    predictor: str | None = None
    device: str = "auto"
    out: Path = Path("runs/interpolated")
    resume: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share <= 1:
            raise UsageError(f"share is {self.share}: give a number from 0 (the first alone) to 1 (the second alone)")


@torch.no_grad()
def interpolate(first: Checkpoint[nn.Module], second: Checkpoint[nn.Module], share: float) -> nn.Module:
    """A renderer with (1 - share) of the first one's weights and share of the second's.

    Args:
        first: One renderer.
        second: The other, on the same device.
        share: In [0, 1].

    Raises:
        UsageError: The two differ in architecture or kernel basis.
    """
    for key in ("architecture", "basis"):
        if first.card[key] != second.card[key]:
            raise UsageError(
                f"{first.path.name} and {second.path.name} differ in {key} ({first.card[key]}, {second.card[key]}): "
                "only renderers of one kind, of which one was trained from the other or both from a third, "
                "can be averaged"
            )
    network = copy.deepcopy(first.network)
    other = second.network.state_dict()
    network.load_state_dict(
        {name: value.lerp(other[name], share) for name, value in first.network.state_dict().items()}
    )
    return network.eval()


def average_renderers(settings: InterpolationSettings) -> tuple[Path, dict[str, float]]:
    """Average, measure on the held-out photos and write.

    Returns:
        The file written, and the figures.

    Raises:
        FileInTheWayError: ``out`` holds another average.
        UsageError: The two cannot be averaged, the result would replace one of them, or there is nothing to resume or
            it is of other settings.
    """
    device = resolve_device(settings.device)
    first, second = (load_renderer(name, device=device) for name in (settings.first, settings.second))
    target = settings.out / first.path.name
    if target.resolve() in (first.path.resolve(), second.path.resolve()):
        raise UsageError(f"{target} is one of the two to average: choose another --out")
    predict = code_predictor(settings.predictor, first.scale, first.basis, device)
    network = interpolate(first, second, settings.share)
    room = sum(p.numel() * p.element_size() for p in network.parameters())
    open_run(settings.out, (target.name,), settings.resume, room)
    held_out = split_photos(settings)[2]
    made_with = {"commit": commit(), "hardware": hardware(device), "torch": torch.__version__}
    inputs = {"first": first.identity, "second": second.identity, "data": fingerprint(held_out)}
    kept = kept_settings(settings, _CHANGEABLE, **inputs, **named_weights(settings))
    finished = Finished(settings.out, kept, settings.resume, made_with)
    measure = ValidationSet(
        held_out,
        Degradation(first.scale),
        first.basis,
        device,
        settings.softness_at(first.scale) / 2,
        metrics=("lpips", "psnr"),
    )
    with finished:
        measured = measure.score(network, predict, finished.take)[0]
    figures = {name: round(value, 4) for name, value in measured.items()}
    card: dict[str, Any] = {
        **first.card,
        "interpolated": [
            {
                "weights": public_path(name),
                "share": share,
                **{key: checkpoint.card[key] for key in _KEPT if key in checkpoint.card},
            }
            for name, checkpoint, share in (
                (settings.first, first, 1 - settings.share),
                (settings.second, second, settings.share),
            )
        ],
        "command": command_line(),
        "commit": commit(),
        "validation": figures,
        **({"earlier": finished.earlier} if finished.earlier else {}),
    }
    save_checkpoint(target, network, first.basis, first.scale, card)
    return target, figures
