"""Measure how often the scripted expert fully succeeds and why it fails, and write docs/oracle.md.

Run: python benchmarks/oracle.py [--episodes 200] [--workers 2] [--problems placing stacking]

Outcomes are kept in docs/results/oracle.json; problems that are not run anew keep theirs. Seeds are
those of the test split from 100000 up; the same numbers come out whatever the number of workers.
"""

import argparse
import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.progress import track

from multiravens.envs import PROBLEMS, demonstrate, make
from multiravens.support.files import write_rows

FIRST = 100_000
TARGETS = {1: {"placing": 0.98, "stacking": 0.98, "chaining": 0.95, "routing": 0.95}, 2: 0.92, 3: 0.90, 4: 0.90}
PAGE, RESULTS = Path("docs/oracle.md"), Path("docs/results/oracle.json")
_CHUNK = 25


@dataclass(frozen=True)
class Outcome:
    """Outcome of the expert's run of one seed."""

    seed: int
    success: bool
    steps: int
    returned: float
    reason: str


def run(problem: str, seeds: range) -> list[Outcome]:
    """Run the expert over seeds in one environment."""
    env = make(problem)
    runs = [demonstrate(env, seed) for seed in seeds]
    env.close()
    return [Outcome(r.seed, r.success, len(r.rewards), float(r.holds[-1].mean()), r.reason) for r in runs]


def target(problem: str) -> float:
    """Share of full successes that the expert is held to."""
    bar: Any = TARGETS[problem.count("-") + 1]
    return float(bar[problem] if isinstance(bar, dict) else bar)


def report(problem: str, outcomes: list[Outcome]) -> tuple[str, list[str]]:
    """A table row, and a line a failure."""
    solved = sum(outcome.success for outcome in outcomes)
    steps = sum(outcome.steps for outcome in outcomes) / len(outcomes)
    returned = sum(outcome.returned for outcome in outcomes) / len(outcomes)
    row = (
        f"| `{problem}` | {solved} of {len(outcomes)} | {solved / len(outcomes):.1%} | {target(problem):.0%} "
        f"| {returned:.3f} | {steps:.1f} |"
    )
    return row, [f"- `{problem}` {o.seed}: {o.reason}" for o in outcomes if not o.success]


def cause(line: str) -> str:
    """Name the kind of failure that a line tells of: the module whose sub-goal was left, and how motions ended."""
    module = line.split(": ", 1)[1].split("/")[0]
    how = line[line.rindex("(") + 1 : -1] if line.endswith(")") else "no motion failed"
    return f"{module}: {how}"


def main() -> None:
    """Run all problems and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=PROBLEMS, metavar="PROBLEM")
    options = parser.parse_args()
    last = FIRST + options.episodes
    chunks = [range(start, min(start + _CHUNK, last)) for start in range(FIRST, last, _CHUNK)]
    jobs = [(problem, chunk) for problem in options.problems for chunk in chunks]
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results = {problem: [Outcome(**outcome) for outcome in outcomes] for problem, outcomes in known.items()}
    results.update({problem: [] for problem in options.problems})
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run, *job) for job in jobs]
        for (problem, _), future in track(list(zip(jobs, futures, strict=True)), description="oracle"):
            results[problem] += future.result()
    write_rows(RESULTS, {p: [asdict(o) for o in results[p]] for p in PROBLEMS if p in results})
    PAGE.write_text(page(results))
    print(f"written to {PAGE} and {RESULTS}")


def page(results: dict[str, list[Outcome]]) -> str:
    """The page on all outcomes."""
    reports = [report(problem, results[problem]) for problem in PROBLEMS if problem in results]
    failures = [line for _, lines in reports for line in lines]
    causes = Counter(cause(line) for line in failures)
    lines = [
        "# The oracle",
        "",
        f"The scripted expert on seeds of the test split from {FIRST} up, by `python benchmarks/oracle.py`. It "
        "acts only through the public action.",
        "",
        "It goes for the first sub-goal that does not hold. One that two of its actions have not reached it leaves for "
        "later, and goes for the next that it can reach. A part, box, belt or cable in a wrong place is taken from "
        "there; a part that lies on a side on which it looks different can't be put right by picks from above.",
        "",
        "| problem | full success | share | target | mean return | steps an episode |",
        "|---|---|---|---|---|---|",
        *(row for row, _ in reports),
        "",
        "## Failures by cause",
        "",
        *(f"- {count} x {name}" for name, count in causes.most_common()),
        *([] if failures else ["None."]),
        "",
        "## Every failure",
        "",
        *(failures or ["None."]),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
