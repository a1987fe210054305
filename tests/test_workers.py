"""Worker processes: what becomes of requests when one is killed, and of workers when their command is."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from multiravens.errors import UserError
from multiravens.support.workers import WorkerPool


class Odd(Exception):
    """Can be taken apart for the way to another process, and not be put together again."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class Adding:
    """Adds up what it is given; told to, it kills itself once or always."""

    def __init__(self, marks: Path) -> None:
        self.marks, self.total = marks, 0

    def __call__(self, number: int, what: str) -> int:
        mark = self.marks / f"{number}"
        if what == "always" or (what == "once" and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "odd":
            raise Odd(1, 2)
        self.total += number
        return self.total


def ask(pool: WorkerPool, requests: list[tuple[int, str]], worker: int | None = None) -> list[int]:
    for number, what in requests:
        pool.ask(number, number, what, worker=worker)
    answers = []
    while pool:
        answers += [answer for _, answer in pool.wait()]
    return answers


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], Adding]:
    return partial(Adding, tmp_path)


def test_answers_come_in_the_order_of_a_process_however_many_there_are(make: Any) -> None:
    pool = WorkerPool(2, make)
    assert ask(pool, [(1, "")] * 200, worker=0) == list(range(1, 201))
    assert len(ask(pool, [(1, "")] * 9)) == 9
    pool.stop()


def test_a_new_process_is_brought_to_where_the_dead_one_was(make: Any) -> None:
    past: list[tuple[int, tuple[Any, ...]]] = []
    pool = WorkerPool(1, make, lambda worker: past)
    assert ask(pool, [(1, ""), (2, "")]) == [1, 3]
    past += [(1, (1, "")), (2, (2, ""))]
    assert ask(pool, [(10, "once"), (20, "")]) == [13, 33]
    pool.stop()


def test_a_process_that_dies_with_nothing_to_do_is_no_seeds_doing(make: Any) -> None:
    pool = WorkerPool(1, make)
    for _ in range(4):
        assert ask(pool, [(1, "")]) == [1]
        process = pool._processes[0]
        assert process is not None
        process._process.kill()
        process._process.join()
    pool.stop()


def test_a_seed_that_always_kills_its_worker_is_one_line(make: Any) -> None:
    pool = WorkerPool(2, make)
    with pytest.raises(UserError, match="seed 7 was lost 3 times because its worker process died"):
        ask(pool, [(1, ""), (7, "always"), (2, "")])
    pool.stop()


def test_an_error_that_cannot_be_sent_is_told_in_words(make: Any) -> None:
    pool = WorkerPool(1, make)
    with pytest.raises(RuntimeError, match="Odd: 1 and 2"):
        ask(pool, [(1, "odd")])
    pool.stop()


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def sleeping() -> Callable[[float], None]:
    return sleep


def test_a_busy_process_is_ended_at_once() -> None:
    pool = WorkerPool(1, sleeping)
    pool.ask(1, 0.0)
    pool.wait()
    pool.ask(1, 60.0)
    began = time.monotonic()
    pool.stop()
    assert time.monotonic() - began < 5
