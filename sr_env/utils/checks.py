"""What every module shares: the setting's constants, the errors that are the user's, the check of a named choice."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral

#: Magnifications for which there are settings in the literature.
SCALES: tuple[int, ...] = (2, 3, 4)
#: PCA coefficients that describe a kernel.
CODE_LENGTH = 10
#: Smallest LR side that the networks take.
MIN_LR_SIZE = 8


class UsageError(ValueError):
    """A mistake of the user's, found before any work is done; the message names the value and the remedy.

    Scripts print it as one line. Any other exception is a bug and keeps its traceback.
    """


class MissingFileError(UsageError, FileNotFoundError):
    """A file or folder that the user named does not exist."""


class FileInTheWayError(UsageError, FileExistsError):
    """Something exists where the user wants to write, and would be lost."""


class WeightsUnavailable(RuntimeError):
    """Pretrained weights that a metric needs cannot be had; the message says what was tried and what helps."""


def check_choice(what: str, value: object, choices: Iterable[object]) -> None:
    """Raise :class:`UsageError` naming the value and the valid ones unless ``value`` is one of ``choices``."""
    choices = tuple(choices)
    if value not in choices:
        raise UsageError(f"unknown {what} {value!r}: choose one of {', '.join(map(str, choices))}")


def check_sizes(largest: int, **sizes: object) -> None:
    """Raise :class:`UsageError` naming the first of a network's sizes that is no whole number from 1 to ``largest``."""
    for name, size in sizes.items():
        if not isinstance(size, Integral) or isinstance(size, bool) or not 1 <= int(size) <= largest:
            raise UsageError(f"{name}={size!r}: give a whole number from 1 to {largest}")


def check_lr_size(height: int, width: int) -> None:
    """Raise :class:`UsageError` unless both sides reach ``MIN_LR_SIZE``."""
    if min(height, width) < MIN_LR_SIZE:
        raise UsageError(
            f"LR size {height}x{width} is under {MIN_LR_SIZE}x{MIN_LR_SIZE}: pad the image or use a larger one"
        )
