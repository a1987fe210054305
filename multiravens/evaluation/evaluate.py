"""Measure agents on held-out episodes and report the figures with their confidence intervals."""

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multiravens import cli
from multiravens.data.storage.splits import known_splits
from multiravens.data.storage.store import DATASET, Store
from multiravens.errors import UserError, unknown
from multiravens.evaluation.metrics import Metric, build_metrics
from multiravens.evaluation.source import package_source, users_source
from multiravens.options.instantiate import instantiate
from multiravens.options.problems import parse_problems
from multiravens.support.files import storage_error, user_path
from multiravens.support.progress import Update, show_progress
from multiravens.support.run_environment import environment_of
from multiravens.support.runs import (
    ACTING,
    EVALUATION,
    find_run,
    hash_weights,
    is_packaged,
    read_config,
    read_evaluation,
    write_evaluation,
)
from multiravens.support.statistics import figure_cells, shown_metrics, spelled, title

EXPERT = "expert"
"""Source of the goal images that demonstrations lack: a run of the expert."""


def evaluate(config: DictConfig) -> None:
    """Measures, writes one JSON a problem, and prints a table.

    Args:
        config: A composed `evaluate` configuration.

    Raises:
        UserError: If an option can't be met, or the disk refuses.
    """
    for name in ("episodes", "workers"):
        if config[name] < 1:
            raise UserError(f"{name}={config[name]}: give 1 or more")
    if config.run is None and config.get("agent") is not None and "_target_" not in config.agent:
        raise UserError(f"{config.agent.name} has to be trained first: give its folder as run=FOLDER")
    if (config.run is None) == (config.get("agent") is None):
        raise UserError("give one of run=FOLDER, a trained agent's, and agent=oracle or agent=random")
    if config.split not in ("test", "validation"):
        raise unknown("split", str(config.split), ("test", "validation"))
    metrics = build_metrics(_plain(config.metrics))
    actor, trained = _actor(config)
    problems = parse_problems(_plain(config.problems) or trained.get("problems") or ["placing"])
    overrides = [str(word) for word in config.overrides]
    environments = {problem: environment_of(problem, overrides, trained) for problem in problems}
    shown = {
        problem: _demonstrations(problem, environments[problem], config.data, config.split) for problem in problems
    }
    seeds = {problem: _seeds(config, shown[problem]) for problem in problems}
    others = {problem: _other(problem, environments[problem], config.against) for problem in problems}
    out = _out(config, actor)
    if config.out is None and out.is_symlink():
        raise UserError(f"{out} is a link, which may lead anywhere: give the folder for results as out=FOLDER")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(out, error) from error
    contents: dict[str, dict[str, Any]] = {}
    remarks: list[str] = []
    for problem, environment in environments.items():
        path, wanted = out / f"{problem}.json", _wanted(problem, actor, environment, config, trained)
        wanted["goals"] = "demonstrations" if shown[problem] else EXPERT
        wanted["asked"]["first_seed"] = seeds[problem].start
        content = _known(path, wanted)
        if content is None:
            content = wanted | _measured(problem, actor, environment, config, metrics, seeds[problem], shown[problem])
            write_evaluation(path, content)
        contents[problem] = content
        other = others[problem]
        if other is not None:
            remarks += _compared(problem, content, other, config.against)
    Console(width=None if sys.stdout.isatty() else 120).print(_table(contents))
    for remark in remarks:
        print(remark)
    print(f"written to {out}")


def _actor(config: DictConfig) -> tuple[Any, dict[str, Any]]:
    """The agent, and the configuration it was trained with."""
    if config.run is None:
        return instantiate(config.agent), {}
    run = find_run(str(config.run))
    acting = {name: config[name] for name in ("pointer", *ACTING)}
    actor = instantiate(config.loader)(run=run, **acting)
    return actor, read_config(run)


def _out(config: DictConfig, actor: Any) -> Path:
    """The folder for the results; what comes with the program keeps the record of how it was measured."""
    if config.out:
        return user_path(str(config.out))
    run = find_run(str(config.run)) if config.run else None
    if run is None:
        out = user_path(str(actor.name))
    else:
        out = Path("measured") / run.name if is_packaged(run) else run / EVALUATION
    # Figures for choosing by stay apart from those that are reported.
    return out if config.split == "test" else out / config.split


def _wanted(
    problem: str, actor: Any, environment: Mapping[str, Any], config: DictConfig, trained: Mapping[str, Any]
) -> dict[str, Any]:
    """Collect every setting that the figures of a problem depend on."""
    acting = {name: trained.get(name) for name in ("agent", "backbone", "fusion")} if trained else _plain(config.agent)
    built = [_plain(config[name]) for name in ("loader", "view", "beside_agents", "metrics")]
    return {
        "problem": problem,
        "agent": actor.name,
        "pointer": actor.pointer,
        **{name: getattr(actor.acting, name) for name in ACTING},
        "resolution": actor.resolution,
        "environment": dict(environment),
        "weights": hash_weights(find_run(str(config.run))) if config.run else None,
        "acting": acting,
        "asked": {name: _plain(config[name]) for name in ("episodes", "beside", "beside_agents", "metrics")},
        "split": config.split,
        "metrics": list(config.metrics),
        "program": cli.installed_version(),
        "source": package_source(),
        "users_source": users_source(environment, acting, *built),
    }


def _known(path: Path, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read what the same command measured before it was stopped between problems; None if there is nothing."""
    if not path.exists():
        return None
    content = {"goals": EXPERT, "split": "test"} | read_evaluation(path)
    differing = {name for name, value in wanted.items() if content.get(name) != value}
    if differing and differing <= {"source", "users_source"}:
        print(f"{path} was measured by other code than there is now: it is measured again")
    if differing:
        return None
    print(f"{path} was measured before; remove it to measure again")
    return content


def _measured(
    problem: str,
    actor: Any,
    environment: Mapping[str, Any],
    config: DictConfig,
    metrics: Mapping[str, Metric],
    seeds: range,
    demonstrations: Store | None,
) -> dict[str, Any]:
    """Records and summaries of the agent and of what is measured beside it."""
    from multiravens.evaluation.measure import described, measure

    actors = {actor.name: actor}
    if config.beside:
        actors |= {name: instantiate(node) for name, node in config.beside_agents.items() if name != actor.name}
    for each in actors.values():
        each.resolution = actor.resolution
    with show_progress(f"{problem}, {', '.join(actors)}", config.episodes, "episodes") as update:
        view, told = instantiate(config.view), partial(_tell, update)
        rest = config.episodes, seeds, config.workers, told, demonstrations
        found = measure(list(actors.values()), view, environment, *rest, metrics)
    own, *beside = map(described, found)
    return {**own, "beside": dict(zip(list(actors)[1:], beside, strict=True))}


def _tell(update: Update, done: int, skipped: int) -> None:
    update(done, f"{skipped} skipped")


def _table(contents: Mapping[str, Mapping[str, Any]]) -> Table:
    """Make a row for each problem and agent, a column for each metric of a single value."""
    shown = shown_metrics(contents.values())
    table = Table("problem", "agent", *(f"{title(name)} [95 %]" for name in shown), "episodes", "skipped")
    for problem, content in contents.items():
        for name, row in {content["agent"]: content, **content["beside"]}.items():
            counts = str(row["summary"]["episodes"]), str(len(row["skipped"]))
            table.add_row(problem, escape(name), *figure_cells(row["summary"], shown), *counts)
    return table


def _demonstrations(problem: str, environment: Mapping[str, Any], data: str | None, split: str) -> Store | None:
    """The expert's runs of held-out episodes that are there already."""
    if data is None:
        return None
    if not user_path(data).is_dir():
        raise UserError(f"data={data} is no folder: give one of demonstrations, or data=null")
    folder = user_path(data) / problem / split
    if not (folder / DATASET).exists():
        return None
    store = Store.open(folder)
    store.refuse_other(environment)
    return store


def _seeds(config: DictConfig, demonstrations: Store | None) -> range:
    """Seeds of the split from `first_seed` on; where demonstrations of it are given, the split is theirs."""
    split = demonstrations.seeds if demonstrations else known_splits()[config.split]
    first = split.start if config.first_seed is None else config.first_seed
    if first not in split:
        raise UserError(
            f"first_seed={first}: give one of the {config.split} split, {split.start} to {split.stop - 1}, or null"
        )
    return range(first, split.stop)


def _other(problem: str, environment: Mapping[str, Any], against: str | None) -> dict[str, Any] | None:
    """Read another run's evaluation, before anything is measured."""
    if against is None:
        return None
    other = read_evaluation(find_run(str(against)) / EVALUATION / f"{problem}.json")
    if environment != other["environment"]:
        raise UserError(f"{against} was measured in another environment of {problem}: measure it in the same one")
    return other


def _compared(problem: str, content: Mapping[str, Any], other: Mapping[str, Any], against: str) -> Iterator[str]:
    """Tell of each metric that both have how far the agent is above another."""
    from multiravens.evaluation.measure import compare

    by = "" if content["source"] == other.get("source") else f"; {against} was measured by other code"
    for metric in (name for name in shown_metrics([content]) if name in shown_metrics([other])):
        try:
            comparison = compare(content, other, metric)
        except ValueError as error:
            raise UserError(
                f"{against} was measured on other seeds of {problem}: measure it on the same ones"
            ) from error
        word = "level with" if comparison.mean == 0 else "above" if comparison.mean > 0 else "below"
        yield (
            f"{problem}, {title(metric)}: {content['agent']} is {word} {other['agent']} of {against}, difference "
            f"{spelled(comparison.mean, comparison.interval)} on {comparison.pairs} common seeds, above in "
            f"{comparison.ahead:.1%} of the resamples{by}"
        )


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


main = cli.command(evaluate, "evaluate")
