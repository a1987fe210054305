"""Worker processes: one that dies is replaced and what it was asked is asked again; none outlives the command."""

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

from multiravens.errors import UserError

_MOST_CRASHES = 3  # of one seed's worker; more is the seed's doing, not an accident
_MOST_IDLE_DEATHS = 10  # in a row, of workers that had nothing to do or had not begun: they can't live on this machine
_QUEUED = 2  # requests a process has at a time, so that it never waits for its next; more could fill the pipe

Request = tuple[Any, ...]


class _Asked(NamedTuple):
    """A request, the seed that it is for, and whether its answer is still wanted."""

    seed: int
    request: Request
    wanted: bool


class WorkerPool:
    """Processes that answer requests, each in the order of its own.

    Args:
        workers: the most processes; each is started when it is first asked.
        make: builds, in each process at its first request, the function that answers; it and its answers are pickled.
        past: of a worker's number, the seeds and requests that bring a new process to where the dead one was.
    """

    def __init__(
        self,
        workers: int,
        make: Callable[[], Callable[..., Any]],
        past: Callable[[int], Iterable[tuple[int, Request]]] = lambda worker: (),
    ) -> None:
        self._make, self._past = make, past
        self._processes: list[_Process | None] = [None] * workers
        self._asked: list[deque[_Asked]] = [deque() for _ in range(workers)]
        self._crashes: Counter[int] = Counter()
        self._idle_deaths = 0

    def __len__(self) -> int:
        """Counts the requests without an answer."""
        return sum(map(len, self._asked))

    @property
    def has_room(self) -> bool:
        """True if one more request can be made without waiting for long."""
        return len(self) < _QUEUED * len(self._asked)

    def ask(self, seed: int, *request: Any, worker: int | None = None) -> None:
        """Make a request.

        Args:
            seed: of the episode that it is for.
            *request: the arguments of the function that answers.
            worker: which process; None for the one with the least to do.
        """
        if worker is None:
            worker = min(range(len(self._asked)), key=lambda index: len(self._asked[index]))
        process = self._processes[worker]
        if process and not self._asked[worker] and not process.is_alive():
            self._replace(worker)
        self._asked[worker].append(_Asked(seed, request, True))
        self._post(worker)

    def wait(self) -> list[tuple[Request, Any]]:
        """Wait until a request is answered.

        Returns:
            The requests that were, each with its answer.

        Raises:
            UserError: the worker of one seed, or workers with nothing to do, died too often.
            Exception: what answering raised.
        """
        answered: list[tuple[Request, Any]] = []
        while not answered:
            ready = wait([process.pipe for process in self._processes if process])
            for worker, process in enumerate(self._processes):
                if process and process.pipe in ready:
                    answered += self._receive(worker, process)
        return answered

    def stop(self) -> None:
        """End all processes at once."""
        for process in filter(None, self._processes):
            process.end()
        self._processes = [None] * len(self._processes)

    def _post(self, worker: int) -> None:
        """Hand a process what it has room for."""
        process = self._processes[worker] = self._processes[worker] or _Process(self._make)
        asked = self._asked[worker]
        while process.posted < min(_QUEUED, len(asked)):
            process.post(asked[process.posted].request)

    def _receive(self, worker: int, process: "_Process") -> list[tuple[Request, Any]]:
        try:
            answer = process.pipe.recv()
        except (EOFError, OSError):
            self._replace(worker)
            return []
        if not process.began:
            process.began = True
            return []
        process.posted -= 1
        asked = self._asked[worker].popleft()
        if isinstance(answer, BaseException):
            raise answer
        self._idle_deaths = 0
        self._post(worker)
        return [(asked.request, answer)] if asked.wanted else []

    def _replace(self, worker: int) -> None:
        """Drop a process that died; a new one is asked what was open, after what brings it to where the old one was."""
        process, left = self._processes[worker], self._asked[worker]
        assert process is not None
        code = process.exit_code()
        process.end()
        self._processes[worker] = None
        if process.began and left:
            self._note_crash(left[0].seed, code)
        else:
            self._note_idle_death()
        again = [_Asked(seed, request, False) for seed, request in self._past(worker)]
        self._asked[worker] = deque([*again, *(each for each in left if each.wanted)])
        if left:
            self._post(worker)

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


class _Process:
    """One worker process; `began` once it has said that it runs, `posted` counts the requests that it has."""

    def __init__(self, make: Callable[[], Callable[..., Any]]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks and the simulator's state
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make), daemon=True)
        self.began, self.posted = False, 0
        # Ctrl-C reaches the whole process group. A process started while it is blocked never sees it, not even while it
        # imports; the command alone does, and stops it. The tracker would unblock it if it started in between.
        resource_tracker.ensure_running()
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        theirs.close()

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def post(self, request: Request) -> None:
        self.posted += 1
        try:
            self.pipe.send(request)
        except OSError:
            return  # it has died, which is noticed where its answer is waited for

    def exit_code(self) -> int | None:
        """Wait for a process that died: its pipe closes a moment before it is gone."""
        self._process.join(1)
        return self._process.exitcode

    def end(self) -> None:
        """Kill the process; simulators and files need no farewell."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(pipe: Connection, make: Callable[[], Callable[..., Any]]) -> None:
    """Answer requests until the command closes the pipe or is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answering: Callable[..., Any] | None = None
    pipe.send(None)
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        try:
            answering = answering or make()
            answer = answering(*request)
        except Exception as error:  # told where the command runs
            answer = _sendable(error)
        try:
            pipe.send(answer)
        except OSError:
            return  # the command has ended; it has told why


def _sendable(error: Exception) -> Exception:
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))  # as the pipe does
    except Exception:  # whatever a class raises that can't be taken apart and put together
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    """End a worker when its command is killed, before the command's next run can meet what it was writing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
