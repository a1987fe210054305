"""Environments in worker processes, several episodes at a time; an agent's inputs do not depend on the workers."""

import multiprocessing
from collections.abc import Mapping
from functools import cached_property
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from multiravens.data.storage.episode import Episode, read_episode
from multiravens.data.storage.store import Store
from multiravens.errors import UserError

if TYPE_CHECKING:
    from multiravens.envs import Demonstration


class Timestep(NamedTuple):
    """Observation and progress in one environment after a reset or a step.

    Attributes:
        color: (H, W, 3) uint8.
        height: (H, W) float32 [m].
        pointer: the first sub-goal that does not hold.
        credit: what stands.
        credit_by_module: of each module.
        motion: how the last motion ended.
        ended: empty, `success` or `steps`.
    """

    color: NDArray[np.uint8]
    height: NDArray[np.float32]
    pointer: int
    credit: float
    credit_by_module: dict[str, float]
    motion: str
    ended: str


class EpisodeStart(NamedTuple):
    """An episode that the expert solves, at its start.

    Attributes:
        seen: the first look.
        goal_color: (G, H, W, 3) uint8, after each sub-goal of the expert's run.
        goal_height: (G, H, W) float32 [m].
        expert_steps: actions that the expert took.
        expert_actions: each field of them as they were carried out, (T, 3) or (T, 4).
        other: the same of another episode, where somebody is measured with its goals.
    """

    seen: Timestep
    goal_color: NDArray[np.uint8]
    goal_height: NDArray[np.float32]
    expert_steps: int
    expert_actions: Mapping[str, NDArray[np.float32]]
    other: "EpisodeStart | None" = None


Shown = tuple[NDArray[np.uint8], NDArray[np.float32], int, Mapping[str, NDArray[np.float32]]]
"""The expert's part of an `EpisodeStart`."""


def _shown(run: "Episode | Demonstration") -> Shown:
    """Take what an `EpisodeStart` holds of the expert's run."""
    return run.color[run.goal_frames], run.height[run.goal_frames], len(run.rewards), run.executed


class EnvWorker:
    """One environment.

    Args:
        environment: configuration with `problem`, `camera`, `motion` and `resolution`.
        demonstrations: of that environment, which the expert need not show again; None for none.
    """

    def __init__(self, environment: Mapping[str, Any], demonstrations: Store | None = None) -> None:
        from multiravens.envs import from_config  # the simulator is loaded where it is used

        self.env = from_config(OmegaConf.create({"gui": False, **environment}))
        self.demonstrations = demonstrations

    def open(self, seed: int) -> EpisodeStart | str:
        """Take the goals of the expert's run and start the episode; why not, if the expert does not solve it."""
        shown = self._kept(seed) or self._demonstrate(seed)
        return shown if isinstance(shown, str) else EpisodeStart(self.reset(seed), *shown)

    def _kept(self, seed: int) -> Shown | str | None:
        """Read the expert's run from the demonstrations: its goals, the reason for rejection, or None if unknown."""
        if self.demonstrations is None:
            return None
        path = self.demonstrations.path(seed)
        if not path.exists():
            return self._rejected.get(seed)
        run = read_episode(path, self.env.resolution)
        return _shown(run) if run.success else None

    @cached_property
    def _rejected(self) -> dict[int, str]:
        return self.demonstrations.rejected() if self.demonstrations else {}

    def _demonstrate(self, seed: int) -> Shown | str:
        from multiravens.envs import demonstrate

        run = demonstrate(self.env, seed)
        if not run.success:
            return run.reason
        return _shown(run)

    def reset(self, seed: int) -> Timestep:
        """EpisodeStart the episode."""
        return _seen(*self.env.reset(seed=seed))

    def step(self, action: dict[str, Any] | None) -> Timestep:
        """Carry out an action, or what the expert does where it is None."""
        chosen = self.env.expert() if action is None else action
        if chosen is None:
            raise RuntimeError("the expert knows nothing to do in an episode that it has solved before")
        observation, _, _, _, info = self.env.step(chosen)
        return _seen(observation, info)

    def close(self) -> None:
        """Disconnect from the simulator."""
        self.env.close()


class VectorEnv:
    """VectorEnv 0 to `count` - 1, dealt out to workers; with one worker they are in this process.

    Args:
        environment: of every lane.
        count: of lanes.
        workers: processes.
        demonstrations: as of an `EnvWorker`.
    """

    def __init__(
        self, environment: Mapping[str, Any], count: int, workers: int, demonstrations: Store | None = None
    ) -> None:
        self._here: list[EnvWorker] = []
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        if workers == 1:
            self._here = [EnvWorker(environment, demonstrations) for _ in range(count)]
            return
        context = multiprocessing.get_context("spawn")  # a fork would copy the network's threads half-way
        for index in range(min(workers, count)):
            ours, theirs = context.Pipe()
            own = len(range(index, count, workers))
            process = context.Process(target=_serve, args=(theirs, dict(environment), own, demonstrations), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def ask(self, method: str, arguments: Mapping[int, Any]) -> dict[int, Any]:
        """Call a method of several lanes at once.

        Args:
            method: of `EnvWorker`.
            arguments: the argument for each lane's index.

        Returns:
            What each lane answered.

        Raises:
            UserError: a worker was killed.
        """
        if self._here:
            return {index: getattr(self._here[index], method)(argument) for index, argument in arguments.items()}
        workers = len(self._pipes)
        try:
            for index, argument in arguments.items():
                self._pipes[index % workers].send((index // workers, method, argument))
            answers = {index: self._pipes[index % workers].recv() for index in arguments}
        except (EOFError, OSError) as error:
            raise UserError("a worker was killed, perhaps for want of memory: use fewer workers") from error
        for answer in answers.values():
            if isinstance(answer, BaseException):
                raise answer
        return answers

    def close(self) -> None:
        """End every worker."""
        for lane in self._here:
            lane.close()
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=5)
            process.kill()

    def __enter__(self) -> "VectorEnv":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve(pipe: Connection, environment: dict[str, Any], count: int, demonstrations: Store | None) -> None:
    lanes: dict[int, EnvWorker] = {}
    while True:
        try:
            index, method, argument = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            # Built at the first call, so that a mistake in it reaches the user as its own error.
            if index not in lanes and index < count:
                lanes[index] = EnvWorker(environment, demonstrations)
            answer = getattr(lanes[index], method)(argument)
        except Exception as error:  # told where the command runs
            answer = error
        try:
            pipe.send(answer)
        except OSError:
            return  # the command has ended; it has told why


def _seen(observation: Mapping[str, Any], info: Mapping[str, Any]) -> Timestep:
    return Timestep(
        observation["color"],
        observation["height"],
        int(observation["pointer"]),
        float(info["credit"]),
        {name: float(credit) for name, credit in info["credit_by_module"].items()},
        str(info["motion"]).split(":")[0],
        str(info["ended"]),
    )
