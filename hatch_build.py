"""Build hook: an editable install gets the files beside the packages too, as a wheel does (see sr_env/autoregister)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    """Puts the autoregister files at the top of site-packages, in wheels of either kind."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to the wheel being built."""
        files = {str(path): path.name for path in (Path(self.root) / "sr_env" / "autoregister").glob("*blindsr*")}
        build_data["force_include_editable" if version == "editable" else "force_include"] |= files
