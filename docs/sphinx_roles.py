"""Griffe extension: Sphinx roles in docstrings, such as :class:`~sr_env.Upscaler`, become code in Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`(~?)([\w.]+)`")


def without_roles(text: str) -> str:
    """Replace every role by its target as code; a tilde leaves the last part of the name alone."""
    return _ROLE.sub(lambda role: f"`{role[2].rsplit('.', 1)[-1] if role[1] else role[2]}`", text)


class SphinxRoles(griffe.Extension):
    """Cleans every docstring as it is collected."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called by griffe for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = without_roles(obj.docstring.value)
