"""Seeds in worker processes: a killed worker loses no seed, and no worker outlives the command.

Every worker is a pebble pool of one. Workers of one pool share locks, which a worker killed at the wrong moment takes
with it; here a crash costs one pool, which is replaced.
"""

import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from typing import Any

from pebble import ProcessExpired, ProcessPool

from multiravens.errors import UserError

_MOST_CRASHES = 3  # of one seed's worker; more is the seed's doing, not an accident
_MOST_IDLE_DEATHS = 10  # in a row, of workers that had not begun a seed: they can't start on this machine
_QUEUED = 2  # seeds in flight for each worker, so that none waits for its next

Result = str | None


class SeedPool:
    """Seeds given out to worker processes and not finished."""

    def __init__(
        self, workers: int, task: Callable[[int], Result], start: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        """Prepares the flight; a worker is started when the first seed needs it.

        Args:
            workers: The most processes.
            task: What to do with a seed; a function of a module.
            start: Called in each process before its first seed; a function of a module.
            arguments: Of `start`.
        """
        self._workers, self._task, self._start = workers, task, (start, arguments)
        self._pools: dict[ProcessPool, dict[Future[Result], int]] = {}
        self._crashes: Counter[int] = Counter()
        self._idle_deaths = 0

    def __len__(self) -> int:
        """Counts the seeds in flight."""
        return sum(map(len, self._pools.values()))

    @property
    def has_room(self) -> bool:
        """True if one more seed can be given out without waiting for long."""
        return len(self) < self._workers * _QUEUED

    def add(self, seed: int) -> None:
        """Gives a seed to the worker with the least to do."""
        pool = min(self._pools, key=lambda pool: len(self._pools[pool]), default=None)
        if pool is None or (self._pools[pool] and len(self._pools) < self._workers):
            pool = _make_pool(*self._start)
            self._pools[pool] = {}
        try:
            self._pools[pool][pool.schedule(self._task, args=(seed,))] = seed
        except RuntimeError:  # pebble's word for a pool whose worker died with nothing to do
            self._note_idle_death()
            self._replace(pool)
            self.add(seed)

    def wait(self) -> list[tuple[int, Result]]:
        """Waits until a seed ends.

        Returns:
            The seeds that ended, each with what its task returned.

        Raises:
            UserError: If a seed's worker, or workers before their first seed, died too often.
            Exception: What a task raised.
        """
        wait([future for futures in self._pools.values() for future in futures], return_when=FIRST_COMPLETED)
        ended = []
        for pool, futures in list(self._pools.items()):
            for future in [future for future in futures if future.done()]:
                error = future.exception()
                if isinstance(error, ProcessExpired):
                    self._note_crash(futures[future], error.exitcode)
                elif isinstance(error, BrokenProcessPool):
                    self._note_idle_death()
                if isinstance(error, ProcessExpired | BrokenProcessPool):
                    self._replace(pool)
                    break
                if error is not None:
                    raise error
                ended.append((futures.pop(future), future.result()))
                self._idle_deaths = 0
        return ended

    def stop(self) -> None:
        """Ends all worker processes at once."""
        for pool in self._pools:
            pool.stop()
        for pool in self._pools:
            pool.join()
        self._pools.clear()

    def _replace(self, pool: ProcessPool) -> None:
        """Drops a pool whose worker died and gives its seeds out again."""
        seeds = self._pools.pop(pool).values()
        pool.stop()
        pool.join()
        for seed in seeds:
            self.add(seed)

    def _note_crash(self, seed: int, code: object) -> None:
        self._crashes[seed] += 1
        if self._crashes[seed] >= _MOST_CRASHES:
            raise UserError(
                f"seed {seed} was lost {_MOST_CRASHES} times because its worker process died (exit code {code}; "
                "-9 is often a lack of memory): try fewer workers"
            )

    def _note_idle_death(self) -> None:
        self._idle_deaths += 1
        if self._idle_deaths >= _MOST_IDLE_DEATHS:
            raise UserError(f"{_MOST_IDLE_DEATHS} worker processes in a row died before their work: try workers=1")


def _make_pool(start: Callable[..., None], arguments: tuple[Any, ...]) -> ProcessPool:
    """Starts one worker process."""
    context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks and the simulator's state
    pool = ProcessPool(1, initializer=_begin, initargs=(start, arguments), context=context)
    # Ctrl-C reaches the whole process group. Processes started from threads that block it never see it, not even while
    # they import; the main thread alone does, and stops them. The tracker would unblock it if it started in between.
    resource_tracker.ensure_running()
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        pool.schedule(os.getpid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    return pool


def _begin(start: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Prepares a worker process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start(*arguments)


def _end_with_parent() -> None:
    """Ends a worker when its command is killed, before the command's next run can meet what it was writing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
