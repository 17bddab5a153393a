"""The policy of IterativeHinge: state -> correction of the code, its file, and how it is played on LR images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sr_env.degradation import bicubic_resize, quantize
from sr_env.models import Checkpoint, KernelPredictor, card_controls, widened
from sr_env.models.checkpoint_file import check_tensors, parse_card
from sr_env.simulator import Simulator
from sr_env.utils.checks import MissingFileError, UsageError, check_sizes
from sr_env.utils.digests import tensor_digest
from sr_env.utils.files import atomic_write

#: Bound of an episode's steps and of a layer's width that a file may ask for.
_LARGEST = 4096


class Parts(NamedTuple):
    """What a state is made of, for B states.

    Attributes:
        lr: Pretrained features of LR, [B, F].
        start: The pretrained action mu0, [B, L].
        code: The code so far, in action units, [B, L].
        sr: Pretrained features of the SR thumbnail, [B, F].
        step: Which step of the episode it is, one-hot, [B, max_steps].
    """

    lr: Tensor
    start: Tensor
    code: Tensor
    sr: Tensor
    step: Tensor


def silence(layer: nn.Module) -> None:
    """Make a linear layer give zeros."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class Corrector(nn.Module):
    """The policy: state -> correction of the code; untrained, it corrects nothing.

    A state is one row of numbers, float32 [B, D]: see :class:`Parts`. It is computed once and kept.

    Args:
        predictor: The pretrained predictor with its kernel basis (copied, frozen).
        correction: Largest change of a code component by one action, in action units: the environment's setting.
        max_steps: Steps of an episode.
        noise_shape: What turns unit normal numbers into exploration noise, [L, L]: see
            :mod:`blindsr_agents.exploration`. The networks see the code so far as a move from mu0 in its units. None
            makes a tenth of each component.
        hidden: Width of the hidden layer.

    Attributes:
        head: What is trained.
        state_size: D.
    """

    noise_shape: Tensor
    into_units: Tensor

    def __init__(
        self,
        predictor: Checkpoint[KernelPredictor],
        correction: float,
        max_steps: int,
        noise_shape: Tensor | None = None,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        network = predictor.network
        self.correction, self.max_steps, self.hidden = correction, max_steps, hidden
        self.pretrained = deepcopy(network).requires_grad_(False).eval()
        shape = 0.1 * torch.eye(network.code_length) if noise_shape is None else noise_shape.detach().clone()
        self.register_buffer("noise_shape", shape)
        self.register_buffer("into_units", torch.linalg.inv(shape))
        self._sizes = (network.feature_size, network.code_length, network.code_length, network.feature_size, max_steps)
        self.state_size = sum(self._sizes)
        last = nn.Linear(hidden, network.code_length)
        self.head = nn.Sequential(nn.Linear(self.state_size, hidden), nn.LayerNorm(hidden), nn.SiLU(), last)
        self.withdraw()

    def withdraw(self) -> None:
        """Correct nothing, as before any training."""
        silence(self.head[-1])

    @torch.no_grad()
    def describe(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """LR images, float32 in [0, 1], [B, 3, h, w] -> pretrained features [B, F] and actions mu0 [B, L]."""
        features = self.pretrained.features(lr)
        return features, torch.tanh(self.pretrained.head(features).float())

    @torch.no_grad()
    def state(self, scene: tuple[Tensor, Tensor], code: Tensor, thumbnails: Tensor, step: int) -> Tensor:
        """States [B, D] at one step.

        Args:
            scene: What :meth:`describe` gave, for B scenes.
            code: The codes so far, in action units, [B, L].
            thumbnails: The SR images so far at the LR size, float32 in [0, 1], [B, 3, h, w].
            step: The step, from 0.
        """
        steps = F.one_hot(torch.full((len(code),), step, device=code.device), self.max_steps)
        return torch.cat((*scene, code, self.pretrained.features(thumbnails), steps.float()), dim=1)

    def split(self, states: Tensor) -> Parts:
        """States [B, D] -> their parts."""
        return Parts(*states.split(self._sizes, dim=1))

    def inputs(self, states: Tensor) -> Tensor:
        """States [B, D] as the networks see them, [B, D]: the code so far as a move from mu0 in units of the noise."""
        parts = self.split(states)
        return torch.cat(parts._replace(code=self.moved(states, parts.code)), dim=1)

    def moved(self, states: Tensor, codes: Tensor) -> Tensor:
        """Moves of codes [B, L] from mu0, in units of the exploration noise."""
        return (codes - self.split(states).start) @ self.into_units

    def correct(self, codes: Tensor, actions: Tensor) -> Tensor:
        """Codes [B, L] after the corrections [B, L] in [-1, 1], as the environment applies them."""
        return (codes + self.correction * actions).clamp(-1, 1)

    def logits(self, states: Tensor) -> Tensor:
        """States [B, D] -> corrections before their tanh, [B, L]."""
        logits: Tensor = self.head(self.inputs(states))
        return logits

    def forward(self, states: Tensor) -> Tensor:
        """States [B, D] -> corrections in (-1, 1), [B, L]."""
        return torch.tanh(self.logits(states))


def save_corrector(
    path: str | Path, corrector: Corrector, predictor: Checkpoint[KernelPredictor], card: Mapping[str, Any]
) -> None:
    """Write what was trained, and in the file's header what it needs to be used again.

    Args:
        path: ``.safetensors`` file to write, atomically.
        corrector: The policy.
        predictor: The pretrained actor that it corrects, which is not written.
        card: What is known of the training, JSON values only.
    """
    made = {"correction": corrector.correction, "max_steps": corrector.max_steps}
    about = {
        "predictor": predictor.path.stem,
        "basis": predictor.basis.digest,
        "controls": card_controls(predictor.card),
    }
    trained = {f"head.{name}": value for name, value in corrector.head.state_dict().items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in trained.items()}
    tensors["noise_shape"] = corrector.noise_shape.cpu()
    about["digest"] = tensor_digest(tensors)
    header = {"card": json.dumps({**card, **about}), "made": json.dumps({**made, "hidden": corrector.hidden})}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(tensors, metadata=header))


def load_corrector(path: str | Path, predictor: Checkpoint[KernelPredictor]) -> Corrector:
    """Read what :func:`save_corrector` wrote, around the pretrained actor that it was trained to correct.

    Raises:
        MissingFileError: No such file.
        UsageError: It is not a corrector's file, damaged, or for another predictor.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"no corrector at {path}: train one with agents/train_iterative.py")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            made, card = parse_card(header["made"]), parse_card(header["card"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        digest, trained_for = card.get("digest"), (str(card["predictor"]), str(card["basis"]))
        noise_shape = tensors["noise_shape"]
        correction, max_steps, hidden = made["correction"], made["max_steps"], made["hidden"]
        check_sizes(_LARGEST, max_steps=max_steps, hidden=hidden)
        if not 0 < float(correction) < math.inf:
            raise ValueError(f"its correction is {correction}")
    except (SafetensorError, OSError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} is no corrector ({type(error).__name__}: {error}): give what agents/train_iterative.py wrote"
        ) from error
    check_tensors(Path(path), digest, tensors)
    own = (predictor.path.stem, predictor.basis.digest)
    if trained_for != own:
        raise UsageError(
            f"{path} corrects {trained_for[0][:80]} (kernel basis {trained_for[1][:80]}), not {own[0]} ({own[1]}): "
            "give that predictor"
        )
    meant, given = card_controls(card), card_controls(predictor.card)
    if meant != given:
        raise UsageError(
            f"{path} corrects actions of {', '.join(meant)}, not of {', '.join(given)}: make the simulator with "
            f"controls={meant!r}"
        )
    head = {name.removeprefix("head."): value for name, value in tensors.items() if name != "noise_shape"}
    try:
        corrector = Corrector(predictor, correction, max_steps, noise_shape, hidden)
        corrector.head.load_state_dict(head)
    except RuntimeError as error:  # names, shapes, or a noise that cannot be inverted
        raise UsageError(f"{path} is no corrector of {own[0]} ({error}): its weights are others' or damaged") from error
    return corrector.to(next(predictor.network.parameters()).device).eval()


class Player(nn.Module):
    """A corrector as an actor LR -> code that renders what it looks at, which any comparison of actors takes.

    Args:
        corrector: The policy.
        simulator: Renders; its LR images are scored elsewhere.
        corrections: How many to make; None makes all of an episode.

    Raises:
        UsageError: There are not so many in an episode.
    """

    def __init__(self, corrector: Corrector, simulator: Simulator, corrections: int | None = None) -> None:
        super().__init__()
        corrections = corrector.max_steps if corrections is None else corrections
        if not 0 <= corrections <= corrector.max_steps:
            raise UsageError(f"{corrections} corrections are outside 0..{corrector.max_steps}, the policy's episode")
        self.corrector, self.simulator, self.corrections = corrector, simulator, corrections

    @classmethod
    def load(cls, path: str | Path, simulator: Simulator, corrections: int | None = None) -> Player:
        """A corrector from its file, around the predictor that makes the simulator's reference.

        Args:
            path: What :func:`save_corrector` wrote.
            simulator: Renders; its reference is "predictor".
            corrections: How many to make; None makes all of an episode.

        Raises:
            MissingFileError: No such file.
            UsageError: It is no corrector of that predictor, or the simulator has none.
        """
        if simulator.predictor is None:
            raise UsageError(
                f"reference {simulator.settings.reference!r} has no predictor to correct: take reference='predictor'"
            )
        predictor = widened(simulator.predictor, simulator.controls.names)
        return cls(load_corrector(path, predictor), simulator, corrections)

    @torch.no_grad()
    def forward(self, lr: Tensor) -> Tensor:
        """LR images, float32 in [0, 1], [B, 3, h, w] -> the codes in the end, in action units, [B, L]."""
        scene = self.corrector.describe(lr)
        code = scene[1]
        for step in range(self.corrections):
            sr = self.simulator.render(lr, *self.simulator.controls.split(code))
            thumbnails = quantize(bicubic_resize(sr, (lr.shape[-2], lr.shape[-1])))
            code = self.corrector.correct(code, self.corrector(self.corrector.state(scene, code, thumbnails, step)))
        return code
