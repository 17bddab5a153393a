"""What every command-line script does: parse a dataclass of settings, run, and turn expected errors into one line."""

from __future__ import annotations

import io
import itertools
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import tyro

from sr_env.utils.checks import UsageError, WeightsUnavailable
from sr_env.utils.files import DISK_ERRORS
from sr_env.utils.signals import stop_requests

if TYPE_CHECKING:
    from sr_env.utils.devices import Threads

__all__ = ["Weights", "parse_weights", "run_script", "stop_requests"]

Settings = TypeVar("Settings")


def parse_weights(text: str) -> dict[str, float]:
    """``"psnr=1,lpips=20"`` -> ``{"psnr": 1.0, "lpips": 20.0}``.

    Raises:
        UsageError: A part is not a name, an equals sign and a number, or a name is there twice.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = (piece.strip() for piece in part.partition("="))
        try:
            value = float(weight)
        except ValueError:
            raise UsageError(f"{part!r} is not NAME=WEIGHT: write such as psnr=1,lpips=20") from None
        if not name or name in weights:
            raise UsageError(f"{text!r} {'repeats' if name else 'lacks'} a name: write such as psnr=1,lpips=20")
        weights[name] = value
    return weights


#: Metric weights as one argument of a command line (tyro would only take the default's own names).
Weights = Annotated[
    dict[str, float],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME=WEIGHT,...",
        instance_from_str=lambda given: parse_weights(given[0]),
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [",".join(f"{name}={weight:g}" for name, weight in value.items())],
    ),
]


def run_script(settings: type[Settings], main: Callable[[Settings], Any], *, threads: Threads | None = None) -> None:
    """Parse the command line into ``settings`` and call ``main`` with it.

    What the user or the machine can mend ends with one line on stderr and exit status 2: a command line that does not
    parse, a ``UsageError`` (bad value, missing file, no such device), weights that cannot be had, a training that
    diverged, and what the operating system refuses (permissions, a full disk). Ctrl-C ends with status 130. Anything
    else is a bug and keeps its traceback.

    Args:
        settings: A dataclass.
        main: What is done with it.
        threads: How many CPU threads it is done with, as :func:`~sr_env.utils.devices.settle_threads` takes it (on the
            settings' ``device``, where they have one); None leaves the choice to torch.
    """
    for before, argument in itertools.pairwise(["an argument", *sys.argv[1:]]):
        if argument == "" or (argument.startswith("--") and argument.endswith("=")):  # an unset variable of the shell
            name = argument.rstrip("=") or (before if before.startswith("-") else "an argument")
            _fail(f"{name} has an empty value: give one or leave it out")
    parsed = _parsed(settings)
    try:
        if threads is not None:
            from sr_env.utils.devices import settle_threads  # which imports torch: not before --help is answered

            settle_threads(threads, getattr(parsed, "device", "auto"))
        main(parsed)
    except KeyboardInterrupt:
        sys.exit(130)
    except (UsageError, FloatingPointError, WeightsUnavailable) as error:
        _fail(str(error))
    except OSError as error:
        if not _refused(error):
            raise
        _fail(str(error.strerror) if error.filename is None else f"{str(error.filename)!r}: {error.strerror}")


def _parsed(settings: type[Settings]) -> Settings:
    """The command line as settings; where it does not parse, what tyro says of it as one line."""
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            return tyro.cli(settings)
    except SystemExit as ended:
        if not ended.code:  # help was asked for
            raise
        _fail(_unboxed(told.getvalue()))


def _unboxed(box: str) -> str:
    """The message in a box that tyro draws, with a frame or, where such letters cannot be shown, with rules alone."""
    box = re.sub(r"\x1b\[[0-9;]*m", "", box)  # colours
    lines = [line.strip().strip("│|").strip() for line in box.splitlines()] or [""]
    title, lines = lines[0].strip("╭╮─+- "), lines[1:]
    sections: list[list[str]] = [[]]
    for line in lines:
        if line and set(line) <= set("╰╯─+-"):
            sections.append([])
        elif line:
            sections[-1].append(line)
    sections = [section for section in sections if section]
    message = " ".join(" ".join(sections[0]).split()).rstrip(".") if sections else ""
    if not message.lower().startswith(title.lower()):
        message = f"{title}: {message}"
    for section in sections[1:]:
        hints = [line.split()[0] for line in section if line.startswith("--")]
        if section[0].startswith("Perhaps you meant") and hints:
            message += f"; perhaps you meant {' or '.join(dict.fromkeys(hints))}"
    helps = re.findall(r"(?:run:?|see|in)\s+((?:(?!run |see |in )\S+ )+--help)$", "\n".join(lines), re.MULTILINE)
    return f"{message} ({helps[-1]} explains all options)" if helps else message


def _refused(error: OSError) -> bool:
    """Whether the operating system refused something: to open a file that has a name, or to go on writing one."""
    return error.errno is not None and (error.filename is not None or error.errno in DISK_ERRORS)


def _fail(message: str) -> NoReturn:
    print("error:", " ".join(message.splitlines()), file=sys.stderr)
    sys.exit(2)
