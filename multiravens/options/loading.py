"""Configurations that hydra composed, kept: each takes a third of a second, and a table has hundreds of runs."""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from multiravens.errors import UserError

_MOST = 64
_kept: OrderedDict[tuple[object, ...], DictConfig] = OrderedDict()


def load(config_name: str, selections: Sequence[str], roots: Sequence[Path]) -> DictConfig:
    """Let hydra compose a configuration of a choice of files, unless it has done so since they were changed.

    Args:
        config_name: a file at the top of the folders, without its suffix.
        selections: overrides that choose files.
        roots: our folder of configurations, then the user's.

    Returns:
        A configuration of the caller's own, interpolations as they are written.

    Raises:
        UserError: what hydra raises, in one line.
    """
    key = (config_name, *selections, *_states(roots))
    if key not in _kept:
        _kept[key] = _compose(config_name, selections, roots)
        while len(_kept) > _MOST:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return copy.deepcopy(_kept[key])


def with_values(config: DictConfig, overrides: Sequence[Override]) -> DictConfig:
    """A configuration with values set as hydra sets them: a mapping is merged, `+` adds.

    Raises:
        UserError: a value that can't be set there, or is there already where one is added.
    """
    changed = copy.deepcopy(config)
    for override in overrides:
        key, value, adds = override.key_or_group, override.value(), override.is_add()
        try:
            there = adds and OmegaConf.select(changed, key, throw_on_missing=False) is not None
            if there and not isinstance(value, dict | list):
                raise UserError(f"cannot compose the configuration: there is a {key} already, write {key}=VALUE")
            OmegaConf.update(changed, key, value, merge=True, force_add=adds or override.is_force_add())
        except (OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
            raise UserError(f"cannot compose the configuration: {first_sentence(error)}") from error
    return changed


def first_sentence(error: BaseException) -> str:
    """Take the first paragraph of a library's message, on one line."""
    return " ".join((str(error).strip() or type(error).__name__).split("\n\n")[0].split())[:300]


def _states(roots: Sequence[Path]) -> Iterator[tuple[str, int, int]]:
    """Path, time of the last change [ns] and size [bytes] of every file of the groups and above them."""
    for root in roots:
        yield str(root), 0, 0
        for path in sorted([*root.glob("*.yaml"), *root.glob("*/*.yaml")]):
            try:
                state = path.stat()
            except OSError:  # a link to nothing; whoever reads it is told
                yield str(path), 0, 0
            else:
                yield str(path), state.st_mtime_ns, state.st_size


def _compose(config_name: str, selections: Sequence[str], roots: Sequence[Path]) -> DictConfig:
    folders = (str(root).replace("\\", "\\\\").replace("'", "\\'") for root in roots[1:])
    search = "hydra.searchpath=[" + ",".join(f"'file://{folder}'" for folder in folders) + "]"
    try:
        with _own_hydra():
            return hydra_compose(config_name, overrides=[*selections, search])
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{mark.name}:{mark.line + 1}" if mark else "a YAML file"
        raise UserError(f"{place} is not valid YAML: {error.problem}") from error
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"cannot compose the configuration: {first_sentence(error)}") from error


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Give hydra a fresh global state and restore the caller's, who may be inside a hydra application."""
    saved = {kind: Singleton._instances.pop(kind, None) for kind in (GlobalHydra, VersionBase)}
    try:
        with initialize_config_module("multiravens.configs", job_name="multiravens", version_base="1.3"):
            yield
    finally:
        for kind, instance in saved.items():
            Singleton._instances.pop(kind, None)
            if instance is not None:
                Singleton._instances[kind] = instance
