"""Folders of training runs: their files, and reading them without running anything that they name."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from multiravens.errors import UserError, quote
from multiravens.options.annotations import wanted
from multiravens.options.defaults import choices
from multiravens.options.plain import parse_yaml, plain
from multiravens.options.search import CONFIGS
from multiravens.options.trust import check_parts
from multiravens.support.files import read_json, read_whole, user_path, write_rows, write_whole
from multiravens.support.shards import find_shards
from multiravens.support.statistics import METRIC_NAME

VERSION = 1
CONFIG, WEIGHTS, STATE, METRICS = "config.yaml", "weights.safetensors", "state.safetensors", "metrics.jsonl"
EVALUATION = "evaluation"
PACKAGED = ("assets", "checkpoints")
"""Path, inside the package, of the trained agents that come with it."""
_BUILT = ("agent", "backbone", "fusion", "task_sampling", "step_sampling")
"""Parts of a run's configuration that name classes; `restored` checks those of its environments."""
_TRAINED_BY = ("loss", "augmentation")
"""Parts that name classes which no agent has, as its objective: they are checked where another run is trained so."""
NAME = re.compile(r"\w[\w.-]{0,199}", re.ASCII)
"""Of a problem: it names files and folders."""
_MOST_PROBLEMS = 1024
_PLAIN: dict[str, Any] = choices("acting", [CONFIGS])["plain"]
_OLDER = {name: value for name, value in _PLAIN.items() if name != "pointer"}
"""Options of acting, with their values in runs and evaluations that are older than an option; all have a pointer."""
ACTING = tuple(_OLDER)
"""Their names: how a trained agent acts plays no part in its training."""
_DECLARED: dict[str, Any] = {
    "problems": list[str] | None,
    "resolution": str,
    **{name: type(value) for name, value in _PLAIN.items()},
    "demos": int,
    "split": str,
    "steps": int,
    "batch": int,
    "seed": int,
    "learning_rate": float,
    "weight_decay": float,
    "warmup": float,
    "ema": float,
    "clip": float,
    "checkpoint_every": int,
    "log_every": int,
    "augmentation": dict[str, Any] | None,
    "loss": dict[str, Any],
    "precision": str,
    "transfer": dict[str, Any],
}
"""Types of a run's options, as far as they are read again."""

_EVALUATION_FORMAT = ("multiravens-evaluation", 2)
_EVALUATION_FIELDS: dict[str, Any] = {
    "problem": str,
    "agent": str,
    "pointer": str,
    **{name: int | float if isinstance(value, float) else type(value) for name, value in _OLDER.items()},
    "weights": str | None,
    "source": str | None,
    "environment": dict,
    "metrics": list,
    "beside": dict,
}
_YAML_BYTES = 2**18  # a run of ten problems has 7 KB
_MOST_FIGURES = 2**24  # values in an evaluation: twelve for each episode

_MOVED = {
    "multiravens.agents.conditioning": "multiravens.agents.acting.conditioning",
    "multiravens.agents.isometric": "multiravens.agents.networks.isometric",
    "multiravens.agents.modular": "multiravens.agents.networks.modular.streams",
    "multiravens.agents.resnet43": "multiravens.agents.networks.resnet43",
    "multiravens.agents.transporter": "multiravens.agents.networks.transporter",
    "multiravens.data.sampling": "multiravens.data.training.sampling",
}
"""Modules whose classes runs from before name, and where these are today."""
_STREAMS = "multiravens.agents.networks.modular.streams.ModularStreams"
_PARTS = "multiravens.agents.networks.modular.parts"
_OF_ORDER = ("start", "temperature", "entropy")
_TRANSPORTER: dict[str, Any] = {
    "network": {"_target_": "multiravens.agents.networks.build.transporter", "_partial_": True},
    "objective": {"_target_": "multiravens.agents.training.objectives.Imitation"},
    "policy": {"_target_": "multiravens.agents.acting.policy.TransporterAgent", "_partial_": True},
}
"""Parts of the agent in runs from before an agent named them."""
_SE2 = {"_target_": "multiravens.data.training.augmentation.SE2"}
"""The augmentation of runs from before there were others."""


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration that a run was made with.

    Raises:
        UserError: there is none, or it is not one of ours; nothing in it is executed either way.
    """
    path = folder / CONFIG
    try:
        text = read_whole(path, _YAML_BYTES).decode()
    except OSError as error:
        raise UserError(f"{folder} is not a run folder ({path.name}: {error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML: it is not UTF-8") from error
    config = parse_yaml(text, path)
    if not isinstance(config, dict) or config.get("version") != VERSION or not isinstance(config.get("agent"), dict):
        raise UserError(f"{path} is not the configuration of a run of version {VERSION}")
    config = _of_parts(_renamed(dict(_OLDER | config)))
    environments = config.get("environment", {})
    if wanted(environments, dict[str, dict[str, Any]]):
        raise UserError(f"{path} is damaged: its environment is {quote(environments)}, not one for each problem")
    for name, annotation in _DECLARED.items():
        if name in config and (text := wanted(config[name], annotation)):
            raise UserError(f"{path} is damaged: {name} is {quote(config[name])}, not {text}")
    names = [*(config.get("problems") or ()), *environments]
    for name in names:
        if not NAME.fullmatch(name):
            raise UserError(f"{path} names a problem {quote(name)}: names are letters, digits, _, - and .")
    if len(names) > 2 * _MOST_PROBLEMS:
        raise UserError(f"{path} names {len(names)} problems, more than {_MOST_PROBLEMS} are not taken")
    config = _completed(config)
    parts = {name: config[name] for name in _BUILT if name in config}
    parts["agent"] = {name: part for name, part in config["agent"].items() if name != "objective"}
    check_parts(parts, path)
    return config


def check_trained_by(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse what a run, which may come from anywhere, was trained by, unless its classes are allowed.

    Raises:
        UserError: the class of its objective, or of a loss or an augmentation, is not.
    """
    parts = {name: config[name] for name in _TRAINED_BY if name in config}
    check_parts({**parts, "agent": {"objective": config["agent"].get("objective")}}, folder / CONFIG)


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration with what is named today of what was always the same before."""
    agent = config["agent"]
    config["agent"] = {"policy": None} | agent if "network" in agent else agent | _TRANSPORTER
    if "augmentation" in config:
        options = config["augmentation"] or {}
        older = options and not any(isinstance(each, dict | None) for each in options.values())
        config["augmentation"] = {"se2": _SE2 | options} if older else options
    return config


def _renamed(node: Any) -> Any:
    """Plain values in which classes have the names that they have today."""
    if isinstance(node, dict):
        return {key: _today(value) if key == "_target_" else _renamed(value) for key, value in node.items()}
    return [_renamed(item) for item in node] if isinstance(node, list) else node


def _today(target: Any) -> Any:
    module, _, name = str(target).rpartition(".")
    return f"{_MOVED[module]}.{name}" if module in _MOVED else target


def _of_parts(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration whose programs are composed of parts: older ones name what they hold."""
    backbone: Any = config.get("backbone")
    streams = backbone.get("streams") if isinstance(backbone, dict) else None
    if not isinstance(streams, dict) or streams.get("_target_") != _STREAMS or "parts" in streams:
        return config
    order = {name: streams[name] for name in _OF_ORDER if name in streams}
    kept = {name: value for name, value in streams.items() if name not in (*_OF_ORDER, "adapters")}
    kept["parts"] = {"order": {"_target_": f"{_PARTS}.order.Order", **order}}
    kept["parts"]["affine"] = {"_target_": f"{_PARTS}.affine.Affine"}
    adapters = streams.get("adapters", {})
    if isinstance(adapters, dict) and "adapters" in streams:
        node = {"_target_": f"{_PARTS}.adapter.Adapter"}
        kept["added"] = {name: {"adapter": {**node, "rank": rank}} for name, rank in adapters.items()}
    return {**config, "backbone": {**backbone, "streams": kept}}


def find_run(run: str | Path) -> Path:
    """The folder of a run; `assets/checkpoints/NAME` is found where the program is, if it is not where the user is."""
    folder = user_path(run)
    packaged = Path(__file__).parents[1] / folder
    return packaged if folder.parts[:2] == PACKAGED and not folder.exists() and packaged.exists() else folder


def is_packaged(run: Path) -> bool:
    """Tell whether a run is one of the trained agents that come with the program."""
    return run.resolve().is_relative_to(Path(__file__).parents[1].joinpath(*PACKAGED).resolve())


def hash_weights(folder: Path) -> str:
    """SHA-256 of a run's weights, in one file or in shards.

    Raises:
        UserError: a shard is missing.
    """
    digest = hashlib.sha256()
    for path in find_shards(folder / WEIGHTS):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write a run's configuration.

    Raises:
        UserError: the disk refuses.
    """
    # In the order given: that of augmentations counts.
    text = yaml.safe_dump({**config, "version": VERSION}, sort_keys=False, default_flow_style=False)
    write_whole(folder / CONFIG, text.encode())


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read the file that an evaluation of one problem wrote.

    Returns:
        Its fields; `source` is None where it was measured before that was noted, by whatever code.

    Raises:
        UserError: the file is missing or damaged, or not ours.
    """
    content = _OLDER | {"source": None} | plain(read_json(path, *_EVALUATION_FORMAT, oldest=1), path, _MOST_FIGURES)
    parts = [content, *content["beside"].values()] if isinstance(content.get("beside"), dict) else []
    if content["version"] == 1:
        content |= {"version": 2, "metrics": ["mean_return", "full_success"]}
        for part in parts:
            _name_metrics(part)
    for name, kind in _EVALUATION_FIELDS.items():
        if not parts or name not in content or not isinstance(content[name], kind):
            raise UserError(f"{path} is damaged ({name}): remove it and measure again")
    for part in parts:
        if not isinstance(part, dict) or not _is_whole(part, content["metrics"]):
            raise UserError(f"{path} is damaged: remove it and measure again")
    return content


def _name_metrics(part: Any) -> None:
    """Give figures of version 1, which had two metrics of a single value, today's names; damage is told later."""
    summary, episodes = (part.get(name) for name in ("summary", "episodes")) if isinstance(part, dict) else (None, None)
    if isinstance(summary, dict):
        summary["full_success"] = summary.pop("success_rate", None)
        summary["full_success_interval"] = summary.pop("success_interval", None)
    for row in episodes if isinstance(episodes, list) else []:
        if isinstance(row, dict):
            row["metrics"] = {"mean_return": row.get("returned"), "full_success": row.get("success")}


def _is_whole(part: Mapping[str, Any], metrics: Sequence[Any]) -> bool:
    """Tell whether an agent's part of an evaluation has all that tables and plots take from it."""
    summary, episodes = part.get("summary"), part.get("episodes")
    if not isinstance(summary, dict) or not isinstance(episodes, list) or not isinstance(part.get("skipped"), list):
        return False
    kinds = {"seed": int, "success": bool, "metrics": dict}
    rows = all(isinstance(row, dict) and all(isinstance(row.get(k), kinds[k]) for k in kinds) for row in episodes)
    return (
        rows
        and _is_number(summary.get("episodes"))
        and all(
            isinstance(name, str)
            and METRIC_NAME.fullmatch(name) is not None
            and (_is_figure(summary, name, episodes) or isinstance(summary.get(name), dict))
            for name in metrics
        )
    )


def _is_figure(summary: Mapping[str, Any], name: str, episodes: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether there is a metric's figure, its interval, and its value in each episode."""
    pair = summary.get(f"{name}_interval")
    numbers = [summary.get(name), *(row["metrics"].get(name) for row in episodes)]
    return isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, [*pair, *numbers]))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def write_evaluation(path: Path, content: Mapping[str, Any]) -> None:
    """Write an evaluation of one problem, a line for each episode.

    Raises:
        UserError: the disk refuses.
    """
    form, version = _EVALUATION_FORMAT
    write_rows(path, {**content, "format": form, "version": version})
