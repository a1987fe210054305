"""One episode's file: lossless, small, read one frame at a time, and refused in one line when damaged."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from safetensors import safe_open
from safetensors.numpy import save

from multiravens.data import Episode, read_episode, write_episode
from multiravens.data.storage import codec
from multiravens.errors import UserError
from multiravens.heightmap import reduce_half
from tests.fake_episodes import assert_one_line, make_episode, scene

ROOT = Path(__file__).parents[1]
ARRAYS = ("color", "pointer", "rewards", "poses", "goal_frames", "holds")


@pytest.fixture
def episode_path(tmp_path: Path) -> Path:
    path = tmp_path / "episode_000007.safetensors"
    write_episode(path, make_episode(7))
    return path


class TestEpisode:
    def test_what_is_read_is_what_was_written(self, tmp_path: Path) -> None:
        written = make_episode(7, steps=5)
        write_episode(tmp_path / "a", written)
        read = read_episode(tmp_path / "a")
        for name in ARRAYS:
            assert np.array_equal(getattr(read, name), getattr(written, name)), name
            assert getattr(read, name).dtype == getattr(written, name).dtype, name
        for name, value in written.actions.items():
            assert np.array_equal(read.actions[name], value)
        plain = ("seed", "problem", "subgoals", "success")
        assert [getattr(read, name) for name in plain] == [getattr(written, name) for name in plain]
        assert abs(read.height - written.height).max() <= 0.51 * codec.HEIGHT_QUANTUM

    def test_writing_what_was_read_gives_the_same_bytes(self, episode_path: Path, tmp_path: Path) -> None:
        write_episode(tmp_path / "again", read_episode(episode_path))
        assert (tmp_path / "again").read_bytes() == episode_path.read_bytes()

    def test_an_episode_without_steps_or_bodies_is_stored(self, tmp_path: Path) -> None:
        episode = make_episode(7, steps=0)
        episode.poses = np.zeros((1, 0, 7), np.float32)
        write_episode(tmp_path / "a", episode)
        assert read_episode(tmp_path / "a").poses.shape == (1, 0, 7)

    def test_a_realistic_frame_takes_at_most_12_kilobytes(self, tmp_path: Path) -> None:
        episode = make_episode(1, steps=7, objects=30, beads=60)
        assert write_episode(tmp_path / "a", episode) / 8 <= 12_000

    def test_one_frame_is_read_without_decoding_the_others(
        self, episode_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = read_episode(episode_path)
        decoded = []
        original = codec.decode_color

        def counted(blob: bytes, shape: tuple[int, int]) -> np.ndarray:
            decoded.append(len(blob))
            return original(blob, shape)

        monkeypatch.setattr(codec, "decode_color", counted)
        part = read_episode(episode_path, frames=[2, 0])
        assert len(decoded) == 2
        assert np.array_equal(part.color, whole.color[[2, 0]])
        assert np.array_equal(part.height, whole.height[[2, 0]])
        assert np.array_equal(part.poses, whole.poses)
        for frame in (3, -1):
            with pytest.raises(IndexError):
                read_episode(episode_path, frames=[frame])

    def test_half_resolution_is_the_reduction_of_the_full(self, episode_path: Path) -> None:
        full, half = read_episode(episode_path), read_episode(episode_path, "half")
        color, height = reduce_half(full.color, full.height)
        assert np.array_equal(half.color, color)
        assert np.array_equal(half.height, height)
        with pytest.raises(UserError, match="half"):
            read_episode(episode_path, "hlf")

    @pytest.mark.parametrize("height", [0.0, codec.HEIGHT_LIMIT, -4e-6])
    def test_heights_to_the_exact_bounds_are_stored(self, height: float) -> None:
        steps = codec.quantize_height(np.full((2, 2), height))
        assert abs(codec.dequantize_height(steps) - max(height, 0)).max() < 1e-7

    @pytest.mark.parametrize("height", [-6e-6, codec.HEIGHT_LIMIT + 6e-6, np.nan, np.inf])
    def test_heights_outside_the_bounds_are_refused(self, height: float) -> None:
        with pytest.raises(ValueError, match="height"):
            codec.quantize_height(np.array([0.1, height]))

    @pytest.mark.parametrize("kind", ["flat", "scene", "noise"])
    def test_pictures_of_any_kind_survive_compression(self, kind: str) -> None:
        rng = np.random.default_rng(0)
        color, height = scene(rng)
        if kind == "flat":
            color[:], height[:] = 200, 0
        elif kind == "noise":
            color, height = rng.integers(0, 256, color.shape, np.uint8), rng.uniform(0, 0.65, height.shape)
        assert np.array_equal(codec.decode_color(codec.encode_color(color), color.shape[:2]), color)
        stored = codec.decode_height(codec.encode_height(height), height.shape)
        assert np.array_equal(codec.quantize_height(stored), codec.quantize_height(height))

    @pytest.mark.parametrize("name", ["color", "rewards", "holds", "pointer", "goal_frames"])
    def test_a_field_of_the_wrong_length_is_refused(self, name: str, tmp_path: Path) -> None:
        episode = make_episode(7)
        setattr(episode, name, getattr(episode, name)[:-1])
        with pytest.raises(ValueError, match="shape"):
            write_episode(tmp_path / "a", episode)
        assert not list(tmp_path.iterdir())


def header_of(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["multiravens"])


def forge(path: Path, change: Callable[[dict[str, np.ndarray], dict[str, Any]], Any]) -> Path:
    tensors, about = header_of(path)
    change(tensors, about)
    path.write_bytes(save(tensors, {"multiravens": json.dumps(about)}))
    return path


def _bomb(tensors: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    blob = zstandard.ZstdCompressor().compress(bytes(2**27))
    tensors["color_blobs"] = np.frombuffer(blob * 3, np.uint8)
    tensors["color_offsets"] = np.arange(4) * len(blob)


def _unsized_bomb(tensors: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    blob = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(2**27))
    tensors["height_blobs"] = np.frombuffer(blob * 3, np.uint8)
    tensors["height_offsets"] = np.arange(4) * len(blob)


def _set(name: str, value: Any) -> Callable[[dict[str, np.ndarray], dict[str, Any]], Any]:
    return lambda tensors, about: (tensors if isinstance(value, np.ndarray) else about).update({name: value})


FORGERIES: dict[str, Callable[[dict[str, np.ndarray], dict[str, Any]], Any]] = {
    "bomb": _bomb,
    "bomb of untold size": _unsized_bomb,
    "offsets beyond the end": _set("color_offsets", np.array([0, 10, 20, 2**62])),
    "negative offsets": _set("height_offsets", np.array([0, -10, 20, 30])),
    "falling offsets": _set("color_offsets", np.array([0, 20, 10, 30])),
    "too many frames": _set("pointer", np.zeros(100_000, np.int64)),
    "wrong type": _set("rewards", np.zeros(2, np.float32)),
    "flat poses": _set("poses", np.zeros(7, np.float32)),
    "missing array": lambda tensors, about: tensors.pop("holds"),
    "extra array": _set("extra", np.zeros(7)),
    "other version": _set("version", 99),
    "other format": _set("format", "something else"),
    "seed is text": _set("seed", "7"),
    "sub-goals are numbers": _set("subgoals", [1, 2, 3]),
    "too many sub-goals": _set("subgoals", ["a"] * 10_000),
}


class TestDamagedFiles:
    @pytest.mark.parametrize("name", FORGERIES)
    def test_a_forged_file_is_refused_in_one_line(self, name: str, episode_path: Path) -> None:
        forge(episode_path, FORGERIES[name])
        with pytest.raises(UserError) as error:
            read_episode(episode_path)
        assert_one_line(error, str(episode_path), "delete it")

    def test_a_file_cut_anywhere_is_refused_in_one_line(self, episode_path: Path) -> None:
        content = episode_path.read_bytes()
        for length in [0, 1, 7, 8, 9, 100, *range(500, len(content), 997), len(content) - 1]:
            episode_path.write_bytes(content[:length])
            with pytest.raises(UserError) as error:
                read_episode(episode_path)
            assert_one_line(error, str(episode_path))

    @pytest.mark.parametrize(
        "content",
        [
            b"not an episode",
            struct.pack("<Q", 2**63) + b"{}",
            struct.pack("<Q", 50_000) + b"[" * 50_000,
            save({"a": np.zeros(3)}),
            save({"a": np.zeros(3)}, {"multiravens": "[" * 100_000}),
        ],
    )
    def test_a_foreign_file_is_refused_in_one_line(self, content: bytes, episode_path: Path) -> None:
        episode_path.write_bytes(content)
        with pytest.raises(UserError) as error:
            read_episode(episode_path)
        assert_one_line(error, str(episode_path), "delete it")

    def test_random_damage_is_refused_or_read_never_a_traceback(self, episode_path: Path) -> None:
        rng = np.random.default_rng(0)
        original = episode_path.read_bytes()
        for _ in range(200):
            content = bytearray(original)
            for place in rng.integers(0, len(content) if rng.random() < 0.5 else 1500, 3):
                content[place] = rng.integers(256)
            episode_path.write_bytes(content)
            try:
                read_episode(episode_path)
            except UserError as error:
                assert "\n" not in str(error)

    def test_a_missing_file_or_a_folder_is_refused_in_one_line(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none", tmp_path):
            with pytest.raises(UserError, match="no episode file"):
                read_episode(path)


def test_equal_episodes_have_equal_bytes_in_a_fresh_process(tmp_path: Path) -> None:
    script = (
        "import sys; from multiravens.data import write_episode; from tests.fake_episodes import make_episode; "
        "write_episode(sys.argv[1], make_episode(7))"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "fresh")], cwd=ROOT, check=True)
    episode: Episode = make_episode(7)
    write_episode(tmp_path / "here", episode)
    assert (tmp_path / "fresh").read_bytes() == (tmp_path / "here").read_bytes()
