"""The error that ddgm raises for something its user can put right, and its kinds."""


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


class DivergenceError(DdgmError):
    """A method left all bounds: with these settings there is no result, however often one tries."""
