"""Options of a training run that can't be met, refused before anything is read."""

from collections.abc import Mapping
from typing import Any

import yaml

from multiravens.agents.acting.options import Acting
from multiravens.agents.training.devices import PRECISIONS
from multiravens.errors import UserError, unknown
from multiravens.options.search import CONFIGS, options

MOST = 2**20
"""Samples of a batch."""


def check(config: Mapping[str, Any]) -> None:
    """Refuse options that can't be met.

    Raises:
        UserError: one can't.
    """
    for name in ("demos", "steps", "batch", "devices", "checkpoint_every", "log_every"):
        if config[name] < 1:
            raise UserError(f"{name}={config[name]}: give 1 or more")
    if config["batch"] > MOST:
        raise UserError(f"batch={config['batch']}: give at most {MOST}")
    check_threads(config["threads"])
    for name, low, high in (("warmup", 0, 1), ("ema", 0, 1), ("seed", 0, 2**31 - 1)):
        if not low <= config[name] <= high:
            raise UserError(f"{name}={config[name]}: give {low} to {high}")
    for name in ("learning_rate", "clip"):
        if not config[name] > 0:
            raise UserError(f"{name}={config[name]}: give more than 0")
    if config["minutes"] is not None and not config["minutes"] > 0:
        raise UserError(f"minutes={config['minutes']}: give more than 0, or null to take all steps")
    if config["weight_decay"] < 0:
        raise UserError(f"weight_decay={config['weight_decay']}: give 0 or more")
    if config["precision"] not in PRECISIONS:
        raise unknown("precision", str(config["precision"]), PRECISIONS)
    if "network" not in config["agent"]:
        raise UserError(f"this agent has nothing to train: choose from {', '.join(_trainable())}")
    for name in ("name", "conditioning"):
        if name not in config["agent"]:
            raise UserError(
                f"this agent has a network and no {name}: give it in the YAML, as in configs/agent/sctn.yaml"
            )
    Acting.of(config)


def check_threads(threads: object) -> None:
    """Refuse what is no number of threads.

    Raises:
        UserError: it is none.
    """
    if threads is not None and (not isinstance(threads, int) or not 1 <= threads <= 1024):
        raise UserError(f"threads={threads}: give 1 to 1024, or null to leave it to torch")


def _trainable() -> list[str]:
    """Agents of ours that learn: those with a network."""
    files = {name: CONFIGS / "agent" / f"{name}.yaml" for name in options([CONFIGS], "agent")}
    return [name for name, file in files.items() if "network" in yaml.safe_load(file.read_text(encoding="utf-8"))]
