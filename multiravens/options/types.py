"""Values of options: their paths, how a user would write them, and of which kind they must be."""

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import yaml

from multiravens.errors import UserError, quote, unknown
from multiravens.options.search import CONFIGS


def _acting() -> dict[str, Any]:
    """Options of how an agent acts, which are null where a run says them, with their standard values."""
    content = yaml.safe_load((CONFIGS / "acting" / "standard.yaml").read_text(encoding="utf-8"))
    return dict(content)


UNSET: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("run", "out", "run_out", "data", "against"), ("FOLDER",)),
    "problem": ("NAME",),
    "problems": (["placing", "chaining"], "ten"),
    "runs": (["FOLDER"], "FILE"),
    "size": ([560, 720],),
    "lens.eye": ([1.95, -0.2, 1.3],),
    "lens.target": ([0.33, 0.01, 0.25],),
    "lens.field": (37.0,),
    "order": ([0, 2, 1, 1, 3, 4],),
    **{name: (value,) for name, value in _acting().items()},
    "learning_rate": (0.001,),
    "threads": (2,),
    "first_seed": (100_000,),
    "compile": ("inductor",),
    "compile_mode": ("reduce-overhead",),
    "minutes": (9.0,),
    "launcher": ("joblib",),
    "launcher_options": ({"n_jobs": 2},),
    "shard_size": ("16MiB",),
    "problem.max_steps": (20,),
    "problem.modules.placing.shapes": (["disc", "bar"],),
}
"""Example values of the options whose default is null."""
PARTS = ("augmentation", "loss")
"""Groups of parts with names of the user's choice; null leaves one out."""
_DEEPEST = 20  # lists in lists; deeper ones hold themselves


def flatten(node: object, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every leaf of nested dictionaries as its dotted path and value; an empty dictionary is a leaf."""
    if isinstance(node, Mapping) and (node or not path):
        for key, value in node.items():
            yield from flatten(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def spell(value: object) -> str:
    """Writes a value the way a user would on the command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {spell(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(spell(item) for item in value) + "]"
    return str(value) if value != "" else "''"


def plain_value(value: object, path: str, depth: int = 0) -> Any:
    """Turns a value from Python into what YAML holds: numbers, texts, null, lists and dictionaries of them.

    Args:
        value: Also paths, tuples, numpy's numbers and arrays, at any depth.
        path: Of the option, for messages.
        depth: Of the value in the option.

    Raises:
        UserError: It is, or holds, something else.
    """
    if depth > _DEEPEST:
        raise UserError(f"{path} is nested more than {_DEEPEST} deep")
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain_value(item, path, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item, path, depth + 1) for item in value]
    if isinstance(value, str) and ("${" in value or value == "???"):
        raise UserError(f"{path}={quote(value)}: a text cannot be ??? or hold ${{, which mean something in YAML files")
    if not (value is None or isinstance(value, bool | int | float | str)):
        raise UserError(f"{path}={quote(value)}: give a number, a text, a path, None, or a list or dictionary of such")
    return value


def option_names(config: object) -> list[str]:
    """Names the options that a user may set; which class is built is rarely what a mistyped name meant."""
    return [path for path, _ in flatten(config) if not path.endswith("_target_")]


def check_types(default: object, value: object, path: str) -> None:
    """Raises a `UserError` where a value does not have the type of its default, or is none of what `UNSET` says."""
    if isinstance(default, Mapping) and isinstance(value, Mapping):
        for key, item in value.items():
            if key in default:
                check_types(default[key], item, f"{path}.{key}" if path else str(key))
            elif not path:
                raise unknown("option", str(key), option_names(default))
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path}={value}: give a finite number")
    elif value == "" and default:
        example = "" if "${" in str(default) else f", such as its default {spell(default)}"
        raise UserError(f"{path}= is empty: give {kind_of(default)}{example}")
    elif default is None and path in UNSET:
        _check_unset(value, path)
    elif value is None and path.rpartition(".")[0] in PARTS:
        return
    elif default is None or (isinstance(default, str) and ("${" in default or default == "???")):
        return
    elif isinstance(default, list) and isinstance(value, list):
        for item in value if default else []:
            alike = [known for known in default if kind_of(known) == kind_of(item)]
            check_types(alike[0] if alike else max(default, key=lambda known: isinstance(known, float)), item, path)
    elif kind_of(value) != kind_of(default) and not (isinstance(default, float) and kind_of(value) == "an integer"):
        raise UserError(f"{path}={spell(value)}: give {kind_of(default)}, such as its default {spell(default)}")


def _check_unset(value: object, path: str) -> None:
    """Raises a `UserError` where a value is none of what an option takes that is null at first."""
    examples = UNSET[path]
    wanted = list(dict.fromkeys(map(kind_of, examples)))
    fits = kind_of(value) in wanted or (kind_of(value) == "an integer" and "a number" in wanted)
    if value is not None and (value == "" or not fits):
        raise UserError(f"{path}={spell(value)}: give {' or '.join(wanted)}, such as {spell(examples[0])}, or null")


def kind_of(value: object) -> str:
    """Names a value's type for a user."""
    kinds = {bool: "true or false", int: "an integer", float: "a number", str: "a text", list: "a list"}
    return kinds.get(type(value), "a group of options" if isinstance(value, Mapping) else "null")
