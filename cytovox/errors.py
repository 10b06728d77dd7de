"""Errors that the user can fix."""


class InputError(Exception):
    """Input of the user that cannot be used.

    The message is one line: what is wrong, where, what was expected and what to do. The command line prints it to
    stderr and exits with code 2, without a traceback. A bug must raise any other exception.
    """

    #: Exit code of the command line.
    exit_code = 2


class DeviceError(InputError):
    """Failure of the device or its compiler, which other input would not avoid."""
