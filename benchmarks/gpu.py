"""Measure and train on a GPU, in slices of a few minutes.

Run: python benchmarks/gpu.py --data ten.safetensors --out gpu --budget 540 [--stages facts,targets] [--keep home]
         [--dry-run] [OPTION=VALUE ...]

Stages run with the most telling first: what the machine is, the tests that need a GPU, the figures that have
targets, compiled networks, training the plain and the modular agent, other layouts and batches, other trainings. Each
one's figures are written to OUT/stages/STAGE.json as soon as they are there, and a stage that OUT has already is left
out. When the budget [s] is used up a training stops with a checkpoint, and the same command goes on from there. It
needs no simulator. OPTION=VALUE are options of `multiravens.train`, of every training.

OUT/keep (or KEEP) holds what is to be carried home, at most eight files of less than 16 MiB: results.json with every
stage's figures, agents-N.zip with the agents in 16 bits and their curves, and state.zip with the training that is not
done. Copied back as OUT/keep, it is taken up where it was left.

`--dry-run` does all of it on a CPU with tiny sizes, to see that everything is there.
"""

import os
from time import monotonic

STARTED = monotonic()
"""Before torch is imported, which takes seconds of the budget."""
# Asks the driver's library how many devices there are: the CUDA of this process must not be begun before it forks.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gpu_keep as keep
import torch
from gpu_stages import SPLIT, Setting, Stage, problems_of, read_results, stages
from rich.console import Console
from rich.table import Table

from multiravens.data.storage.pack import Pack
from multiravens.errors import UserError, unknown
from multiravens.support.files import user_path, write_whole

FORK = multiprocessing.get_context("fork")
"""Each stage in a process of its own, so that none harms the next; torch is imported once."""
SPARE = 10.0
"""Of the budget, for stopping and for writing what is to be carried home [s]."""
GRACE = 20.0
"""Time beyond the budget that a stage may take before it is ended [s]."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the stages that fit the budget; `words` stand for the command line's."""
    options = _options(words)
    try:
        return run(options, STARTED if words is None else monotonic())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="pack of demonstrations at full resolution")
    parser.add_argument("--out", required=True, help="folder of results")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds that it may take")
    parser.add_argument("--stages", help="only these, as in facts,targets")
    parser.add_argument("--keep", help="folder of what is carried home (default: OUT/keep)")
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, with tiny sizes")
    parser.add_argument("words", nargs="*", metavar="OPTION=VALUE", help="options of every training")
    return parser.parse_args(words)


def run(options: argparse.Namespace, started: float) -> int:
    """Run what is missing and fits.

    Returns:
        0, or 2 where a stage failed.

    Raises:
        UserError: an option can't be met.
    """
    spare = 1.0 if options.dry_run else SPARE
    until = started + options.budget - spare
    chosen = _chosen(options.stages)
    data = _checked_data(options.data)
    if not options.dry_run and not in_child(torch.cuda.is_available, GRACE):
        raise UserError("there is no CUDA device here: give --dry-run, which needs none, or run it where there is one")
    out = user_path(options.out)
    home = user_path(options.keep) if options.keep else out / "keep"
    results, folder = out / "stages", out / "stages"
    folder.mkdir(parents=True, exist_ok=True)
    keep.restore(home, out, dict(stages()))
    failures: list[str] = []
    begun = 0
    for name, stage in chosen.items():
        found = read_results(results)
        if _is_there(found.get(name), named=options.stages is not None):
            print(f"{name}: there already{', as failed' * ('failed' in found[name])}")
            continue
        needs = 1.0 if options.dry_run else stage.needs
        if until - monotonic() < needs:
            if not begun:
                least = needs + spare + monotonic() - started
                raise UserError(f"--budget {options.budget:g} is too small for stage {name}: give {least:.0f} or more")
            print(f"{name}: {needs:.0f} s would not fit any more; call again to go on")
            break
        begun, at = begun + 1, monotonic()
        setting = Setting(data, out, until, options.dry_run, options.words, found)
        try:
            figures = in_child(partial(carry_out, stage, setting), until + GRACE - monotonic())
        except UserError as error:
            failures.append(name)
            print(f"error: {name}: {error}", file=sys.stderr)
            figures = {"failed": str(error)}
        figures["took_seconds"] = monotonic() - at
        write_whole(folder / f"{name}.json", json.dumps(figures, indent=1).encode())
        print(f"{name}: {keep.in_short(figures)}; {figures['took_seconds']:.0f} s", flush=True)
        _collect(out, home, failures)
    _collect(out, home, failures)
    Console(width=120).print(table(read_results(results), options.dry_run))
    return 2 if failures else 0


def _is_there(figures: Mapping[str, Any] | None, named: bool) -> bool:
    """Tell whether a stage is not to be run: one that failed is, if it is named."""
    if figures is None or "left_out" in figures or not figures.get("done", True):
        return False
    return not (named and "failed" in figures)


def _collect(out: Path, home: Path, failures: list[str]) -> None:
    """Write what is carried home; what does not fit does not end what is still to be measured."""
    try:
        keep.collect(out, home)
    except UserError as error:
        failures.append("keep")
        print(f"error: {error}", file=sys.stderr)


def carry_out(stage: Stage, setting: Setting) -> dict[str, Any]:
    """A stage's figures."""
    if setting.dry:
        torch.set_num_threads(1)  # so little work is not worth sharing out
    return stage.run(setting)


def _chosen(words: str | None) -> dict[str, Stage]:
    every, names = dict(stages()), None if words is None else words.split(",")
    for name in names or ():
        if name not in every:
            raise unknown("stage", name, every)
    return {name: stage for name, stage in every.items() if names is None or name in names}


def _checked_data(words: str) -> Path:
    """The pack, which must have pictures at full resolution of demonstrations to train on."""
    path = user_path(words)
    pack, names = Pack.open(path), problems_of(path)
    if not names:
        raise UserError(f"{path} holds no demonstrations of the split {SPLIT}: pack them, too")
    first = f"{names[0]}/{SPLIT}"
    pack.read(first, pack.seeds[first][0], "full")
    return path


def in_child(action: Callable[[], Any], seconds: float) -> Any:
    """Run an action in a process of its own and return its result, in plain values.

    Raises:
        UserError: it fails, dies or takes longer than `seconds`; a mistake of the user's is told as it is.
    """
    here, there = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_act, args=(action, there))
    child.start()
    there.close()
    try:
        if not here.poll(max(seconds, 1.0)):
            raise UserError(f"it was ended after {seconds:.0f} s: give a larger --budget")
        told, value = json.loads(here.recv_bytes())
    except EOFError:
        child.join()
        raise UserError(f"its process died with status {child.exitcode}") from None
    finally:
        if child.is_alive():
            child.join(2.0)
            child.kill()
        child.join()
    if told != "value":
        raise UserError(value)
    return value


def _act(action: Callable[[], Any], there: Any) -> None:
    try:
        answer: tuple[str, Any] = ("value", action())
    except UserError as error:
        answer = ("error", str(error))
    except Exception as error:  # a stage that fails must not end the others: it is told, and the exit code says so
        sys.excepthook(*sys.exc_info())
        answer = ("error", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    there.send_bytes(json.dumps(answer).encode())
    sys.stdout.flush()
    os._exit(0)


def table(results: Mapping[str, Any], dry: bool) -> Table:
    """Make the table of the figures that were reached, beside the targets."""
    title = "A dry run: tiny sizes on a CPU" if dry else "On one GPU, full resolution, 16 bits"
    shown = Table("figure", "reached", "target", title=title)
    rows = {**results.get("targets", {}).get("rows", {})}
    for name in ("plain", "modular"):
        for mode in ("inductor", "reduce-overhead"):
            if found := results.get(f"{name}-{mode}", {}).get("rows"):
                rows[f"{name}, {mode}"] = found["variant"]
    plain = rows.get("plain", {}).get("samples_per_second")
    for name, row in rows.items():
        speed = row["samples_per_second"]
        share = f", {row['share_of_floor']:.1%} of the floor" if "share_of_floor" in row else ""
        target = "2000 samples/s, stretch 8000; 20 % of the floor" if name.startswith("plain") else ""
        against = f", {speed / plain:.2f}x plain" if plain else ""
        target = "0.7x plain" if name.startswith("modular") else target
        shown.add_row(f"training, {name}", f"{speed:.1f} samples/s{share}{against}", target)
    for name, row in results.get("targets", {}).get("actions", {}).items():
        shown.add_row(f"one action, {name}", f"{1000 * row['seconds_per_action']:.1f} ms", "10 ms")
    for name, figures in results.items():
        if "samples" in figures:
            taken = f"step {figures['steps']} of {figures['of']}"
            told = f"{figures['samples']} samples in {figures['seconds']:.0f} s, {taken}"
            shown.add_row(name, told, "0.95 return after 300 s" if name == "train-plain-100" else "")
    return shown


if __name__ == "__main__":
    sys.exit(main())
