"""Demonstrations made without a simulator: blocks to be put where the goal images show them."""

from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from multiravens.data.storage.episode import Episode, write_episode
from multiravens.data.storage.store import Store
from multiravens.geometry import SHAPE, pixel_to_xy, yaw_quaternion
from multiravens.options.compose import compose

ENVIRONMENT = {"source": "synthetic"}


def episode(seed: int, problem: str = "synthetic", blocks: int = 2) -> Episode:
    """Blocks of 12 x 12 pixels that go from the left half to the right one."""
    rng = np.random.default_rng(seed)
    rows = 30 + 60 * rng.permutation(4)[:blocks]
    starts = np.c_[rows + rng.integers(-10, 10, blocks), rng.integers(20, 60, blocks)]
    ends = np.c_[rows + rng.integers(-10, 10, blocks), rng.integers(100, 140, blocks)]
    frames = [_draw([ends[i] if i < done else starts[i] for i in range(blocks)]) for done in range(blocks + 1)]
    still = np.tile(yaw_quaternion(0.0), (blocks, 1)).astype(np.float32)
    return Episode(
        seed=seed,
        problem=problem,
        color=np.stack([color for color, _ in frames]),
        height=np.stack([height for _, height in frames]),
        pointer=np.arange(blocks + 1),
        actions={
            "pick_position": _positions(starts),
            "pick_quaternion": still,
            "place_position": _positions(ends),
            "place_quaternion": still,
        },
        periods=np.full(blocks, np.pi / 2, np.float32),
        rewards=np.full(blocks, 1 / blocks),
        poses=np.zeros((blocks + 1, 0, 7), np.float32),
        subgoals=[f"block {index}" for index in range(blocks)],
        goal_frames=np.arange(1, blocks + 1),
        holds=np.tril(np.ones((blocks + 1, blocks), bool), -1),
        success=True,
    )


def write(data: Path, episodes: int, problem: str = "synthetic") -> None:
    """A data set of such demonstrations."""
    store = Store.create(data, problem, "train", range(100_000), ENVIRONMENT)
    with store.writing():
        for seed in range(episodes):
            write_episode(store.path(seed), episode(seed, problem), store.fingerprint)
    assert store.kept() == list(range(episodes))


def configured(*overrides: str) -> dict[str, object]:
    """The configuration of a training run, plain values."""
    config = OmegaConf.to_container(compose("train", overrides))
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _draw(middles: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    color, height = np.full((*SHAPE, 3), 90, np.uint8), np.zeros(SHAPE, np.float32)
    for index, (row, column) in enumerate(middles):
        at = np.s_[row - 6 : row + 6, column - 6 : column + 6]
        color[at], height[at] = (220, 60 + 70 * index, 40), 0.02
    return color, height


def _positions(pixels: np.ndarray) -> np.ndarray:
    return np.c_[pixel_to_xy(pixels), np.zeros(len(pixels))].astype(np.float32)
