"""How weights were made: the processor, the command and the commit, for the cards of checkpoints."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import torch


def hardware(device: torch.device) -> str:
    """Name of the processor that trained."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores, {name}"


def command_line() -> str:
    """The command that was run, with the script named as in the repository and absolute paths cut to their end."""
    script = Path(sys.argv[0])
    return " ".join(["python", "/".join(script.parts[-2:]), *map(public_path, sys.argv[1:])])


def public_path(value: object) -> str:
    """A setting as text; of an absolute path only the last two parts, since the rest describes a machine."""
    path = Path(str(value))
    return "/".join(path.parts[-2:]) if path.is_absolute() else str(value)


def commit() -> str:
    """Commit of the working tree, with a plus where files differ from it; "unknown" outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
