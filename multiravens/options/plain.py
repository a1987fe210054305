"""Plain values from files that may come from a stranger: checked and counted before anything uses them."""

import math
from collections.abc import Mapping
from typing import Any

import yaml

from multiravens.errors import UserError, quote

_DEEPEST = 32
"""Levels of nesting; a run's configuration has eight."""
_MOST_VALUES = 200_000
"""Values in YAML with every alias written out; a problem of a run has some thirty."""
_LONGEST = 2**16
"""Characters of one text."""
_GREATEST = 2**63
"""Whole numbers lie below it; no option is near."""


class _Loader(yaml.SafeLoader):
    """Reads YAML that is not nested deep, without merge keys, which multiply: ten lines make a billion entries."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"it is nested more than {_DEEPEST} deep", None)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, "merge keys (<<) are not taken", node.start_mark)


def parse_yaml(text: str, where: object) -> Any:
    """Reads YAML that holds plain values.

    Args:
        text: The YAML; its length is the caller's to limit.
        where: Names it in errors.

    Returns:
        The values, of which no two are one object.

    Raises:
        UserError: If it's not YAML, or not plain as `plain` says.
    """
    try:
        found = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, TypeError) as error:  # a date that is none, say
        raise UserError(f"{where} is not valid YAML: {' '.join(str(error).split())[:200]}") from error
    return plain(found, where)


def plain(node: object, where: object, most: int = _MOST_VALUES) -> Any:
    """Copies dictionaries, lists, texts, whole and finite numbers, true, false and null, and takes nothing else.

    Args:
        node: The outermost value; a part that stands in several places is copied, and counted, for each.
        where: Names it in errors.
        most: Values taken.

    Raises:
        UserError: If it holds something else or itself, too many values, or too long a text.
    """
    left = most

    def copy(value: object, path: str, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise UserError(f"{where} holds more than {most} values, its aliases written out: it is no file of ours")
        if depth > _DEEPEST:
            raise UserError(f"{where} is nested more than {_DEEPEST} deep: it is no file of ours")
        if isinstance(value, list):
            return [copy(item, path, depth + 1) for item in value]
        if not isinstance(value, Mapping):
            return _leaf(value, where, path)
        for key in value:
            if not isinstance(key, str) or len(key) > _LONGEST:
                raise UserError(f"{where} has the key {quote(key)}{path and f' in {path}'}: names are texts")
        return {key: copy(item, f"{path}.{key}" if path else key, depth + 1) for key, item in value.items()}

    return copy(node, "", 0)


def _leaf(value: object, where: object, path: str) -> object:
    """Checks a value that holds no others."""
    place = f"{where} has {quote(value)}{path and f' for {path[:200]}'}"
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{place}: numbers are finite")
    if type(value) is int and abs(value) >= _GREATEST:
        raise UserError(f"{place}: whole numbers are below {_GREATEST}")
    if isinstance(value, str) and len(value) > _LONGEST:
        raise UserError(f"{place}: texts have at most {_LONGEST} characters")
    if value is not None and not isinstance(value, str | int | float | bool):
        raise UserError(f"{place}: values are texts, numbers, true, false and null")
    return value
