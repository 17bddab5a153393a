"""Save and load renderers and predictors, by short name or by path.

A checkpoint is one safetensors file: the network's tensors, the kernel basis they were trained with, and in the
header a *card* (JSON): kind, architecture, scale, basis digest, and how the weights were made. The same card lies
beside the weights as ``NAME.json`` for people to read; loading refuses a pair that disagrees.

The card carries a digest of the file's tensors: what is read is what was written. A card from elsewhere is not trusted
with memory: the network is first built without any, and must be of the file's shapes.

A checkpoint may hold only the tensors in which it differs from a released one, its *base*: the actors that
reinforcement learning makes of a predictor share its convolutions. Loading takes the rest from there.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn

from sr_env.degradation import KernelBasis, family_of, load_basis
from sr_env.models.adapters import as_renderer, is_spandrel
from sr_env.models.base import RELEASED, registered_name, registered_renderers, renderer_factory
from sr_env.models.checkpoint_file import Kind, as_read, build_network, read_checkpoint, shown
from sr_env.models.predictor import KernelPredictor
from sr_env.utils.checks import SCALES, MissingFileError, UsageError
from sr_env.utils.digests import tensor_digest
from sr_env.utils.files import atomic_write
from sr_env.utils.plugins import import_named

Network = TypeVar("Network", bound=nn.Module)
#: Architecture of a renderer's card that names none.
_DEFAULT_NETWORK = "AMNet"


@dataclass(frozen=True)
class Checkpoint(Generic[Network]):
    """A network bound to its kernel basis.

    Attributes:
        network: In evaluation mode, its parameters frozen.
        basis: The kernel basis whose codes the network takes or gives.
        card: What the file says of itself.
        path: Where it was read; for a renderer that was not read from a file, its name.
    """

    network: Network
    basis: KernelBasis
    card: Mapping[str, Any]
    path: Path

    @property
    def scale(self) -> int:
        """Magnification the weights were trained for."""
        return int(self.card["scale"])

    @property
    def identity(self) -> str:
        """The network's name, and what tells it from others of that name."""
        return f"{self.path.stem} (digest {tensor_digest(self.network.state_dict())})"


def save_checkpoint(
    path: str | os.PathLike[str],
    network: nn.Module,
    basis: KernelBasis,
    scale: int,
    card: Mapping[str, Any],
    base: str | None = None,
    *,
    half: bool = False,
) -> Path:
    """Write weights and card atomically.

    Args:
        path: ``.safetensors`` file to write; the card goes beside it as ``.json``.
        network: An :class:`AMNet`, another registered renderer, or a :class:`KernelPredictor`.
        basis: The kernel basis the network was trained with.
        scale: The magnification it was trained for.
        card: Further entries of the card (data, steps, seconds, hardware, seed, ...), JSON values only.
        base: Short name of released weights: tensors equal to theirs are left out of the file.
        half: Keep the network's tensors in float16, as the released ones are; they are read back as float32. The
            kernel basis stays in float32, since its digest is that of its bytes.

    Returns:
        The path written.

    Raises:
        UsageError: The path does not end in ``.safetensors``, the network is neither kind or for another scale, or the
            base is not of its kind.
        MissingFileError: No such base is released.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UsageError(f"checkpoint path {str(path)!r} must end in .safetensors")
    name = registered_name(network)
    if name is None and not isinstance(network, KernelPredictor):
        raise UsageError(
            f"{type(network).__name__} is neither a renderer nor a predictor: save an AMNet, a KernelPredictor or a "
            "network whose class is registered by @register_renderer"
        )
    kind: Kind = "predictor" if name is None else "renderer"
    architecture = getattr(network, "architecture", None)
    if not isinstance(architecture, Mapping):
        raise UsageError(
            f"{type(network).__name__} has no property architecture: add one that gives its constructor's arguments"
        )
    if getattr(network, "scale", scale) != scale:
        raise UsageError(f"the renderer is for scale {network.scale}, not {scale}: give its own scale")
    full = {
        "kind": kind,
        **({} if name in (None, _DEFAULT_NETWORK) else {"network": name}),
        "architecture": dict(architecture),
        "scale": scale,
        "basis": basis.digest,
        "parameters": sum(p.numel() for p in network.parameters()),
        **({"stored_as": "float16"} if half else {}),
        **{key: value for key, value in card.items() if key not in ("digest", "stored_as")},  # of what it was made of
    }
    state = {
        key: value.half() if half and value.is_floating_point() else value
        for key, value in network.state_dict().items()
    }
    tensors = {f"network.{key}": value for key, value in state.items()}
    tensors |= {f"basis.{key}": value for key, value in basis.state_dict().items()}
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    if base is not None:
        base_card, shared = read_checkpoint(_released(base))
        if base_card["kind"] != kind:
            raise UsageError(f"the base {base!r} is a {base_card['kind']}, not a {kind}: give one of its own kind")
        full["base"] = {"name": base, "digest": tensor_digest(shared)}
        tensors = {n: v for n, v in tensors.items() if n not in shared or not torch.equal(v.float(), shared[n])}
    full["digest"] = tensor_digest({key: as_read(value) for key, value in tensors.items()})
    text = json.dumps(full, indent=2)
    with atomic_write(path) as temporary:  # by Python, whose error of a full disk is one of the operating system's
        temporary.write_bytes(save(tensors, metadata={"card": text}))
    with atomic_write(path.with_suffix(".json")) as temporary:
        temporary.write_text(text + "\n")
    return path


def load_renderer(
    spec: str | os.PathLike[str] | nn.Module,
    *,
    scale: int | None = None,
    device: torch.device | str = "cpu",
    family: str | None = None,
    code_length: int | None = None,
) -> Checkpoint[Any]:
    """Load a renderer: released, from a file, registered, or a network at hand.

    Args:
        spec: A name from :func:`available_checkpoints` (``"amnet_l_x4"``), a ``.safetensors`` file, the name of a
            registered renderer (:func:`~sr_env.models.register_renderer`; ``"module:name"`` imports the module that
            registers it first), an ``nn.Module``, of which a frozen copy is
            taken, or a model that spandrel loaded.
        scale: The magnification needed; None takes any. A module without the attribute ``scale`` is taken to have it.
        device: Where the network goes.
        family: The kernel family whose codes it will be given (:func:`~sr_env.degradation.available_families`); None
            takes any. A network that is no checkpoint gets the codes of this family's basis (None: isotropic).
        code_length: Of a module without this attribute: the length of the codes it takes, as ``network(lr, code)``, or
            0 if it is called as ``network(lr)``.

    Raises:
        MissingFileError: No such name or file; lists the released and the registered names.
        UsageError: The file is damaged or no renderer, its card disagrees with it, or the renderer is for another
            scale or kernel family.
    """
    if isinstance(spec, nn.Module) or is_spandrel(spec):
        return _wrapped(spec, type(spec).__name__, scale, device, family, code_length)
    if not isinstance(spec, str | os.PathLike):
        raise UsageError(
            f"renderer {spec!r} is no renderer: give one of {', '.join(available_checkpoints('renderer'))}, "
            "a .safetensors file, a registered name or an nn.Module"
        )
    if isinstance(spec, str) and not os.path.isfile(spec):
        name = import_named("renderer", spec)
        if name == _DEFAULT_NETWORK:
            raise UsageError(
                f"renderer {spec!r} is an architecture without weights: give one of "
                f"{', '.join(available_checkpoints('renderer'))}, or create_amnet(...) for an untrained one"
            )
        if name in registered_renderers() or name != spec:
            needed = 4 if scale is None else scale
            return _wrapped(renderer_factory(name)(scale=needed), name, needed, device, family, code_length)
    checkpoint: Checkpoint[Any] = _load(spec, "renderer", scale, device)
    if family is not None:
        _check_family(str(spec), checkpoint, family)
    return checkpoint


def _wrapped(
    network: Any,
    name: str,
    scale: int | None,
    device: torch.device | str,
    family: str | None,
    code_length: int | None,
) -> Checkpoint[Any]:
    """A network at hand as a checkpoint."""
    own_scale = getattr(network, "scale", scale)
    known = own_scale if isinstance(own_scale, int) and own_scale in SCALES else 4  # as_renderer names others
    basis = load_basis(family or "isotropic", known)
    renderer = as_renderer(network, basis, scale, code_length)
    renderer.requires_grad_(False).eval().to(device)
    card = {
        "kind": "renderer",
        "network": name,
        "architecture": renderer.architecture,
        "scale": renderer.scale,
        "basis": basis.digest,
        "parameters": sum(p.numel() for p in renderer.parameters()),
    }
    return Checkpoint(renderer, basis.to(device), card, Path(name))


def _check_family(name: str, checkpoint: Checkpoint[Any], family: str) -> None:
    """Refuse a renderer whose codes are those of another kernel family: they would mean other kernels.

    Raises:
        UsageError: It is, naming both.
    """
    if checkpoint.basis.matches(load_basis(family, checkpoint.scale)):
        return
    own = family_of(checkpoint.basis, checkpoint.scale)
    speaks = f"the codes of {own} kernels" if own else f"a kernel basis of its own ({checkpoint.basis.digest})"
    raise UsageError(
        f"renderer {name!r} takes {speaks}, not of the family {family!r}: "
        + (f"set kernels={own!r}, or " if own else "")
        + f"use a renderer trained for {family} kernels"
    )


def load_predictor(
    name: str | os.PathLike[str],
    *,
    scale: int | None = None,
    basis: KernelBasis | None = None,
    device: torch.device | str = "cpu",
    controls: Sequence[str] = ("code",),
) -> Checkpoint[KernelPredictor]:
    """Load a kernel predictor by short name (``"predictor_x4"``) or path.

    Args:
        name: A name from :func:`available_checkpoints` or a ``.safetensors`` file.
        scale: The magnification needed; None takes any.
        basis: The kernel basis that the predictor's codes must be in (the renderer's); None takes any.
        device: Where the network goes.
        controls: What actions hold where it is used (:class:`~sr_env.simulator.SimulatorSettings`). A predictor gives
            these, or the code alone.

    Raises:
        MissingFileError: No such name or file; lists the released names.
        UsageError: The file is damaged, is no predictor, is for another scale or basis, its card disagrees with it, or
            it gives other controls.
    """
    checkpoint: Checkpoint[KernelPredictor] = _load(name, "predictor", scale, device)
    given = card_controls(checkpoint.card)
    if given not in (["code"], list(controls)):
        raise UsageError(
            f"predictor {str(name)!r} gives {', '.join(given)} and here {', '.join(controls)} is taken: use it where "
            f"controls are {given!r}, or take a predictor of codes alone"
        )
    if basis is not None and not basis.matches(checkpoint.basis):
        raise UsageError(
            f"predictor {str(name)!r} speaks kernel basis {checkpoint.basis.digest}, the renderer {basis.digest}: "
            "use a predictor trained for this renderer's basis"
        )
    return checkpoint


def default_predictor(renderer: Checkpoint[Any]) -> str:
    """Name of the released predictor whose codes a renderer takes; one of its kernel family's, or the isotropic one."""
    family = family_of(renderer.basis, renderer.scale)
    return f"predictor_x{renderer.scale}" if family in (None, "isotropic") else f"predictor_{family}_x{renderer.scale}"


def card_controls(card: Mapping[str, Any]) -> Any:
    """What the actions hold that a predictor of this card gives: a list of names, of "code" alone where it names none.

    What is in the card is given as it is, and may be damaged where it has not been checked.
    """
    return card.get("controls", ["code"])


def warn_of_other_renderer(predictor: Checkpoint[Any], renderer: Checkpoint[Any], stacklevel: int = 2) -> None:
    """Warn where a predictor was improved by the reward of another renderer's pictures: here its codes may be worse.

    Args:
        predictor: Any; one that was pretrained on kernels is for every renderer.
        renderer: What renders with its codes.
        stacklevel: Of the warning, counted from the caller.

    Warns:
        UserWarning: It was, naming both renderers.
    """
    card, name = predictor.card, renderer.path.stem
    meant = card.get("renderer")
    if "reward" not in card or not isinstance(meant, str):
        return
    digests = card.get("renderer_digest"), renderer.card.get("digest")
    known = (name, *renderer.card.get("blend", {}).values())  # what lies between two is at home with either's
    if digests[0] == digests[1] if None not in digests else meant in known:
        return
    warnings.warn(
        f"predictor {predictor.path.stem!r} was trained by reward for renderer {shown(meant)}, and "
        f"{'another one of that name' if meant == name else repr(name)} renders: take that renderer, or an actor "
        "trained for this one",
        stacklevel=stacklevel + 1,
    )


def available_checkpoints(kind: Kind | None = None) -> tuple[str, ...]:
    """Short names of the released weights, sorted; of one kind, or of both."""
    names = []
    for path in sorted(RELEASED.glob("*.json")):
        if kind is None or json.loads(path.read_text())["kind"] == kind:
            names.append(path.stem)
    return tuple(names)


def read_card(name: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the card of a checkpoint without its tensors.

    Raises:
        MissingFileError: No such name or file; lists the released names.
        UsageError: The file is damaged or carries no card.
    """
    return read_checkpoint(_resolve(name), tensors=False)[0]


def _resolve(name: str | os.PathLike[str], kind: Kind | None = None) -> Path:
    """Short name or path -> existing file."""
    path = Path(name)
    released = RELEASED / f"{path.name}.safetensors"
    if path.suffix != ".safetensors" and len(path.parts) == 1 and released.is_file():
        return released
    if path.is_file():
        return path
    registered = [name for name in registered_renderers() if name != _DEFAULT_NETWORK and kind == "renderer"]
    known = [*available_checkpoints(kind), *registered]
    raise MissingFileError(
        f"no {kind or 'checkpoint'} {str(name)!r}: give a .safetensors file, such as the training scripts write, "
        f"or one of {', '.join(known)}"
    )


def _released(name: str) -> Path:
    """File of released weights.

    Raises:
        MissingFileError: There are none of this name.
    """
    path = RELEASED / f"{name}.safetensors"
    if len(Path(name).parts) != 1 or not path.is_file():
        raise MissingFileError(f"no base {name!r} is released: choose one of {', '.join(available_checkpoints())}")
    return path


def _completed(path: Path, card: Mapping[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a file with those of its base, if it has one.

    Raises:
        UsageError: The base is absent or has changed since.
    """
    if "base" not in card:
        return tensors
    name, wanted = card["base"]["name"], card["base"]["digest"]
    try:
        shared = read_checkpoint(_released(name))[1]
    except MissingFileError as error:
        raise UsageError(f"checkpoint {str(path)!r} completes {shown(name)}, which is not released: {error}") from error
    if tensor_digest(shared) != wanted:
        raise UsageError(
            f"checkpoint {str(path)!r} completes a {name!r} that has since changed (digest {shown(wanted)}): "
            "train it again"
        )
    return {**shared, **tensors}


def _load(name: str | os.PathLike[str], kind: Kind, scale: int | None, device: torch.device | str) -> Checkpoint[Any]:
    path = _resolve(name, kind)
    card, tensors = read_checkpoint(path)
    tensors = _completed(path, card, tensors)
    if card["kind"] != kind:
        raise UsageError(
            f"checkpoint {str(name)!r} is a {card['kind']}, not a {kind}: "
            f"choose one of {', '.join(available_checkpoints(kind))}"
        )
    if scale is not None and card["scale"] != scale:
        fitting = [n for n in available_checkpoints(kind) if read_card(n)["scale"] == scale]
        raise UsageError(
            f"{kind} {str(name)!r} is for scale {card['scale']}, not {scale}: "
            + (
                f"choose one of {', '.join(fitting)}"
                if fitting
                else f"none that is released is for scale {scale}, train one"
            )
        )
    basis = KernelBasis.from_state(_prefixed(tensors, "basis."))
    if basis.digest != card["basis"]:
        raise UsageError(
            f"checkpoint {str(name)!r} holds kernel basis {basis.digest}, its card says {shown(card['basis'])}: "
            "copy or train it again"
        )
    factory = KernelPredictor if kind == "predictor" else _factory(name, card)
    try:
        network = build_network(factory, card["architecture"], _prefixed(tensors, "network."))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"the tensors of {str(name)!r} do not fit its architecture {shown(card['architecture'])} ({error}): "
            "it was written by another version, train it again"
        ) from error
    controls = card_controls(card)  # a number each, beside the code
    length = basis.code_length + (len(controls) - 1 if isinstance(controls, list) else 0)
    for what, own, wanted in (
        ("scale", getattr(network, "scale", card["scale"]), (card["scale"],)),
        ("code_length", getattr(network, "code_length", length), (length, 0)),
    ):
        if own not in wanted:
            raise UsageError(
                f"checkpoint {str(name)!r} holds a network of {what} {shown(own)}, its card and kernel basis say "
                f"{wanted[0]}: copy or train it again"
            )
    network.requires_grad_(False).eval().to(device, torch.float32)  # whatever the default type
    return Checkpoint(network, basis.to(device), card, path)


def _factory(name: str | os.PathLike[str], card: Mapping[str, Any]) -> Callable[..., nn.Module]:
    """What builds the network of a renderer's card."""
    architecture = card.get("network", _DEFAULT_NETWORK)
    if architecture not in registered_renderers():
        raise UsageError(
            f"checkpoint {str(name)!r} holds a {shown(architecture)}, which is not registered: import the module with "
            f"its @register_renderer first (registered: {', '.join(registered_renderers())})"
        )
    return renderer_factory(architecture)


def _prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
