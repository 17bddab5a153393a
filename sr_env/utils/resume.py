"""Going on with a training: what may lie in its folder, its state on disk, and which settings may change."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sr_env.utils.checks import FileInTheWayError, MissingFileError, UsageError
from sr_env.utils.digests import content_digest
from sr_env.utils.files import atomic_write
from sr_env.utils.provenance import public_path

#: Settings that a resumed run may change, of all trainings: where it runs, when it ends, how often it writes, and what
#: is measured beside and after it. All others make another training of it.
CHANGEABLE = frozenset(
    {
        *("steps", "minutes", "calls", "patience"),  # when it ends
        *("device", "compile", "workers"),  # where it runs: the same but for rounding
        *("out", "resume", "checkpoint_minutes", "log_every"),  # what it writes
        *("test_crops", "test_widths", "test_photos", "test_count", "test_side"),  # what is measured in the end
        *("one_step", "earlier", "keep_last"),
    }
)


def check_out(out: Path, state: str | None, results: Iterable[str], resume: bool = False) -> None:
    """Let a run go on only from its own state, and begin only where nothing is lost.

    Args:
        out: The run's folder.
        state: File there that the run is gone on from; None of one that cannot be.
        results: Files there that it writes at its end.
        resume: Whether it is to go on.

    Raises:
        MissingFileError: It is, and there is no state.
        FileInTheWayError: It is not, and one of the files is there.
    """
    if state is not None and resume:
        if not (out / state).is_file():
            raise MissingFileError(f"nothing to resume: {out / state} does not exist; start without --resume")
        return
    if state is not None and (out / state).exists():
        raise FileInTheWayError(f"{out / state} exists: add --resume to go on, or choose another --out")
    for name in results:
        if (out / name).exists():
            raise FileInTheWayError(f"{out / name} of an earlier run exists: choose another --out, or move it away")


def kept_settings(settings: Any, changeable: Set[str] = CHANGEABLE, /, **inputs: Any) -> dict[str, Any]:
    """What a run keeps of its settings, as JSON values; of absolute paths what its card names of them.

    Args:
        settings: A dataclass.
        changeable: Names of those that a resumed run may change, which are left out.
        **inputs: By the name of a setting, what to keep in its place: a digest of what a path leads to, say.
    """
    kept = {name: value for name, value in {**asdict(settings), **inputs}.items() if name not in changeable}
    return dict(json.loads(json.dumps(kept, default=_as_text), parse_constant=str))


def _as_text(value: Any) -> str:
    """A path as cards name it; a function, such as a schedule, by its name."""
    return public_path(value) if isinstance(value, Path) else getattr(value, "__qualname__", type(value).__name__)


def check_settings(kept: Mapping[str, Any] | None, now: Mapping[str, Any], where: Path) -> None:
    """Refuse to go on with other settings than a run began with: its card would claim what it was not made with.

    Args:
        kept: What :func:`kept_settings` gave when the state was written; None of a state that keeps none.
        now: What it gives now. A setting that is in one of them only was added or left out by another version.
        where: The run's folder, for the error.

    Raises:
        UsageError: A setting differs, naming all that do, with both values.
    """
    kept = kept or {}
    changed = [
        f"--{name.replace('_', '-')} was {_shown(kept[name])} and is {_shown(now[name])}"
        for name in now
        if name in kept and kept[name] != now[name]
    ]
    if changed:
        raise UsageError(
            f"cannot resume from {where} with other settings: {'; '.join(changed)}: give what it began with, or start "
            "anew in another --out"
        )


def _shown(value: Any) -> str:
    """A setting as a command line has it."""
    if isinstance(value, dict):
        return ",".join(f"{name}={_shown(part)}" for name, part in value.items()) or "empty"
    if isinstance(value, list):
        return " ".join(map(_shown, value)) or "empty"
    return f"{value:g}" if isinstance(value, float) else str(value)


def write_record(path: Path, record: Mapping[str, Any], indent: int | None = None) -> None:
    """Write JSON values under names, atomically and with their digest.

    Args:
        path: File to write.
        record: The values; ``digest`` is none of the names.
        indent: Of the text; None writes it in one line.

    Raises:
        OSError: It cannot be written, naming it and its disk.
    """
    text = json.dumps({**record, "digest": content_digest(record)}, indent=indent)
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def read_record(path: Path) -> dict[str, Any]:
    """Read what :func:`write_record` wrote; files of before, without a digest, are read too.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not what was written, or no such file.
    """
    record = json.loads(path.read_text())
    if not isinstance(record, dict):
        raise ValueError(f"{path.name} holds no record")
    digest = record.pop("digest", None)
    if digest is not None and content_digest(record) != digest:
        raise ValueError(f"{path.name} is not what was written: its digest is another than {digest}")
    return record


def write_verified(path: str | os.PathLike[str], content: Any) -> None:
    """Write what :func:`torch.load` reads back without running code, atomically and with its digest.

    Args:
        path: File to write.
        content: Tensors, numbers, strings and containers of them.

    Raises:
        OSError: It cannot be written, naming it and its disk.
    """
    whole = {"content": content, "digest": content_digest(content)}
    # Given a path, torch tells of a full disk in terms of its archive's positions.
    with atomic_write(path) as temporary, temporary.open("wb", buffering=0) as file:
        try:
            torch.save(whole, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def read_verified(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Any:
    """Read what :func:`write_verified` wrote, tensors on the device; files of before, without a digest, are read too.

    Raises:
        ValueError: The file holds something else than was written.
        Exception: Of many types, where it is damaged or foreign in another way.
    """
    loaded = torch.load(path, map_location=device, weights_only=True)
    if not (isinstance(loaded, dict) and loaded.keys() == {"content", "digest"}):
        return loaded
    if content_digest(loaded["content"]) != loaded["digest"]:
        raise ValueError(f"{Path(path).name} is not what was written: its digest is another than {loaded['digest']}")
    return loaded["content"]
