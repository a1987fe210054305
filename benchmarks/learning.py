"""Train agents on two CPU cores and measure the rows of a table; run again, it goes on where it was stopped.

Run: python benchmarks/learning.py [--rows placing chaining ...] [--folder learning] [--episodes 50] [--workers 2]

Everything is done by the commands that users have, at half resolution. Results: FOLDER/runs, and the table in
docs/results/learning.md with each row's training time on this machine beside it.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from multiravens.evaluation.measure import compare
from multiravens.support.markdown import markdown_table
from multiravens.support.runs import EVALUATION, read_evaluation
from multiravens.support.statistics import bootstrap_mean, spelled, wilson

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results" / "learning.md"
CHANCE = RESULTS.parent / "chance.json"
HEADS = (
    "row",
    "problem",
    "mean return",
    "full success",
    "target",
    "ahead of",
    "training [min]",
)
ALL = "all"
SECONDS, DONE = "seconds.json", "done"
"""Files in a run's folder: how long it trained, and that it has been trained to its end."""
VARIANTS = {"visual": "pointer=visual", "slipping": "overrides=['motion=slipping']"}
"""Other ways to measure: with the pointer that the camera moves, and with a quarter of the picks failing."""
SINGLES = ("placing", "stacking", "chaining", "routing")
HARDER = "{placing:1,stacking:1,chaining:2,routing:2}"
"""Weights of the singles: two for those that an agent of their own needed more steps for to get as far."""
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
        also: names of other ways to measure it.
    """

    problems: tuple[str, ...]
    options: tuple[str, ...]
    minutes: int
    target: float | None = None
    against: str | None = None
    made: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


def rows() -> dict[str, Row]:
    """All rows by name."""
    pair, long = ("placing-stacking",), "steps=3000"
    table = {
        "placing": Row(("placing",), ("steps=2000",), 5, 0.95, also=("visual",)),
        "placing-same-color": Row(("placing",), ("steps=3000",), 10, 0.85, made=SAME_COLOR),
        "stacking": Row(("stacking",), ("steps=1500",), 15, 0.85),
        "placing-stacking": Row(pair, (long,), 25, 0.80, also=("slipping",)),
        "chaining": Row(("chaining",), ("steps=2000",), 25, 0.80, "transporter-chaining", also=("visual",)),
        "routing": Row(("routing",), ("steps=3000",), 25, 0.85, "transporter-routing"),
    }
    for single in SINGLES:
        words = ("agent=transporter", f"steps={option(table[single].options, 'steps')}")
        table[f"transporter-{single}"] = Row((single,), words, table[single].minutes)
    for agent in ("gctn", "gctn_step"):
        words = (f"agent={agent}", long)
        table[f"{agent}-placing-stacking"] = Row(pair, words, 25, against="placing-stacking", also=("slipping",))
    # In demonstrations of placing-stacking and chaining one action is one sub-goal, so that counting actions is as good
    # as a pointer there; in routing a third of the steps are not.
    for single in ("chaining", "routing"):
        options = ("agent=gctn_step", *table[single].options)
        table[f"gctn_step-{single}"] = Row((single,), options, table[single].minutes, against=single)
    for name, sampling in {
        "uniform": (),
        "horizon": ("task_sampling=horizon",),
        "explicit": ("task_sampling=explicit", f"task_sampling.weights={HARDER}"),
        "adaptive": ("task_sampling=adaptive", "step_sampling=prioritised"),
    }.items():
        against = None if name == "uniform" else "singles-uniform"
        table[f"singles-{name}"] = Row(SINGLES, ("demos=50", "steps=3000", *sampling), 45, against=against)
    return table


def train_and_measure(name: str, row: Row, folder: Path, episodes: int, workers: int) -> None:
    """Bring one row to its end; what is there already is not made again."""
    data, run = folder / ("data-" + name if row.made else "data"), folder / "runs" / name
    demos = option(row.options, "demos") or "100"
    for problem in row.problems:
        words = [f"problem={problem}", f"episodes={demos}", f"workers={workers}", f"data={data}", *row.made]
        command("demos", *words)
    words = [f"problems=[{','.join(row.problems)}]", "backbone=small", f"data={data}", f"run={run}"]
    timed(run, "train", *words, *row.options)
    words = [f"run={run}", f"episodes={episodes}", f"workers={workers}"]
    command("evaluate", *words, f"beside={str(row.target is not None).lower()}")
    for variant in row.also:
        command("evaluate", *words, "beside=false", VARIANTS[variant], f"out={run / _measures(variant)}")


def option(words: Sequence[str], name: str) -> str:
    """Find the value that a command's words give an option; empty if they give none."""
    return next((word.partition("=")[2] for word in words if word.startswith(f"{name}=")), "")


def timed(run: Path, name: str, *words: str) -> None:
    """Run a command that trains, and add its seconds to those in the run's folder."""
    if (run / DONE).exists():
        return
    told = run / SECONDS
    spent = json.loads(told.read_text()) if told.exists() else 0.0
    start = perf_counter()
    try:
        command(name, *words)
        (run / DONE).touch()
    finally:
        if run.exists():
            told.write_text(json.dumps(spent + perf_counter() - start))


def command(name: str, *words: str) -> None:
    """Run one of the users' commands."""
    subprocess.run([sys.executable, "-m", f"multiravens.{name}", *words], check=True, cwd=ROOT)


def tell(folder: Path) -> None:
    """Print and write the table of what has been measured."""
    chance = json.loads(CHANCE.read_text()) if CHANCE.exists() else {}
    lines = [line for name, row in rows().items() for line in _lines(name, row, folder / "runs", chance)]
    about = (
        "By `python benchmarks/learning.py`, and chance by `python benchmarks/chance.py`: what the expert's skill is "
        "worth with the goals of another episode. Half resolution, `backbone=small`; intervals are 95 %, of the mean "
        "return by bootstrap and of full success by Wilson; differences are paired by seed."
    )
    write_table(RESULTS, "What agents learn", [about], HEADS, lines)


def write_table(
    path: Path, title: str, about: Sequence[str], heads: Sequence[str], lines: Sequence[Sequence[str]]
) -> None:
    """Print a table, and write it in Markdown below lines about it."""
    table = Table(*heads, title=title)
    for line in lines:
        table.add_row(*line)
    Console(width=230).print(table)
    path.write_text("\n".join([f"# {title}", "", *about, "", markdown_table(heads, lines), ""]))


def _lines(name: str, row: Row, runs: Path, chance: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Of one row, for each way it was measured: a line a problem, and one of all where there are several."""
    for variant in ("", *row.also):
        own = measured(runs / name / _measures(variant), row.problems)
        other = measured(runs / (row.against or "") / _measures(variant), row.problems)
        yield from _lines_of(name, row, variant, own, other, runs, chance)


def _measures(variant: str) -> str:
    """Folder in a run of one way to measure it."""
    return f"{EVALUATION}-{variant}" if variant else EVALUATION


def _lines_of(
    name: str,
    row: Row,
    variant: str,
    own: Mapping[str, Any],
    other: Mapping[str, Any],
    runs: Path,
    chance: Mapping[str, Any],
) -> Iterator[tuple[str, ...]]:
    if not own:
        return
    minutes = json.loads((runs / name / SECONDS).read_text()) / 60
    for problem, episodes in own.items():
        returns = [episode["returned"] for episode in episodes]
        solved = sum(episode["success"] for episode in episodes)
        target = "" if row.target is None or variant else f">= {row.target:.2f}"
        if "agent=transporter" in row.options and problem in chance:
            target = "<= {:.3f} (1.5 x chance)".format(1.5 * chance[problem]["mean_return"])
        yield (
            f"{name}, {variant}" if variant else name,
            problem,
            spelled(sum(returns) / len(returns), bootstrap_mean(returns)),
            spelled(solved / len(returns), wilson(solved, len(returns))),
            target,
            _difference(episodes, other.get(problem), row.against),
            f"{minutes:.1f} of {row.minutes}",
        )


def measured(folder: Path, problems: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Episodes of each problem in the folder of an evaluation, and of all where there are several."""
    paths = {problem: folder / f"{problem}.json" for problem in problems}
    found = {problem: read_evaluation(path)["episodes"] for problem, path in paths.items() if path.exists()}
    if len(found) == len(problems) > 1:
        found[ALL] = [
            {**episode, "seed": f"{problem} {episode['seed']}"} for problem in problems for episode in found[problem]
        ]
    return found


def _difference(one: list[dict[str, Any]] | None, other: list[dict[str, Any]] | None, against: str | None) -> str:
    if one is None or other is None:
        return ""
    found = compare({"episodes": one}, {"episodes": other})
    return f"{against} by {found.mean:+.3f} [{found.interval[0]:+.3f}, {found.interval[1]:+.3f}]"


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
