"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The lines of a table: its heads, and the cells of each row."""
    first, *rest = ("| " + " | ".join(cells) + " |" for cells in (heads, *rows))
    return "\n".join([first, "|" + "---|" * len(heads), *rest])
