"""The one exception that melisma raises on purpose."""


class MelismaError(Exception):
    """What went wrong and what to do about it, in one line.

    The command line prints the line and exits with 1; anything else that escapes is a bug and shows its traceback
    under ``--debug``.
    """
