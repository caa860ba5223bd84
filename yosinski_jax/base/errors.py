"""The exception that command lines print as a single line, with exit code 2."""


class UserError(Exception):
    """An error that the user can fix.

    The message is one line: the argument or file with its value, what was expected, and what to do.
    """
