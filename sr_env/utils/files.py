"""Writing files so that a reader never sees half of one, whatever ends the run or the machine."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

#: In the name of every temporary file, so that those of killed runs are known as ours.
_MARK = ".blindsr-"
_TEMPORARY = re.compile(r"\..*" + re.escape(_MARK) + r"[a-z0-9_]{8}(\.[^.]*)?", re.DOTALL)
#: Characters of the final name that the temporary one repeats: names may have 255 bytes, and a character has up to 4.
_STEM, _SUFFIX = 40, 12
#: Seconds after which an unlocked file is a leftover: an empty one may be about to be locked; without locks, any.
_EMPTY_AGE, _UNLOCKED_AGE = 60, 24 * 3600
#: Errors of writing that name no file: no space, quota, a file system that is read-only or fails.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@contextmanager
def disk_errors_named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let what the disk refuses in the block name a file and the disk, where the system's error names neither.

    Args:
        path: The file or folder that is written.

    Raises:
        OSError: The same error with a name, how much is free and what helps.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in DISK_ERRORS:
            raise
        disk = Path(path).absolute().parent
        while not os.path.ismount(disk):
            disk = disk.parent
        free = shutil.disk_usage(disk).free
        raise OSError(
            error.errno,
            f"{error.strerror} on the disk at {str(disk)!r}, which has {free / 1e6:.1f} MB free; what was written "
            "before is kept: free some, or write elsewhere",
            str(path),
        ) from error


def check_writable(folder: str | os.PathLike[str], needed: int = 0) -> None:
    """Create ``folder`` and a passing file in it, so that an unwritable one shows before the work and not after.

    What killed runs left there is removed (:func:`remove_leftovers`).

    Args:
        folder: Where files will be written.
        needed: Bytes that must be free there.

    Raises:
        OSError: The folder cannot be created or written, or its disk is too full, naming it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    remove_leftovers(folder)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{str(folder)!r} has {free / 1e6:.1f} MB free and {needed / 1e6:.1f} MB are needed: "
            "free some or write elsewhere",
        )


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Delete the temporary files of :func:`atomic_write` that runs left in a folder which were killed.

    Those that another run is writing at the moment are locked by it, and stay.
    """
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    for name in names:
        path = Path(folder) / name
        with suppress(OSError):  # it has just been renamed or deleted, or is not ours to open
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
            try:
                status = os.fstat(handle)
                age = time.time() - status.st_mtime
                free = age > _UNLOCKED_AGE if sys.platform == "win32" else _lock(handle, wait=False)
                if free and (status.st_size > 0 or age > _EMPTY_AGE):
                    path.unlink()
            finally:
                os.close(handle)


def _lock(handle: int, *, wait: bool) -> bool:
    """Lock an open file until it is closed, by whatever end of the process; whether that was possible."""
    if sys.platform != "win32":
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            return True
        except OSError:  # another's, or a file system without locks
            pass
    return False


def _sync(path: Path, flags: int) -> None:
    """Have what was written to a file or folder on the disk, before a power cut can lose it."""
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and rename it to ``path`` when the block ends without an error.

    The file is on the disk before it has its name, and the name before this returns: after a power cut the old file is
    there or the new one.

    Args:
        path: The final file. Its folder is created when absent.

    Yields:
        A temporary path in the same folder and with the same suffix (libraries choose a format by it), locked against
        :func:`remove_leftovers` of another run.

    Raises:
        OSError: The folder cannot be created or written, or its disk is full, naming it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix if len(path.suffix) <= _SUFFIX else ""
    handle, name = tempfile.mkstemp(prefix=f".{path.stem[:_STEM]}{_MARK}", suffix=suffix, dir=path.parent)
    temporary = Path(name)
    try:
        if sys.platform == "win32":  # where an open file cannot be renamed
            os.close(handle)
        else:
            _lock(handle, wait=True)
        with disk_errors_named(path):
            yield temporary
            _sync(temporary, os.O_RDWR)
        # mkstemp makes the file private to its owner; what we publish follows the user's umask like any other file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
        if sys.platform != "win32":
            with suppress(OSError):  # some file systems cannot
                _sync(path.parent, os.O_RDONLY)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        if sys.platform != "win32":
            os.close(handle)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as indented JSON by :func:`atomic_write`.

    Args:
        path: The file.
        value: JSON values.

    Raises:
        TypeError: It is no JSON value.
        OSError: As :func:`atomic_write`.
    """
    text = json.dumps(value, indent=2) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text)
