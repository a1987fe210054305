"""Collecting demonstrations: the first N seeds of a split that succeed, the same for any number of workers.

A seed is started only while the episodes kept and those in flight are fewer than N. So every seed that is ever started
is one that must be known to tell which are the first N, and nothing surplus is made.
"""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple, Protocol

from multiravens.data.storage.episode import Episode, write_episode
from multiravens.data.storage.manifest import update_manifest
from multiravens.data.storage.store import Store
from multiravens.errors import UserError, quote
from multiravens.support.workers import WorkerPool

_MOST_WORKERS = 1024


class Demonstration(Protocol):
    """Result of the run of one seed: every field of `Episode`, and the reason why it is not kept."""

    success: bool
    reason: str


Update = Callable[[int, int], None]
"""Called with the numbers of episodes kept and seeds rejected so far."""

Run = Callable[[int], Any]
"""Demonstrates one seed and returns a `Demonstration`."""


class Collected(NamedTuple):
    """Counts of a data set after a call: episodes kept, seeds rejected, and episodes that are new."""

    kept: int
    rejected: int
    new: int


def collect(
    make_run: Callable[[], Run], store: Store, episodes: int, workers: int = 1, progress: Update | None = None
) -> Collected:
    """Brings a data set to `episodes` successful episodes; what it has already is not made again.

    Args:
        make_run: Builds, once in each process, what demonstrates a seed. With several workers it is sent to them, so
            it must be a function of a module, or a `functools.partial` of one.
        store: The data set.
        episodes: How many it should hold; more that are there already stay.
        workers: Processes; 1 is this one.
        progress: Called with the numbers kept and rejected so far, from the first to the last.

    Returns:
        What the data set holds then.

    Raises:
        UserError: If a number is out of range, the split has too few seeds, another command is writing to the data
            set, it was made with another configuration, the disk refuses, or a seed keeps killing its worker.
    """
    _check_count("episodes", episodes, len(store.seeds), f"the seeds of {store.name}")
    _check_count("workers", workers, _MOST_WORKERS, "the most there can be")
    with store.writing():
        agenda = SeedQueue(store, episodes, progress or (lambda kept, rejected: None))
        had = len(agenda.stored)
        if workers == 1:
            _run_here(make_run, store, agenda)
        else:
            _run_in_pool(make_run, store, agenda, workers)
        update_manifest(store)
        kept = store.kept()
        return Collected(len(kept), len(agenda.rejected), len(kept) - had)


class SeedQueue:
    """Queue of the seeds to run: the split's in order, without those known already."""

    def __init__(self, store: Store, episodes: int, progress: Update) -> None:
        """Looks at what the store has.

        Args:
            store: The data set.
            episodes: How many successful episodes are wanted.
            progress: Called with the numbers kept and rejected so far.

        Raises:
            UserError: If the data set is damaged.
        """
        self.stored = set(store.kept())
        self.rejected = store.rejected()
        self._store, self._episodes, self._progress = store, episodes, progress
        self._seeds = iter(store.seeds)
        self._kept = 0
        self._passed_rejected = 0

    def next(self, in_flight: int) -> int | None:
        """Gives the next seed to run.

        Args:
            in_flight: Seeds given out and not finished.

        Returns:
            The seed, or None if there is none to start now.

        Raises:
            UserError: If the split's seeds have run out.
        """
        while self._kept + in_flight < self._episodes:
            seed = next(self._seeds, None)
            if seed is None:
                if in_flight:
                    return None
                raise UserError(
                    f"only {self._kept} of the {len(self._store.seeds)} seeds of {self._store.name} succeeded: ask for "
                    "fewer episodes, or give the split more seeds"
                )
            if seed in self.stored:
                self._kept += 1
            elif seed in self.rejected:
                self._passed_rejected += 1
            else:
                return seed
            self._progress(self._kept, self._passed_rejected)
        return None

    def finish(self, seed: int, reason: str | None) -> None:
        """Records how a seed ended.

        Args:
            seed: One that `next` gave.
            reason: Why it's not kept, or None if it is.

        Raises:
            UserError: If the disk refuses.
        """
        if reason is None:
            self._kept += 1
        else:
            self.rejected[seed] = reason
            self._store.write_rejected(self.rejected)
            self._passed_rejected += 1
        self._progress(self._kept, self._passed_rejected)


def attempt(run: Run, store: Store, seed: int) -> str | None:
    """Demonstrates one seed and writes its file if it succeeded.

    Args:
        run: What demonstrates it.
        store: Where the file goes.
        seed: The seed.

    Returns:
        None if it was kept, or the reason why not.

    Raises:
        UserError: If the disk refuses.
    """
    demonstration = run(seed)
    if not demonstration.success:
        return demonstration.reason or "no reason given"
    episode = Episode(**{field.name: getattr(demonstration, field.name) for field in fields(Episode)})
    if episode.seed != seed:
        raise ValueError(f"the run of seed {seed} returned the episode of seed {episode.seed}")
    write_episode(store.path(seed), episode, store.fingerprint)
    return None


def _run_here(make_run: Callable[[], Run], store: Store, agenda: SeedQueue) -> None:
    run = None
    while (seed := agenda.next(0)) is not None:
        run = run or make_run()
        agenda.finish(seed, attempt(run, store, seed))


def _run_in_pool(make_run: Callable[[], Run], store: Store, agenda: SeedQueue, workers: int) -> None:
    pool = WorkerPool(workers, partial(_attempting, make_run, store))
    try:
        while True:
            while pool.has_room and (seed := agenda.next(len(pool))) is not None:
                pool.ask(seed, seed)
            if not pool:
                return
            for (seed,), reason in pool.wait():
                agenda.finish(seed, reason)
    finally:
        pool.stop()


def _attempting(make_run: Callable[[], Run], store: Store) -> Callable[[int], str | None]:
    return partial(attempt, make_run(), store)


def _check_count(name: str, value: Any, limit: int, what: str) -> None:
    if type(value) is not int or not 1 <= value <= limit:
        raise UserError(f"{name} must be an integer from 1 to {limit} ({what}), not {quote(value)}")
