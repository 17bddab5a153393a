"""A checkpoint's file: its card and tensors, read and checked before anything is built or allocated of them.

Of the card's entries those are checked that loading relies on. Its ``digest`` is that of the file's tensors; a file
that was written before there was one has it in the card beside it, or nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from reprlib import Repr
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sr_env.utils.checks import SCALES, UsageError
from sr_env.utils.digests import tensor_digest

Kind = Literal["renderer", "predictor"]
#: What ties a network to its inputs: a card beside the weights that disagrees on one of these belongs to others.
BINDING = ("kind", "architecture", "scale", "basis")
#: Largest number in an architecture, and how deep a card's containers may lie in each other.
_LARGEST, _DEEPEST = 1e6, 32
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxdict = 12


def shown(value: object) -> str:
    """A value of a card for a message: as Python writes it, but short."""
    return _SHORT.repr(value)


def parse_card(text: str) -> Any:
    """Read a card's JSON.

    Raises:
        ValueError: It is not JSON, or its containers lie too deep in each other.
    """
    try:
        card = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level: list[Any] = [card]
    for _ in range(_DEEPEST):
        level = [part for value in level for part in _parts(value)]
    if level:
        raise ValueError("it is nested too deeply")
    return card


def check_card(card: Mapping[str, Any], what: str) -> None:
    """Check the entries that loading relies on; the architecture is checked apart, where it is used.

    Args:
        card: With all of ``BINDING``.
        what: The file, for the error.

    Raises:
        UsageError: An entry is of another type, or none of the values that there are, naming it.
    """
    base = card.get("base", {"name": "", "digest": ""})
    for name, right, wanted in (
        ("kind", card["kind"] in get_args(Kind), f"one of {', '.join(get_args(Kind))}"),
        ("scale", type(card["scale"]) is int and card["scale"] in SCALES, f"one of {', '.join(map(str, SCALES))}"),
        ("basis", isinstance(card["basis"], str), "a digest"),
        ("network", isinstance(card.get("network", ""), str), "a name"),
        ("digest", isinstance(card.get("digest", ""), str), "a digest"),
        (
            "base",
            isinstance(base, Mapping) and all(isinstance(base.get(key), str) for key in ("name", "digest")),
            "a name and a digest",
        ),
    ):
        if not right:
            raise UsageError(
                f"the card of {what} is damaged: its {name} is {shown(card.get(name))}, not {wanted}: copy or train it "
                "again"
            )


def check_architecture(architecture: Any) -> None:
    """Check a constructor's arguments that came with a file.

    Raises:
        TypeError: They are no mapping.
        ValueError: A number among them is too large to be one of a network or not finite, naming it.
    """
    if not isinstance(architecture, Mapping):
        raise TypeError(f"it is a {type(architecture).__name__}")
    for name, value in architecture.items():
        level = [value]
        while level:
            for number in level:
                if isinstance(number, int | float) and not abs(number) <= _LARGEST:  # so is NaN
                    raise ValueError(f"{name} is {shown(number)}: no network has such a number")
            level = [part for x in level for part in _parts(x)]


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def as_read(tensor: Tensor) -> Tensor:
    """Reduced precision is how weights are kept, not how networks compute."""
    return tensor.float() if tensor.is_floating_point() else tensor


def read_checkpoint(path: Path, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Card and tensors of a file, with every way in which it can be damaged told apart from a bug of ours.

    Args:
        path: The file.
        tensors: Whether they are wanted; else none are given, and only the card is checked.

    Raises:
        UsageError: The file is damaged, carries no card, or its card, or the one beside it, is of other weights.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            keys = file.keys() if tensors else ()
            loaded = {key: as_read(file.get_tensor(key)) for key in keys}
    except (SafetensorError, OSError) as error:
        raise UsageError(
            f"checkpoint {str(path)!r} is damaged or not safetensors ({error}): copy or train it again"
        ) from error
    try:
        card = parse_card(header["card"])
        binding = {key: card[key] for key in BINDING}
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"checkpoint {str(path)!r} carries no card: write it with sr_env.models.checkpoint.save_checkpoint"
        ) from error
    check_card(card, f"checkpoint {str(path)!r}")
    card = _digest_beside(path.with_suffix(".json"), binding) | card
    if tensors:
        check_tensors(path, card.get("digest"), loaded)
    return card, loaded


def _digest_beside(beside: Path, binding: Mapping[str, Any]) -> dict[str, str]:
    """What the card beside a file adds to the one in it: the digest, where the file itself has none."""
    if not beside.is_file():
        return {}
    try:
        told = parse_card(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"card {str(beside)!r} is not JSON ({error}): restore it or delete it") from error
    for key, value in binding.items():
        if not isinstance(told, dict) or told.get(key) != value:
            raise UsageError(
                f"card {str(beside)!r} says another {key} than the weights beside it, which say {shown(value)}: "
                "the two do not belong together, restore or delete the card"
            )
    digest = told.get("digest")
    return {"digest": digest} if isinstance(digest, str) else {}


def check_tensors(path: Path, digest: str | None, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not those that were written, or with which nothing can be computed.

    Args:
        path: Their file, for the error.
        digest: That of the card; None checks nothing by it.
        tensors: As they were read.

    Raises:
        UsageError: They have another digest, or are not all finite, naming one that is not.
    """
    if digest is not None and tensor_digest(tensors) != digest:
        raise UsageError(
            f"checkpoint {str(path)!r} is damaged: its tensors are not those that its card was written for (digest "
            f"{shown(digest)}): copy or train it again"
        )
    broken = next((name for name, value in tensors.items() if not bool(value.isfinite().all())), None)
    if broken is not None:
        raise UsageError(
            f"checkpoint {str(path)!r} holds numbers that are not finite ({shown(broken)}): copy or train it again"
        )


def build_network(factory: Callable[..., nn.Module], architecture: Any, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network of an architecture with a file's tensors, which bound the memory that it may ask for.

    Raises:
        TypeError: The architecture is not one of the factory's.
        ValueError: A number of it is out of bounds.
        RuntimeError: It is of other names or shapes than the tensors.
    """
    check_architecture(architecture)
    try:
        with torch.device("meta"):  # shapes without memory
            sketch: Mapping[str, Tensor] = factory(**architecture).state_dict()
    except Exception:  # arguments that are wrong, which show again below; or a network that looks at its own weights
        sketch = {}
    for name, drawn in sketch.items():
        if name in tensors and drawn.shape != tensors[name].shape:
            raise RuntimeError(f"{name} is {list(tensors[name].shape)}, not {list(drawn.shape)}")
    # Names may change by the network's own rules when it is loaded; its size does not.
    if sum(map(torch.numel, sketch.values())) > 2 * sum(map(torch.numel, tensors.values())):
        raise RuntimeError("it is a larger network than the file holds")
    network = factory(**architecture)
    network.load_state_dict(tensors)
    return network
