"""The one error that ddgm raises for something its user can put right."""


class DdgmError(Exception):
    """A problem that the user can act on.

    The message is one line: what was wrong, where, and what would be right. Command-line adapters
    print it without a traceback; anything else that escapes is a bug and keeps its traceback.
    """
