"""What agents leave behind: actors and weights as safetensors, and the state that a run is gone on from.

None of these files runs code when it is read.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, load_model, save, save_model
from torch import Tensor, nn

from sr_env.models import Checkpoint, KernelPredictor, save_checkpoint
from sr_env.models.checkpoint import RELEASED
from sr_env.models.checkpoint_file import check_tensors
from sr_env.utils.checks import MissingFileError, UsageError
from sr_env.utils.digests import tensor_digest
from sr_env.utils.files import atomic_write
from sr_env.utils.resume import check_settings, read_verified, write_verified

#: File in the folder of a run that it is gone on from.
STATE = "state.pt"


def save_actor(
    path: str | Path, actor: KernelPredictor, start: Checkpoint[KernelPredictor], card: Mapping[str, Any]
) -> Path:
    """Write an actor as a kernel predictor's checkpoint, and its card beside it.

    Args:
        path: Safetensors file to write.
        actor: The network.
        start: The pretrained actor it came from; where that is released, the file holds what differs from it.
        card: What is known of the training.

    Returns:
        The path.
    """
    base = start.path.stem if start.path.parent == RELEASED else None
    # An actor that gives more than the code is told from plain predictors by its card, so that none takes it for one.
    own = {key: start.card[key] for key in ("controls",) if key in start.card}
    return save_checkpoint(Path(path), actor, start.basis, start.scale, {**own, **card}, base)


def save_weights(path: str | Path, policy: nn.Module) -> Path:
    """Write a policy's tensors as safetensors; returns the path.

    Raises:
        UsageError: The path does not end in ``.safetensors``.
    """
    if Path(path).suffix != ".safetensors":
        raise UsageError(f"weights are written as safetensors, not as {str(path)!r}: end the path in .safetensors")
    with atomic_write(path) as temporary:
        save_model(policy, str(temporary))
        tensors = load_file(temporary)  # each once, though networks share some
        temporary.write_bytes(save(tensors, metadata={"digest": tensor_digest(tensors)}))
    return Path(path)


def load_weights(path: str | Path, policy: nn.Module) -> None:
    """Take up what :func:`save_weights` wrote.

    Raises:
        UsageError: No such file, it is damaged, holds numbers that are not finite, or is of a policy with other
            settings.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"no policy at {path}: give the .safetensors file of one that was saved")
    try:
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            digest = (file.metadata() or {}).get("digest")
    except SafetensorError as error:
        raise UsageError(f"{path} does not fit this policy ({error}): give the settings it was made with") from error
    check_tensors(Path(path), digest, tensors)
    try:
        load_model(policy, path)
    except (SafetensorError, RuntimeError) as error:  # RuntimeError: tensors of other names or shapes
        raise UsageError(f"{path} does not fit this policy ({error}): give the settings it was made with") from error


def check_zip(path: str | Path, attribute: str) -> None:
    """Refuse a zip of SB3's that is damaged or of another agent, before anything in it is run.

    Args:
        path: The zip; ``.zip`` may be left out, as SB3 has it.
        attribute: What the agent's class has and SB3's own have not.

    Raises:
        UsageError: No such file, or it is one of these, naming it.
    """
    file = Path(path) if Path(path).is_file() else Path(f"{path}.zip")
    if not file.is_file():
        raise MissingFileError(f"no agent at {path}: give the zip of one that was saved")
    try:
        with zipfile.ZipFile(file) as archive:
            if broken := archive.testzip():
                raise zipfile.BadZipFile(f"{broken} in it is damaged")
            data = json.loads(archive.read("data"))
    # NotImplementedError: a compression that is unknown; a RuntimeError is a password's.
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError) as error:
        raise UsageError(f"{file} is damaged or no agent ({error}): copy or save it again") from error
    if not isinstance(data, dict) or attribute not in data:
        raise UsageError(f"{file} holds another agent: give the zip of one of the same class")


def write_state(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a run's state, atomically, for :func:`reading_state`.

    Args:
        path: File to write.
        state: Tensors, numbers, strings and containers of them. torch's generators are kept beside.

    Raises:
        OSError: It cannot be written, naming it and its disk. The file of before is still there.
    """
    write_verified(path, {**state, "torch_generators": torch_generators()})


@contextmanager
def reading_state(path: str | Path) -> Iterator[dict[str, Any]]:
    """Read what :func:`write_state` wrote, and report a file that does not fit as a mistake of the file's.

    Raises:
        UsageError: No such file, or it is damaged, or of an agent with other settings. A bug in the block that takes
            the state up keeps its own exception.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"nothing to resume: {path} does not exist; start without --resume")
    try:
        state = read_verified(path)
    except Exception as error:  # torch raises many types for a damaged or foreign file
        raise UsageError(_unfit(path, error)) from error
    if not isinstance(state, dict):
        raise UsageError(_unfit(path, TypeError(f"it holds a {type(state).__name__}")))
    try:
        yield state
    # What a state of other settings raises: a key that is absent, sizes that differ (torch's is a RuntimeError).
    except (KeyError, RuntimeError, ValueError) as error:
        raise UsageError(_unfit(path, error)) from error


def check_state(path: str | Path, settings: Mapping[str, Any]) -> None:
    """Refuse a state that is damaged or of other settings, before any work is done.

    Args:
        path: What :func:`write_state` wrote, with the settings that the run began with in ``extra``.
        settings: Those that it has now (:func:`~sr_env.utils.resume.kept_settings`).

    Raises:
        UsageError: No such file, it is damaged, or a setting differs, naming it and both values.
    """
    with reading_state(path) as state:
        kept = state["extra"].get("settings")
    check_settings(kept, settings, Path(path).parent)


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
