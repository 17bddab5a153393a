"""The state of a training on disk: a small record, and files that each stay small enough to be carried elsewhere.

``checkpoint.json`` names the files that belong together and is written last, so that a process killed at any moment
leaves a whole state: the one before, or the new one. Record and files carry digests of what they hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sr_env.models import read_card
from sr_env.utils.checks import UsageError
from sr_env.utils.resume import read_record, read_verified, write_record, write_verified

RECORD = "checkpoint.json"


def save_state(folder: Path, record: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Write a state and delete the one before.

    Args:
        folder: Where to.
        record: What JSON can hold; ``step`` among it.
        parts: What :func:`torch.load` reads back without running code, a file for each, by name.

    Raises:
        OSError: A file cannot be written, naming it and its disk. The state before is still there, and nothing else.
    """
    files = {name: f"{name}-{record['step']}.pt" for name in parts}
    new = [folder / file for file in files.values() if not (folder / file).exists()]
    try:
        for name, part in parts.items():
            write_verified(folder / files[name], part)
        write_record(folder / RECORD, {**record, "files": files}, indent=1)
    except BaseException:
        for path in new:  # they take the room that the next try needs
            path.unlink(missing_ok=True)
        raise
    for path in folder.glob("*.pt"):
        match = re.fullmatch(r"([a-z_]+)-\d+\.pt", path.name)
        if match and match[1] in files and path.name != files[match[1]]:
            path.unlink()


def named_weights(settings: object) -> dict[str, Any]:
    """Settings that name weights -> the weights they name: their name without its folder, and the digest of the card.

    Args:
        settings: Any; those of its ``start``, ``renderers`` and ``predictor`` are told that are there and not None.
    """
    given = {name: getattr(settings, name, None) for name in ("start", "renderers", "predictor")}
    return {
        name: [_identity(spec) for spec in value] if isinstance(value, tuple) else _identity(value)
        for name, value in given.items()
        if value is not None
    }


def _identity(spec: str) -> str:
    try:
        digest = read_card(spec).get("digest", "unknown")
    except UsageError:  # a registered renderer, which is code
        return spec
    return f"{Path(spec).stem} (digest {digest})"


def load_record(folder: Path) -> dict[str, Any]:
    """Read the record of a state, ``files`` among it; one of before, without a digest, is read too.

    Raises:
        Exception: Of many types, where it is missing, damaged or foreign.
    """
    record = read_record(folder / RECORD)
    if any(Path(name).name != name for name in record["files"].values()):
        raise ValueError("it names files outside its folder")
    return record


def load_parts(folder: Path, record: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Read the files that a record names, tensors on the device.

    Raises:
        Exception: Of many types, where a file is missing, damaged or foreign.
    """
    return {name: read_verified(folder / file, device) for name, file in record["files"].items()}
