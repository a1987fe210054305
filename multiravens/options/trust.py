"""Limits on the classes that a run's folder, a data set or a pack may name: each may come from a stranger.

What is built at a place of a configuration is what our own YAML files build there: agents' parts in `agent`, cameras in
`camera`. A class from outside the package is built if the user named it in this process: in a YAML file of a folder
given as --config-dir, by --allow, as an option, or by `multiravens.allow`. Names are compared as they are written, so
nothing is imported before it is known to be allowed.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from multiravens.errors import UserError, nearest, quote
from multiravens.options.plain import plain
from multiravens.options.search import CONFIGS, search_path
from multiravens.options.types import PARTS, flatten

OURS = "multiravens."
_PARTS = "backbone.streams.parts.*"
_GROUPS = {"module": "problem.modules.*", "domain": "camera.domain", "program_part": _PARTS}
"""Places of groups that are not called like them."""
_PART_PREFIXES = ("backbone.streams.parts.", "backbone.streams.added.")
_NAMED_BY_USERS = (("problem", "modules"), *((group,) for group in PARTS))
"""Places whose parts have names of the user's choice."""
_HYDRA_KEYS = ("_args_", "_recursive_", "_convert_", "_mode_")
"""Keys that hydra takes beside `_target_` and `_partial_`."""

_of_the_program: set[str] = set()
_of_the_command: set[str] = set()


class Named(NamedTuple):
    """A class that a configuration names.

    Attributes:
        place: Where, such as `camera.domain`; a name of the user's choice, as of a problem's module, is a star.
        path: Where, exactly.
        target: Its dotted path, or whatever else stands there.
        partial: True if it is to be called later, with more parameters.
    """

    place: str
    path: str
    target: object
    partial: object


def allow(*names: str) -> None:
    """Lets runs' folders name classes from outside the package, until this process ends.

    Args:
        *names: Dotted paths, such as `sorting.Sorting`.

    Raises:
        UserError: If one is not a dotted path.
    """
    _of_the_program.update(map(_outside, names))


def allow_for_command(names: Iterable[str], config: object = None) -> None:
    """Lets runs' folders name what one command's user named, and nothing that an earlier command's did.

    Args:
        names: Dotted paths given as --allow.
        config: The command's own configuration.

    Raises:
        UserError: If one is not a dotted path.
    """
    given = [*map(_outside, names), *outside_targets(config)]
    _of_the_command.clear()
    _of_the_command.update(given)


def allowed_by_command() -> list[str]:
    """Lists what the command's user named, for commands that it starts."""
    return sorted(_of_the_command)


def targets(node: object, path: str = "") -> Iterator[Named]:
    """Yields every class that a plain configuration names."""
    if isinstance(node, list):
        for item in node:
            yield from targets(item, path)
    if not isinstance(node, Mapping):
        return
    if "_target_" in node or "_partial_" in node:
        yield Named(_place(path), path, node.get("_target_"), node.get("_partial_", False))
    for key, item in node.items():
        yield from targets(item, f"{path}.{key}" if path else str(key))


def _place(path: str) -> str:
    if path.startswith(_PART_PREFIXES):
        return _PARTS
    steps = path.split(".")
    for parents in _NAMED_BY_USERS:
        if tuple(steps[: len(parents)]) == parents and len(steps) > len(parents):
            steps[len(parents)] = "*"
    return ".".join(steps)


def outside_targets(config: object) -> list[str]:
    """Lists the classes from outside the package that a configuration names."""
    named = (each.target for each in targets(config))
    return sorted({target for target in named if isinstance(target, str) and not _is_ours(target)})


def check_parts(parts: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Refuses parts of a configuration that may come from a stranger, unless their classes are allowed there.

    Args:
        parts: Such as `camera` or `agent`, by name; values that would be computed when they are read are refused.
        where: Names the configuration in errors.

    Returns:
        A copy, plain values.

    Raises:
        UserError: If a class is not for its place, or a value is not plain.
    """
    copy: dict[str, Any] = plain(parts, where)
    for path, value in flatten({"": copy}):
        if "${" in f"{path}{value}" or value == "???":
            raise UserError(f"{where} has {quote(value)} for {path.strip('.')}: values of a run are plain")
        if set(path.split(".")) & set(_HYDRA_KEYS):
            raise UserError(f"{where} has {quote(path.strip('.'))}: of a run, only _target_ and _partial_ are taken")
    known = _named_by_us()
    partial = {each.place: each.partial for each in known}
    for each in targets(copy):
        names = sorted({str(other.target) for other in known if other.place == each.place})
        if each.target not in names:
            _refuse_unless_allowed(each, names, where)
        if not isinstance(each.partial, bool) or each.partial is not partial.get(each.place, each.partial):
            raise UserError(f"{where} has _partial_={quote(each.partial)} for {each.path}: no run of ours has")
    return copy


def _refuse_unless_allowed(each: Named, names: list[str], where: object) -> None:
    if isinstance(each.target, str) and not _is_ours(each.target):
        if each.target in _of_the_program | _of_the_command | _named_by_user():
            return
        raise UserError(
            f"{where} names {quote(each.target)} for {each.path}, which is not a class of multiravens: only classes of "
            "ours are built unless you say otherwise. If you trust it, give --config-dir with the folder of the YAML "
            f"that names it, or --allow {each.target[:80]}; in Python, multiravens.allow({quote(each.target)})"
        )
    choice = f"choose from {', '.join(nearest(str(each.target), names))}" if names else "nothing is built there"
    raise UserError(
        f"{where} names {quote(each.target)} for {each.path}, which is not a class of multiravens for that place: only "
        f"classes of our YAML files are built. {choice[0].upper()}{choice[1:]}"
    )


def _named_by_user() -> set[str]:
    """Names classes from outside the package in the YAML files of the user's folders."""
    return {str(each.target) for root in search_path(None)[1:] for each in _named_in(root)}


@cache
def _named_by_us() -> frozenset[Named]:
    """Lists the classes that our own YAML files name; they do not change while the program runs."""
    return frozenset(_named_in(CONFIGS))


def _named_in(root: Path) -> set[Named]:
    """Lists the classes that the YAML files of a folder's groups name."""
    found: set[Named] = set()
    for path in root.glob("*/*.yaml"):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue  # told where it is composed
        group = path.parent.name
        found.update(each for each in targets(content, _GROUPS.get(group, group)) if isinstance(each.target, str))
    return found


def _is_ours(target: str) -> bool:
    return f"{target}.".startswith(OURS)


def _outside(name: str) -> str:
    """Checks what is allowed by name: of ours, each place has its own."""
    parts = name.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise UserError(f"allow {quote(name)}: give the dotted path of a class, such as package.module.Class")
    if _is_ours(name):
        raise UserError(f"allow {name}: classes of multiravens are built where our YAML files build them, nowhere else")
    return name
