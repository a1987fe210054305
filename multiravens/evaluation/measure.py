"""Measuring an agent on held-out episodes: same seeds, same goals and same starts for every agent."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, Protocol

from multiravens.data.storage.store import Store
from multiravens.errors import UserError
from multiravens.evaluation.metrics import Metric, summary, values_of
from multiravens.evaluation.record import ActionRecord, Record
from multiravens.evaluation.references import planned, seen_by, with_next
from multiravens.evaluation.workers import EpisodeStart, Timestep, VectorEnv
from multiravens.support.statistics import Comparison, paired_bootstrap

BATCH = 8
"""Episodes abreast. It never changes with the number of workers, so neither does what the agent is asked at once."""

Update = Callable[[int, int], None]
"""Called with the numbers of episodes that are done and of seeds that were skipped."""


class Actor(Protocol):
    """An agent to measure, such as `multiravens.agents.acting.agent.Agent`."""

    name: str
    pointer: str
    resolution: str
    acting: Any
    asks_environment: bool
    follows_plan: bool
    other_goals: bool

    def act(self, views: Any) -> Any: ...

    def beside(self, measured: Any) -> Any: ...


class Measured(NamedTuple):
    """An agent's episodes on one problem, a record each, and the seeds that the expert does not solve, with why."""

    records: list[Record]
    skipped: dict[int, str]


def measure(
    actors: Sequence[Actor],
    view: Callable[..., Any],
    environment: Mapping[str, Any],
    episodes: int,
    seeds: range,
    workers: int = 1,
    update: Update | None = None,
    demonstrations: Store | None = None,
    metrics: Mapping[str, Metric] | None = None,
) -> list[Measured]:
    """Let agents act in the first episodes that the expert fully solves; it shows each of them once for all.

    Args:
        actors: the agents, of one resolution.
        view: makes what it is shown, with the fields of `multiravens.agents.acting.agent.View`.
        environment: resolved configuration: `problem`, `camera` and `motion`.
        episodes: how many.
        seeds: in the order in which they are tried.
        workers: processes with environments.
        update: told of progress.
        demonstrations: of that environment, which the expert need not show again; None for none.
        metrics: computed of each episode as soon as it has ended.

    Returns:
        Of each agent, in order.

    Raises:
        UserError: the seeds run out first, or a metric can't be computed.
    """
    actors = [actors[0], *(actor.beside(actors[0]) for actor in actors[1:])]
    shown = partial(view, problem=environment["problem"]["name"])
    records: list[list[Record]] = [[] for _ in actors]
    skipped: dict[int, str] = {}
    tried = 0
    count = min(BATCH, episodes)
    with VectorEnv({**environment, "resolution": actors[0].resolution}, min(workers, count), demonstrations) as lanes:
        while (done := len(records[0])) < episodes:
            group = dict(enumerate(seeds[tried : tried + min(count, episodes - done)]))
            if not group:
                raise UserError(
                    f"the oracle solves only {done} of the {len(seeds)} seeds from {seeds.start} on: ask for "
                    "fewer episodes"
                )
            tried += len(group)
            opened = lanes.ask("open", group)
            skipped |= {group[lane]: start for lane, start in opened.items() if isinstance(start, str)}
            starts = {lane: start for lane, start in opened.items() if not isinstance(start, str)}
            starts = with_next(actors, lanes, group, starts, chain(seeds[tried:], seeds[: tried - len(group)]))
            for index, actor in enumerate(actors):
                if index:
                    lanes.ask("reset", {lane: group[lane] for lane in starts})
                for played in _play(actor, shown, lanes, group, starts):
                    first = records[0][0].metrics if records[0] else {}
                    records[index].append(replace(played, metrics=values_of(metrics or {}, played, first)))
            if update:
                update(len(records[0]), len(skipped))
    return [Measured(each, skipped) for each in records]


def _play(
    actor: Actor,
    view: Callable[..., Any],
    lanes: VectorEnv,
    seeds: Mapping[int, int],
    starts: Mapping[int, EpisodeStart],
) -> list[Record]:
    """Play the episodes of all lanes to their ends, one step of each at a time."""
    starts = {lane: seen_by(actor, start) for lane, start in starts.items()}
    seen = {lane: [start.seen] for lane, start in starts.items()}
    memories: dict[int, dict[int, Any]] = {lane: {} for lane in starts}
    while active := [lane for lane in starts if not seen[lane][-1].ended]:
        if actor.asks_environment:
            actions: dict[int, Any] = dict.fromkeys(active)
        elif actor.follows_plan:
            actions = {lane: planned(starts[lane], len(seen[lane]) - 1) for lane in active}
        else:
            # Episodes that have ended are asked about all the same, so that the agent's batch stays as it is.
            views = {
                lane: _view(actor, view, seeds[lane], start, seen[lane], memories[lane])
                for lane, start in starts.items()
            }
            answers = dict(zip(views, actor.act(list(views.values())), strict=True))
            actions = {lane: answers[lane] for lane in active}
        for lane, result in lanes.ask("step", actions).items():
            seen[lane].append(result)
    return [_record(seeds[lane], start, seen[lane]) for lane, start in starts.items()]


def _view(
    actor: Actor,
    view: Callable[..., Any],
    seed: int,
    start: EpisodeStart,
    seen: Sequence[Timestep],
    memory: dict[int, Any],
) -> Any:
    now = seen[-1]
    return view(
        now.color,
        now.height,
        start.seen.color,
        start.seen.height,
        start.goal_color,
        start.goal_height,
        step=len(seen) - 1,
        pointer=now.pointer if actor.pointer == "reward" else None,
        seed=seed,
        memory=memory,
        spec=start.spec,
    )


def _record(seed: int, start: EpisodeStart, seen: Sequence[Timestep]) -> Record:
    last = seen[-1]
    return Record(
        seed=seed,
        returned=round(last.credit, 9),
        success=last.ended == "success",
        steps=len(seen) - 1,
        expert_steps=start.expert_steps,
        ended=last.ended,
        credit_by_module={name: round(credit, 9) for name, credit in last.credit_by_module.items()},
        motions=[look.motion for look in seen[1:]],
        actions=tuple(
            ActionRecord(
                now.action,
                now.motion,
                now.credit - before.credit,
                now.credit,
                now.credit_by_module,
                now.pointer,
            )
            for before, now in zip(seen, seen[1:], strict=False)
        ),
    )


def described(measured: Measured) -> dict[str, Any]:
    """Records and summary as plain values."""
    return {
        "episodes": [record.row() for record in measured.records],
        "skipped": [{"seed": seed, "reason": reason} for seed, reason in sorted(measured.skipped.items())],
        "summary": summary(measured.records),
    }


def compare(first: Mapping[str, Any], second: Mapping[str, Any], metric: str) -> Comparison:
    """Compare a metric of two agents on the seeds that both have.

    Args:
        first: what `described` made.
        second: likewise.
        metric: one that gives a single value.

    Raises:
        ValueError: they share no seed.
    """
    ours, theirs = ({row["seed"]: row["metrics"][metric] for row in part["episodes"]} for part in (first, second))
    common = sorted(set(ours) & set(theirs))
    return paired_bootstrap([ours[seed] for seed in common], [theirs[seed] for seed in common])
