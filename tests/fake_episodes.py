"""Episodes drawn without a simulator, and a command that collects them, for tests of what is written to disk.

python -m tests.fake_episodes DATA EPISODES WORKERS SECONDS: SECONDS is how long each episode pretends to take.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiravens import cli
from multiravens.data import Episode, Store, collect
from multiravens.errors import UserError

ENVIRONMENT = {"problem": {"name": "fake", "modules": {"placing": {"parts": 4}}}, "camera": {"noise": 0.0}}
SEEDS = range(100, 200)


@dataclass
class FakeDemonstration(Episode):
    reason: str = ""


def scene(rng: np.random.Generator, objects: int = 30, beads: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Draws flat-coloured boxes and shaded balls: (320, 160, 3) uint8 and (320, 160) float32 [m]."""
    color, height = np.full((320, 160, 3), 230, np.uint8), np.zeros((320, 160), np.float32)
    rows, columns = np.mgrid[0:320, 0:160].astype(np.float32)
    for _ in range(objects):
        row, column, angle = rng.uniform(20, 300), rng.uniform(20, 140), rng.uniform(0, np.pi)
        along = (rows - row) * np.cos(angle) + (columns - column) * np.sin(angle)
        across = (columns - column) * np.cos(angle) - (rows - row) * np.sin(angle)
        inside = (abs(along) < rng.uniform(4, 12)) & (abs(across) < rng.uniform(4, 12))
        color[inside], height[inside] = rng.integers(50, 255, 3), rng.uniform(0.01, 0.1)
    for _ in range(beads):
        row, column = rng.uniform(5, 315), rng.uniform(5, 155)
        squared = 1 - ((rows - row) ** 2 + (columns - column) ** 2) / 2.0**2
        inside = squared > 0
        top = np.sqrt(squared[inside])
        color[inside] = (np.array([240, 160, 30]) * (0.6 + 0.4 * top[:, None])).astype(np.uint8)
        height[inside] = 0.006 + 0.006 * top
    return color, height


def make_episode(seed: int, steps: int = 2, objects: int = 3, beads: int = 5) -> FakeDemonstration:
    """Draws an episode of 4 bodies and 3 sub-goals; equal seeds give equal episodes."""
    rng = np.random.default_rng(seed)
    pictures = [scene(rng, objects, beads) for _ in range(steps + 1)]
    widths = {"pick_position": 3, "pick_quaternion": 4, "place_position": 3, "place_quaternion": 4}
    return FakeDemonstration(
        seed=seed,
        problem="fake",
        color=np.stack([color for color, _ in pictures]),
        height=np.stack([height for _, height in pictures]),
        pointer=rng.integers(0, 4, steps + 1),
        actions={name: rng.normal(size=(steps, width)).astype(np.float32) for name, width in widths.items()},
        periods=np.full(steps, 2 * np.pi, np.float32),
        rewards=rng.random(steps),
        poses=rng.normal(size=(steps + 1, 4, 7)).astype(np.float32),
        subgoals=[f"placing/part {index}" for index in range(3)],
        goal_frames=rng.integers(0, steps + 1, 3),
        holds=rng.random((steps + 1, 3)) < 0.5,
        success=seed % 5 != 3,
        reason="" if seed % 5 != 3 else f"part {seed % 7} was dropped",
    )


def fake_run(seed: int, log: Path | None, seconds: float) -> FakeDemonstration:
    """Demonstrates a seed; notes it in `log`, so that tests can tell which seeds were run."""
    if log is not None:
        with open(log, "a") as file:
            file.write(f"{seed}\n")
    time.sleep(seconds)
    return make_episode(seed)


def make_fake(log: Path | None = None, seconds: float = 0.0) -> Callable[[int], Any]:
    return partial(fake_run, log=log, seconds=seconds)


def crash_run(seed: int, marks: Path, crashes: int) -> FakeDemonstration:
    """Kills its own process with SIGKILL the first `crashes` times that seed 104 is run."""
    count = len(list(marks.glob("crash*")))
    if seed == 104 and count < crashes:
        (marks / f"crash{count}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return make_episode(seed)


def make_crashing(marks: Path, crashes: int) -> Callable[[int], Any]:
    return partial(crash_run, marks=marks, crashes=crashes)


def die(*arguments: Any) -> None:
    os._exit(1)


def make_broken() -> Callable[[int], Any]:
    raise ValueError("the environment cannot be built")


def make_store(data: Path, split: str = "train", seeds: range = SEEDS) -> Store:
    return Store.create(data, "fake", split, seeds, ENVIRONMENT)


def assert_one_line(error: pytest.ExceptionInfo[UserError], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


def main(argv: list[str]) -> int:
    data, episodes, workers, seconds = argv
    make_run = partial(make_fake, None, float(seconds))
    return cli.guard(lambda: print(collect(make_run, make_store(Path(data)), int(episodes), int(workers))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
