"""Files are written whole or not at all, and an unwritable folder shows before the work."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from sr_env.utils.files import atomic_write, check_writable


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
