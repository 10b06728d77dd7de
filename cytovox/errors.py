"""Errors that the user can fix."""


class InputError(Exception):
    """Something given by the user cannot be used.

    The message is one line that says what is wrong, where, what was expected and what to do. The command line
    prints it to stderr and exits with code 2, without a traceback. A bug must raise anything else.
    """

    #: Of the command line.
    exit_code = 2


class DeviceError(InputError):
    """The device or its compiler cannot do what was asked for: no other input would fare better."""
