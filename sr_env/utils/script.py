"""What every command-line script does: parse a dataclass of settings, run, and turn expected errors into one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import tyro

from sr_env.utils.checks import WeightsUnavailable
from sr_env.utils.signals import stop_requests

__all__ = ["Weights", "parse_weights", "run_script", "stop_requests"]

Settings = TypeVar("Settings")


def parse_weights(text: str) -> dict[str, float]:
    """``"psnr=1,lpips=20"`` -> ``{"psnr": 1.0, "lpips": 20.0}``.

    Raises:
        ValueError: A part is not a name, an equals sign and a number.
    """
    weights = {}
    for part in text.split(","):
        name, _, weight = part.partition("=")
        try:
            weights[name.strip()] = float(weight)
        except ValueError:
            raise ValueError(f"{part!r} is not NAME=WEIGHT: write such as psnr=1,lpips=20") from None
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
