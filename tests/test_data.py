"""What is written to disk: whole, small, the same for any number of workers and after any death."""

import errno
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from safetensors import safe_open
from safetensors.numpy import save

from multiravens.data import Episode, Store, codec, collect, find_stores, parse_splits, read_episode, write_episode
from multiravens.data.__main__ import main as data_main
from multiravens.data.files import locked
from multiravens.errors import UserError
from multiravens.heightmap import reduce_half
from tests import fake_episodes
from tests.fake_episodes import SEEDS, make_crashing, make_episode, make_fake, make_store, scene

ROOT = Path(__file__).parents[1]
ARRAYS = ("color", "pointer", "rewards", "poses", "goal_frames", "holds")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_one_line(error: pytest.ExceptionInfo[UserError], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


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


class TestSplits:
    def test_disjoint_ranges_are_accepted(self) -> None:
        assert parse_splits({"train": [0, 10], "test": [10, 20]}) == {"train": range(10), "test": range(10, 20)}

    def test_overlapping_ranges_are_refused_by_name(self) -> None:
        with pytest.raises(UserError) as error:
            parse_splits({"train": [0, 10], "validation": [20, 30], "test": [9, 20]})
        assert_one_line(error, "train", "test", "from 9 to 9")

    @pytest.mark.parametrize(
        "splits",
        [None, {}, [1], {"a": None}, {"a": [1]}, {"a": [1, 1]}, {"a": [-1, 3]}, {"a": [0, 1.5]}, {"a": [0, 2**40]}]
        + [{"../a": [0, 1]}, {1: [0, 1]}, {"a": [True, 3]}, {"": [0, 1]}],
    )
    def test_nonsense_is_refused_in_one_line(self, splits: Any) -> None:
        with pytest.raises(UserError) as error:
            parse_splits(splits)
        assert_one_line(error)

    def test_a_split_that_overlaps_one_on_disk_is_refused(self, tmp_path: Path) -> None:
        collect(make_fake, make_store(tmp_path), 1)
        with pytest.raises(UserError, match="splits test .* and train .* share"):
            collect(make_fake, make_store(tmp_path, "test", range(199, 300)), 1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    data = tmp_path_factory.mktemp("undisturbed")
    assert collect(make_fake, make_store(data), 12) == (12, 3, 12)
    return contents(data)


class TestCollect:
    def test_the_first_successful_seeds_are_kept_and_the_others_listed(self, undisturbed: dict[str, bytes]) -> None:
        kept = [seed for seed in SEEDS if seed % 5 != 3][:12]
        names = {f"fake/train/episode_{seed:06d}.safetensors" for seed in kept}
        extra = {f"fake/train/{name}" for name in ("dataset.json", "rejected.json", "manifest.json", ".lock")}
        assert set(undisturbed) == names | extra
        rejected = json.loads(undisturbed["fake/train/rejected.json"])["seeds"]
        assert [item["seed"] for item in rejected] == [103, 108, 113]
        assert "dropped" in rejected[0]["reason"]

    def test_four_workers_leave_the_same_bytes_as_one(self, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
        assert collect(make_fake, make_store(tmp_path), 12, workers=4) == (12, 3, 12)
        assert contents(tmp_path) == undisturbed

    def test_growing_a_data_set_leaves_the_same_bytes_as_making_it_at_once(
        self, undisturbed: dict[str, bytes], tmp_path: Path
    ) -> None:
        for episodes in (3, 5, 12):
            collect(make_fake, make_store(tmp_path), episodes)
        assert contents(tmp_path) == undisturbed

    def test_only_lost_seeds_are_run_again(self, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
        store = make_store(tmp_path / "data")
        collect(make_fake, store, 12)
        store.path(102).unlink()
        (store.folder / ".episode_000102.safetensors.1.tmp").write_bytes(b"torn")
        (store.folder / "manifest.json").unlink()
        log = tmp_path / "log"
        assert collect(partial(make_fake, log), store, 12).new == 1
        assert log.read_text() == "102\n"
        assert contents(tmp_path / "data") == undisturbed

    def test_a_complete_data_set_stays_and_builds_no_environment(
        self, undisturbed: dict[str, bytes], tmp_path: Path
    ) -> None:
        collect(make_fake, make_store(tmp_path), 12)
        for episodes, workers in ((12, 1), (4, 1), (12, 4)):
            assert collect(fake_episodes.make_broken, make_store(tmp_path), episodes, workers) == (12, 3, 0)
        assert contents(tmp_path) == undisturbed

    def test_progress_ends_at_what_was_asked_for(self, tmp_path: Path) -> None:
        seen: list[tuple[int, int]] = []
        collect(make_fake, make_store(tmp_path), 4, progress=lambda *counts: seen.append(counts))
        assert seen == [(1, 0), (2, 0), (3, 0), (3, 1), (4, 1)]

    @pytest.mark.parametrize(
        ("episodes", "workers"), [(0, 1), (-1, 1), (101, 1), (1.5, 1), (True, 1), ("3", 1), (1, 0), (1, -2), (1, None)]
    )
    def test_numbers_out_of_range_are_refused(self, episodes: Any, workers: Any, tmp_path: Path) -> None:
        with pytest.raises(UserError) as error:
            collect(make_fake, make_store(tmp_path), episodes, workers)
        assert_one_line(error, "must be an integer from 1")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_split_that_runs_out_of_seeds_is_told(self, workers: int, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="only 4 of the 5 seeds"):
            collect(make_fake, make_store(tmp_path, seeds=range(100, 105)), 5, workers)
        assert len(make_store(tmp_path).kept()) == 4

    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_mistake_in_building_the_environment_is_its_own_error(self, workers: int, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="cannot be built"):
            collect(fake_episodes.make_broken, make_store(tmp_path), 3, workers)

    def test_another_configuration_is_refused_by_what_differs(self, tmp_path: Path) -> None:
        collect(make_fake, make_store(tmp_path), 1)
        environment = {**fake_episodes.ENVIRONMENT, "camera": {"noise": 0.5}}
        with pytest.raises(UserError) as error:
            collect(make_fake, Store.create(tmp_path, "fake", "train", SEEDS, environment), 1)
        assert_one_line(error, "camera.noise=0.0 instead of 0.5")
        with pytest.raises(UserError, match=r"splits.train=\[100, 200\] instead of \[100, 201\]"):
            collect(make_fake, make_store(tmp_path, seeds=range(100, 201)), 1)

    def test_a_problem_cannot_lead_out_of_the_folder(self, tmp_path: Path) -> None:
        for name in ("..", "a/b", "", "-x", "."):
            with pytest.raises(UserError, match="name"):
                Store.create(tmp_path, name, "train", SEEDS, {})

    def test_a_folder_in_use_is_refused_and_not_touched(self, tmp_path: Path) -> None:
        store = make_store(tmp_path)
        with locked(store.folder), pytest.raises(UserError, match="another command is writing"):
            collect(make_fake, store, 2)
        assert [path.name for path in store.folder.iterdir()] == [".lock"]
        assert collect(make_fake, store, 2).kept == 2

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
    @pytest.mark.parametrize("call", ["replace", "fsync", "open"])
    def test_a_disk_that_refuses_is_told_and_leaves_nothing_torn(
        self, call: str, number: int, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = make_store(tmp_path)
        collect(make_fake, store, 3)
        original, calls = getattr(os, call), []

        def refuse(*arguments: Any, **options: Any) -> Any:
            calls.append(arguments)
            if len(calls) > 2:
                raise OSError(number, os.strerror(number), str(arguments[0]))
            return original(*arguments, **options)

        with monkeypatch.context() as patch, pytest.raises(UserError) as error:
            patch.setattr(os, call, refuse)
            collect(make_fake, store, 12)
        assert_one_line(error, os.strerror(number), "run the command again")
        assert not list(store.folder.glob(".*.tmp"))
        for seed in store.kept():
            read_episode(store.path(seed))
        collect(make_fake, store, 12)
        assert contents(tmp_path) == undisturbed

    @pytest.mark.parametrize("place", ["file", "proc"])
    def test_a_folder_that_cannot_be_made_is_told(self, place: str, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        data = tmp_path / "file" if place == "file" else Path("/proc/none")
        with pytest.raises(UserError) as error:
            collect(make_fake, make_store(data), 1)
        assert_one_line(error, str(data), "run the command again")

    def test_a_damaged_or_foreign_file_in_the_folder_is_told(self, tmp_path: Path) -> None:
        store = make_store(tmp_path)
        collect(make_fake, store, 2)
        for name in ("dataset.json", "rejected.json", "manifest.json"):
            path = store.folder / name
            kept = path.read_bytes() if path.exists() else None
            for content in (b"", b"[]", b"[" * 100_000, b'{"format": 3}', b"\xff\xfe"):
                path.write_bytes(content)
                with pytest.raises(UserError, match=name):
                    collect(make_fake, store, 3)
            path.write_bytes(kept) if kept is not None else path.unlink()
        (store.folder / "episode_000007.safetensors").touch()
        with pytest.raises(UserError, match="not of this split"):
            collect(make_fake, store, 3)


class TestDeath:
    def test_the_seed_of_a_killed_worker_is_run_again(self, tmp_path: Path) -> None:
        collect(make_fake, make_store(tmp_path / "undisturbed"), 6)
        collect(partial(make_crashing, tmp_path, 2), make_store(tmp_path / "killed"), 6, workers=2)
        assert len(list(tmp_path.glob("crash*"))) == 2
        assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")

    def test_a_seed_that_always_kills_its_worker_ends_the_run_in_one_line(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "data")
        with pytest.raises(UserError) as error:
            collect(partial(make_crashing, tmp_path, 99), store, 6, workers=2)
        assert_one_line(error, "seed 104 was lost 3 times", "exit code -9")
        assert not list(store.folder.glob(".*.tmp"))

    def test_workers_that_cannot_start_end_the_run_in_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("multiravens.data.collect._start_worker", fake_episodes.die)
        with pytest.raises(UserError) as error:
            collect(make_fake, make_store(tmp_path), 6, workers=2)
        assert_one_line(error, "died before their work", "workers=1")

    def start(self, data: Path, episodes: int, workers: int, seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.fake_episodes", *map(str, (data, episodes, workers, seconds))]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    @pytest.mark.parametrize("workers", [1, 4])
    def test_a_command_killed_at_any_moment_and_run_again_leaves_the_same_bytes(
        self, workers: int, undisturbed: dict[str, bytes], tmp_path: Path
    ) -> None:
        rng = np.random.default_rng(workers)
        store = make_store(tmp_path / "killed")
        for killed in range(3):
            process = self.start(tmp_path / "killed", 12, workers, 0.02)
            deadline, wanted = time.monotonic() + 20, 2 + 3 * killed
            while time.monotonic() < deadline and process.poll() is None:
                if store.folder.exists() and len(store.kept()) >= wanted:
                    break
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.03))
            process.kill()
            process.communicate()
            for seed in store.kept():
                read_episode(store.path(seed))
        process = self.start(tmp_path / "killed", 12, workers, 0.0)
        assert process.wait() == 0, process.stderr.read() if process.stderr else ""
        process.communicate()
        assert contents(tmp_path / "killed") == undisturbed

    @pytest.mark.parametrize("workers", [1, 2])
    def test_ctrl_c_ends_in_one_line_with_status_130_and_nothing_torn(self, workers: int, tmp_path: Path) -> None:
        store = make_store(tmp_path)
        process = self.start(tmp_path, 90, workers, 0.05)
        while process.poll() is None and not (store.folder.exists() and store.kept()):
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert (process.returncode, errors) == (130, "interrupted\n")
        assert not list(store.folder.glob(".*.tmp"))
        assert collect(make_fake, store, 4).kept >= 4


class TestDataCommand:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        store = make_store(tmp_path)
        collect(make_fake, store, 3)
        return store

    def test_inspect_tells_counts_and_draws_a_picture(self, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        assert data_main(["inspect", str(store.folder.parents[1])]) == 0
        printed = capsys.readouterr().out
        for part in ("3 episodes", "steps     2 to 2", "3 of 3", "KB a frame", "rejected  0", "contact_sheet.png"):
            assert part in printed
        assert (store.folder / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")

    def test_inspect_of_one_file_tells_its_sub_goals(self, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        assert data_main(["inspect", str(store.path(100)), "--out", str(store.folder / "one.png")]) == 0
        assert "placing/part 2 holds from frame" in capsys.readouterr().out

    def test_verify_accepts_what_was_just_made(self, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        assert data_main(["verify", str(store.folder)]) == 0
        assert "all 3 episodes" in capsys.readouterr().out

    def test_verify_lists_every_bad_file(self, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        store.path(100).write_bytes(store.path(100).read_bytes()[:-1])
        write_episode(store.path(101), make_episode(101, steps=1), store.fingerprint)
        store.path(102).unlink()
        write_episode(store.path(104), make_episode(104), store.fingerprint)
        write_episode(store.path(105), make_episode(105), "another")
        assert data_main(["verify", str(store.folder)]) == 1
        lines = capsys.readouterr().out.splitlines()
        expected = ["000102", "000100", "000101", "000104", "000105"]
        assert len(lines) == len(expected)
        for line, name in zip(lines, expected, strict=True):
            assert name in line

    def test_rebuilding_gives_the_manifest_that_collecting_wrote(self, store: Store) -> None:
        before = (store.folder / "manifest.json").read_bytes()
        (store.folder / "manifest.json").write_bytes(b"damaged")
        assert data_main(["verify", str(store.folder)]) == 2
        assert data_main(["verify", str(store.folder), "--rebuild"]) == 0
        assert (store.folder / "manifest.json").read_bytes() == before

    @pytest.mark.parametrize("command", ["inspect", "verify"])
    def test_a_path_without_data_ends_in_one_line(
        self, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_bytes(b"not an episode")
        for path in (tmp_path / "none", tmp_path, tmp_path / "file"):
            assert data_main([command, str(path)]) == 2
            assert capsys.readouterr().err.count("\n") == 1

    def test_data_sets_are_found_from_any_level(self, store: Store) -> None:
        for path in (store.folder, store.folder.parent, store.folder.parents[1]):
            assert [found.folder for found in find_stores(path)] == [store.folder]


def test_equal_episodes_have_equal_bytes_in_a_fresh_process(tmp_path: Path) -> None:
    script = (
        "import sys; from multiravens.data import write_episode; from tests.fake_episodes import make_episode; "
        "write_episode(sys.argv[1], make_episode(7))"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "fresh")], cwd=ROOT, check=True)
    episode: Episode = make_episode(7)
    write_episode(tmp_path / "here", episode)
    assert (tmp_path / "fresh").read_bytes() == (tmp_path / "here").read_bytes()
