"""Save and load renderers and predictors, by short name or by path.

A checkpoint is one safetensors file: the network's tensors, the kernel basis they were trained with, and in the
header a *card* (JSON): kind, architecture, scale, basis digest, and how the weights were made. The same card lies
beside the weights as ``NAME.json`` for people to read; loading refuses a pair that disagrees.

A checkpoint may hold only the tensors in which it differs from another one that ships, its *base*: the actors that
reinforcement learning makes of a predictor share its convolutions. Loading takes the rest from there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sr_env.degradation import KernelBasis
from sr_env.models import AMNet
from sr_env.models.predictor import KernelPredictor
from sr_env.utils.files import atomic_write

Kind = Literal["renderer", "predictor"]
Network = TypeVar("Network", bound=nn.Module)
#: Where the weights that ship with the package lie.
SHIPPED = Path(__file__).parents[1] / "checkpoints"
#: What ties a network to its inputs: a card beside the weights that disagrees on one of these belongs to others.
_BINDING = ("kind", "architecture", "scale", "basis")
_NETWORKS: Mapping[str, type[nn.Module]] = {"renderer": AMNet, "predictor": KernelPredictor}


@dataclass(frozen=True)
class Checkpoint(Generic[Network]):
    """A network bound to its kernel basis.

    Attributes:
        network: In evaluation mode, its parameters frozen.
        basis: The kernel basis whose codes the network takes or gives.
        card: What the file says of itself.
        path: Where it was read.
    """

    network: Network
    basis: KernelBasis
    card: Mapping[str, Any]
    path: Path

    @property
    def scale(self) -> int:
        """Magnification the weights were trained for."""
        return int(self.card["scale"])


def save_checkpoint(
    path: str | os.PathLike[str],
    network: nn.Module,
    basis: KernelBasis,
    scale: int,
    card: Mapping[str, Any],
    base: str | None = None,
) -> Path:
    """Write weights and card atomically.

    Args:
        path: ``.safetensors`` file to write; the card goes beside it as ``.json``.
        network: An :class:`AMNet` or a :class:`KernelPredictor`.
        basis: The kernel basis the network was trained with.
        scale: The magnification it was trained for.
        card: Further entries of the card (data, steps, seconds, hardware, seed, ...), JSON values only.
        base: Short name of weights that ship: tensors equal to theirs are left out of the file.

    Returns:
        The path written.

    Raises:
        ValueError: The path does not end in ``.safetensors``, the network is neither kind or for another scale, or the
            base is not of its kind.
        FileNotFoundError: No such base ships.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"checkpoint path {str(path)!r} must end in .safetensors")
    kind = next((kind for kind, cls in _NETWORKS.items() if isinstance(network, cls)), None)
    if kind is None:
        raise ValueError(
            f"{type(network).__name__} is neither a renderer nor a predictor: save an AMNet or KernelPredictor"
        )
    if getattr(network, "scale", scale) != scale:
        raise ValueError(f"the renderer is for scale {network.scale}, not {scale}: give its own scale")
    full = {
        "kind": kind,
        "architecture": network.architecture,
        "scale": scale,
        "basis": basis.digest,
        "parameters": sum(p.numel() for p in network.parameters()),
        **card,
    }
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"basis.{name}": value for name, value in basis.state_dict().items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    if base is not None:
        base_card, shared = _read(_shipped(base))
        if base_card["kind"] != kind:
            raise ValueError(f"the base {base!r} is a {base_card['kind']}, not a {kind}: give one of its own kind")
        full["base"] = {"name": base, "digest": _digest(shared)}
        tensors = {n: v for n, v in tensors.items() if n not in shared or not torch.equal(v, shared[n])}
    text = json.dumps(full, indent=2)
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={"card": text})
    with atomic_write(path.with_suffix(".json")) as temporary:
        temporary.write_text(text + "\n")
    return path


def load_renderer(
    name: str | os.PathLike[str], *, scale: int | None = None, device: torch.device | str = "cpu"
) -> Checkpoint[AMNet]:
    """Load a renderer by short name (``"amnet_l_x4"``) or path.

    Args:
        name: A name from :func:`available_checkpoints` or a ``.safetensors`` file.
        scale: The magnification needed; None takes any.
        device: Where the network goes.

    Raises:
        FileNotFoundError: No such name or file; lists the names that ship.
        ValueError: The file is damaged, is no renderer, is for another scale, or its card disagrees with it.
    """
    return _load(name, "renderer", AMNet, scale, device)


def load_predictor(
    name: str | os.PathLike[str],
    *,
    scale: int | None = None,
    basis: KernelBasis | None = None,
    device: torch.device | str = "cpu",
) -> Checkpoint[KernelPredictor]:
    """Load a kernel predictor by short name (``"predictor_x4"``) or path.

    Args:
        name: A name from :func:`available_checkpoints` or a ``.safetensors`` file.
        scale: The magnification needed; None takes any.
        basis: The kernel basis that the predictor's codes must be in (the renderer's); None takes any.
        device: Where the network goes.

    Raises:
        FileNotFoundError: No such name or file; lists the names that ship.
        ValueError: The file is damaged, is no predictor, is for another scale or basis, or its card disagrees with it.
    """
    checkpoint = _load(name, "predictor", KernelPredictor, scale, device)
    if basis is not None and basis.digest != checkpoint.basis.digest:
        raise ValueError(
            f"predictor {str(name)!r} speaks kernel basis {checkpoint.basis.digest}, the renderer {basis.digest}: "
            "use a predictor trained for this renderer's basis"
        )
    return checkpoint


def available_checkpoints(kind: Kind | None = None) -> tuple[str, ...]:
    """Short names of the weights that ship with the package, sorted; of one kind, or of both."""
    names = []
    for path in sorted(SHIPPED.glob("*.json")):
        if kind is None or json.loads(path.read_text())["kind"] == kind:
            names.append(path.stem)
    return tuple(names)


def read_card(name: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the card of a checkpoint without its tensors.

    Raises:
        FileNotFoundError: No such name or file; lists the names that ship.
        ValueError: The file is damaged or carries no card.
    """
    return _read(_resolve(name), tensors=False)[0]


def _resolve(name: str | os.PathLike[str], kind: Kind | None = None) -> Path:
    """Short name or path -> existing file."""
    path = Path(name)
    shipped = SHIPPED / f"{path.name}.safetensors"
    if path.suffix != ".safetensors" and len(path.parts) == 1 and shipped.is_file():
        return shipped
    if path.is_file():
        return path
    raise FileNotFoundError(
        f"no {kind or 'checkpoint'} {str(name)!r}: give a .safetensors file, such as the training scripts write, "
        f"or one of {', '.join(available_checkpoints(kind))}"
    )


def _shipped(name: str) -> Path:
    """File of weights that ship.

    Raises:
        FileNotFoundError: There are none of this name.
    """
    path = SHIPPED / f"{name}.safetensors"
    if len(Path(name).parts) != 1 or not path.is_file():
        raise FileNotFoundError(f"no base {name!r} ships: choose one of {', '.join(available_checkpoints())}")
    return path


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """First 16 hex digits of the SHA-256 over the tensors' names and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()[:16]


def _completed(path: Path, card: Mapping[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a file with those of its base, if it has one.

    Raises:
        ValueError: The base is absent or has changed since.
    """
    if "base" not in card:
        return tensors
    name, wanted = card["base"]["name"], card["base"]["digest"]
    try:
        shared = _read(_shipped(name))[1]
    except FileNotFoundError as error:
        raise ValueError(f"checkpoint {str(path)!r} completes {name!r}, which does not ship: {error}") from error
    if _digest(shared) != wanted:
        raise ValueError(
            f"checkpoint {str(path)!r} completes a {name!r} that has since changed (digest {wanted}): train it again"
        )
    return {**shared, **tensors}


def _read(path: Path, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Card and tensors of a file, with every way in which it can be damaged told apart from a bug of ours."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            loaded = {key: file.get_tensor(key) for key in file.keys()} if tensors else {}  # noqa: SIM118 not a dict
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"checkpoint {str(path)!r} is damaged or not safetensors ({error}): copy or train it again"
        ) from error
    try:
        card = json.loads(header["card"])
        binding = {key: card[key] for key in _BINDING}
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"checkpoint {str(path)!r} carries no card: write it with sr_env.models.checkpoint.save_checkpoint"
        ) from error
    beside = path.with_suffix(".json")
    if beside.is_file():
        try:
            told = json.loads(beside.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"card {str(beside)!r} is not JSON ({error}): restore it or delete it") from error
        for key, value in binding.items():
            if not isinstance(told, dict) or told.get(key) != value:
                raise ValueError(
                    f"card {str(beside)!r} says another {key} than the weights beside it, which say {value!r}: "
                    "the two do not belong together, restore or delete the card"
                )
    return card, loaded


def _load(
    name: str | os.PathLike[str], kind: Kind, cls: type[Network], scale: int | None, device: torch.device | str
) -> Checkpoint[Network]:
    path = _resolve(name, kind)
    card, tensors = _read(path)
    tensors = _completed(path, card, tensors)
    if card["kind"] != kind:
        raise ValueError(
            f"checkpoint {str(name)!r} is a {card['kind']}, not a {kind}: "
            f"choose one of {', '.join(available_checkpoints(kind))}"
        )
    if scale is not None and card["scale"] != scale:
        fitting = [n for n in available_checkpoints(kind) if read_card(n)["scale"] == scale]
        raise ValueError(
            f"{kind} {str(name)!r} is for scale {card['scale']}, not {scale}: "
            + (f"choose one of {', '.join(fitting)}" if fitting else f"none that ships is for scale {scale}, train one")
        )
    basis = KernelBasis.from_state(_prefixed(tensors, "basis."))
    if basis.digest != card["basis"]:
        raise ValueError(
            f"checkpoint {str(name)!r} holds kernel basis {basis.digest}, its card says {card['basis']}: "
            "copy or train it again"
        )
    try:
        network = cls(**card["architecture"])
        network.load_state_dict(_prefixed(tensors, "network."))
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"the tensors of {str(name)!r} do not fit its architecture {card['architecture']} ({error}): "
            "it was written by another version, train it again"
        ) from error
    network.requires_grad_(False).eval().to(device)
    return Checkpoint(network, basis.to(device), card, path)


def _prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
