"""`multiravens data inspect PATH`, `multiravens data verify PATH` and `multiravens data pack PATH --out FILE`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from multiravens import cli
from multiravens.data.storage.episode import RESOLUTIONS
from multiravens.data.storage.inspection import (
    CONTACT_SHEET,
    summarize,
    summarize_episode,
    summarize_pack,
    write_contact_sheet,
)
from multiravens.data.storage.manifest import rebuild_manifest, verify
from multiravens.data.storage.pack import Pack, is_pack, write_pack
from multiravens.data.storage.store import Store, find_stores
from multiravens.errors import UserError, unknown
from multiravens.options.paths import user_path
from multiravens.options.problems import parse_problems
from multiravens.support.progress import show_progress
from multiravens.support.shards import parse_size


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
    parser = cli.Parser(prog="multiravens data", description="Inspects, verifies and packs demonstrations.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    inspect = commands.add_parser("inspect", help="say what data sets hold and draw a contact sheet of each")
    inspect.set_defaults(command=_inspect)
    inspect.add_argument("path", type=user_path, help="folder of a split, a problem or all data, or one episode's file")
    inspect.add_argument("--out", type=user_path, help=f"PNG to draw, for one data set (default: its {CONTACT_SHEET})")
    check = commands.add_parser("verify", help="check that every episode opens and is what the manifest says")
    check.set_defaults(command=_verify)
    check.add_argument("path", type=user_path, help="folder of a split, a problem or all data")
    check.add_argument("--rebuild", action="store_true", help="rewrite the manifest from the files as they are")
    pack = commands.add_parser("pack", help="make one file of many episodes, to train from on another machine")
    pack.set_defaults(command=_pack)
    pack.add_argument("path", type=user_path, help="folder of a split, a problem or all data")
    pack.add_argument("--out", type=user_path, default=Path("demos.safetensors"), help="file to write")
    pack.add_argument("--split", help="only data sets of this split (default: of all)")
    pack.add_argument("--problems", nargs="+", help="only data sets of these, all or ten (default: of all there are)")
    pack.add_argument("--demos", type=int, help="episodes of each data set, the first by seed (default: all)")
    pack.add_argument("--resolution", default="full", choices=RESOLUTIONS, help="of the pictures (default: full)")
    pack.add_argument("--shard-size", help="size of each file at most, such as 16MiB (default: one file)")
    pack.add_argument("--workers", type=int, default=2, help="threads (default: 2)")
    return parser


def _inspect(options: argparse.Namespace) -> int:
    if is_pack(options.path):
        print("\n".join(summarize_pack(Pack.open(options.path))))
        return 0
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
    if is_pack(options.path):
        pack = Pack.open(options.path)
        for key in pack.shards:
            name, _, seed = key.rpartition("/")
            pack.read(name, int(seed))
        print(f"{options.path}: all {len(pack.shards)} episodes are whole")
        return 0
    faults = []
    for store in find_stores(options.path):
        if options.rebuild:
            with store.writing():
                print(f"{store.folder}: manifest rewritten with {rebuild_manifest(store)} episodes")
        found = verify(store)
        print("\n".join(found) or f"{store.folder}: all {len(store.kept())} episodes are whole and as in the manifest")
        faults += found
    return 1 if faults else 0


def _pack(options: argparse.Namespace) -> int:
    size = parse_size(options.shard_size, "--shard-size") if options.shard_size else None
    for name in ("demos", "workers"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise UserError(f"--{name} {value}: give 1 or more")
    stores = find_stores(options.path)
    if options.split:
        stores = _of(stores, "split", [options.split], 1)
    if options.problems:
        problems = parse_problems(options.problems[0] if len(options.problems) == 1 else options.problems)
        stores = _of(stores, "problem", problems, 0)
    kept = [len(store.kept()) for store in stores]
    with show_progress(str(options.out), sum(min(each, options.demos or each) for each in kept), "episodes") as update:
        paths = write_pack(
            options.out,
            stores,
            demos=options.demos,
            resolution=options.resolution,
            shard_size=size,
            workers=options.workers,
            update=update,
        )
    for path in paths:
        print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB")
    return 0


def _of(stores: list[Store], kind: str, wanted: list[str], part: int) -> list[Store]:
    """Those data sets of which a part of the name is wanted."""
    parts = [store.name.split("/")[part] for store in stores]
    for name in wanted:
        if name not in parts:
            raise unknown(kind, name, parts)
    return [store for store, name in zip(stores, parts, strict=True) if name in wanted]


if __name__ == "__main__":
    sys.exit(main())
