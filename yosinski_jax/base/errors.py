"""The one exception that a command line turns into a single line and exit code 2."""


class UserError(Exception):
    """A mistake that the user can repair.

    The message is one line. It names the flag or the file, the value found, what was expected and
    what to do.
    """
