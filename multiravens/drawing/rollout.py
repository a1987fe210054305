"""An agent's run of an episode, recorded in the format of the expert's runs, with the pictures that the agent saw."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from multiravens.drawing.pictures import Image, draw_action, turned
from multiravens.drawing.video import Goals
from multiravens.envs import Demonstration, PickPlaceEnv, demonstrate
from multiravens.envs.environment import Observation
from multiravens.envs.oracle import Chosen, record
from multiravens.errors import UserError
from multiravens.heightmap import at_resolution

PICK_COLOR, PLACE_COLOR = (255, 214, 64), (64, 220, 255)
FULL_TURN = 2 * np.pi
_HEAT = 0.85  # of the colour where the probability is greatest


class Scoring(Protocol):
    """An agent that tells its probabilities, such as `multiravens.agents.acting.policy.NetworkAgent`."""

    resolution: str
    pointer: str

    def score(self, views: Any) -> Any: ...

    def best(self, scores: Any) -> Any: ...


class Rollout(NamedTuple):
    """Recording of an agent's run.

    Attributes:
        run: recorded like a demonstration; its frames are at full resolution.
        goals: the expert's sub-goals and what each looks like.
        seen: a picture (320, 160, 3) a frame, the probabilities of pick and place drawn in as far as it acted.
        aims: of each frame the sub-goal that it went for; the pointer where it was shown none, and at the end.
    """

    run: Demonstration
    goals: Goals
    seen: list[Image]
    aims: list[int]


def rollout(env: PickPlaceEnv, agent: Scoring, view: Any, seed: int) -> Rollout:
    """Let an agent act through an episode.

    Args:
        env: at full resolution.
        agent: acts, and tells its probabilities.
        view: the class of what it is shown.
        seed: of the episode.

    Raises:
        UserError: the expert does not solve the episode, so that there are no goal images.
    """
    expert = demonstrate(env, seed)
    if not expert.success:
        raise UserError(
            f"the oracle does not solve seed {seed} ({expert.reason}), so it has no goals: try another seed"
        )
    images = [expert.color[frame] for frame in expert.goal_frames]
    targets = [
        at_resolution(image, expert.height[frame], agent.resolution)
        for image, frame in zip(images, expert.goal_frames, strict=True)
    ]
    start: list[Any] = []
    seen: list[Image] = []
    aims: list[int] = []
    memory: dict[int, Any] = {}

    def choose(observation: Observation) -> Chosen:
        now = at_resolution(observation["color"], observation["height"], agent.resolution)
        start.extend(() if start else now)
        shown = view(
            *now,
            *start,
            np.stack([color for color, _ in targets]),
            np.stack([height for _, height in targets]),
            step=len(seen),
            pointer=int(observation["pointer"]) if agent.pointer == "reward" else None,
            seed=seed,
            problem=env.problem.name,
            memory=memory,
            spec=env.primitive.spec,
        )
        scores = agent.score([shown])[0]
        seen.append(heated(observation["color"], scores.maps))
        aims.append(int(observation["pointer"]) if scores.aim is None else scores.aim)
        return agent.best(scores), FULL_TURN

    run = record(env, seed, choose)
    ended = int(run.pointer[-1])
    return Rollout(run, Goals(expert.subgoals, list(images)), [*seen, run.color[-1]], [*aims, ended])


def panels(played: Rollout) -> tuple[list[Image], list[str]]:
    """A picture of each step: probabilities and the action, beside the goal; and its title."""
    images, titles = [], []
    size = (160, 320)
    for step, seen in enumerate(played.seen):
        panel = turned(seen, size)
        if step < len(played.run.rewards):
            draw_action(panel, played.run.marks(step))
        goal = played.goals.images[min(played.aims[step], len(played.goals.names) - 1)]
        below = np.full_like(panel, 255) if goal is None else turned(goal, size)
        images.append(np.concatenate([panel, np.full((4, size[1], 3), 255, np.uint8), below]))
        held = int(played.run.holds[step].sum())
        titles.append(f"step {step}: {held} of {len(played.goals.names)} hold")
    return images, titles


def heated(color: Image, maps: Sequence[NDArray[np.float32]]) -> Image:
    """A heightmap's picture with probabilities drawn over it.

    Args:
        color: (H, W, 3).
        maps: (h, w) probabilities of pick and of place; h divides H. None of them where there are none.
    """
    out = color.astype(np.float32)
    for odds, paint in reversed(list(zip(maps, (PICK_COLOR, PLACE_COLOR), strict=False))):
        factor = color.shape[0] // odds.shape[0]
        # The square root shows second choices too.
        share = np.sqrt(odds / odds.max()).repeat(factor, 0).repeat(factor, 1)[..., None] * _HEAT
        share[share < 0.06] = 0
        out += share * (np.array(paint, np.float32) - out)
    return out.astype(np.uint8)
