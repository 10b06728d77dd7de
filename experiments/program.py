"""Run a command as a program: exit codes, error messages, signals, and packages that shadow those of Cytovox."""

import contextlib
import errno
import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("cytovox", "transforms", "datamodules", "lightning_modules", "training")

#: Environment variable with a file that a rank creates when it ends because of invalid input. `srun` ends all ranks
#: when one fails and returns the highest exit code, that of a killed rank: without the file, the job's script would
#: take the killed ranks for lost and run the job again.
ENV_REFUSED = "CYTOVOX_REFUSED"


def program(main: Callable[[], int]) -> int:
    """Call the `main` of a command and return its exit code; signals are ignored afterwards.

    A second Ctrl-C would end Python with a traceback, and a second SIGTERM with another exit code than the one that the
    job's script expects.
    """
    code = main()
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, signal.SIG_IGN)
    return code


def run_command(call: Callable[[], int], stopped: str = "stopped") -> int:
    """Return the exit code of a command; print its errors to stderr, one line each.

    The exit code is 2 for invalid input and a full disk, 1 for a training that diverges, 130 for Ctrl-C, and that of
    `training.signals.exit_code` for a run that was stopped by a signal.

    Parameters
    ----------
    call : callable
        The command; not called if a package of Cytovox is shadowed.
    stopped : str
        Message after Ctrl-C, if the command has none.
    """
    if (shadow := shadowed()) is not None:
        return refuse(shadow)
    from cytovox.errors import InputError

    try:
        return call()
    except InputError as error:
        return refuse(str(error), error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            raise
        return refuse(f"{error.filename or 'disk'}: no space left: free some space, then run again")
    except KeyboardInterrupt as stop:
        print(stop if stop.args else stopped, file=sys.stderr)
        return 130
    except BaseException as stop:
        from training.signals import Preempted, exit_code

        if not isinstance(stop, Preempted):
            raise
        return exit_code(stop)


def refuse(text: str, code: int = 2) -> int:
    """Print the lines of an error to stderr, inform the job's script, and return the exit code."""
    if path := os.environ.get(ENV_REFUSED):
        with contextlib.suppress(OSError):
            Path(path).touch()
    for line in text.splitlines():
        print(line, file=sys.stderr, flush=True)
    return code


def shadowed(packages: tuple[str, ...] = PACKAGES, home: Path | None = None) -> str | None:
    """Return an error about the first package that Python does not find next to this one, or None.

    `python -m` puts the working directory first on the path: a folder in it may have the name of a package of Cytovox.

    Parameters
    ----------
    packages : tuple of str
        Top-level packages of Cytovox.
    home : Path, optional
        Folder in which they should lie; by default that of this package.
    """
    own = home or Path(__file__).resolve().parent.parent
    for name in packages:
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if origin is None or origin.parent.parent != own:
            found = origin.parent if origin is not None and origin.name == "__init__.py" else origin
            return (
                f"{name}: Python finds {found or 'nothing'} instead of Cytovox's own package in {own}; "
                "run from another folder, or rename that one"
            )
    return None
