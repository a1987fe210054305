"""Environments in worker processes, several episodes at a time; an agent's inputs do not depend on the workers."""

from collections.abc import Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from multiravens.actions import PICK_PLACE, ActionSpec
from multiravens.data.storage.episode import Episode, read_episode
from multiravens.data.storage.store import Store
from multiravens.support.workers import WorkerPool

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
        action: each field (W,) of the action that came before; none after a reset.
    """

    color: NDArray[np.uint8]
    height: NDArray[np.float32]
    pointer: int
    credit: float
    credit_by_module: dict[str, float]
    motion: str
    ended: str
    action: dict[str, tuple[float, ...]] = {}


class EpisodeStart(NamedTuple):
    """An episode that the expert solves, at its start.

    Attributes:
        seen: the first look.
        goal_color: (G, H, W, 3) uint8, after each sub-goal of the expert's run.
        goal_height: (G, H, W) float32 [m].
        expert_steps: actions that the expert took.
        expert_actions: each field of them as they were carried out, (T, W).
        spec: the fields of the environment's actions.
        other: the same of another episode, where somebody is measured with its goals.
    """

    seen: Timestep
    goal_color: NDArray[np.uint8]
    goal_height: NDArray[np.float32]
    expert_steps: int
    expert_actions: Mapping[str, NDArray[np.float32]]
    spec: ActionSpec = PICK_PLACE
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
        return shown if isinstance(shown, str) else EpisodeStart(self.reset(seed), *shown, self.env.primitive.spec)

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
        """Start the episode of a seed."""
        return _seen(*self.env.reset(seed=seed))

    def step(self, action: dict[str, Any] | None) -> Timestep:
        """Carry out an action, or what the expert does where it is None."""
        chosen = self.env.expert() if action is None else action
        if chosen is None:
            raise RuntimeError("the expert knows nothing to do in an episode that it has solved before")
        observation, _, _, _, info = self.env.step(chosen)
        return _seen(observation, info)._replace(action=self.env.last_action())

    def close(self) -> None:
        """Disconnect from the simulator."""
        self.env.close()


class _Lanes:
    """The environments of one process, each built at its first request, so that a mistake in it is told as its own."""

    def __init__(self, environment: Mapping[str, Any], demonstrations: Store | None) -> None:
        self._of_a_lane = partial(EnvWorker, environment, demonstrations)
        self._lanes: dict[int, EnvWorker] = {}

    def __call__(self, lane: int, method: str, argument: Any) -> Any:
        if lane not in self._lanes:
            self._lanes[lane] = self._of_a_lane()
        return getattr(self._lanes[lane], method)(argument)

    def close(self) -> None:
        for lane in self._lanes.values():
            lane.close()


class VectorEnv:
    """Environments by number, dealt out to workers; with one worker they are in this process.

    A worker that is killed is replaced: its episodes are reset there, and their actions carried out again.

    Args:
        environment: of each.
        workers: processes.
        demonstrations: as of an `EnvWorker`.
    """

    def __init__(self, environment: Mapping[str, Any], workers: int, demonstrations: Store | None = None) -> None:
        make = partial(_Lanes, dict(environment), demonstrations)
        self._here = make() if workers == 1 else None
        self._workers, self._pool = workers, WorkerPool(workers, make, self._past_of)
        self._past: dict[int, list[tuple[int, tuple[int, str, Any]]]] = {}

    def ask(self, method: str, arguments: Mapping[int, Any]) -> dict[int, Any]:
        """Call a method of several environments at once.

        Args:
            method: of `EnvWorker`.
            arguments: the argument for each one's number: a seed for `open` and `reset`, an action for `step`.

        Returns:
            What each answered.

        Raises:
            UserError: the worker of one seed was killed again and again.
        """
        if self._here:
            return {lane: self._here(lane, method, argument) for lane, argument in arguments.items()}
        for lane, argument in arguments.items():
            seed = self._past[lane][0][0] if method == "step" else argument
            if method != "step":
                self._past[lane] = []
            self._pool.ask(seed, lane, method, argument, worker=lane % self._workers)
        answers: dict[int, Any] = {}
        while len(answers) < len(arguments):
            for (lane, _, argument), answer in self._pool.wait():
                answers[lane] = answer
                seed = self._past[lane][0][0] if method == "step" else argument
                # The goals are known once the expert has shown them; a reset is enough to come there again.
                self._past[lane].append((seed, (lane, "reset" if method == "open" else method, argument)))
        return {lane: answers[lane] for lane in arguments}  # in an order that no worker's speed changes

    def _past_of(self, worker: int) -> list[tuple[int, tuple[int, str, Any]]]:
        return [each for lane, calls in self._past.items() if lane % self._workers == worker for each in calls]

    def close(self) -> None:
        """End every worker."""
        if self._here:
            self._here.close()
        self._pool.stop()

    def __enter__(self) -> "VectorEnv":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
