"""Checks name the value and the valid ones."""

from __future__ import annotations

import pytest

from sr_env.utils.checks import FileInTheWayError, MissingFileError, UsageError, check_choice, check_lr_size


def test_checks() -> None:
    check_choice("colour", "red", ("red", "blue"))
    with pytest.raises(ValueError, match="unknown colour 'green': choose one of red, blue"):
        check_choice("colour", "green", iter(("red", "blue")))
    check_lr_size(8, 8)
    with pytest.raises(ValueError, match="LR size 8x7"):
        check_lr_size(8, 7)


def test_mistakes_are_what_they_were_called_before() -> None:
    """Users' own code may catch ValueError, FileNotFoundError and FileExistsError."""
    assert issubclass(UsageError, ValueError)
    assert MissingFileError.__bases__ == (UsageError, FileNotFoundError)
    assert FileInTheWayError.__bases__ == (UsageError, FileExistsError)
    assert str(MissingFileError("no 'a': give another")) == "no 'a': give another"
