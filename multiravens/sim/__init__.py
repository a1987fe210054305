"""The simulation, the only package that imports pybullet."""

import os
import sys


def _import_quietly() -> None:
    """Import pybullet without the line about its build that it writes to the process's stderr."""
    try:
        stderr = sys.__stderr__.fileno() if sys.__stderr__ else 2
        kept = os.dup(stderr)
    except (OSError, ValueError):  # no stderr to keep quiet
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, stderr)
        import pybullet  # noqa: F401
    finally:
        os.dup2(kept, stderr)
        os.close(kept)
        os.close(sink)


_import_quietly()
