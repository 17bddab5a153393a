"""What an action may hold beside the kernel code: names, order, ranges, and what each does to a rendering.

The code alone is the paper's action. Each further control is one number in [-1, 1], of which 0 leaves the rendering as
the reference's is, so that what an action adds to the reference still vanishes there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_env.degradation import unsharp
from sr_env.degradation.operators import per_image
from sr_env.models.checkpoint import Checkpoint
from sr_env.models.predictor import KernelPredictor
from sr_env.utils.checks import UsageError
from sr_env.utils.devices import in_portions

CODE = "code"
#: Controls beside the code, in the order in which they follow it, and their values at the actions -1 and 1.
RANGES: Mapping[str, tuple[float, float]] = {
    "sharpen": (-1.0, 4.0),  # strength of the unsharp mask; at -1 the picture is the blurred one
    "blend": (-0.25, 1.25),  # share of the perceptual renderer
}
CONTROLS: tuple[str, ...] = (CODE, *RANGES)
#: What an actor may give for the upscaler to apply it; a blend would take a second renderer.
UPSCALED: tuple[str, ...] = (CODE, "sharpen")
#: Standard deviation of the unsharp mask's Gaussian in HR pixels. Of 0.5, 0.7 and 1, the best strength of each scene
#: lowers LPIPS most with 0.7, as it is and less 0.02 a dB of PSNR (AMNet-L, held-out photographs); one strength for all
#: is best at 3.
SHARPEN_SIGMA = 0.7
#: How many HR pixels around its own a sharpened pixel depends on.
SHARPEN_RADIUS = math.ceil(3 * SHARPEN_SIGMA)
#: Released renderer -> the released one at the other end of "blend".
PARTNERS: Mapping[str, str] = {
    "amnet_l_x4": "amgan_x4",
    "amnet_x4": "amgan_x4",
    "amnet_v1_x4": "amgan_v1_x4",
    "amnet_real_x4": "amgan_real_x4",
    "amgan_x4": "amnet_x4",
    "amgan_star_x4": "amnet_x4",
    "amgan_v1_x4": "amnet_v1_x4",
    "amgan_real_x4": "amnet_real_x4",
}


def check_controls(names: Any) -> tuple[str, ...]:
    """The setting ``controls`` as a tuple.

    Raises:
        UsageError: It is no sequence of "code" and any of the others, each once and in their order.
    """
    known = isinstance(names, Sequence) and not isinstance(names, str)
    chosen = tuple(names) if known else ()
    if chosen[:1] != (CODE,) or chosen != tuple(name for name in CONTROLS if name in chosen):
        raise UsageError(
            f"controls {names!r} do not fit: give a list of 'code' and then any of "
            f"{', '.join(map(repr, RANGES))}, each once and in this order"
        )
    return chosen


def partner_name(renderer: Checkpoint[Any]) -> str:
    """Name of the renderer at the other end of "blend", for a released one.

    Raises:
        UsageError: None is known.
    """
    name = renderer.path.stem
    if name not in PARTNERS:
        raise UsageError(
            f"control 'blend' needs two renderers, and none is known to go with {name!r}: name the other one as "
            f"blend_renderer, or take a renderer of {', '.join(PARTNERS)}"
        )
    return PARTNERS[name]


class Controls:
    """The parts of an action, and the rendering of what they say.

    Args:
        names: The setting ``controls``, checked.
        renderer: The reference's.
        partner: The renderer at the other end of "blend", for the same codes; only needed where that is a control. Of
            the two, the perceptual one is ``renderer`` where its card says that it was trained against a discriminator.

    Attributes:
        names: As given.
        partner: As given.
        code_length: Numbers L of the code.
        length: Numbers A of an action: L, and one for each further control.
        slices: Name -> where its numbers lie in an action.
        neutral: Name -> its value at the action 0, for the controls beside the code.
    """

    def __init__(self, names: tuple[str, ...], renderer: Checkpoint[Any], partner: Checkpoint[Any] | None) -> None:
        self.names, self.code_length = names, renderer.basis.code_length
        self.length = self.code_length + len(names) - 1
        self._basis, self._network = renderer.basis, renderer.network
        self.partner = partner
        self.slices = {CODE: slice(self.code_length)}
        for place, name in enumerate(names[1:], self.code_length):
            self.slices[name] = slice(place, place + 1)
        own = 1.0 if "adversarial" in renderer.card else 0.0
        self.neutral = {name: own if name == "blend" else 0.0 for name in names[1:]}

    @property
    def title(self) -> str:
        """What an action is: "one kernel code", and the further controls."""
        return "one kernel code" + "".join(f", one number for {name}" for name in self.names[1:])

    @property
    def spread(self) -> Tensor:
        """By how much a search had better move each number, as a share of the most telling one, [A]."""
        return F.pad(self._basis.sensitivity, (0, self.length - self.code_length), value=1.0)

    def complete(self, actions: Tensor) -> Tensor:
        """Actions [..., A], or codes alone as actions, [..., L], which zeros complete -> [..., A]."""
        missing = self.length - actions.shape[-1]
        return F.pad(actions, (0, missing)) if missing and actions.shape[-1] == self.code_length else actions

    def split(self, actions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Actions -> kernel codes, and the values of the further controls.

        Args:
            actions: [B, A], or [B, L] of the code alone.

        Returns:
            Codes [B, L], and values [B] by name: none where the action is the code alone.

        Raises:
            UsageError: The actions are of another length.
        """
        if (given := actions.shape[-1]) not in (self.code_length, self.length):
            raise UsageError(f"actions of {given} numbers do not fit: give {self.length}, {self.title}")
        values = {}
        if given > self.code_length:
            for name, neutral in self.neutral.items():
                low, high = RANGES[name]
                action = actions[..., self.slices[name]].squeeze(-1)
                values[name] = neutral + torch.where(action > 0, action * (high - neutral), action * (neutral - low))
        return self._basis.to_code(actions[..., self.slices[CODE]]), values

    def joined(self, actions: Tensor) -> Tensor:
        """Actions -> codes, and in the columns behind them the values of the further controls: all [B, A] or [B, L]."""
        code, values = self.split(actions)
        return torch.cat((code, *(value[:, None] for value in values.values())), dim=1)

    def render(self, lr: Tensor, code: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Render, with gradients.

        Args:
            lr: LR images [B, 3, p, p].
            code: Kernel codes [B, L].
            values: What :meth:`split` gave beside them; controls that are absent stay as the reference's.

        Returns:
            SR images [B, 3, P, P], float32, neither rounded nor clamped.
        """
        return in_portions(
            lambda lr, code, *given: self._render(lr, code, dict(zip(values, given, strict=True))),
            lr,
            code,
            *values.values(),
        )

    def _render(self, lr: Tensor, code: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        sr: Tensor = self._network(lr, code).float()
        if "blend" in values:
            assert self.partner is not None
            other = self.partner.network(lr, code).float()
            faithful, textured = (other, sr) if self.neutral["blend"] else (sr, other)
            sr = faithful.lerp(textured, per_image(values["blend"]))
        return unsharp(sr, values["sharpen"], SHARPEN_SIGMA) if "sharpen" in values else sr


def widened(predictor: Checkpoint[KernelPredictor], controls: Sequence[str]) -> Checkpoint[KernelPredictor]:
    """A predictor that gives all numbers of an action: the code as before, and zeros for the further controls.

    Args:
        predictor: Gives codes alone, or what the controls are already.
        controls: The setting ``controls``.

    Returns:
        The same where nothing is missing; else a copy whose card names the controls. One that says how sure it is says
        of all of these the same.
    """
    network, names = predictor.network, check_controls(controls)
    missing = predictor.basis.code_length + len(names) - 1 - network.code_length
    if missing <= 0:
        return predictor
    wide = deepcopy(network)
    wide.code_length += missing
    for layer in filter(None, (wide.head[-1], wide.spread)):
        assert isinstance(layer, nn.Linear)
        layer.out_features = wide.code_length
        for name, value in list(layer.named_parameters()):
            grown = torch.cat((value.detach(), value.new_zeros(missing, *value.shape[1:])))
            setattr(layer, name, nn.Parameter(grown, requires_grad=value.requires_grad))
    card = {**predictor.card, "controls": list(names), "architecture": wide.architecture}
    return replace(predictor, network=wide.eval(), card=card)
