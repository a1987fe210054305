"""What agents learn on two CPU cores: trains and measures the rows of a table, and goes on where it was stopped.

Run: python benchmarks/learning.py [--rows placing chaining ...] [--folder learning] [--episodes 50] [--workers 2]

Everything is done by the commands that users have, at half resolution. Results: FOLDER/runs, and the table in
docs/results/learning.md with each row's training time on this machine beside it.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results" / "learning.md"
SINGLES = ("placing", "stacking", "chaining", "routing")
SAME_COLOR = ("problem.modules.placing.same_color=true", "camera=realsense")


@dataclass(frozen=True)
class Row:
    """A run of the table.

    Attributes:
        problems: it is trained and measured on.
        options: of the training command.
        minutes: of training that the target allows on two cores.
        target: mean return to reach; None where only the difference to another row counts.
        against: row that it is compared with on the same seeds.
        made: options of the demonstrations, for other than the plain ones.
    """

    problems: tuple[str, ...]
    options: tuple[str, ...]
    minutes: int
    target: float | None = None
    against: str | None = None
    made: tuple[str, ...] = ()


def rows() -> dict[str, Row]:
    """All rows by name."""
    pair, long = ("placing-stacking",), "steps=4000"
    table = {
        "placing": Row(("placing",), ("steps=2000",), 5, 0.95),
        "placing-same-color": Row(("placing",), ("steps=4000",), 10, 0.85, made=SAME_COLOR),
        "stacking": Row(("stacking",), ("steps=1500",), 15, 0.85),
        "placing-stacking": Row(pair, (long,), 25, 0.80),
        "chaining": Row(("chaining",), ("steps=2000",), 25, 0.80, "transporter-chaining"),
        "routing": Row(("routing",), ("steps=3000",), 25, 0.85, "transporter-routing"),
    }
    for single in SINGLES:
        steps = next(option for option in table[single].options if option.startswith("steps="))
        table[f"transporter-{single}"] = Row((single,), ("agent=transporter", steps), table[single].minutes)
    for agent in ("gctn", "gctn_step"):
        table[f"{agent}-placing-stacking"] = Row(pair, (f"agent={agent}", long), 25, against="placing-stacking")
    for name, sampling in {
        "uniform": (),
        "horizon": ("task_sampling=horizon",),
        "adaptive": ("task_sampling=adaptive", "step_sampling=prioritised"),
    }.items():
        against = None if name == "uniform" else "singles-uniform"
        table[f"singles-{name}"] = Row(SINGLES, ("demos=50", "steps=6000", *sampling), 45, against=against)
    return table


def train_and_measure(name: str, row: Row, folder: Path, episodes: int, workers: int) -> None:
    """Bring one row to its end; what is there already is not made again."""
    data, run = folder / ("data-" + name if row.made else "data"), folder / "runs" / name
    demos = next((option.partition("=")[2] for option in row.options if option.startswith("demos=")), "100")
    for problem in row.problems:
        words = [f"problem={problem}", f"episodes={demos}", f"workers={workers}", f"data={data}", *row.made]
        _command("demos", *words)
    spent, told = 0.0, run / "seconds.json"
    if told.exists():
        spent = json.loads(told.read_text())
    start = perf_counter()
    _command("train", f"problems=[{','.join(row.problems)}]", f"data={data}", f"run={run}", *row.options)
    if not (run / "evaluation").exists():
        told.write_text(json.dumps(spent + perf_counter() - start))
        beside = f"beside={str(row.target is not None).lower()}"
        _command("evaluate", f"run={run}", f"episodes={episodes}", f"workers={workers}", beside)


def _command(name: str, *words: str) -> None:
    subprocess.run([sys.executable, "-m", f"multiravens.{name}", *words], check=True, cwd=ROOT)


def tell(folder: Path) -> None:
    """Print and write the table of what has been measured."""
    from multiravens.evaluation import compare

    heads = ("row", "problem", "mean return [95 %]", "full success [95 %]", "target", "ahead of", "training [min]")
    lines = []
    for name, row in rows().items():
        run = folder / "runs" / name
        for problem in row.problems:
            path = run / "evaluation" / f"{problem}.json"
            if not path.exists():
                continue
            content = json.loads(path.read_text())
            figures = content["summary"]
            other = folder / "runs" / (row.against or "") / "evaluation" / f"{problem}.json"
            ahead = ""
            if row.against and other.exists():
                found = compare(content, json.loads(other.read_text()))
                ahead = f"{row.against} by {found.mean:+.3f} [{found.interval[0]:+.3f}, {found.interval[1]:+.3f}]"
            minutes = json.loads((run / "seconds.json").read_text()) / 60
            lines.append(
                (
                    name,
                    problem,
                    "{:.3f} [{:.3f}, {:.3f}]".format(figures["mean_return"], *figures["mean_return_interval"]),
                    "{:.3f} [{:.3f}, {:.3f}]".format(figures["success_rate"], *figures["success_interval"]),
                    "" if row.target is None else f">= {row.target:.2f}",
                    ahead,
                    f"{minutes:.1f} of {row.minutes}",
                )
            )
    table = Table(*heads, title="Learning on this machine")
    for line in lines:
        table.add_row(*line)
    Console(width=170).print(table)
    written = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    written += ["| " + " | ".join(line) + " |" for line in lines]
    text = "\n".join(["# What agents learn", "", "By `python benchmarks/learning.py`.", "", *written, ""])
    RESULTS.write_text(text)


def main() -> None:
    """Train and measure, then tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=list(rows()), choices=list(rows()), metavar="ROW")
    parser.add_argument("--folder", type=Path, default=Path("learning"))
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    for name in options.rows:
        train_and_measure(name, rows()[name], options.folder.resolve(), options.episodes, options.workers)
    tell(options.folder.resolve())


if __name__ == "__main__":
    main()
