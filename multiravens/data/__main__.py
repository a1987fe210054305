"""`multiravens data inspect PATH` and `multiravens data verify PATH`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from multiravens import cli
from multiravens.data.inspection import CONTACT_SHEET, summarize, summarize_episode, write_contact_sheet
from multiravens.data.manifest import rebuild_manifest, verify
from multiravens.data.store import find_stores
from multiravens.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: Arguments; the process's own if None.

    Returns:
        The exit status: 1 if `verify` finds a fault.
    """

    def run() -> int:
        options = _parser().parse_args(argv)
        return int(options.command(options))

    return cli.guard(run)


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="multiravens data", description="Inspects and verifies demonstrations.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    inspect = commands.add_parser("inspect", help="say what data sets hold and draw a contact sheet of each")
    inspect.set_defaults(command=_inspect)
    inspect.add_argument("path", type=Path, help="folder of a split, a problem or all data, or one episode's file")
    inspect.add_argument("--out", type=Path, help=f"PNG to draw, for one data set (default: its {CONTACT_SHEET})")
    check = commands.add_parser("verify", help="check that every episode opens and is what the manifest says")
    check.set_defaults(command=_verify)
    check.add_argument("path", type=Path, help="folder of a split, a problem or all data")
    check.add_argument("--rebuild", action="store_true", help="rewrite the manifest from the files as they are")
    return parser


def _inspect(options: argparse.Namespace) -> int:
    if options.path.is_file():
        print("\n".join(summarize_episode(options.path)))
        _draw([options.path], options.out or options.path.with_suffix(".png"))
        return 0
    stores = find_stores(options.path)
    if options.out and len(stores) > 1:
        raise UserError(f"--out names one picture, and {options.path} holds {len(stores)} data sets: name one of them")
    for store in stores:
        print("\n".join(summarize(store)))
        paths = [store.path(seed) for seed in store.kept()]
        if paths:
            _draw(paths, options.out or store.folder / CONTACT_SHEET)
    return 0


def _draw(paths: Sequence[Path], out: Path) -> None:
    try:
        write_contact_sheet(paths, out)
    except UserError as error:
        raise UserError(f"{error}, or name the picture with --out FILE.png") from error
    print(f"  picture   {out}")


def _verify(options: argparse.Namespace) -> int:
    faults = []
    for store in find_stores(options.path):
        if options.rebuild:
            with store.writing():
                print(f"{store.folder}: manifest rewritten with {rebuild_manifest(store)} episodes")
        found = verify(store)
        print("\n".join(found) or f"{store.folder}: all {len(store.kept())} episodes are whole and as in the manifest")
        faults += found
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
