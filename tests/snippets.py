"""The documents' snippets, as a user would copy them into files."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def snippet(document: str, name: str) -> str:
    """Content that a document gives for a file."""
    text = (ROOT / document).read_text()
    at = re.search(rf"`{re.escape(name)}`.*:\n", text)
    assert at, f"{document} has no file {name}"
    found = re.search(r"```(?:python|yaml)\n(.*?)```", text[at.end() :], re.DOTALL)
    assert found
    return found[1]


def write_snippets(document: str, names: list[str], folder: Path) -> None:
    """Write the files of these names into a folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(snippet(document, name))
