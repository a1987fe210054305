"""Train, transfer and measure the modular backbone on two CPU cores; run again, it goes on where it was stopped.

Run: python benchmarks/modular.py [--parts singles transfer domains reuse] [--folder learning] [--seed 0]

Everything is done by the commands that users have, at half resolution. Action accuracy is the share of held-out
demonstrations' states in which pick, place (given the expert's pick) and turn are all right; its intervals are by
bootstrap over demonstrations, paired where two runs are compared. Results: FOLDER/runs, and docs/results/modular.md.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from learning import ALL, ROOT, SECONDS, SINGLES, command, measured, option, timed, write_table

from multiravens.agents.acting.load import load_agent
from multiravens.agents.networks.checkpoint import read_tensors
from multiravens.agents.networks.patched import Tasks
from multiravens.agents.training.dataset_metrics import in_batches, judging
from multiravens.agents.training.objectives import Outcome
from multiravens.data.training.demonstrations import Demonstrations, load
from multiravens.evaluation.measure import compare
from multiravens.support.runs import EVALUATION, WEIGHTS, hash_weights, read_config
from multiravens.support.statistics import Comparison, bootstrap_mean, paired_bootstrap, spelled

RESULTS = ROOT / "docs" / "results" / "modular.md"
HEADS = ("row", "problem", "accuracy", "against", "return", "return against", "trained", "minutes")
MARGIN = 0.05
"""By how much a run may fall behind another and still count as no worse."""
HELD_OUT = 150
"""Demonstrations of each problem that accuracy is measured on: 400 states or more."""
MODULAR = ("backbone=modular",)
DRAWN = ("task_sampling=adaptive", "step_sampling=prioritised")
NEW = "stacking"
THREE = tuple(name for name in SINGLES if name != NEW)
PAIR = "placing-stacking"
UNTRAINED = ("train=patch", "steps=1", "learning_rate=1e-9")
KINDS = ("order", "patch", "order+patch", "adapter", "full", "scratch")
SOURCES = ("placing", "placing-warm", "placing-wood", "placing-dim")
TARGETS = ("placing-marble", "placing-grainy", "placing-negative")
"""Placing in other domains: a problem's name and a domain's."""


@dataclass(frozen=True)
class Row:
    """A run of the table.

    Attributes:
        problems: it is measured on.
        options: of the command that makes it.
        source: row whose run it is transferred from; none is trained from scratch.
        against: row that it is compared with.
        episodes: that its return is measured on, of each problem.
    """

    problems: tuple[str, ...]
    options: tuple[str, ...]
    source: str = ""
    against: str = ""
    episodes: int = 0


def singles() -> dict[str, Row]:
    """One agent for the four singles: plain with the same parameters, plain with the same compute, modular, hard."""
    common = ("demos=50", "steps=3000", *DRAWN)
    plain = ("backbone=small", *common)
    return {
        "singles-adaptive": Row(SINGLES, plain, episodes=50),
        "singles-plain-18": Row(SINGLES, (*plain, "backbone.network.depth=18"), against="singles-adaptive"),
        "singles-modular": Row(SINGLES, (*MODULAR, *common), against="singles-adaptive", episodes=50),
        "singles-modular-hard": Row(SINGLES, ("train=harden",), "singles-modular", "singles-modular", 50),
    }


def transfers() -> dict[str, Row]:
    """From three singles to the fourth, and from four to a pair, by every way to train."""
    table = {"three": Row(THREE, (*MODULAR, "demos=50", "steps=2000", *DRAWN))}
    for source, problem, counts in (("three", NEW, (1, 10, 100)), ("singles-modular", PAIR, (10, 100))):
        words = (f"problem={problem}", "demos=10", *UNTRAINED)
        table[f"{problem}-nearest"] = Row((problem,), words, source, f"{problem}-10-full")
        for demos in counts:
            for kind in KINDS:
                name, full = (f"{problem}-{demos}-{each}" for each in (kind, "full"))
                words = (f"problem={problem}", f"train={kind}", f"demos={demos}")
                episodes = 200 if demos == 10 and kind in ("order+patch", "full") else 0
                table[name] = Row((problem,), words, source, "" if kind == "full" else full, episodes)
    return table


def domains() -> dict[str, Row]:
    """Placing in four domains, and then in others that only pictures tell of."""
    table = {"domains": Row((*SOURCES, *TARGETS), (*MODULAR, "demos=50", "steps=2000"))}
    for problem in TARGETS:
        for name, words in {
            "nearest": (*UNTRAINED, "labels=none"),
            "order-entropy": ("train=order", "labels=none", "objective=entropy"),
            "order-consistency": ("train=order", "labels=none", "objective=consistency"),
            "order+patch-consistency": ("train=order+patch", "labels=none", "objective=consistency"),
            "order-labelled": ("train=order",),
            "order+patch-labelled": ("train=order+patch",),
        }.items():
            table[f"{problem}-{name}"] = Row(
                (problem,), (f"problem={problem}", "demos=50", *words), "domains", "domains"
            )
    return table


def reuse() -> dict[str, Row]:
    """Three blocks, run three times, six times and nine times."""
    common = (*MODULAR, "backbone.streams.blocks=3", "demos=50", "steps=1500", *DRAWN)
    return {
        f"reuse-{depth}": Row(SINGLES, (*common, f"backbone.streams.depth={depth}"), against="reuse-3" * (depth > 3))
        for depth in (3, 6, 9)
    }


LEGEND = (
    "`singles-adaptive`: the plain network (`backbone=small`), as many blocks as the bank, on all four singles; "
    "`singles-plain-18`: with as many blocks as the three streams run, so of the same compute; `singles-modular`: "
    "`backbone=modular`; `-hard`: after `train=harden`.",
    f"`three`: trained on {', '.join(THREE)}. `PROBLEM-DEMOS-TRAIN`: transferred, {NEW} from `three` and {PAIR} from "
    "`singles-modular`; `PROBLEM-nearest`: with the programs of the known problem that do best, and no training.",
    f"`domains`: placing in {len(SOURCES)} domains ({', '.join(SOURCES)}), each with its programs; in the others it is "
    "measured with those of plain placing. `-nearest`: with the programs of the domain that are surest there; "
    "`-entropy`, `-consistency`: then adapted without labels; `-labelled`: with labels, for comparison.",
    "`reuse-L`: three blocks, L steps.",
)
SEEDS = (0, 1, 2)
"""Seeds whose rows are told; all rows are of the first."""
SPED = (
    "singles-adaptive",
    "singles-plain-18",
    "singles-modular",
    "singles-modular-hard",
    "reuse-3",
    "reuse-6",
    "reuse-9",
)
"""Rows whose networks' time is taken."""
PARTS: Mapping[str, Callable[[], dict[str, Row]]] = {
    part.__name__: part for part in (singles, transfers, domains, reuse)
}


class Bench:
    """Makes and measures rows in a folder.

    Args:
        folder: of data and runs.
        seed: of all training.
        workers: processes that play episodes.
    """

    def __init__(self, folder: Path, seed: int, workers: int) -> None:
        self.data, self.runs, self.seed, self.workers = folder / "data", folder / "runs", seed, workers

    def run(self, row: str) -> Path:
        """Folder of a row's run."""
        return self.runs / (f"{row}-{self.seed}" if self.seed and row else row)

    def make(self, name: str, row: Row) -> None:
        """Bring one row to its end; what is there already is not made again."""
        own = self.run(name)
        learnt, demos = option(row.options, "problem"), option(row.options, "demos")
        trained = [learnt] if learnt else [problem for problem in row.problems if problem not in TARGETS]
        for problem in trained if demos else ():
            self.demonstrate(problem, "train", int(demos))
        words = [*row.options, f"data={self.data}", f"seed={self.seed}"]
        if row.source:
            timed(own, "transfer", f"run={self.run(row.source)}", f"out={own}", *words)
        else:
            timed(own, "train", f"problems=[{','.join(trained)}]", f"run={own}", *words)
        for problem in row.problems:
            self.demonstrate(problem, "validation", HELD_OUT)
            self.accuracy(name, problem)
        if row.episodes:
            known = f"problems=[{','.join(row.problems)}]"
            words = [f"episodes={row.episodes}", f"workers={self.workers}", "beside=false"]
            command("evaluate", f"run={own}", known, *words)

    def demonstrate(self, problem: str, split: str, episodes: int) -> None:
        """Have the oracle's demonstrations of a problem, in the domain that its name ends with."""
        plain, _, domain = problem.partition("-")
        words = [f"problem={problem}"]
        if problem in SOURCES + TARGETS and domain:
            words = [f"problem={plain}", f"domain={domain}", f"problem.name={problem}"]
        more = [f"split={split}", f"episodes={episodes}", f"workers={self.workers}", f"data={self.data}"]
        if len(list((self.data / problem / split).glob("episode_*"))) < episodes:
            command("demos", *words, *more)

    def accuracy(self, name: str, problem: str) -> list[float]:
        """Share of right actions in each held-out demonstration."""
        run = self.run(name)
        path = run / f"accuracy-{problem}.json"
        weights = hash_weights(run)
        known = json.loads(path.read_text()) if path.exists() else {}
        if known.get("weights") != weights:
            known = {"weights": weights, "right": self._right(run, problem)}
            path.write_text(json.dumps(known))
        return [float(np.mean(states)) for states in known["right"]]

    def _right(self, run: Path, problem: str) -> list[list[int]]:
        agent = load_agent(run)
        # A domain that an agent has not been adapted to is seen as the plain problem.
        program = problem if problem in read_config(run)["problems"] else problem.partition("-")[0]
        episodes, _ = load(self.data, [problem], HELD_OUT, agent.resolution, "validation")
        data = Demonstrations(episodes, agent.resolution)
        samples = np.arange(len(data.steps.task))
        measure = judging(agent.network)
        found = Outcome(*in_batches(measure, agent.network, agent.conditioning, data, samples, program))
        right = (found.picked * found.placed * found.turned).int()
        return [right[torch.from_numpy(data.steps.episode == index)].tolist() for index in range(len(data.counts))]

    def measured(self, name: str, row: Row) -> "Measured | None":
        """Read the figures of a row; None if its accuracies are not known."""
        accuracies = self._accuracies(name, row)
        if not all(problem in accuracies for problem in row.problems):
            return None
        path = self.run(name) / SECONDS
        return Measured(
            accuracies,
            self._accuracies(row.against, row),
            measured(self.run(name) / EVALUATION, row.problems),
            measured(self.run(row.against) / EVALUATION, row.problems),
            "0" if set(UNTRAINED) <= set(row.options) else self._counted(name),
            f"{json.loads(path.read_text()) / 60:.1f}" if path.exists() else "",
        )

    def _accuracies(self, name: str, row: Row) -> dict[str, list[float]]:
        paths = {problem: self.run(name) / f"accuracy-{problem}.json" for problem in row.problems}
        found = {problem: self.accuracy(name, problem) for problem, path in paths.items() if path.exists()}
        if len(found) == len(row.problems) > 1:
            found[ALL] = [accuracy for problem in row.problems for accuracy in found[problem]]
        return found

    def _counted(self, name: str) -> str:
        """Count the parameters that were trained."""
        told = read_config(self.run(name)).get("transfer", {})
        if "trained" in told:
            return str(told["trained"])
        return str(sum(tensor.numel() for tensor in read_tensors(self.run(name) / WEIGHTS)[0].values()))


@dataclass(frozen=True)
class Measured:
    """A row's figures by problem, and those of the row it is compared with.

    Attributes:
        right: share of right actions in each held-out demonstration.
        other: the other row's.
        played: episodes.
        beaten: the other row's.
        trained: parameters.
        minutes: of training.
    """

    right: dict[str, list[float]]
    other: dict[str, list[float]]
    played: dict[str, list[dict[str, Any]]]
    beaten: dict[str, list[dict[str, Any]]]
    trained: str
    minutes: str

    def lines(self, label: str, against: str) -> Iterator[tuple[str, ...]]:
        """Of the table: a line a problem, and one of all where there are several."""
        for problem, right in self.right.items():
            returns = [episode["returned"] for episode in self.played.get(problem, ())]
            both = problem in self.played and problem in self.beaten
            yield (
                label,
                problem,
                spelled(float(np.mean(right)), bootstrap_mean(right)),
                _ahead(paired_bootstrap(right, self.other[problem]), against) if problem in self.other else "",
                spelled(float(np.mean(returns)), bootstrap_mean(returns)) if returns else "",
                _ahead(compare({"episodes": self.played[problem]}, {"episodes": self.beaten[problem]}), against)
                if both
                else "",
                self.trained,
                self.minutes,
            )


def together(found: Sequence[Measured]) -> Measured:
    """The same row of several seeds as one: each demonstration's mean over the seeds; returns are left out."""
    right, other = (
        {
            problem: list(map(float, np.mean([each[problem] for each in dicts], axis=0)))
            for problem in dicts[0]
            if all(problem in each for each in dicts)
        }
        for dicts in ([each.right for each in found], [each.other for each in found])
    )
    return Measured(right, other, {}, {}, found[0].trained, "")


def _ahead(found: Comparison, against: str) -> str:
    word = "no worse" if found.interval[0] > -MARGIN else "not shown to be no worse"
    return f"{found.mean:+.3f} [{found.interval[0]:+.3f}, {found.interval[1]:+.3f}] than {against}: {word}"


def tell(benches: Sequence[Bench], rows: Mapping[str, Row]) -> None:
    """Print and write the table of what has been measured, of every seed and of all together."""
    lines: list[tuple[str, ...]] = []
    for name, row in rows.items():
        found = {bench.seed: each for bench in benches if (each := bench.measured(name, row)) is not None}
        for seed, each in found.items():
            lines += each.lines(f"{name}, seed {seed}" if seed else name, row.against)
        if len(found) > 1:
            seeds = ", ".join(map(str, found))
            lines += together(list(found.values())).lines(f"{name}, seeds {seeds}", row.against)
    about = (
        f"By `python benchmarks/modular.py`, at half resolution on two CPU cores. Accuracy: share of the states of "
        f"{HELD_OUT} held-out demonstrations of each problem in which pick, place (given the expert's pick) and turn "
        "are right; return: of held-out episodes. Intervals are 95 %, by bootstrap over demonstrations and episodes; "
        f"differences are paired, and `no worse` means that their interval lies above {-MARGIN}. Trained: parameters. "
        "Minutes are of a machine that did other work, too; `--speeds` takes the networks' times in turn. Rows:"
    )
    told = [about, "", *(f"- {line}" for line in LEGEND)]
    write_table(RESULTS, "What the modular backbone gives", told, HEADS, lines)


def speeds(bench: Bench, rounds: int = 20) -> None:
    """Print how long the networks of some rows take for one sample, in turn, and with all blocks' outputs mixed."""
    networks = {name: load_agent(bench.run(name)).network for name in SPED}
    reference = load_agent(bench.run("singles-modular")).network
    reference.streams.mix = "outputs"  # type: ignore[assignment]
    networks["singles-modular, outputs mixed"] = reference
    for name in ("singles-modular", "singles-modular, outputs mixed"):
        for choice in networks[name].streams.choices():  # type: ignore[operator]
            choice.order = None  # sharp programs are orders already
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    images, tasks = torch.randn(1, 8, 160, 80), Tasks.of([0])
    with torch.inference_mode():
        for _ in range(rounds):
            for name, network in networks.items():
                start = perf_counter()
                network.streams(images, tasks)
                seconds[name].append(perf_counter() - start)
    base = float(np.median(seconds["singles-modular-hard"]))
    for name, each in seconds.items():
        print(f"{name}: {1e3 * np.median(each):.1f} ms, {np.median(each) / base:.2f} of the hard program's")


def main() -> None:
    """Make, measure, then tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--rows", nargs="*", default=None, help="of those parts, only these")
    parser.add_argument("--folder", type=Path, default=Path("learning"))
    parser.add_argument("--speeds", action="store_true", help="time the networks of the singles, too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.workers)
    bench = Bench(options.folder.resolve(), options.seed, options.workers)
    rows = {name: row for part in options.parts for name, row in PARTS[part]().items()}
    for name, row in rows.items():
        if options.rows is None or name in options.rows:
            bench.make(name, row)
    if options.speeds:
        speeds(bench)
    benches = [Bench(options.folder.resolve(), seed, options.workers) for seed in SEEDS]
    tell(benches, {name: row for part in PARTS.values() for name, row in part().items()})


if __name__ == "__main__":
    main()
