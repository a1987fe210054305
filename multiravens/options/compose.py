"""Composition of YAML configurations: every mistake in an override becomes one `UserError`.

Hydra composes; this file adds what it leaves out: problem names in any order or of any known modules, values of the
type their default has, and constructors' parameters checked before anything is built.
"""

import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from multiravens.errors import UserError, quote, unknown
from multiravens.options.loading import first_sentence, load, with_values
from multiravens.options.problems import composition
from multiravens.options.search import groups, options, search_path
from multiravens.options.types import UNSET, check_types, option_names, plain_value

_LOCK = threading.RLock()
"""Held while hydra composes: its state, and its parser's, are the process's own and no thread's."""

_LONGEST_OVERRIDE = 10_000  # characters; hydra's parser takes seconds beyond
_EXAMPLE = "write key=value, and quote special characters, as in out='a b.mp4'"


def compose(
    config_name: str = "environment",
    overrides: Sequence[str] = (),
    config_dirs: str | Path | Iterable[str | Path] | None = None,
    values: Mapping[str, Any] | None = None,
) -> DictConfig:
    """Composes one configuration from the YAML files and a user's overrides.

    Args:
        config_name: A file at the top of `configs/`, without its suffix.
        overrides: Hydra overrides, such as `problem=placing-chaining` or `problem.modules.placing.parts=5`.
        config_dirs: A folder, or more, laid out like `configs/` and searched after it; None for those of `look_in`.
        values: Options as Python has them, set after the overrides: a name for a group, otherwise numbers, texts,
            paths, arrays, None, and lists and dictionaries of them.

    Returns:
        The configuration with every interpolation resolved. A hydra application that is running keeps its state.

    Raises:
        UserError: An override, a name, a type or a YAML file is wrong.
    """
    with _LOCK:
        config = _composed(config_name, [*overrides, *_choices(values or {}, config_dirs)], config_dirs)
        for key, value in (values or {}).items():
            if key not in groups(search_path(config_dirs)) or isinstance(value, Mapping):
                _set(config, key, plain_value(value, key))
        return config


def _composed(
    config_name: str, overrides: Sequence[str], config_dirs: str | Path | Iterable[str | Path] | None
) -> DictConfig:
    roots = search_path(config_dirs)
    if config_name not in options(roots, ""):
        raise unknown("configuration", config_name, options(roots, ""))
    chosen: dict[str, list[str]] = {}
    values, plainly = [], []
    plain = _plain_values(config_name, roots)
    for override in [_parsed(text) for text in overrides]:
        if override.key_or_group in plain:
            plainly.append(override)
        elif _is_selection(override, roots):
            optional = {override.key_or_group: None} in _defaults(config_name, roots)
            chosen[override.get_key_element()] = _selected(override, roots, optional)
        else:
            values.append(override)
    for default in (each["problem"] for each in _defaults(config_name, roots) if "problem" in each):
        chosen = {
            "problem": _with_modules(chosen.pop("problem", []) or composition(default, roots), chosen),
            **chosen,
        }
    selections = [text for texts in chosen.values() for text in texts]
    default = load(config_name, selections, roots)
    names = {each.key_or_group: _as_its_default(each, default) for each in plainly}
    check_types(OmegaConf.to_container(default), names, "")
    default.merge_with(names)
    if not values:
        return _resolved(default)
    known = OmegaConf.to_container(default)
    texts = [_fitted(override, known) for override in values]
    config = _resolved(with_values(default, [_parsed(text) for text in texts]))
    check_types(known, OmegaConf.to_container(config), "")
    return config


def changed(settings: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Changes an environment that was composed before.

    Args:
        settings: Its `problem`, `camera`, `motion` and, where it names one, `primitive`, resolved.
        overrides: `camera=`, `motion=`, `primitive=` and `domain=` choose anew; all others set a value that there is.

    Returns:
        The changed settings.

    Raises:
        UserError: An override, a name or a type is wrong.
    """
    with _LOCK:
        return _changed(settings, overrides)


def _changed(settings: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    out = OmegaConf.create(dict(settings))
    values = []
    for text in overrides:
        override = _parsed(text)
        key = override.key_or_group
        if not _is_selection(override, search_path(None)):
            values.append(override)
        elif key not in ("camera", "motion", "primitive", "domain"):
            remedy = "choose camera, motion, primitive or domain, or set values"
            raise UserError(f"{quote(text)}: of a given environment, {remedy}")
        else:
            path = "camera.domain" if key == "domain" else key
            OmegaConf.update(out, path, OmegaConf.select(compose("environment", [text]), path), merge=False)
    for override in values:
        _set(out, override.key_or_group, override.value())
    container = OmegaConf.to_container(out)
    assert isinstance(container, dict)
    return {str(name): value for name, value in container.items()}


def _choices(values: Mapping[str, Any], config_dirs: str | Path | Iterable[str | Path] | None) -> list[str]:
    """Returns the overrides that choose groups' files, out of values from Python."""
    words, roots = [], search_path(config_dirs)
    for key, value in values.items():
        if key in groups(roots) and not isinstance(value, Mapping):
            if not (value is None or isinstance(value, str)):
                raise UserError(f"{key}={quote(value)}: give one name, out of {', '.join(options(roots, key))}")
            words.append(f"{key}={'null' if value is None else value}")
    return words


def _set(config: DictConfig, key: str, value: object) -> None:
    """Sets an option that there is to a plain value of its type; a dictionary sets several."""
    known = OmegaConf.to_container(config)
    default: object = known
    for step in key.split("."):
        if not isinstance(default, Mapping) or step not in default or step == "_target_":
            raise unknown("option", key, option_names(known))
        default = default[step]
    if isinstance(default, Mapping) and default and isinstance(value, Mapping):
        for name, item in value.items():
            _set(config, f"{key}.{name}", item)
        return
    check_types(default, value, key)
    OmegaConf.update(config, key, value, merge=False)


def _parsed(text: str) -> Override:
    """Parses one override and refuses those without a meaning here."""
    if len(text) > _LONGEST_OVERRIDE:
        raise UserError(f"{quote(text)} is {len(text)} characters long, at most {_LONGEST_OVERRIDE} are accepted")
    override = _read(text) or _read(_as_text(text))
    if override is None or not override.key_or_group:
        raise UserError(f"cannot read {quote(text)}: {_EXAMPLE}")
    key = override.key_or_group
    if override.is_delete():
        raise UserError(f"{quote(text)}: nothing can be removed; choose another option or value instead")
    if override.is_sweep_override():
        raise UserError(f"{quote(text)} names several values: give one, or a list as in key=[1,2]")
    if re.split(r"[./]", key)[0] == "hydra":
        raise UserError(f"{quote(text)}: hydra's own settings have no effect here; --config-dir DIR adds a folder")
    return override


def _read(text: str) -> Override | None:
    """Lets hydra parse an override; None if it cannot."""
    try:
        override = OverridesParser.create().parse_override(text)
        override.value()
    except (HydraException, ValueError, OverflowError, RecursionError):
        return None
    return override


def _as_text(text: str) -> str:
    """Quotes a plain value, such as a path with a space or an umlaut, which hydra's grammar only takes in quotes."""
    key, equals, value = text.partition("=")
    return f"{key}{equals}'{value}'" if value and not set(value) & set("[]{}'\"\\$\n") else ""


def _plain_values(config_name: str, roots: Sequence[Path]) -> set[str]:
    """Names that a configuration gives a value itself, and that hydra takes for groups: a folder is called alike."""
    folders = {folder.name for root in roots for folder in root.iterdir() if folder.is_dir()}
    return set(_content(config_name, roots)) & folders


def _content(config_name: str, roots: Sequence[Path]) -> dict[str, Any]:
    """Reads a configuration's file as it is; nothing where it cannot be read, which is told where it is composed."""
    path = next((root / f"{config_name}.yaml" for root in roots if (root / f"{config_name}.yaml").exists()), None)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) if path else None
    except (OSError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _as_its_default(override: Override, default: DictConfig) -> Any:
    """The value of such a name; a number for a text becomes that text."""
    value, key = override.value(), override.key_or_group
    return (override.input_line or "").partition("=")[2].strip() if _is_name(value, key, default[key]) else value


def _is_selection(override: Override, roots: Sequence[Path]) -> bool:
    """Tell whether an override chooses a file of a group rather than sets a value."""
    key = override.key_or_group
    if override.package is None and "/" not in key and key not in groups(roots):
        return False
    if key not in groups(roots):
        raise unknown("group", key, groups(roots))
    return True


def _defaults(config_name: str, roots: Sequence[Path]) -> list[Any]:
    """Lists the groups' choices that a configuration, and those that it extends, makes unless others are made."""
    items = _content(config_name, roots).get("defaults", [])
    named = [item for item in (items if isinstance(items, list) else []) if item != "_self_"]
    return [each for item in named for each in (_defaults(item, roots) if isinstance(item, str) else [item])]


def _with_modules(texts: Sequence[str], chosen: dict[str, list[str]]) -> list[str]:
    """Takes the modules that were chosen for a composed problem out of the choices, into its overrides."""
    others = {f"+{given[0].partition('=')[0]}": key for key, given in chosen.items() if given}
    return [f"+{chosen.pop(others[key])[0]}" if (key := text.partition("=")[0]) in others else text for text in texts]


def _selected(override: Override, roots: Sequence[Path], optional: bool) -> list[str]:
    """Checks the choice of a group's file and returns the overrides that make it."""
    group, choice = override.key_or_group, override.value()
    text = override.input_line or group
    if choice is None and optional:
        return []
    if not isinstance(choice, str):
        raise UserError(f"{quote(text)}: give one name, out of {', '.join(options(roots, group))}")
    if override.is_add() and (override.package or "").split(".")[0] not in groups(roots) or override.package == "":
        raise UserError(f"{quote(text)}: only part of a group can be added, as in +module@problem.modules.KEY=NAME")
    if group == "problem" and override.package is None and not override.is_add():
        return composition(choice, roots)
    if choice not in options(roots, group):
        raise unknown(group, choice, options(roots, group))
    return [text]


def _resolved(config: DictConfig) -> DictConfig:
    """Resolves interpolations and insists that nothing is missing."""
    try:
        OmegaConf.resolve(config)
        missing = sorted(OmegaConf.missing_keys(config))
    except (OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"cannot resolve the configuration: {first_sentence(error)}") from error
    if missing:
        raise UserError(f"{missing[0]} has no value: give it as {missing[0]}=VALUE")
    return config


def _fitted(override: Override, known: object) -> str:
    """Checks that a value's key exists and returns the override; a number for a text becomes that text."""
    text, key = override.input_line or "", override.key_or_group
    steps, node = key.split("."), known
    for depth, step in enumerate(steps):
        last = depth == len(steps) - 1
        if isinstance(node, Mapping) and step in node:
            node = node[step]
        elif isinstance(node, list):
            raise UserError(f"{quote(text)}: {'.'.join(steps[:depth])} is a list, give it whole as in key=[1,2]")
        elif isinstance(node, Mapping) and override.is_add() and last and depth > 0:
            return text
        else:
            raise unknown("option", key, option_names(known))
    if _is_name(override.value(), key, node):
        name, _, raw = text.partition("=")
        return f"{name}='{raw.strip()}'"
    return text


def _is_name(value: object, key: str, default: object) -> bool:
    """Tell whether a number is given where only texts are taken: a folder may be called 2024."""
    examples = UNSET.get(key, ()) if default is None else (default,)
    number = isinstance(value, int | float) and not (default is None and isinstance(value, bool))
    return number and bool(examples) and all(isinstance(example, str) for example in examples)
