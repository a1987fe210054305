"""Copy a sweep's measurements into docs/results, and write the tables there and in the README anew.

Run: python benchmarks/results.py [sweeps/ten_half ...]

Of each run it keeps the configuration and every episode of its evaluation, in docs/results/TABLE/RUN; the tables are
made of those files alone. Without a sweep it only makes the tables.
"""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multiravens.agents.adaptation.export import of_the_agent
from multiravens.experiments.report import NOTE, Run, markdown, read_run, table_rows
from multiravens.support.markdown import markdown_table
from multiravens.support.runs import EVALUATION, read_config, write_config
from multiravens.support.statistics import figure_cells, shown_metrics, title

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
README = ROOT / "README.md"
START, END = "<!-- made by benchmarks/results.py -->", "<!-- end -->"
HEADS = ("agent", "network", "resolution", "sampling", "demonstrations", "inhibition", "patience")


def take(sweep: Path) -> None:
    """Keep what was measured of a sweep's runs."""
    for done in sorted(sweep.glob("*/stages.json")):
        source = done.parent
        if "evaluate" not in json.loads(done.read_text())["stages"]:
            continue
        own = RESULTS / sweep.name / source.name
        shutil.rmtree(own, ignore_errors=True)
        shutil.copytree(source / EVALUATION, own / EVALUATION)
        write_config(own, of_the_agent(read_config(source)))


def kept() -> dict[str, list[Run]]:
    """The runs of each table, by its name."""
    folders = sorted(path for path in RESULTS.iterdir() if path.is_dir())
    return {folder.name: [read_run(run, run.name) for run in sorted(folder.iterdir())] for folder in folders}


def table(name: str, runs: Sequence[Run]) -> str:
    """The Markdown of one table: of every run and problem."""
    about = f"By `python -m multiravens.sweep table={name}`, and `python benchmarks/results.py`."
    return "\n".join([f"# {name}", "", about, NOTE, "", markdown(list(table_rows(runs)))])


def overview(tables: Mapping[str, Sequence[Run]]) -> str:
    """For the README: the best first, a row for each run on all that it learned, the expert and random actions too."""
    rows = [row for runs in tables.values() for row in table_rows(runs)]
    unseen = {run.label: set(run.evaluations) - set(run.config["problems"]) for runs in tables.values() for run in runs}
    learned = [row for row in rows if row["problem"].startswith("all ")]
    new = [row for row in rows if row["problem"] in unseen.get(row["label"], ())]
    best_first = sorted(learned, key=lambda row: -row["summary"]["mean_return"])
    shown = shown_metrics(rows)
    heads = (*HEADS, *(f"{title(name)} [95 %]" for name in shown), "episodes")
    return "\n\n".join(
        [
            markdown_table(heads, [_cells(row, shown) for row in best_first]),
            "On problems that the agent was never trained on:",
            markdown_table(("problem", *heads), [[row["problem"], *_cells(row, shown)] for row in new]),
        ]
    )


def _cells(row: Mapping[str, Any], shown: Sequence[str]) -> list[str]:
    words = [str(row[key]) for key in ("agent", "network", "resolution", "sampling", "demos", "inhibition", "patience")]
    return [*words, *figure_cells(row["summary"], shown), str(row["summary"]["episodes"])]


def texts() -> dict[Path, str]:
    """Compose the text of every table's file and of the README, by path."""
    tables = kept()
    before, _, rest = README.read_text().partition(START)
    _, _, after = rest.partition(END)
    made = {RESULTS / f"{name}.md": table(name, runs) for name, runs in tables.items()}
    return made | {README: f"{before}{START}\n\n{overview(tables)}\n\n{END}{after}"}


def main() -> None:
    """Take, then tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", nargs="*", type=Path)
    for sweep in parser.parse_args().sweeps:
        take(sweep.resolve())
    for path, text in texts().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
