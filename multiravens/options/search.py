"""Folders of YAML files, ours and the user's: their groups, and the choices in each."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from multiravens.errors import UserError, quote
from multiravens.options.paths import user_path
from multiravens.registration import PROBLEMS

CONFIGS = Path(__file__).parents[1] / "configs"
BASE_PROBLEM = "composed"  # configs/problem/composed.yaml, which every other problem extends
_of_the_command: list[Path] = []


def look_in(config_dirs: Sequence[str | Path]) -> None:
    """Has `compose` look in the user's folders too wherever it is not told which: a command's --config-dir.

    Raises:
        UserError: One of them is not a folder.
    """
    _of_the_command[:] = search_path(config_dirs)[1:]


def search_path(config_dirs: str | Path | Iterable[str | Path] | None = ()) -> list[Path]:
    """Lists the folders that hold configurations: the project's own, then the user's.

    Args:
        config_dirs: The user's folder or folders; None for those of `look_in`.

    Returns:
        Absolute folders.

    Raises:
        UserError: One of them is not a folder.
    """
    if config_dirs is None:
        return [CONFIGS, *_of_the_command]
    named = [config_dirs] if isinstance(config_dirs, str | Path) else config_dirs
    folders = [user_path(folder).absolute() for folder in named]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--config-dir {quote(str(folder))}: there is no such folder")
    return [CONFIGS, *folders]


def groups(roots: Iterable[Path]) -> list[str]:
    """Names the groups: the sub-folders that hold YAML files, in alphabetical order."""
    return sorted({path.parent.name for root in roots for path in root.glob("*/*.yaml")})


def options(roots: Iterable[Path], group: str) -> list[str]:
    """Names the choices of one group (the top-level files for an empty name), in alphabetical order.

    They are its files; of problems, those of our suites too, which have none.
    """
    names = {path.stem for root in roots for path in (root / group).glob("*.yaml")}
    return sorted(names - {BASE_PROBLEM} | set(PROBLEMS) if group == "problem" else names)


def module_names(roots: Iterable[Path]) -> list[str]:
    """Names the task modules that a problem's name can be made of, in alphabetical order."""
    return [name for name in options(roots, "module") if name.isidentifier()]
