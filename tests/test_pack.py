"""Packs: many episodes in one file or in shards, read back to the bit, trained from, and refused when damaged."""

import json
import re
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from multiravens.data.__main__ import main
from multiravens.data.storage.episode import Episode, read_episode, write_episode
from multiravens.data.storage.pack import Pack, write_pack
from multiravens.data.storage.store import find_stores
from multiravens.data.training.demonstrations import Demonstrations, load
from multiravens.errors import UserError
from multiravens.support.files import in_turn
from multiravens.support.shards import fill_shards, parse_size, shard_paths
from multiravens.train import main as train
from tests import synthetic
from tests.fake_episodes import SEEDS, make_episode, make_store


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Episodes with bodies, beads and everything else, of two data sets."""
    for split, seeds in (("train", SEEDS), ("test", range(300, 400))):
        store = make_store(tmp_path / "data", split, seeds)
        with store.writing():
            for seed in seeds[:3]:
                write_episode(store.path(seed), make_episode(seed), store.fingerprint)
    return tmp_path / "data"


def assert_same(one: Episode, other: Episode) -> None:
    for name in (field.name for field in fields(Episode)):
        mine, theirs = getattr(one, name), getattr(other, name)
        if isinstance(mine, dict):
            assert mine.keys() == theirs.keys()
            assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
        elif isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs), name
        else:
            assert mine == theirs, name


@pytest.mark.parametrize("shard_size", [None, 20_000], ids=["one file", "shards"])
def test_episodes_come_back_to_the_bit(shard_size: int | None, data: Path, tmp_path: Path) -> None:
    stores = find_stores(data)
    paths = write_pack(tmp_path / "all.safetensors", stores, shard_size=shard_size, workers=2)
    assert (len(paths) > 1) == bool(shard_size)
    assert all(path.stat().st_size <= (shard_size or 10**9) for path in paths)
    pack = Pack.open(tmp_path / "all.safetensors")
    assert pack.seeds == {store.name: store.kept() for store in stores}
    for store in stores:
        assert pack.environments[store.name] == store.environment
        for seed in store.kept():
            assert_same(pack.read(store.name, seed), read_episode(store.path(seed)))


def test_equal_data_gives_equal_packs_whatever_the_workers(data: Path, tmp_path: Path) -> None:
    for workers in (1, 3):
        write_pack(tmp_path / f"{workers}.safetensors", find_stores(data), workers=workers)
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "3.safetensors").read_bytes()


@pytest.mark.parametrize(("packed", "wanted"), [("full", "full"), ("half", "half"), ("full", "half")])
def test_training_sees_the_same_tensors(packed: str, wanted: str, data: Path, tmp_path: Path) -> None:
    pack = tmp_path / "pack.safetensors"
    write_pack(pack, find_stores(data), resolution=packed)
    loaded = [load(source, ["fake"], 3, wanted) for source in (data, pack)]
    assert loaded[0][1] == loaded[1][1]
    one, two = (Demonstrations(episodes, wanted) for episodes, _ in loaded)
    assert torch.equal(one.color, two.color) and torch.equal(one.height, two.height)
    for name in (field.name for field in fields(one.steps)):
        assert np.array_equal(getattr(one.steps, name), getattr(two.steps, name))


def test_the_same_agent_is_trained_from_a_pack_as_from_a_folder(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "data", 3)
    pack = tmp_path / "pack.safetensors"
    assert main(["pack", str(tmp_path / "data"), "--out", str(pack), "--resolution", "half", "--demos", "3"]) == 0
    words = ["problems=[synthetic]", "demos=3", "steps=2", "batch=2", "backbone=small", "backbone.network.width=16"]
    for name, source in (("folder", tmp_path / "data"), ("pack", pack)):
        assert train([*words, f"data={source}", f"run={tmp_path / name}"]) == 0
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("folder", "pack")]
    assert weights[0] == weights[1]


def test_packing_again_replaces_the_shards_of_before(data: Path, tmp_path: Path) -> None:
    path, stores = tmp_path / "a.safetensors", find_stores(data)
    many = write_pack(path, stores, shard_size=12_000)
    fewer = write_pack(path, stores, shard_size=20_000)
    assert len(many) > len(fewer) > 1
    assert sorted(tmp_path.glob("a*")) == fewer
    assert write_pack(path, stores) == [path] == sorted(tmp_path.glob("a*"))


def test_commands_that_pack_to_one_name_do_so_in_turn(data: Path, tmp_path: Path) -> None:
    whole = write_pack(tmp_path / "other.safetensors", find_stores(data))[0].read_bytes()
    path = tmp_path / "out" / "all.safetensors"
    path.parent.mkdir()
    with ThreadPoolExecutor(1) as pool:
        with in_turn(path.parent):
            packing = pool.submit(write_pack, path, find_stores(data))
            assert wait([packing], timeout=2).not_done and not list(path.parent.iterdir())
            # What the other command writes in the meantime is replaced as a whole.
            for shard in shard_paths(path, 2):
                shard.write_bytes(whole)
        assert packing.result(timeout=60) == [path]
    assert list(path.parent.iterdir()) == [path] and path.read_bytes() == whole


def test_damage_and_loss_are_told_in_one_line(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(UserError, match="there is no pack .*a.safetensors: make one with `multiravens data pack"):
        Pack.open(path)
    shards = write_pack(path, find_stores(data), shard_size=20_000)
    whole = shards[0].read_bytes()
    shards[1].rename(tmp_path / "aside")
    with pytest.raises(UserError, match=f"lacks 1 of {len(shards)} shards: copy {shards[1].name} there"):
        Pack.open(path)
    (tmp_path / "aside").rename(shards[1])
    shards[0].write_bytes(whole[:-10])
    with pytest.raises(UserError, match="not a whole pack .*copy it again"):
        Pack.open(path)
    # One bit in the last episode's string: its checksum tells.
    shards[0].write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(UserError, match="not a whole pack"):
        [Pack.open(path).read(*_split(key)) for key in Pack.open(path).shards]
    shards[0].write_bytes(whole.replace(b'\\"version\\": 1', b'\\"version\\": 9', 1))
    with pytest.raises(UserError, match="format version 9, and this program reads 1"):
        Pack.open(path)


def test_seeds_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    store = make_store(tmp_path / "data", "train", range(2_000_000))
    with store.writing():
        for seed in (999_999, 1_000_000):
            write_episode(store.path(seed), make_episode(seed), store.fingerprint)
    write_pack(tmp_path / "a.safetensors", [store])
    assert Pack.open(tmp_path / "a.safetensors").seeds["fake/train"] == store.kept() == [999_999, 1_000_000]


def test_one_shard_does_not_pass_for_the_pack(data: Path, tmp_path: Path) -> None:
    shards = write_pack(tmp_path / "a.safetensors", find_stores(data), shard_size=20_000)
    with pytest.raises(UserError, match="is one shard of several: give .*a.safetensors"):
        Pack.open(shards[0])


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_commands_know_a_pack_that_is_cut_short(
    command: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = write_pack(tmp_path / "a.safetensors", find_stores(data))
    path.write_bytes(path.read_bytes()[:-10])
    assert main([command, str(path)]) == 2
    assert "is not a whole pack" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "environments"),
    [
        (["fake/train/7"], ["fake/train"]),
        (["fake/train/" + "9" * 5000], ["fake/train"]),
        (["fake/test/000007"], ["fake/train"]),
        (["fake/train/000007"], ["fake/train", "fake/test"]),
    ],
)
def test_names_that_we_did_not_write_are_refused(keys: list[str], environments: list[str], tmp_path: Path) -> None:
    about = {"format": "multiravens-pack", "version": 1, "resolution": "half", "sha256": ""}
    about["environments"] = {name: {} for name in environments}
    content = save({key: np.zeros(3, np.uint8) for key in keys}, {"multiravens": json.dumps(about)})
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="is no episode of it|holds no episode of it"):
        Pack.open(tmp_path / "a.safetensors")


def test_what_is_no_episode_is_damage(tmp_path: Path) -> None:
    about = {"format": "multiravens-pack", "version": 1, "resolution": "half", "sha256": ""}
    about["environments"] = {"fake/train": {}}
    header = {"poses": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}
    text = json.dumps(header).encode()
    inner = len(text).to_bytes(8, "little") + text + bytes(2)
    for blob in (b"no zstd", zstandard.ZstdCompressor().compress(inner)):
        content = save({"fake/train/000007": np.frombuffer(blob, np.uint8)}, {"multiravens": json.dumps(about)})
        (tmp_path / "a.safetensors").write_bytes(content)
        with pytest.raises(UserError, match="is not a whole pack"):
            Pack.open(tmp_path / "a.safetensors").read("fake/train", 7)


def test_data_sets_are_packed_from_within_their_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (data / "fake", data / "fake" / "train"):
        monkeypatch.chdir(folder)
        assert main(["pack", ".", "--split", "train", "--out", str(tmp_path / "a.safetensors")]) == 0
        assert list(Pack.open(tmp_path / "a.safetensors").seeds) == ["fake/train"]


def test_a_folder_with_braces_in_its_name_is_one_like_others(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"da\{ta\}/fake/train has 0 demonstrations"):
        load(tmp_path / "da{ta}", ["fake"], 3, "half")


def test_shards_of_another_pack_are_refused(data: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    shards = write_pack(one, find_stores(data), shard_size=20_000)
    others = write_pack(other, find_stores(data), shard_size=20_000, resolution="half")
    shards[1].write_bytes(others[0].read_bytes())
    with pytest.raises(UserError, match=r"is of another pack than .*: copy all shards of one pack"):
        Pack.open(one)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "trian"], "unknown split 'trian': choose from train, test"),
        (["--problems", "fke"], "unknown problem 'fke': choose from fake"),
        (["--demos", "0"], "--demos 0: give 1 or more"),
        (["--demos", "9"], "has 3 episodes, and --demos 9 asks for more"),
        (["--shard-size", "1 parsec"], "--shard-size='1 parsec': give a size such as 16MiB"),
        (["--shard-size", "2KiB"], r"--shard-size 2048: one of its parts takes \d+ bytes"),
        (["--out", "pack.zip"], "--out pack.zip: give a name that ends with .safetensors"),
    ],
)
def test_bad_options_are_told_in_one_line(
    words: list[str], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", str(data), "--out", str(tmp_path / "a.safetensors"), *words]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(message, told), told
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_pack_that_has_too_little_says_so(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_pack(path, find_stores(data), resolution="half", demos=2)
    with pytest.raises(UserError, match=r"has 2 demonstrations and demos=3 asks for more: pack more of them"):
        load(path, ["fake"], 3, "half")
    with pytest.raises(UserError, match="unknown data set in .*'fak/train': choose from fake/train"):
        load(path, ["fak"], 2, "half")
    with pytest.raises(UserError, match="half resolution and resolution=full asks for more"):
        load(path, ["fake"], 2, "full")


def test_packs_are_inspected_and_verified(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.safetensors"
    write_pack(path, find_stores(data), shard_size=20_000)
    assert main(["inspect", str(path)]) == main(["verify", str(path)]) == 0
    told = capsys.readouterr().out
    assert "fake/test: 3 episodes, seeds 300 to 302" in told and "all 6 episodes are whole" in told


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(50, 120))
@settings(max_examples=50, deadline=None)
def test_shards_hold_everything_once_and_no_more_than_they_may(sizes: list[int], limit: int) -> None:
    cut = fill_shards(sizes, limit)
    assert [index for each in cut for index in each] == list(range(len(sizes)))
    assert all(sum(sizes[index] for index in each) <= limit for each in cut)


def test_sizes_and_names_are_those_of_model_hubs() -> None:
    assert parse_size("16MiB", "x") == 16 * 2**20 and parse_size("1.5 kb", "x") == 1500 and parse_size(7, "x") == 7
    assert [path.name for path in shard_paths(Path("a.safetensors"), 2)] == [
        "a-00001-of-00002.safetensors",
        "a-00002-of-00002.safetensors",
    ]


def _split(key: str) -> tuple[str, int]:
    name, _, seed = key.rpartition("/")
    return name, int(seed)
