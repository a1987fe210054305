"""How far a run of episodes has come: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Update = Callable[[int, int], None]

_LINE_EVERY = 5.0  # [s] between plain lines; a log of a long run stays readable


@contextlib.contextmanager
def show_progress(label: str, total: int) -> Iterator[Update]:
    """Shows on standard error how many episodes are kept and how many seeds were rejected.

    Args:
        label: What is being collected, such as `chaining-placing/train`.
        total: Episodes wanted.

    Yields:
        A function to call with the numbers kept and rejected so far.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console) as progress:
            task = progress.add_task(label, total=total, rejected=0)
            yield lambda kept, rejected: progress.update(task, completed=kept, rejected=rejected)
    else:
        yield _lines(label, total)


def _bar(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("episodes, {task.fields[rejected]} rejected,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    return Progress(*columns, console=console)


def _lines(label: str, total: int) -> Update:
    printed = time.monotonic()

    def update(kept: int, rejected: int) -> None:
        nonlocal printed
        if time.monotonic() - printed < _LINE_EVERY and kept < total:
            return
        printed = time.monotonic()
        print(f"{label}: {kept} of {total} episodes, {rejected} rejected", file=sys.stderr, flush=True)

    return update
