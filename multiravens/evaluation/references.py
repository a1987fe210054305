"""Playing the references, `replay` and `blind`, which need more of the expert's runs than goal images.

The other episode of `blind` is that of the next seed which the expert solves: it follows from the seed alone, whatever
is measured together with it and however many episodes are.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from multiravens.errors import UserError
from multiravens.evaluation.workers import EpisodeStart, VectorEnv


def with_next(
    actors: Sequence[Any],
    lanes: VectorEnv,
    seeds: Mapping[int, int],
    starts: dict[int, EpisodeStart],
    rest: Iterable[int],
) -> dict[int, EpisodeStart]:
    """Give each episode the expert's run of the next seed that it solves, if an actor asks for it.

    Args:
        actors: Who is measured.
        lanes: The environments; all are at their episodes' starts before and after.
        seeds: Of each environment.
        starts: Of the environments whose episodes the expert solves.
        rest: Seeds behind these; the first that is solved comes next to the last episode.

    Raises:
        UserError: None of the rest is solved.
    """
    if not starts or not any(actor.other_goals for actor in actors):
        return starts
    last = max(starts)
    for seed in rest:
        following = lanes.ask("open", {last: seed})[last]
        if isinstance(following, EpisodeStart):
            break
    else:
        raise UserError(f"blind needs another episode's goals, and the oracle solves no seed but {seeds[last]}")
    lanes.ask("reset", {last: seeds[last]})
    followers = [*list(starts.values())[1:], following]
    return {lane: start._replace(other=next_) for (lane, start), next_ in zip(starts.items(), followers, strict=True)}


def seen_by(actor: Any, start: EpisodeStart) -> EpisodeStart:
    """Give an actor the other episode's goals where it is to have them; everything else is this episode's."""
    other = start.other
    if not actor.other_goals or other is None:
        return start
    return start._replace(
        goal_color=other.goal_color, goal_height=other.goal_height, expert_actions=other.expert_actions
    )


def planned(start: EpisodeStart, step: int) -> dict[str, Any]:
    """Take the plan's action of a step; a plan that has ended begins anew.

    Args:
        start: What `seen_by` gave.
        step: Actions taken so far.
    """
    return {name: values[step % len(values)] for name, values in start.expert_actions.items()}
