"""`multiravens doctor`: checks of this machine on one screen, with a remedy for each fault."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from enum import Enum
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from multiravens.cli import guard
from multiravens.errors import UserError, unknown
from multiravens.options.paths import user_path

_OLDEST_PYTHON = (3, 11)
_SLOW_FRAME = 20.0  # [ms]; a common laptop takes 3 to 13
_SMALL_DISK = 2e9  # bytes; a thousand long episodes need about one gigabyte
_SMALL_MEMORY = 4e9  # bytes; each worker takes about 0.4 GB
_HELP = """Says what is right and wrong with this machine.
  python -m multiravens.doctor
  python -m multiravens.doctor data=/large/disk/data

usage: multiravens doctor [data=DIR] [--help]

options:
  data  data  folder whose disk is looked at"""


class Mark(Enum):
    """Verdict on a finding; only a wrong one makes the command fail."""

    RIGHT = "[green]right[/]"
    WARN = "[yellow]warn[/]"
    WRONG = "[red]wrong[/]"


class Finding(NamedTuple):
    """One line of the report."""

    subject: str
    mark: Mark
    found: str
    remedy: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the report.

    Args:
        argv: `data=DIR` or `--help`; the process's own arguments if None.

    Returns:
        0 when nothing is wrong, 1 when something is, 2 after a mistake in the arguments.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guard(lambda: _run(arguments))


def examine(data: Path) -> list[Finding]:
    """Looks at everything the project needs.

    Args:
        data: The folder demonstrations would be written to; it need not exist.

    Returns:
        The findings in the order of the report. A check that fails in an unforeseen way is itself a wrong finding.
    """
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("Python", _python),
        ("pybullet", _pybullet),
        ("renderer", _renderer),
        ("ffmpeg", _ffmpeg),
        ("GPU", _gpu),
        ("disk", lambda: _disk(data)),
        ("memory", _memory),
        ("cores", _cores),
    ]
    return [_tried(subject, check) for subject, check in checks]


def _run(argv: Sequence[str]) -> int:
    data = Path("data")
    for argument in argv:
        key, _, value = argument.partition("=")
        if argument in ("--help", "-h"):
            print(_HELP)
            return 0
        if key != "data":
            raise unknown("option", argument, ["data=DIR", "--help"])
        if not value:
            raise UserError("data= names no folder: write data=DIR")
        data = user_path(value)
    findings = examine(data)
    Console(highlight=False, soft_wrap=False).print(_table(findings))
    return int(any(finding.mark is Mark.WRONG for finding in findings))


def _table(findings: Sequence[Finding]) -> Table:
    """Lays the findings out in columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("subject", "mark", "found", "remedy"):
        table.add_column(title, overflow="fold")
    for finding in findings:
        table.add_row(finding.subject, finding.mark.value, _literal(finding.found), _literal(finding.remedy))
    return table


def _literal(text: str) -> str:
    """Keeps rich from reading brackets in a text as markup."""
    return text.replace("[", r"\[")


def _tried(subject: str, check: Callable[[], Finding]) -> Finding:
    """Runs a check; whatever it raises is the finding, since a broken machine breaks in ways nobody has listed."""
    try:
        return check()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return Finding(subject, Mark.WRONG, reason, "install the project again, in a new virtual environment")


def _python() -> Finding:
    found = f"{sys.version.split()[0]}, {sys.executable}"
    if sys.version_info < _OLDEST_PYTHON:
        return Finding("Python", Mark.WRONG, found, "install Python 3.11 or newer")
    return Finding("Python", Mark.RIGHT, found)


def _pybullet() -> Finding:
    from multiravens.sim.probe import numpy_enabled

    found = f"{version('pybullet')}, numpy {version('numpy')}"
    if numpy_enabled():
        return Finding("pybullet", Mark.RIGHT, f"{found}, numpy-enabled")
    remedy = "pip install numpy setuptools; pip install --no-build-isolation --no-cache-dir --force-reinstall pybullet"
    return Finding("pybullet", Mark.WRONG, f"{found}, built without numpy", remedy)


def _renderer() -> Finding:
    from multiravens.sim.probe import renderer_milliseconds

    milliseconds = renderer_milliseconds()
    found = f"TinyRenderer, {milliseconds:.1f} ms a frame of 320 x 160"
    if milliseconds > _SLOW_FRAME:
        return Finding("renderer", Mark.WARN, found, f"above {_SLOW_FRAME:.0f} ms: close other busy programs")
    return Finding("renderer", Mark.RIGHT, found)


def _ffmpeg() -> Finding:
    import imageio_ffmpeg

    try:
        number = imageio_ffmpeg.get_ffmpeg_version()
    except RuntimeError as error:
        return Finding("ffmpeg", Mark.WRONG, str(error).splitlines()[0], "pip install --force-reinstall imageio-ffmpeg")
    return Finding("ffmpeg", Mark.RIGHT, number)


def _gpu() -> Finding:
    cards = _nvidia_cards()
    if find_spec("torch") is None:
        found = f"{cards}; torch is not installed" if cards else "none seen; torch is not installed"
        return Finding("GPU", Mark.WARN if cards else Mark.RIGHT, f"{found}; demonstrations need neither")
    try:
        torch = import_module("torch")
        usable = torch.cuda.is_available()
    except (ImportError, OSError, RuntimeError) as error:
        return Finding("GPU", Mark.WRONG, f"torch does not load: {error}".splitlines()[0], "install torch again")
    found = f"torch {torch.__version__}"
    if usable:
        return Finding("GPU", Mark.RIGHT, f"{torch.cuda.get_device_name(0)}, {found}")
    if cards:
        return Finding("GPU", Mark.WARN, f"{cards}, which {found} cannot use", "install a CUDA build of torch")
    return Finding("GPU", Mark.RIGHT, f"none; {found} runs on the processor")


def _nvidia_cards() -> str:
    """Returns the names of the cards that the driver's own tool lists; empty without the tool or a card."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    command = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return "; ".join(line.strip() for line in listed.splitlines() if line.strip())


def _disk(data: Path) -> Finding:
    folder = data.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        return Finding("disk", Mark.WRONG, f"{folder} is a file, not a folder", "choose another folder: data=DIR")
    try:
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding("disk", Mark.WRONG, f"{folder}: {error.strerror}", "choose a folder you may write to: data=DIR")
    found = f"{folder} is writable, {free / 1e9:.1f} GB free"
    if free < _SMALL_DISK:
        return Finding("disk", Mark.WARN, found, f"free {_SMALL_DISK / 1e9:.0f} GB, or choose another disk: data=DIR")
    return Finding("disk", Mark.RIGHT, found)


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return Finding("memory", Mark.WARN, "this system does not tell", "see that each worker can have 0.4 GB")
    if total < _SMALL_MEMORY:
        return Finding("memory", Mark.WARN, f"{total / 1e9:.1f} GB", "use few workers; each takes about 0.4 GB")
    return Finding("memory", Mark.RIGHT, f"{total / 1e9:.1f} GB")


def _cores() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    remedy = "workers=1 is all this machine can use" if usable == 1 else ""
    return Finding("cores", Mark.WARN if usable == 1 else Mark.RIGHT, f"{usable}, so up to workers={usable}", remedy)


if __name__ == "__main__":
    raise SystemExit(main())
