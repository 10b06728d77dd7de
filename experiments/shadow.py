"""`python -m` puts the working directory first on the path: is a package there taking the place of ours?"""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("cytovox", "transforms", "datamodules", "lightning_modules", "training")


def program(main: Callable[[], int]) -> int:
    """Run a command's `main` as the whole program: signals that come once it has returned change nothing any more.

    A second Ctrl-C would end Python in a traceback, and a second SIGTERM with another exit code than the one that a
    job's script waits for.
    """
    code = main()
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, signal.SIG_IGN)
    return code


def shadowed(packages: tuple[str, ...] = PACKAGES, home: Path | None = None) -> str | None:
    """One line that names the first package found elsewhere than beside this one, or None.

    Parameters
    ----------
    packages : tuple of str
        Top-level names that belong to Cytovox.
    home : Path, optional
        Where they should lie; by default the folder of this package.
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
