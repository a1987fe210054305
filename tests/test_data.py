"""Files on disk: whole, small, the same for any number of workers and after any death."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiravens.data import Store, collect, find_stores, parse_splits, read_episode, write_episode
from multiravens.data.__main__ import main as data_main
from multiravens.errors import UserError
from multiravens.support.files import locked
from tests import fake_episodes
from tests.fake_episodes import SEEDS, assert_one_line, make_crashing, make_episode, make_fake, make_store

ROOT = Path(__file__).parents[1]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
        monkeypatch.setattr("multiravens.support.workers._serve", fake_episodes.die)
        with pytest.raises(UserError) as error:
            collect(make_fake, make_store(tmp_path), 6, workers=2)
        assert_one_line(error, "died before their work", "workers=1")

    def start(self, data: Path, episodes: int, workers: int, seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.fake_episodes", *map(str, (data, episodes, workers, seconds))]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
            # A shell's background job ignores Ctrl-C, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

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
