"""Going on after an interruption: reading a run's state safely, and torch's own generators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sr_env.utils.checks import MissingFileError, UsageError


@contextmanager
def reading_state(path: str | Path) -> Iterator[dict[str, Any]]:
    """Read what ``save_state`` wrote, and report a file that does not fit as a mistake of the file's.

    Raises:
        UsageError: No such file, or it is damaged, or of an agent with other settings. A bug in the block that takes
            the state up keeps its own exception.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"nothing to resume: {path} does not exist; start without --resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged or foreign file
        raise UsageError(_unfit(path, error)) from error
    try:
        yield state
    # What a state of other settings raises: a key that is absent, sizes that differ (torch's is a RuntimeError).
    except (KeyError, RuntimeError, ValueError) as error:
        raise UsageError(_unfit(path, error)) from error


def _unfit(path: str | Path, error: Exception) -> str:
    return (
        f"cannot resume from {path} ({type(error).__name__}: {error}): it is damaged or of other settings; "
        "delete it to start anew"
    )


def torch_generators() -> list[Tensor]:
    """States of torch's global generators, which dropout draws from."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def set_torch_generators(states: Sequence[Tensor]) -> None:
    """Take up what :func:`torch_generators` gave; those of GPUs only where there are as many."""
    own, *others = states
    torch.set_rng_state(own)
    if len(others) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(others)
