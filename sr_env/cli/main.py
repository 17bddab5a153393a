"""The command ``blindsr``.

``blindsr upscale`` is for pictures, ``blindsr demo`` for a page in the browser, ``blindsr export`` for ONNX files and
``blindsr doctor`` for the installation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from sr_env.cli import demo, doctor, export, upscale
from sr_env.utils.script import run_script


@tyro.conf.configure(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)
@dataclass
class Command:
    """Blind super-resolution: enlarge blurry photographs.

    Attributes:
        command: What to do.
    """

    command: (
        Annotated[upscale.Settings, tyro.conf.subcommand("upscale")]
        | Annotated[demo.Settings, tyro.conf.subcommand("demo")]
        | Annotated[export.Settings, tyro.conf.subcommand("export")]
        | Annotated[doctor.Settings, tyro.conf.subcommand("doctor")]
    )


def main(command: Command) -> None:
    """Do what was asked for."""
    if isinstance(command.command, upscale.Settings):
        upscale.main(command.command)
    elif isinstance(command.command, demo.Settings):
        demo.main(command.command)
    elif isinstance(command.command, export.Settings):
        export.main(command.command)
    else:
        doctor.main(command.command)


def run() -> None:
    """Entry point of the console script."""
    run_script(Command, main)
