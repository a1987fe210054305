"""The scripted expert's run of an episode, and the goal sequence it leaves behind."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from multiravens.actions import PICK_PLACE, ActionSpec, Fields, Mark
from multiravens.envs.action import fields_of
from multiravens.envs.environment import Observation, PickPlaceEnv
from multiravens.envs.problem import pointer
from multiravens.errors import UserError


@dataclass(frozen=True)
class Demonstration:
    """One run of the expert, or of an agent. T actions, B bodies, G sub-goals.

    Attributes:
        seed: of the episode.
        problem: its name.
        color: (T+1, H, W, 3) uint8.
        height: (T+1, H, W) float32 [m].
        pointer: (T+1,) int64, the first sub-goal that does not hold.
        actions: each field of the actions, (T, W) float32, as they were chosen.
        executed: likewise, as they were carried out; the same but where actions were disturbed.
        periods: (T,) float32, `Action.period` of each action [rad].
        rewards: (T,) float64.
        poses: (T+1, B, 7) float32.
        subgoals: names of the G sub-goals in the order they are asked for.
        goal_frames: (G,) int64, the frame that shows sub-goal k reached; -1 for one that was not. Sub-goals met by one
            action share a frame.
        holds: (T+1, G) bool.
        success: every sub-goal holds at the end.
        reason: empty, or why there is no success.
        spec: the fields of its actions.
    """

    seed: int
    problem: str
    color: NDArray[np.uint8]
    height: NDArray[np.float32]
    pointer: NDArray[np.int64]
    actions: dict[str, NDArray[np.float32]]
    executed: dict[str, NDArray[np.float32]]
    periods: NDArray[np.float32]
    rewards: NDArray[np.float64]
    poses: NDArray[np.float32]
    subgoals: list[str]
    goal_frames: NDArray[np.int64]
    holds: NDArray[np.bool_]
    success: bool
    reason: str
    spec: ActionSpec = PICK_PLACE

    def carried_out(self, step: int) -> Fields:
        """The action of a step, each field (W,), as it was carried out."""
        return {name: values[step] for name, values in self.executed.items()}

    def marks(self, step: int) -> list[Mark]:
        """The places of that action, to be drawn."""
        return self.spec.marks(self.carried_out(step))


@dataclass(frozen=True)
class GoalSequence:
    """Images and poses of the table after each sub-goal of an expert's run from the same start.

    Attributes:
        color: (G, H, W, 3) uint8.
        height: (G, H, W) float32 [m].
        poses: (G, B, 7) position [m] and quaternion xyzw.
        subgoals: their names.
    """

    color: NDArray[np.uint8]
    height: NDArray[np.float32]
    poses: NDArray[np.float32]
    subgoals: list[str]


Chosen = tuple[Fields, float]
"""An action and `Action.period` of it [rad]."""

Disturb = Callable[[Fields, np.random.Generator], Fields]
"""Changes an action before it is carried out, such as `multiravens.data.collecting.disturbance.Disturbance`."""


def demonstrate(env: PickPlaceEnv, seed: int, disturb: Disturb | None = None) -> Demonstration:
    """Run the expert through the episode of a seed; it acts through the public action alone.

    The episode that was under way in the environment ends, and `step` refuses until the next reset.

    Args:
        env: to act in.
        seed: of the episode.
        disturb: changes what is carried out of the expert's actions; None carries them out as they are.
    """
    env = unwrapped(env)

    def asked(_: Observation) -> Chosen | None:
        action = env.expert()
        return None if action is None else (fields_of(action), getattr(action, "period", 2 * np.pi))

    return record(env, seed, asked, disturb)


def record(
    env: PickPlaceEnv, seed: int, choose: Callable[[Observation], Chosen | None], disturb: Disturb | None = None
) -> Demonstration:
    """Run whoever chooses the actions through the episode of a seed.

    Args:
        env: to act in.
        seed: of the episode.
        choose: gives the next action for what is observed; None when it knows nothing to do.
        disturb: changes what is carried out of the actions; None carries them out as they are.
    """
    env = unwrapped(env)
    observation, info = env.reset(seed=seed)
    frames, infos = [observation], [info]
    rng = np.random.default_rng([seed, 0, 4])  # 0 to 3 are the environment's
    actions: list[Fields] = []
    executed: list[Fields] = []
    periods: list[float] = []
    rewards: list[float] = []
    ended, reason = bool(info["holds"].all()), ""
    while not ended:
        chosen = choose(observation)
        if chosen is None:
            reason = "the expert knows nothing to do"
            break
        actions.append(chosen[0])
        periods.append(chosen[1])
        executed.append(disturb(actions[-1], rng) if disturb else actions[-1])
        observation, reward, terminated, truncated, info = env.step(executed[-1])
        frames.append(observation)
        infos.append(info)
        rewards.append(reward)
        ended = terminated or truncated
    env.end_episode()
    holds = np.array([info["holds"] for info in infos])
    success = bool(holds[-1].all())
    return Demonstration(
        seed=seed,
        problem=env.problem.name,
        color=np.stack([frame["color"] for frame in frames]),
        height=np.stack([frame["height"] for frame in frames]),
        pointer=np.array([frame["pointer"] for frame in frames], np.int64),
        actions=env.primitive.spec.columns(actions),
        executed=env.primitive.spec.columns(executed),
        periods=np.array(periods, np.float32),
        rewards=np.array(rewards, np.float64),
        poses=np.array([info["poses"] for info in infos], np.float32),
        subgoals=[step.name for step in env.problem.steps],
        goal_frames=goal_frames(holds),
        holds=holds,
        success=success,
        reason="" if success else _why(reason, holds[-1], env, infos),
        spec=env.primitive.spec,
    )


def _why(reason: str, holds: NDArray[np.bool_], env: PickPlaceEnv, infos: list[dict[str, Any]]) -> str:
    """One line on a failed run: the first sub-goal left, and the motions that did not go to plan."""
    left = env.problem.steps[pointer(holds)].name
    motions = sorted({info["motion"].split(":")[0] for info in infos} - {"ok"})
    ended = reason or f"{env.problem.max_steps} steps passed"
    return f"{left} not reached, {int((~holds).sum())} of {len(holds)} left: {ended}" + (
        f" ({', '.join(motions)})" if motions else ""
    )


def goal_frames(holds: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The frame from which each sub-goal, and all before it, hold to the end.

    Args:
        holds: (T+1, G) which sub-goals hold in each frame.

    Returns:
        (G,) frame indices, never falling; -1 for sub-goals that do not stand at the end.
    """
    reached = np.logical_and.accumulate(holds, axis=1)
    lasting = np.logical_and.accumulate(reached[::-1], axis=0)[::-1]
    return np.where(lasting.any(0), lasting.argmax(0), -1).astype(np.int64)


def goal_sequence(env: PickPlaceEnv, seed: int) -> GoalSequence:
    """The goal sequence of a seed, from an expert's run in a copy of an environment; its own episode stays as it is.

    Raises:
        RuntimeError: the expert does not reach every sub-goal from this start.
    """
    with closing(unwrapped(env).blank_copy()) as other:
        run = demonstrate(other, seed)
    if not run.success:
        raise RuntimeError(f"no goal sequence for seed {seed} of {run.problem}: {run.reason}")
    frames = run.goal_frames
    return GoalSequence(run.color[frames], run.height[frames], run.poses[frames], run.subgoals)


def unwrapped(env: PickPlaceEnv | gymnasium.Env[Any, Any]) -> PickPlaceEnv:
    """The environment inside gymnasium's wrappers.

    Raises:
        UserError: it is not one of ours.
    """
    inner = env.unwrapped if isinstance(env, gymnasium.Env) else env
    if not isinstance(inner, PickPlaceEnv):
        raise UserError(f"{type(env).__name__} is no environment of multiravens: make one with multiravens.envs.make")
    return inner
