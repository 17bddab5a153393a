"""Names of what users register in modules of their own: ``"module:name"``, as ``gym.make`` has it."""

from __future__ import annotations

from importlib import import_module

from sr_env.utils.checks import UsageError


def import_named(what: str, spec: str) -> str:
    """Import the module of ``"module:name"``, whose decorators register the name, and return the name.

    Args:
        what: What it names, for the error: ``"metric"``, ``"renderer"``, ``"kernel family"``.
        spec: ``"module:name"``; a name without a colon is returned as it is.

    Raises:
        UsageError: There is no such module. What goes wrong inside it keeps its own error.
    """
    module, colon, name = spec.rpartition(":")
    if not colon:
        return spec
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        raise UsageError(
            f"{what} {spec!r}: no module {module!r} can be imported, put the folder it lies in into PYTHONPATH"
        ) from error
    except (TypeError, ValueError) as error:  # an empty or a relative name
        raise UsageError(f"{what} {spec!r} is not of the form module:name ({error})") from error
    return name
