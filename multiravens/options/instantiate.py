"""Building objects from configurations: `_target_` names a class anywhere on the path, the rest are its parameters."""

import inspect
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf

from multiravens.errors import UserError, quote, unknown
from multiravens.options.annotations import declared, wanted
from multiravens.options.types import spell

_HYDRA_KEYS = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")


def instantiate(node: DictConfig | Mapping[str, Any], **parameters: Any) -> Any:
    """Builds the object that a configuration describes, the objects inside it first.

    Args:
        node: A configuration with a `_target_`; lists and dictionaries in it arrive as plain Python ones.
        **parameters: More parameters of the outermost constructor, or other values for those in `node`.

    Returns:
        The object.

    Raises:
        UserError: A `_target_` cannot be imported, a parameter is unknown, missing or not of the type that is declared,
            or the constructor refuses a value with a `ValueError`.
    """
    plain = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else dict(node)
    check(plain, parameters)
    try:
        return hydra_instantiate(plain, _convert_="all", **parameters)
    except HydraException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        if isinstance(cause, ValueError):
            raise UserError(f"{_name(plain)}: {cause}") from error
        raise cause or error from error


def check(node: object, parameters: Mapping[str, Any] | None = None, path: str = "") -> int:
    """Checks that every `_target_` in a plain configuration can be imported and takes its parameters, by name and type.

    Args:
        node: A plain dictionary, list or value; only dictionaries with a `_target_` are looked at.
        parameters: More parameters of the outermost constructor.
        path: Where the node stands, for messages.

    Returns:
        The number of targets found.

    Raises:
        UserError: A target cannot be imported, or a parameter is unknown, missing or not of its declared type.
    """
    if isinstance(node, list):
        return sum(check(item, None, path) for item in node)
    if not isinstance(node, Mapping):
        return 0
    found = sum(check(item, None, f"{path}.{key}" if path else str(key)) for key, item in node.items())
    if "_target_" not in node:
        return found
    own = {str(key): value for key, value in node.items() if key not in _HYDRA_KEYS}
    target = locate(node["_target_"], path)
    _bind(target, own | dict(parameters or {}), f"{path or _name(node)}", bool(node.get("_partial_")))
    _check_types(target, {key: own[key] for key in own if key not in (parameters or {})}, path)
    return found + 1


def locate(target: object, path: str) -> Any:
    """Imports what a `_target_` names: the longest part of it that is a module, then attributes of that.

    Args:
        target: A dotted path.
        path: Where it stands, for messages.

    Raises:
        UserError: It is none, cannot be imported, or is nothing that can be called.
    """
    place = f"{path}._target_" if path else "_target_"
    parts = target.split(".") if isinstance(target, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise UserError(f"{place}={quote(target)}: give the dotted path of a class, such as package.module.Class")
    for length in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:length])
        try:
            found: Any = import_module(name)
        except ImportError as error:
            missing = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
            if missing and length > 1:
                continue
            raise UserError(f"{place}={target} cannot be imported: {' '.join(str(error).split())}") from error
        break
    for attribute in parts[length:]:
        if not hasattr(found, attribute):
            names = [name for name in dir(found) if not name.startswith("_")]
            kind = f"name in {getattr(found, '__name__', found)}"
            raise UserError(f"{place}={target}: {unknown(kind, attribute, names)}")
        found = getattr(found, attribute)
    if not callable(found):
        raise UserError(f"{place}={target} cannot be called: give the dotted path of a class or function")
    return found


def _bind(target: Any, given: Mapping[str, Any], path: str, partial: bool) -> None:
    """Checks parameters by name against a constructor's signature."""
    try:
        signature = inspect.signature(target)
    except ValueError:
        return  # some built-in constructors tell no signature; they check for themselves
    known = signature.parameters.values()
    names = [item.name for item in known if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)]
    if not any(item.kind is item.VAR_KEYWORD for item in known):
        for name in given:
            if name not in names:
                raise unknown(f"parameter of {path}", name, names)
    if partial:
        return
    for item in known:
        if item.name in names and item.default is item.empty and item.name not in given:
            raise UserError(f"{path} needs a value for {item.name!r}: give it in the YAML file or on the command line")


def _check_types(target: Any, given: Mapping[str, Any], path: str) -> None:
    """Checks values by the types that a constructor declares; a default is taken whatever is declared."""
    types, known = declared(target), {}
    with suppress(ValueError):  # as in `_bind`
        known = {name: item.default for name, item in inspect.signature(target).parameters.items()}
    for name, value in given.items():
        text = wanted(value, types.get(name, Any))
        if text and value is not known.get(name):
            raise UserError(f"{path}{path and '.'}{name}={spell(value)}: give {text}")


def _name(node: object) -> str:
    """Names a configuration by its target, for messages."""
    return str(node.get("_target_", "the configuration")) if isinstance(node, Mapping) else "the configuration"
