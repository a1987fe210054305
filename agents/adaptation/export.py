"""Export of trained agents: weights alone, as small as they may be, with a model card."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multiravens.agents.acting.load import load_agent
from multiravens.agents.networks.checkpoint import read_tensors, write_tensors
from multiravens.errors import UserError, unknown
from multiravens.options.defaults import own_network
from multiravens.options.types import flatten
from multiravens.support.files import locked, remove_temporaries, user_path, write_whole
from multiravens.support.markdown import markdown_table
from multiravens.support.runs import (
    CONFIG,
    EVALUATION,
    WEIGHTS,
    find_run,
    hash_weights,
    read_config,
    read_evaluation,
    write_config,
)
from multiravens.support.shards import parse_size
from multiravens.support.statistics import figure_cells, shown_metrics, title

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CARD = "README.md"
_TOLD = ("problems", "demos", "split", "steps", "batch", "learning_rate", "seed", "precision")
"""Options that the card tells."""
_OF_THE_MACHINE = ("run", "data", "device", "devices", "threads", "compile", "compile_mode", "tf32", "minutes")
"""Options that say nothing of the agent."""


def export(config: Mapping[str, Any]) -> list[Path]:
    """Write a run's agent into a folder of its own, with what was measured of it if its bytes are the run's.

    Given again, it takes up what was measured of the folder into the card.

    Args:
        config: of `export.yaml`, plain values.

    Returns:
        The files written.

    Raises:
        UserError: an option can't be met, the run has no whole checkpoint, or the disk refuses.
    """
    if config["run"] is None:
        raise UserError("give the folder of a trained agent's run as run=FOLDER")
    if config["dtype"] not in DTYPES:
        raise unknown("dtype", str(config["dtype"]), DTYPES)
    size = parse_size(config["shard_size"], "shard_size") if config["shard_size"] is not None else None
    source = find_run(str(config["run"]))
    out = user_path(str(config["out"] or f"{str(source).rstrip('/')}-{config['dtype']}"))
    _check_free(out)
    trained = read_config(source)
    load_agent(source)  # or what is handed on could not be loaded
    _check_told(trained, source / CONFIG)
    tensors, about = read_tensors(source / WEIGHTS, as_written=True)
    kept = of_the_agent(trained)
    rounded = {name: _rounded(tensor, DTYPES[config["dtype"]]) for name, tensor in tensors.items()}
    with locked(out, "out"):
        remove_temporaries(out)
        if not (out / CONFIG).exists():
            write_config(out, kept)  # so that the folder is known for ours if this is killed in the middle
        paths = write_tensors(out / WEIGHTS, rounded, about, size)
        write_config(out, kept)
        _take_along(source, out)
        write_whole(out / CARD, "\n".join(_card(out, kept, rounded, about)).encode())
    return [*paths, out / CONFIG, out / CARD]


def _check_told(trained: Mapping[str, Any], path: Path) -> None:
    """Refuse a configuration that lacks what the card tells."""
    nodes = [trained.get(name) for name in ("task_sampling", "step_sampling")]
    missing = [name for name in _TOLD if not trained.get(name) and trained.get(name) != 0]
    if missing or not all(isinstance(node, Mapping) and "_target_" in node for node in nodes):
        raise UserError(f"{path} is damaged: {missing[0] if missing else 'sampling'} has no value")


def _take_along(source: Path, out: Path) -> None:
    """Copy a run's evaluations to the export if they were measured with weights of the same bytes."""
    weights = hash_weights(out)
    for path in sorted((source / EVALUATION).glob("*.json")):
        if read_evaluation(path)["weights"] == weights:
            (out / EVALUATION).mkdir(exist_ok=True)
            write_whole(out / EVALUATION / path.name, path.read_bytes())


def of_the_agent(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what a run's configuration says of the agent, and nothing of the machine that it was trained on."""
    kept = {name: value for name, value in config.items() if name not in _OF_THE_MACHINE}
    if "transfer" in kept:
        kept["transfer"] = {name: value for name, value in kept["transfer"].items() if name != "run"}
    return kept


def _check_free(out: Path) -> None:
    """Refuse a folder that holds anything but an exported agent."""
    known = read_config(out) if (out / CONFIG).exists() else None
    if known is not None and "run" in known:
        raise UserError(f"out={out} is the folder of a run: give another one")
    # A lock or a temporary is left where an export was killed.
    others = [path for path in out.iterdir() if path.name[0] != "."] if out.is_dir() else [out] * out.exists()
    if known is None and others:
        raise UserError(f"out={out} holds something else: give the name of a new folder")


def _rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _card(
    out: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], about: Mapping[str, Any]
) -> Iterator[str]:
    """A model card, as Mitchell et al. 1810.03993 ask for: use, data, training, results, limits."""
    name, problems = out.resolve().name, config["problems"]
    counted = sum(tensor.numel() for tensor in tensors.values())
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    environments = config.get("environment", {})
    ours = all("camera" in environment for environment in environments.values())
    # As a user would give it, unless that says where on this machine it is.
    run = name if out.is_absolute() else out
    yield f"# {name}"
    yield ""
    kind = config["agent"]["name"]
    yield f"A `{kind}` agent of MultiRavens for {', '.join(problems)}: {counted:,} parameters, {dtype}."
    yield ""
    yield from ("## Use", "", "```")
    yield f"python -m multiravens.render run={run} problem={problems[0]} seed=100000 out=agent.mp4"
    yield f"python -m multiravens.evaluate run={run} episodes=100 workers=2 out=measured/{name}"
    yield from ("```", "", "## Data", "")
    yield (
        f"{config['demos']} demonstrations of each problem{' by the scripted expert' * ours}, the first of the split "
        f"`{config['split']}`, at `resolution={config['resolution']}`."
    )
    if ours:
        rows = [_environment(problem, environment) for problem, environment in environments.items()]
        yield from ("", markdown_table(("problem", "modules", "camera", "motion"), rows))
    yield from ("", "## Training", "")
    sampling = (str(config[level]["_target_"]).rpartition(".")[2] for level in ("task_sampling", "step_sampling"))
    yield (
        f"{about.get('step', config['steps'])} steps of {config['batch']} samples drawn by {' and '.join(sampling)}, "
        f"learning rate {config['learning_rate']} at most, seed {config['seed']}, precision {config['precision']}. "
        f"The network: {_network(config)}. It acts with `inhibition={config['inhibition']}` and "
        f"`patience={config['patience']}`. Everything else is in `{CONFIG}`."
    )
    yield from ("", "## Results", "")
    yield from _results(out, problems)
    yield from ("", "## Limits", "")
    # Streams that a backbone brings have parts for each of its problems.
    goalless = str(config["agent"]["conditioning"]["_target_"]).endswith(".NoGoal")
    known = "knows only" if config["backbone"]["streams"] and not own_network(config) else "was trained on"
    yield (
        f"{'Trained and measured in simulation: a real table, other' if ours else 'Other'} parts, other light or "
        "another camera are further than anything it has seen. It "
        f"{'is shown no goal' if goalless else 'needs a picture of every sub-goal, in order'}, and {known} the "
        f"problems named first. Its goal pointer follows `{config['pointer']}` unless it is told otherwise"
        "; on a robot, by `multiravens.load`, it compares pictures (`visual`)."
    )
    yield ""


def _network(config: Mapping[str, Any]) -> str:
    node = own_network(config) or config["backbone"]["streams"] or config["backbone"]["network"]
    kind = str(node["_target_"]).rpartition(".")[2]
    values = ", ".join(f"{key}={value}" for key, value in node.items() if not key.startswith("_"))
    return f"`{kind}` ({values})"


def _environment(problem: str, environment: Mapping[str, Any]) -> list[str]:
    values = dict(flatten(environment))
    modules = dict.fromkeys(key.split(".")[2] for key in values if key.startswith("problem.modules."))
    camera, motion = (str(values.get(f"{part}._target_", "")).rpartition(".")[2] for part in ("camera", "motion"))
    disturbed = [f"{key}={value}" for key, value in values.items() if key.startswith("disturb.")]
    return [problem, ", ".join(modules), camera, ", ".join([motion, *disturbed])]


def _results(out: Path, problems: list[str]) -> Iterator[str]:
    """Tables of what was measured with the weights that are there."""
    weights = hash_weights(out)
    contents = {path.stem: read_evaluation(path) for path in sorted((out / EVALUATION).glob("*.json"))}
    measured = {problem: each for problem, each in contents.items() if each["weights"] == weights}
    known = {problem: measured[problem] for problem in problems if problem in measured}
    if not measured:
        yield "Not measured yet: evaluate it without `out`, then export it again."
        return
    yield "Held-out episodes; intervals are 95 %, by bootstrap and by Wilson."
    if known:
        yield from _measured(known)
    if len(known) < len(measured):
        yield from ("", "Problems that it was never trained on:")
        yield from _measured({problem: each for problem, each in measured.items() if problem not in known})


def _measured(contents: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield ""
    compared = all("oracle" in content["beside"] for content in contents.values())
    shown = shown_metrics(contents.values())
    heads = ["problem", *map(title, shown), "episodes", *["oracle's return"] * compared]
    yield markdown_table(heads, [_row(problem, content, shown, compared) for problem, content in contents.items()])


def _row(problem: str, content: Mapping[str, Any], shown: list[str], compared: bool) -> list[str]:
    summary = content["summary"]
    oracle = [row["returned"] for row in content["beside"]["oracle"]["episodes"]] if compared else []
    ceiling = [f"{sum(oracle) / len(oracle):.3f}"] if compared else []
    return [problem, *figure_cells(summary, shown), str(summary["episodes"]), *ceiling]
