"""The error that ddgm raises for something its user can put right, and its kinds."""

from __future__ import annotations

from typing import Any


class DdgmError(Exception):
    """A problem that the user can act on.

    The message is one line: what was wrong, where, and what would be right. Command-line adapters
    print it without a traceback; anything else that escapes is a bug and keeps its traceback.
    """


class SettingError(DdgmError):
    """A setting whose value is not allowed.

    The message begins with the setting's name, so that whoever knows where the setting was read
    can put the place in front of it.

    Parameters
    ----------
    name : str
        The setting.
    value : object
        What it was set to.
    problem : str
        What is wrong with it and what is allowed; completes "name = value …".
    """

    def __init__(self, name: str, value: object, problem: str) -> None:
        fraction = isinstance(value, float) and not value.is_integer()
        shown = f"{value:g}" if fraction else repr(value)
        super().__init__(f"{name} = {shown} {problem}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as the finished message."""
        return _with_message, (type(self), str(self))


class DivergenceError(DdgmError):
    """A method left all bounds: with these settings there is no result, however often one tries."""


def _with_message(kind: type[DdgmError], message: str) -> DdgmError:
    error = kind.__new__(kind)
    error.args = (message,)
    return error
