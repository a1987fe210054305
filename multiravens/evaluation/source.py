"""Digest of the source code that measured figures come from: edited code measures anew."""

import ast
import hashlib
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path

from multiravens.options.defaults import choices, defaults_of
from multiravens.options.search import CONFIGS, groups

_ROLLOUT = "multiravens.evaluation.measure"
"""Plays the episodes; what it plays, and with whom, configurations name by `_target_`."""
_TEACHING = ("train", "loss", "augmentation")
"""Groups of what teaches an agent and never acts; an agent's objective doesn't either."""
_OURS = "multiravens"
_ASSETS = Path(__file__).parents[1] / "assets" / "ur5e"
"""Read by the simulator of the arm."""


@cache
def package_source() -> str:
    """Hash the files of the package that act in a rollout, of whatever problem and agent.

    They are what measures, what our configurations name as `_target_` for it, and all that these import. Files are
    looked up and read, none is imported. Values in configurations, and libraries, are no part of it.

    Returns:
        SHA-256 in hexadecimal digits; equal files give equal digests, wherever they are installed.
    """
    ours = [CONFIGS]
    built = [defaults_of("evaluate"), *(choices(group, ours) for group in groups(ours) if group not in _TEACHING)]
    return _digest([_ROLLOUT, *_modules(built)], sorted(_ASSETS.glob("*")))


def users_source(*configurations: object) -> str | None:
    """Hash the files of a user's own classes that plain values name as `_target_`, and of their packages' imports.

    Returns:
        As `package_source`; None if there is no such class but those of this package and of installed ones.
    """
    modules = [name for name in _modules(list(configurations)) if _top(name) != _OURS and not _is_installed(name)]
    return _digest(modules) if modules else None


def _digest(modules: Sequence[str], others: Sequence[Path] = ()) -> str:
    """Hash modules and what they import of their own top-level packages, and other files."""
    packages = set(map(_top, modules))
    known: dict[str, Path] = {}
    left = list(modules)
    while left:
        name = left.pop()
        path = _file(name)
        if path is not None and name not in known:
            known[name] = path
            left += [each for each in _imports(name, path) if _top(each) in packages]
    digest = hashlib.sha256()
    for label, path in [*sorted(known.items()), *((each.name, each) for each in others)]:
        digest.update(f"{label}\0{_hash(path)}\0".encode())
    return digest.hexdigest()


def _is_installed(module: str) -> bool:
    libraries = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    path = _file(module)
    return path is not None and any(path.is_relative_to(folder) for folder in libraries)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _modules(node: object) -> Iterator[str]:
    """Yield the module of every `_target_` in plain values, but for an objective's."""
    if isinstance(node, Mapping):
        parts = str(node.get("_target_", "")).split(".")
        names = (".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1))
        yield from [name for name in names if _file(name)][:1]
        node = [value for key, value in node.items() if key != "objective"]
    if isinstance(node, list):
        for item in node:
            yield from _modules(item)


@cache
def _file(module: str) -> Path | None:
    """The source file of a module; None if there is no such module, or it has none."""
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or not rest:
        return Path(spec.origin) if spec and spec.has_location and spec.origin else None
    for folder in spec.submodule_search_locations or ():
        path = Path(folder).joinpath(*rest)
        for candidate in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


@cache
def _imports(module: str, path: Path) -> list[str]:
    """Names of what a file imports, anywhere in it, and of the packages that it is in."""
    try:
        return list(_imported(module, path, ast.parse(path.read_bytes())))
    except (ImportError, SyntaxError, ValueError):
        return []  # no Python source, or a relative import beyond its package: whoever imports it is told


def _imported(module: str, path: Path, tree: ast.Module) -> Iterator[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    if "." in module:
        yield module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else str(node.module)
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


@cache
def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
