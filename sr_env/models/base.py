"""What a renderer is, and the registry of their architectures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn

from sr_env.utils.checks import UsageError, check_choice

#: Where the released weights lie.
RELEASED = Path(__file__).parent / "weights"


@runtime_checkable
class Renderer(Protocol):
    """LR image and kernel code -> SR image: what the environments, the upscaler and the benchmark ask of a network.

    An ``nn.Module`` with these three attributes fits. To be saved as a checkpoint it is registered
    (:func:`register_renderer`) and has a property ``architecture``: the arguments of its constructor, JSON values only.
    """

    @property
    def scale(self) -> int:
        """Magnification, 2, 3 or 4."""

    @property
    def code_length(self) -> int:
        """Length L of the codes; 0 for a network that is called with the LR image alone."""

    @property
    def receptive_radius(self) -> int:
        """How many LR pixels around its own a pixel of SR depends on: what tiles must overlap by."""

    def __call__(self, lr: Tensor, code: Tensor) -> Tensor:
        """LR images [B, 3, h, w] in [0, 1] and codes [B, L] -> SR images [B, 3, scale*h, scale*w], not clamped."""


R = TypeVar("R", bound=Callable[..., nn.Module])
_RENDERERS: dict[str, Callable[..., nn.Module]] = {}


def register_renderer(name: str) -> Callable[[R], R]:
    """Decorator: make a renderer available by a name, in ``gym.make(..., renderer=name)`` and ``--renderer``.

    Args:
        name: Its name. It must not be that of another renderer or of released weights.

    Returns:
        A decorator for a class of ``nn.Module``, or a function that returns one, which is called with ``scale=`` and
        gives a network ready to use: it loads its own weights if it has any. Checkpoints of a class are built from
        its ``architecture``.

    Raises:
        UsageError: The name is empty or taken.
    """
    if not isinstance(name, str) or not name:
        raise UsageError(f"renderer name {name!r} is no name: write @register_renderer('mine')")

    def add(factory: R) -> R:
        known = _RENDERERS.get(name)
        # A notebook's cell is run again and again, and defines the same class anew each time.
        if (RELEASED / f"{name}.json").is_file():
            raise UsageError(f"{name!r} is the name of released weights: choose another name")
        if known is not None and _origin(known) != _origin(factory):
            raise UsageError(f"a renderer {name!r} is registered already, {_origin(known)}: choose another name")
        _RENDERERS[name] = factory
        return factory

    return add


def registered_renderers() -> tuple[str, ...]:
    """Names of the registered renderers, sorted."""
    return tuple(sorted(_RENDERERS))


def renderer_factory(name: str) -> Callable[..., nn.Module]:
    """The class or function of a registered name.

    Raises:
        UsageError: An unknown name, listing the registered ones.
    """
    check_choice("renderer architecture", name, registered_renderers())
    return _RENDERERS[name]


def registered_name(network: nn.Module) -> str | None:
    """Name under which a network's class is registered; None where it is not."""
    return next((name for name, factory in _RENDERERS.items() if factory is type(network)), None)


def _origin(factory: Callable[..., Any]) -> str:
    return f"{factory.__module__}.{factory.__qualname__}"
