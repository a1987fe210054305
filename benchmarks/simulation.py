"""Speed and memory of the environments on this machine, printed as one table.

Run: python benchmarks/simulation.py [--episodes 20] [--quick]

Seconds depend on the machine and on what else it does; ratios and shares are what to compare. Figures marked `target`
are those the project holds itself to on two cores.
"""

import argparse
import cProfile
import gc
import pstats
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.console import Console
from rich.table import Table

from multiravens.data import Episode, write_episode
from multiravens.demos import main as demos
from multiravens.envs import PickPlaceEnv, demonstrate, make
from multiravens.envs.oracle import Demonstration

SINGLES = {"placing": 12, "stacking": 12, "chaining": 6, "routing": 6}  # oracle steps a second they must reach
QUADRUPLE = "chaining-placing-routing-stacking"
TRIPLE = "chaining-placing-routing"
FIRST = 100_000


def steps_a_second(problem: str, episodes: int) -> tuple[float, list[Demonstration]]:
    """Oracle actions a second in one process, resets and observations included, and the runs."""
    env = make(problem)
    demonstrate(env, FIRST)
    start = perf_counter()
    runs = [demonstrate(env, seed) for seed in range(FIRST, FIRST + episodes)]
    elapsed = perf_counter() - start
    env.close()
    return sum(len(run.rewards) for run in runs) / elapsed, runs


def milliseconds(action: Callable[[int], object], repeats: int) -> float:
    """Median time of an action, called with 0, 1, ... [ms]."""
    times = []
    for index in range(repeats):
        start = perf_counter()
        action(index)
        times.append(perf_counter() - start)
    return 1000 * statistics.median(times)


def observation(problem: str) -> float:
    """Time of one full-resolution observation [ms]."""
    env = make(problem)
    env.reset(seed=FIRST)
    rng = np.random.default_rng(0)
    cost = milliseconds(lambda _: env.camera.observe(env.world, rng), 50)
    env.close()
    return cost


def reset(problem: str) -> float:
    """Time of a reset, settling and first observation included [ms]."""
    env = make(problem)
    env.reset(seed=FIRST)
    cost = milliseconds(lambda index: env.reset(seed=FIRST + index), 30)
    env.close()
    return cost


def bytes_a_frame(runs: list[Demonstration]) -> float:
    """Size of stored episodes over their frames [bytes]."""
    frames = size = 0
    with tempfile.TemporaryDirectory() as folder:
        for run in runs:
            path = Path(folder) / f"{run.seed}.safetensors"
            fields = {name: getattr(run, name) for name in Episode.__dataclass_fields__}
            write_episode(path, Episode(**fields))
            frames, size = frames + len(run.color), size + path.stat().st_size
    return size / frames


def shares(problem: str, episodes: int) -> dict[str, float]:
    """Share of the time of making and storing demonstrations that goes to each part."""
    env = make(problem)
    demonstrate(env, FIRST)
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        profile.enable()
        for seed in range(FIRST, FIRST + episodes):
            run = demonstrate(env, seed)
            fields = {name: getattr(run, name) for name in Episode.__dataclass_fields__}
            write_episode(Path(folder) / f"{seed}.safetensors", Episode(**fields))
        profile.disable()
    env.close()
    stats = pstats.Stats(profile)
    cumulative = {key[2]: value[3] for key, value in stats.stats.items()}  # type: ignore[attr-defined]
    builtin = {name.split()[-1].strip(">"): time for name, time in cumulative.items() if name.startswith("<built-in")}
    total = stats.total_tt  # type: ignore[attr-defined]
    parts = {
        "rendering": cumulative.get("observe", 0.0),
        "physics": builtin.get("pybullet.stepSimulation", 0.0),
        "oracle": cumulative.get("expert", 0.0),
        "reset (its settling is physics)": cumulative.get("_draw", 0.0),
        "storage": cumulative.get("write_episode", 0.0),
    }
    return {name: time / total for name, time in parts.items()} | {"rest": 1 - sum(parts.values()) / total}


def two_workers(episodes: int) -> float:
    """Measure the speed-up of two workers over one in making demonstrations, with start-up: median of three pairs."""
    ratios = []
    for _ in range(3):
        seconds = []
        for workers in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                start = perf_counter()
                demos(["problem=chaining-placing", f"episodes={episodes}", f"workers={workers}", f"data={folder}"])
                seconds.append(perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


def resident() -> float:
    """Resident memory of this process [MB]."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def growth(action: Callable[[int], object], repeats: int) -> float:
    """Memory that repeating an action adds, after a tenth of the repeats as warm-up [MB]."""
    for index in range(repeats // 10):
        action(index)
    before = resident()
    for index in range(repeats):
        action(index)
    return resident() - before


def _make_and_close(index: int) -> None:
    env = make(TRIPLE)
    env.reset(seed=FIRST + index % 7)
    env.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=20, help="episodes behind each speed figure")
    parser.add_argument(
        "--quick", action="store_true", help="leave out the memory and worker figures, which take minutes"
    )
    options = parser.parse_args()
    table = Table("figure", "measured", "target", title="Simulation")
    runs: dict[str, list[Demonstration]] = {}
    for problem, target in SINGLES.items():
        speed, runs[problem] = steps_a_second(problem, options.episodes)
        table.add_row(f"oracle steps a second, {problem}", f"{speed:.1f}", f">= {target}")
    table.add_row("one observation, placing [ms]", f"{observation('placing'):.1f}", "<= 3")
    table.add_row("one observation, quadruple [ms]", f"{observation(QUADRUPLE):.1f}", "<= 8")
    table.add_row(f"reset, {TRIPLE} [ms]", f"{reset(TRIPLE):.0f}", "<= 120")
    runs[QUADRUPLE] = steps_a_second(QUADRUPLE, max(options.episodes // 4, 2))[1]
    for problem, demonstrations in runs.items():
        table.add_row(f"bytes a stored frame, {problem}", f"{bytes_a_frame(demonstrations):.0f}", "<= 12288")
    for problem in (*SINGLES, QUADRUPLE):
        parts = ", ".join(
            f"{name} {share:.0%}" for name, share in shares(problem, max(options.episodes // 4, 2)).items()
        )
        table.add_row(f"share of time, {problem}", parts, "")
    if not options.quick:
        table.add_row("two workers against one", f"{two_workers(6 * options.episodes):.2f}x", ">= 1.8x")
        env: PickPlaceEnv = make(TRIPLE)
        table.add_row(
            "memory after 5,000 resets [MB]", f"{growth(lambda i: env.reset(seed=FIRST + i), 5000):+.1f}", "< 20"
        )
        env.close()
        table.add_row("memory after 500 make and close [MB]", f"{growth(_make_and_close, 500):+.1f}", "< 30")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
