"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_writable(folder: str | os.PathLike[str], needed: int = 0) -> None:
    """Create ``folder`` and a passing file in it, so that an unwritable one shows before the work and not after.

    Args:
        folder: Where files will be written.
        needed: Bytes that must be free there.

    Raises:
        OSError: The folder cannot be created or written, or its disk is too full, naming it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{str(folder)!r} has {free / 1e6:.1f} MB free and {needed / 1e6:.1f} MB are needed: "
            "free some or write elsewhere",
        )


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and rename it to ``path`` when the block ends without an error.

    Args:
        path: The final file. Its folder is created when absent.

    Yields:
        A temporary path in the same folder and with the same suffix (libraries choose a format by it).

    Raises:
        OSError: The folder cannot be created or written, naming it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes the file private to its owner; what we publish follows the user's umask like any other file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
