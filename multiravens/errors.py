"""The error class for mistakes of a user, and messages that name the valid alternatives."""

from collections.abc import Iterable
from difflib import SequenceMatcher

_SHOWN = 16  # the fifteen named problems and one more still fit on one readable line
_CLIP = 80  # characters of a user's text that are quoted back; longer text is not a name


class UserError(Exception):
    """A mistake of the user's, told in one line: the value, the limit, the remedy.

    Commands print it as `error: <line>` on stderr and exit with status 2.
    """


def quote(value: object) -> str:
    """Quotes a value for a message, clipped so that the message stays one readable line."""
    text = repr(value[:_CLIP] + "..." if isinstance(value, str) and len(value) > _CLIP else value)
    return text if len(text) <= 2 * _CLIP else f"{text[: 2 * _CLIP]}..."


def nearest(name: str, valid: Iterable[str]) -> list[str]:
    """Sorts valid names by likeness to a mistyped one.

    Args:
        name: What the user wrote.
        valid: The names that would have been accepted.

    Returns:
        Every valid name once, the nearest first; equally near names in alphabetical order.
    """
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(name[:_CLIP].lower())

    def distance(candidate: str) -> tuple[float, str]:
        matcher.set_seq1(candidate.lower())
        return -matcher.ratio(), candidate

    return sorted(set(valid), key=distance)


def unknown(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """Makes the error for a name that does not exist.

    Args:
        kind: What the name should have been, such as `problem`.
        name: What the user wrote.
        valid: The names that would have been accepted.

    Returns:
        The error, which lists the valid names with the nearest first.
    """
    names = nearest(name, valid)
    if not names:
        return UserError(f"unknown {kind} {quote(name)}: there is none to choose from")
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return UserError(f"unknown {kind} {quote(name)}: choose from {', '.join(names[:_SHOWN])}{more}")
