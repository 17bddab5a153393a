"""What every command-line script does: parse a dataclass of settings, run, and turn expected errors into one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import tyro

from sr_env._common import WeightsUnavailable

Settings = TypeVar("Settings")


def run_script(settings: type[Settings], main: Callable[[Settings], Any]) -> None:
    """Parse the command line into ``settings`` and call ``main`` with it.

    A mistake of the user's (bad value, missing file, no such device) ends with one line on stderr and exit status 2;
    Ctrl-C with status 130. Anything else is a bug and keeps its traceback.
    """
    parsed = tyro.cli(settings)
    try:
        main(parsed)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError, FloatingPointError, WeightsUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
