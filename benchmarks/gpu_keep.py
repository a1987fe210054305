"""Files that `gpu.py` has carried home from a machine that is lent for minutes: few files, each small."""

import io
import json
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from gpu_stages import AGENTS, RUNS, read_results

from multiravens.errors import UserError, quote
from multiravens.support.files import write_whole
from multiravens.support.runs import CONFIG, METRICS, STATE, WEIGHTS

LARGEST = 16 * 2**20
"""Of a file [bytes]."""
MOST = 8
"""Files."""
RESULTS, UNFINISHED = "results.json", "state.zip"


def collect(out: Path, home: Path) -> None:
    """Write what a folder of results holds into the few files that are carried home.

    Raises:
        UserError: it does not fit.
    """
    results = read_results(out / "stages")
    files = {RESULTS: json.dumps(results, indent=1).encode()}
    for index, agents in enumerate(_batches(out / AGENTS)):
        files[f"agents-{index}.zip"] = _zipped(out / AGENTS, agents)
    going_on = [name.removeprefix("train-") for name, each in results.items() if each.get("done") is False]
    if going_on:
        run = max((out / RUNS / name for name in going_on), key=_when)
        files[UNFINISHED] = _zipped(out / RUNS, [run / name for name in (CONFIG, WEIGHTS, STATE, METRICS)])
    for name, content in files.items():
        if len(content) >= LARGEST:
            raise UserError(f"{name} takes {len(content) / 2**20:.1f} MiB, and less than 16 is carried home")
    if len(files) > MOST:
        raise UserError(f"{len(files)} files are to be carried home, and at most {MOST} can be: name fewer stages")
    home.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_whole(home / name, content)
    if not going_on:
        (home / UNFINISHED).unlink(missing_ok=True)


def restore(home: Path, out: Path, known: Collection[str]) -> None:
    """Take up what was carried home, where the folder of results lacks it.

    Args:
        home: the folder that was carried home.
        out: the folder of results.
        known: names of stages.

    Raises:
        UserError: a file is damaged, or not ours.
    """
    if (home / RESULTS).exists():
        try:
            results = json.loads((home / RESULTS).read_text())
            assert isinstance(results, dict) and all(isinstance(each, dict) for each in results.values())
        except (OSError, ValueError, RecursionError, AssertionError) as error:
            raise UserError(f"{home / RESULTS} is damaged: copy it again, or remove it") from error
        for name, figures in results.items():
            path = out / "stages" / f"{name}.json"
            if name not in known:
                raise UserError(f"{home / RESULTS} holds {quote(name)}, which is no stage: remove it")
            if not path.exists():
                write_whole(path, json.dumps(figures, indent=1).encode())
    archives = {path: AGENTS for path in sorted(home.glob("agents-*.zip"))}
    if (home / UNFINISHED).exists():
        archives[home / UNFINISHED] = RUNS
    for archive, folder in archives.items():
        _unzip(archive, out / folder)


def in_short(figures: Mapping[str, Any]) -> str:
    """A stage's figures in a line."""
    if "failed" in figures:
        return f"failed: {figures['failed']}"
    if "left_out" in figures:
        return f"left out: {figures['left_out']}"
    if "outcome" in figures:
        return str(figures["outcome"])
    if "samples" in figures:
        state = "done" if figures["done"] else "stopped with a checkpoint; call again to go on"
        return f"step {figures['steps']} of {figures['of']}, {figures['samples']} samples, {state}"
    rows = figures.get("rows", {}).items()
    told = [f"{name} {row['samples_per_second']:.1f} samples/s ({row['ratio']:.2f}x)" for name, row in rows]
    return "; ".join(told) or ", ".join(
        f"{name} {value}" for name, value in figures.items() if name not in ("speeds", "took_seconds")
    )


def _when(run: Path) -> float:
    """Time at which a run was last written [s]; only the latest is carried home."""
    return (run / STATE).stat().st_mtime if (run / STATE).exists() else 0.0


def _batches(folder: Path) -> Iterator[list[Path]]:
    """Files of all agents, as many together as one archive takes: weights do not get smaller in it."""
    batch: list[Path] = []
    for agent in sorted(path for path in folder.glob("*") if path.is_dir()):
        files = sorted(path for path in agent.rglob("*") if path.is_file() and not path.name.startswith("."))
        if batch and sum(path.stat().st_size for path in (*batch, *files)) > 0.9 * LARGEST:
            yield batch
            batch = []
        batch += files
    if batch:
        yield batch


def _zipped(root: Path, files: list[Path]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            if path.exists():
                archive.write(path, path.relative_to(root).as_posix())
    return content.getvalue()


def _unzip(archive: Path, folder: Path) -> None:
    """Unpack the agents or runs that a folder lacks.

    Raises:
        UserError: the archive is damaged, or holds anything that lies elsewhere.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            for name in content.namelist():
                parts = Path(name).parts
                if Path(name).is_absolute() or ".." in parts or len(parts) < 2:
                    raise UserError(f"{archive} holds {name!r}, which is no file of a run: remove it")
            lacking = {Path(name).parts[0] for name in content.namelist()} - {path.name for path in folder.glob("*")}
            for name in content.namelist():
                if Path(name).parts[0] in lacking:
                    content.extract(name, folder)
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{archive} is damaged ({error}): copy it again, or remove it") from error
