"""Files are written whole or not at all, and an unwritable folder shows before the work."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import sr_env
from sr_env.utils.files import atomic_write, check_writable, remove_leftovers


def test_atomic_write_publishes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.txt"
    with atomic_write(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_atomic_write_keeps_the_old_file_on_any_error(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_atomic_write_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a") as temporary:
            temporary.write_text("x")
    finally:
        assert os.umask(before) == 0o027  # left as it was
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").touch()
    for call in (lambda: check_writable(tmp_path / "file"), lambda: check_writable(tmp_path / "file" / "under")):
        with pytest.raises(OSError, match="file"):
            call()
    with pytest.raises(OSError, match="file"), atomic_write(tmp_path / "file" / "x"):
        pass
    with pytest.raises(OSError, match=r"MB free and 1000000000000\.0 MB are needed: free some") as full:
        check_writable(tmp_path, 10**18)
    assert full.value.errno == errno.ENOSPC


def test_atomic_write_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file before its name, and the name before the end: so that a power cut leaves the old file or the new."""
    seen: list[tuple[str, bool]] = []
    sync = os.fsync

    def recorded(handle: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        seen.append((kind, (tmp_path / "a.txt").exists()))
        if kind == "file":
            assert os.fstat(handle).st_size == 3
        sync(handle)

    monkeypatch.setattr(os, "fsync", recorded)
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert seen == [("file", False), *([("folder", True)] if os.name == "posix" else [])]


@pytest.mark.parametrize("name", ["a" * 251 + ".png", "ä" * 125 + ".png", "a." + "b" * 250, "." * 200])
def test_the_longest_names_can_be_written(tmp_path: Path, name: str) -> None:
    with atomic_write(tmp_path / name) as temporary:
        temporary.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


KILLED = """
import os, signal, sys
from sr_env.utils.files import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(temporary.name, flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="locks are POSIX")
def test_leftovers_go_once_their_run_is_dead(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(sr_env.__file__).parents[1])}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "a.txt")]
    others = (".of another.12345678.txt", ".blindsr-notes", "a.blindsr-12345678.txt")
    for name in others:
        (tmp_path / name).write_text("x")
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        temporary = tmp_path / run.stdout.readline().strip()
        remove_leftovers(tmp_path)
        assert temporary.read_text() == "half"  # which is being written
        with atomic_write(tmp_path / "a.txt") as another:
            another.write_text("whole")
            remove_leftovers(tmp_path)
            assert another.exists()
        run.communicate("")
        assert run.returncode == -signal.SIGKILL
    assert temporary.exists()
    check_writable(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", *others}
    assert (tmp_path / "a.txt").read_text() == "whole"
    # One that is empty may be about to be locked.
    (tmp_path / ".a.blindsr-12345678.txt").touch()
    remove_leftovers(tmp_path)
    assert (tmp_path / ".a.blindsr-12345678.txt").exists()
    os.utime(tmp_path / ".a.blindsr-12345678.txt", (0, 0))
    remove_leftovers(tmp_path)
    assert not (tmp_path / ".a.blindsr-12345678.txt").exists()
