"""Measures agents on held-out episodes and says how sure the figures are."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from multiravens import cli
from multiravens.configuration import compose, flatten
from multiravens.construction import instantiate
from multiravens.data.files import read_json, storage_error, write_json
from multiravens.data.progress import show_progress
from multiravens.data.splits import parse_splits
from multiravens.errors import UserError
from multiravens.registration import parse_problems

FORMAT, VERSION = "multiravens-evaluation", 1
_TRUSTED = "multiravens."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: Overrides and flags; the process's own if None.

    Returns:
        The exit status.
    """
    return cli.run(evaluate, "evaluate", argv)


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
    test = parse_splits(OmegaConf.to_container(compose("demos").splits, resolve=True))["test"]
    if config.first_seed not in test:
        raise UserError(f"first_seed={config.first_seed}: give one of the test split, {test.start} to {test.stop - 1}")
    if config.run is None and config.get("agent") is not None and "_target_" not in config.agent:
        raise UserError(f"{config.agent.name} has to be trained first: give its folder as run=FOLDER")
    if (config.run is None) == (config.get("agent") is None):
        raise UserError("give one of run=FOLDER, a trained agent's, and agent=oracle or agent=random")
    actor, trained = _actor(config)
    problems = parse_problems(_plain(config.problems) or trained.get("problems") or ["placing"])
    environments = {problem: environment_of(problem, list(config.overrides), trained) for problem in problems}
    others = {problem: _other(problem, config.against) for problem in problems}
    out = Path(config.out or (Path(config.run) / "evaluation" if config.run else actor.name)).expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(out, error) from error
    table = Table("problem", "agent", "mean return [95 %]", "full success [95 %]", "episodes", "skipped")
    remarks = []
    for problem, environment in environments.items():
        content = _measured(problem, actor, environment, config, range(config.first_seed, test.stop))
        write_json(out / f"{problem}.json", {"format": FORMAT, "version": VERSION, "problem": problem, **content})
        _add_rows(table, problem, content)
        other = others[problem]
        if other is not None:
            remarks.append(_ahead(problem, content, other, config.against))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    for remark in remarks:
        print(remark)
    print(f"written to {out}")


def _actor(config: DictConfig) -> tuple[Any, dict[str, Any]]:
    """The agent, and the configuration it was trained with."""
    if config.run is None:
        return instantiate(config.agent), {}
    run = Path(config.run).expanduser()
    actor = instantiate(config.loader)(run=run, pointer=config.pointer)
    return actor, yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))


def environment_of(problem: str, overrides: Sequence[str], trained: Mapping[str, Any]) -> dict[str, Any]:
    """The environment that a problem is measured in.

    Args:
        problem: its name.
        overrides: of the environment's configuration, on top of the one that the demonstrations were made in.
        trained: the run's configuration.

    Raises:
        UserError: there is none, or it is built by something that is not ours.
    """
    own = trained.get("environment", {}).get(problem)
    if own is None:
        return _composed(problem, overrides)
    if "camera" not in own:
        raise UserError(
            f"the demonstrations of {problem} come from elsewhere, so there is no simulation of it to measure in: give "
            "problems=[...] of ours, or add a task module"
        )
    _refuse_foreign(own, problem)
    if not overrides:
        return dict(own)
    # What the overrides change of the plain problem is changed in the run's own.
    plain, wanted = (dict(flatten(_composed(problem, words))) for words in ((), overrides))
    chosen = {word.partition("=")[0] for word in overrides}
    settings = dict(own) | {name: _composed(problem, overrides)[name] for name in chosen & set(own)}
    changed = OmegaConf.create(settings)
    for path, value in wanted.items():
        if value != plain.get(path) and path.partition(".")[0] not in chosen:
            OmegaConf.update(changed, path, value)
    container = OmegaConf.to_container(changed)
    assert isinstance(container, dict)
    return {str(name): value for name, value in container.items()}


def _composed(problem: str, overrides: Sequence[str]) -> dict[str, Any]:
    composed = OmegaConf.to_container(compose("environment", [f"problem={problem}", *overrides]), resolve=True)
    assert isinstance(composed, dict)
    return {name: composed[name] for name in ("problem", "camera", "motion")}


def _refuse_foreign(node: Any, problem: str) -> None:
    """A run's folder may come from anywhere, so what it names is not built unless it is ours."""
    if isinstance(node, Mapping):
        if not str(node.get("_target_", _TRUSTED)).startswith(_TRUSTED):
            raise UserError(
                f"the run's {problem} is built by {node['_target_']}, which is not of {_TRUSTED}*: if you trust it, "
                "give the problem's settings with overrides=[...]"
            )
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            _refuse_foreign(item, problem)


def _measured(
    problem: str, actor: Any, environment: Mapping[str, Any], config: DictConfig, seeds: range
) -> dict[str, Any]:
    """Records and summaries of the agent and of what is measured beside it."""
    from multiravens.evaluation import described, measure

    actors = {actor.name: actor}
    if config.beside:
        actors |= {name: instantiate(node) for name, node in config.beside_agents.items() if name != actor.name}
    rows = {}
    for name, each in actors.items():
        each.resolution = actor.resolution
        with show_progress(f"{problem}, {name}", config.episodes) as update:
            view = instantiate(config.view)
            measured = measure(each, view, environment, config.episodes, seeds, config.workers, update)
        rows[name] = described(measured)
    own = rows.pop(actor.name)
    weights = Path(config.run).expanduser() / "weights.safetensors" if config.run else None
    return {
        "agent": actor.name,
        "pointer": actor.pointer,
        "resolution": actor.resolution,
        "environment": environment,
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest() if weights else None,
        **own,
        "beside": rows,
    }


def _add_rows(table: Table, problem: str, content: Mapping[str, Any]) -> None:
    for name, row in {content["agent"]: content, **content["beside"]}.items():
        figures = row["summary"]
        table.add_row(
            problem,
            name,
            f"{figures['mean_return']:.3f} {_spell(figures['mean_return_interval'])}",
            f"{figures['success_rate']:.3f} {_spell(figures['success_interval'])}",
            str(figures["episodes"]),
            str(len(row["skipped"])),
        )


def _other(problem: str, against: str | None) -> dict[str, Any] | None:
    """What another run reached, read before anything is measured."""
    if against is None:
        return None
    return read_json(Path(against).expanduser() / "evaluation" / f"{problem}.json", FORMAT, VERSION)


def _ahead(problem: str, content: Mapping[str, Any], other: Mapping[str, Any], against: str) -> str:
    from multiravens.evaluation import compare

    if content["environment"] != other["environment"]:
        raise UserError(f"{against} was measured in another environment of {problem}: measure it in the same one")
    try:
        comparison = compare(content, other)
    except ValueError as error:
        raise UserError(f"{against} was measured on other seeds of {problem}: measure it on the same ones") from error
    word = "ahead of" if comparison.mean >= 0 else "behind"
    return (
        f"{problem}: {content['agent']} is {word} {other['agent']} of {against} by {abs(comparison.mean):.3f}, "
        f"difference {_spell(comparison.interval)} on {comparison.pairs} common seeds, ahead in {comparison.ahead:.1%} "
        "of the resamples"
    )


def _spell(interval: Sequence[float]) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


if __name__ == "__main__":
    sys.exit(main())
