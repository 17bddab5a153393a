"""The state of a training on disk: a small record, and files that each stay small enough to be carried elsewhere.

``checkpoint.json`` names the files that belong together and is written last, so that a process killed at any moment
leaves a whole state: the one before, or the new one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sr_env.utils.files import atomic_write

RECORD = "checkpoint.json"


def save_state(folder: Path, record: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Write a state and delete the one before.

    Args:
        folder: Where to.
        record: What JSON can hold; ``step`` among it.
        parts: What :func:`torch.load` reads back without running code, a file for each, by name.
    """
    files = {name: f"{name}-{record['step']}.pt" for name in parts}
    for name, part in parts.items():
        with atomic_write(folder / files[name]) as temporary:
            torch.save(part, temporary)
    with atomic_write(folder / RECORD) as temporary:
        temporary.write_text(json.dumps({**record, "files": files}, indent=1))
    for path in folder.glob("*.pt"):
        match = re.fullmatch(r"([a-z_]+)-\d+\.pt", path.name)
        if match and match[1] in files and path.name != files[match[1]]:
            path.unlink()


def load_state(folder: Path, device: torch.device) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what :func:`save_state` wrote, tensors on the device: the record and the parts.

    Raises:
        Exception: Of many types, where a file is missing, damaged or foreign.
    """
    record = json.loads((folder / RECORD).read_text())
    files = record.pop("files")
    if any(Path(name).name != name for name in files.values()):
        raise ValueError("it names files outside its folder")
    parts = {name: torch.load(folder / file, map_location=device, weights_only=True) for name, file in files.items()}
    return record, parts
