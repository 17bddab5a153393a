"""Units of work that a run has finished, kept in its folder, so that one that was stopped goes on after them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from sr_env.utils.checks import UsageError
from sr_env.utils.files import check_writable
from sr_env.utils.resume import check_out, check_settings, read_record, write_record
from sr_env.utils.signals import orderly_termination

#: File in the folder of a run that it is gone on from.
FINISHED = "finished.json"
#: Seconds between two writings of it, and least multiple of what the last one took; what is younger is written when the
#: run ends or is stopped.
_SECONDS, _SHARE = 2.0, 20.0
#: What changes figures beside the settings, of what a report says of how it was made.
_MADE_WITH = ("commit", "hardware", "torch", "threads")
#: Name of a unit of work, and what makes it -> what it came to, JSON values.
Take = Callable[[str, Callable[[], Any]], Any]
Value = TypeVar("Value")


def anew(name: str, make: Callable[[], Value]) -> Value:
    """A :data:`Take` that keeps nothing."""
    return make()


def within(take: Take, whole: str) -> Take:
    """A :data:`Take` for the parts of a larger whole, whose name goes before theirs."""
    return lambda name, make: take(f"{whole}/{name}", make)


def open_run(folder: Path | None, results: Iterable[str], resume: bool, needed: int = 0) -> None:
    """Refuse a folder in which a run would lose something, finds nothing to go on from, or cannot write.

    Args:
        folder: The run's; None where it writes nothing.
        results: Names of files there that it writes.
        resume: Whether it is to go on.
        needed: Bytes that must be free there.

    Raises:
        FileInTheWayError: It is to begin, and there is a state or a result.
        MissingFileError: It is to go on, and there is no state.
        OSError: The folder cannot be written.
        UsageError: It is to go on without a folder.
    """
    if folder is None:
        if resume:
            raise UsageError("--resume without --out has nothing to go on from: name the run's folder")
        return
    check_out(folder, FINISHED, results, resume)
    check_writable(folder, needed)


class Finished:
    """The finished units of a run; a context in which Ctrl-C and SIGTERM end the run with all of them on the disk.

    Args:
        folder: The run's; None keeps them in memory alone.
        settings: What the run was told, as :func:`~sr_env.utils.resume.kept_settings` gives it.
        resume: Whether to go on from what is in the folder.
        about: What the run's report says of how it is made; where a part was made with another commit, processor or
            torch, :attr:`earlier` says so.

    Attributes:
        earlier: With what units were made that are of earlier runs, where that was something else.

    Raises:
        UsageError: The state is damaged, or of other settings.
    """

    def __init__(
        self,
        folder: Path | None,
        settings: Mapping[str, Any],
        resume: bool = False,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._path = None if folder is None else folder / FINISHED
        self._settings = dict(settings)
        self._units: dict[str, Any] = {}
        self._next, self._pending = 0.0, False
        self._context = ExitStack()
        self.earlier: list[dict[str, Any]] = []
        self._made_with = {name: value for name, value in (about or {}).items() if name in _MADE_WITH}
        if resume and self._path is not None:
            self._read(self._path)

    def take(self, name: str, make: Callable[[], Value]) -> Value:
        """What a unit came to: of a finished one what was kept, else what ``make`` gives, JSON values, which is kept.

        Args:
            name: Tells the unit from all others of the run.
            make: Does the work.
        """
        if name not in self._units:
            # Fresh or read again, a value is the same: numbers of one type, lists for tuples.
            self._units[name] = json.loads(json.dumps(make()))
            self._pending = True
            if time.monotonic() >= self._next:
                self._write()
        value: Value = self._units[name]
        return value

    def __enter__(self) -> Finished:
        if self._path is not None:
            self._context.enter_context(orderly_termination())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._context:
            if self._pending:
                self._write()
            if isinstance(error, KeyboardInterrupt | SystemExit) and self._path is not None and self._units:
                print(f"stopped: {self._path} keeps what is finished; --resume goes on from it", file=sys.stderr)

    def _write(self) -> None:
        begun = time.monotonic()
        if self._path is not None:
            made_with = [*self.earlier, self._made_with]
            write_record(self._path, {"settings": self._settings, "made_with": made_with, "units": self._units})
        ended = time.monotonic()
        self._next, self._pending = ended + max(_SECONDS, _SHARE * (ended - begun)), False

    def _read(self, path: Path) -> None:
        try:
            record = read_record(path)
            settings, units, made_with = dict(record["settings"]), dict(record["units"]), list(record["made_with"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(
                f"cannot resume from {path} ({type(error).__name__}: {error}): it is damaged or a file of something "
                "else; delete it to start anew"
            ) from error
        check_settings(settings, self._settings, path.parent)
        self._units = units
        self.earlier = [each for each in made_with if each != self._made_with]
