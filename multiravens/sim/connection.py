"""Connections to Bullet, opened where that is possible and closed with the object that they were opened for."""

import os
import socket
import subprocess
import sys
import weakref
from contextlib import suppress
from functools import cache
from pathlib import Path

import pybullet

from multiravens.errors import UserError, quote

_REMEDY = "use render_mode=rgb_array (on the command line gui=false, and `render` for a video)"
_CLOSE = "close environments that are done with"
_X11_PORT = 6000
_PATIENCE = 3.0  # for another machine's display to answer [s]
_OPENED = "the viewer opened"
_PROBE = f"import os, pybullet; pybullet.connect(pybullet.GUI); os.write(1, {_OPENED.encode()!r}); os._exit(0)"
_PROBE_LIMIT = 20.0  # for a viewer to open [s]
_opened: set[str] = set()  # displays that a viewer has opened on


def connect(owner: object, gui: bool = False) -> tuple[int, weakref.finalize]:
    """Start a simulation.

    Args:
        owner: ends it when it is no longer used.
        gui: open Bullet's viewer.

    Returns:
        Bullet's identifier of the client, and what ends it at once; a second call of that does nothing.

    Raises:
        UserError: a viewer is asked for and cannot be opened, or Bullet takes no more clients.
    """
    display = os.environ.get("DISPLAY", "")
    if gui and (fault := _display_fault(display) or _viewer_fault(display)):
        raise UserError(f"the viewer cannot be opened ({fault}): {_REMEDY}")
    try:
        client = pybullet.connect(pybullet.GUI if gui else pybullet.DIRECT)
    except pybullet.error as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        remedy = f"the viewer cannot be opened ({reason}): {_REMEDY}" if gui else f"{reason}: {_CLOSE}"
        raise UserError(remedy) from error
    if client < 0:
        raise UserError(f"Bullet takes no more simulations in this process: {_CLOSE}")
    finalizer = weakref.finalize(owner, _disconnect, client)
    finalizer.atexit = False  # the process's end frees everything anyway
    return client, finalizer


def _disconnect(client: int) -> None:
    with suppress(pybullet.error):  # a viewer whose window was closed has ended by itself
        pybullet.disconnect(client)


def has_display() -> bool:
    """True where a viewer could be opened, as far as can be told without opening a window."""
    return _had_display(os.environ.get("DISPLAY", ""))


@cache
def _had_display(name: str) -> bool:
    """Tell whether a DISPLAY can be used, as found the first time: another machine's may take seconds to answer."""
    return not _display_fault(name)


def _display_fault(name: str) -> str:
    """Reason why there is no display, as far as can be told without opening a window; empty where there is one."""
    if not sys.platform.startswith("linux"):
        return ""
    if not name:
        return "DISPLAY is not set"
    return "" if _answers(name) else f"DISPLAY={quote(name)} does not answer"


def _answers(name: str) -> bool:
    """True where an X server listens at a DISPLAY, [HOST]:NUMBER[.SCREEN]."""
    host, colon, number = name.rpartition(":")
    number = number.partition(".")[0]
    if not colon or not (number.isascii() and number.isdigit()):
        return False
    if host in ("", "unix"):
        path = f"/tmp/.X11-unix/X{number}"
        return _reaches(socket.AF_UNIX, f"\0{path}") or _reaches(socket.AF_UNIX, path)
    if host.startswith("/"):
        return _reaches(socket.AF_UNIX, name)
    return _reaches(socket.AF_INET, (host, _X11_PORT + int(number)))


def _reaches(family: socket.AddressFamily, address: str | tuple[str, int]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as link:
            link.settimeout(_PATIENCE)
            link.connect(address)
    except (OSError, OverflowError, ValueError):
        return False
    return True


def _viewer_fault(name: str) -> str:
    """Reason why Bullet's viewer does not open on a display; empty where it does.

    Bullet ends the process when it gets no window, so a process of its own tries first.
    """
    if name in _opened:
        return ""
    environment = {**os.environ, "PYTHONPATH": str(Path(pybullet.__file__).parent)}
    command = [sys.executable, "-c", _PROBE]
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_LIMIT, env=environment, check=False)
        if _OPENED.encode() in done.stdout:
            _opened.add(name)
            return ""
    return f"Bullet's viewer does not open on DISPLAY={quote(name)}"
