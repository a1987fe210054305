"""Check of plain values against type annotations: a configuration holds the values that a constructor declares."""

import inspect
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from multiravens.errors import UserError, quote

_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a text",
    type(None): "null",
}
_OURS = "multiravens."


def declared(target: Any) -> dict[str, Any]:
    """Reads the annotations of a constructor's or function's parameters.

    Args:
        target: A class or a function.

    Returns:
        Annotations by the parameter's name; none where they can't be resolved.
    """
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError, ValueError):
        return {}


def wanted(value: object, annotation: Any) -> str:
    """Says what a plain value should have been.

    Args:
        value: A plain value; a dictionary with a `_target_` stands for the object that is built of it.
        annotation: What is declared.

    Returns:
        `an integer`, say; empty if the value is one that is declared, or the annotation one that tells nothing.
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        texts = [wanted(value, part) for part in parts]
        return " or ".join(dict.fromkeys(texts)) if all(texts) else ""
    if origin is Literal:
        return "" if value in parts else " or ".join(map(str, parts))
    if annotation is None or annotation in _KINDS:
        kind = type(None) if annotation is None else annotation
        return "" if type(value) is kind or (kind is float and type(value) is int) else _KINDS[kind]
    if Callable in (origin, annotation):
        return "" if callable(value) or _is_node(value) else "what is called, by its _target_"
    kind = origin or annotation
    if kind in (Any, object) or not inspect.isclass(kind):
        return ""
    if issubclass(kind, Mapping):
        return _of_mapping(value, parts)
    if issubclass(kind, Collection) and kind.__module__ in ("builtins", "collections.abc"):
        return _of_list(value, parts, kind)
    # Of others' types it can't be told what they are made from: a path of a text, say.
    if not kind.__module__.startswith(_OURS) or _is_node(value) or isinstance(value, kind):
        return ""
    return f"a {kind.__name__}, by its _target_"


def check_declared(config: Mapping[str, Any], types_of: Mapping[str, Any], where: object = "the configuration") -> None:
    """Refuses a configuration that lacks a value, or has one of another type.

    Args:
        config: Plain values.
        types_of: Annotations by the value's dotted name.
        where: Names the configuration in errors.

    Raises:
        UserError: If it does.
    """
    for name, annotation in types_of.items():
        found: Any = config
        for step in name.split("."):
            if not isinstance(found, Mapping) or step not in found:
                raise UserError(f"{where} lacks a value or has a wrong one: there is no {name}")
            found = found[step]
        if text := wanted(found, annotation):
            raise UserError(f"{where} lacks a value or has a wrong one: {name} is {quote(found)}, not {text}")


def _is_node(value: object) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def _of_mapping(value: object, parts: tuple[Any, ...]) -> str:
    if not isinstance(value, Mapping) or _is_node(value):
        return "a group of options"
    text = next((found for item in value.values() if (found := wanted(item, parts[1]))), "") if parts else ""
    return text and f"{text} for each name"


def _of_list(value: object, parts: tuple[Any, ...], kind: type) -> str:
    if not isinstance(value, list | tuple):
        return "a list"
    if kind is tuple and parts and parts[-1] is not Ellipsis:
        if len(value) != len(parts):
            return f"a list of {len(parts)}"
        pairs = zip(value, parts, strict=True)
    else:
        pairs = zip(value, parts[:1] * len(value), strict=False)
    text = next(filter(None, (wanted(item, part) for item, part in pairs)), "")
    return text and f"a list, each {text}"
