"""Paths as users write them."""

from pathlib import Path

from multiravens.errors import UserError


def user_path(path: str | Path) -> Path:
    """Resolves the `~` of a path that a user gave.

    Raises:
        UserError: If it names a user that there is not.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: there is no such user; write ./~NAME for a name that begins so") from error
