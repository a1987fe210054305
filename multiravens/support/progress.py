"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Update = Callable[[float, str], None]
"""Called with how much is done and a remark on it."""

_LINE_EVERY = 5.0  # [s] between plain lines
_LINES = 50  # at most; a log of a long run stays readable


@contextlib.contextmanager
def show_progress(label: str, total: float, unit: str = "") -> Iterator[Update]:
    """Shows on standard error how much is done, a remark, and the time left.

    Args:
        label: what is being done, such as `chaining-placing/train`.
        total: how much there is to do.
        unit: what is counted, such as `episodes`; without one shares are shown.

    Yields:
        A function to call with how much is done, and a remark or an empty string.
    """

    def told(done: float, remark: str) -> str:
        count = f"{done:.0f} of {total:.0f} {unit}" if unit else f"{done / total:.0%}"
        return f"{count}, {remark}" if remark else count

    console = Console(stderr=True)
    if console.is_terminal:
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]},")
        with Progress(*columns, TimeRemainingColumn(), TextColumn("left"), console=console) as progress:
            task = progress.add_task(label, total=total, told=told(0, ""))
            yield lambda done, remark: progress.update(task, completed=done, told=told(done, remark))
    else:
        yield _lines(label, total, told)


def _lines(label: str, total: float, told: Callable[[float, str], str]) -> Update:
    printed, at = time.monotonic(), 0.0

    def update(done: float, remark: str) -> None:
        nonlocal printed, at
        if done < total and (time.monotonic() - printed < _LINE_EVERY or done - at < total / _LINES):
            return
        printed, at = time.monotonic(), done
        print(f"{label}: {told(done, remark)}", file=sys.stderr, flush=True)

    return update
