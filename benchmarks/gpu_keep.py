"""What `gpu.py` has carried home from a machine that is lent for minutes: few files, each small."""

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpu_stages import AGENTS, RUNS, read_results

from multiravens.data.files import write_whole
from multiravens.errors import UserError
from multiravens.runs import CONFIG, METRICS, STATE, WEIGHTS

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
        # The latest alone: one is not begun before the one before it is done, unless it is named.
        run = out / RUNS / going_on[-1]
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


def restore(home: Path, out: Path) -> None:
    """Take up what was carried home, where the folder of results lacks it."""
    if (home / RESULTS).exists():
        for name, figures in json.loads((home / RESULTS).read_text()).items():
            path = out / "stages" / f"{name}.json"
            if not path.exists():
                write_whole(path, json.dumps(figures, indent=1).encode())
    archives = {path: AGENTS for path in sorted(home.glob("agents-*.zip"))}
    if (home / UNFINISHED).exists():
        archives[home / UNFINISHED] = RUNS
    for archive, folder in archives.items():
        _unzip(archive, out / folder)


def in_short(figures: Mapping[str, Any]) -> str:
    """A stage's figures in a line."""
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
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{archive} is damaged ({error}): copy it again, or remove it") from error
