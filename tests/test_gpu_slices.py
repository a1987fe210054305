"""`benchmarks/gpu.py` on a CPU: every stage runs, nothing is done twice, and a training is taken up again."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from multiravens.agents.acting.load import load_agent
from multiravens.data.__main__ import main as data_main
from multiravens.errors import UserError

ROOT = Path(__file__).parents[1]


def call(pack: Path, out: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "benchmarks/gpu.py", "--data", str(pack), "--out", str(out), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def call_within_budget(pack: Path, out: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Runs two trainings with a budget for the first alone: a busy machine needs a larger one only to start."""
    for budget in (8, 16, 32, 64, 128):
        stages = ["--stages", "train-plain-100,train-modular-100"]
        made = call(pack, out, "--dry-run", "--budget", str(budget), *stages, *words)
        if "is too small for stage" not in made.stderr:
            break
    return made


@pytest.fixture(scope="module")
def pack(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "two.safetensors"
    assert data_main(["pack", str(data), "--out", str(path), "--demos", "2"]) == 0
    return path


@pytest.fixture(scope="module")
def whole(pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a dry run of all stages."""
    out = tmp_path_factory.mktemp("whole")
    made = call(pack, out, "--dry-run", "--budget", "280")
    assert made.returncode == 0, made.stdout + made.stderr
    return out


def test_a_dry_run_does_every_stage_and_keeps_little(whole: Path, pack: Path, tmp_path: Path) -> None:
    kept = sorted((whole / "keep").iterdir())
    assert [path.name for path in kept] == ["agents-0.zip", "results.json"]
    assert all(path.stat().st_size < 16 * 2**20 for path in kept)
    results = json.loads((whole / "keep" / "results.json").read_text())
    assert results["tests"]["outcome"].endswith("s") and len(results) > 25
    rows = results["targets"]["rows"]
    assert rows["plain"]["ratio"] == 1.0 and 0 < rows["modular"]["share_of_floor"] < 1
    assert len(rows["plain"]["costs"]) == 5 and results["targets"]["actions"]["modular"]["seconds_per_action"] > 0
    trainings = {name: each for name, each in results.items() if name.startswith("train-")}
    assert len(trainings) > 7 and all(each["done"] and each["samples"] == 8 for each in trainings.values())
    with zipfile.ZipFile(whole / "keep" / "agents-0.zip") as archive:
        archive.extractall(tmp_path)
    agent = load_agent(tmp_path / "modular-100")
    assert agent.network.streams.problems == ["other", "synthetic"]
    assert (tmp_path / "modular-100" / "metrics.jsonl").exists()


def test_what_is_there_is_not_done_again(whole: Path, pack: Path) -> None:
    before = {path: path.read_bytes() for path in (whole / "keep").iterdir()}
    made = call(pack, whole, "--dry-run", "--budget", "30")
    assert made.returncode == 0 and made.stdout.count("there already") == len(list((whole / "stages").iterdir()))
    assert before == {path: path.read_bytes() for path in (whole / "keep").iterdir()}


def test_a_training_goes_on_on_another_machine_from_what_was_carried_home(
    whole: Path, pack: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(whole / "stages", first / "stages")
    (first / "stages" / "train-plain-100.json").unlink()
    reached = []
    for out in (first, second):
        made = call_within_budget(pack, out, "steps=1000000", "task_sampling=uniform", "checkpoint_every=50")
        assert made.returncode == 0 and "call again to go on" in made.stdout, made.stdout + made.stderr
        found = json.loads((out / "stages" / "train-plain-100.json").read_text())
        assert not found["done"] and found["of"] == 1000000
        reached.append(found["steps"])
        if out == first:
            shutil.copytree(first / "keep", second / "keep")
    assert 0 < reached[0] < reached[1]


Told = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    """Runs the command and returns the one line that it answers with."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    main = import_module("gpu").main

    def run(pack: Path, *words: str) -> str:
        capsys.readouterr()
        assert main(["--data", str(pack), "--out", str(tmp_path / "out"), *words]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return str(line)

    return run


def test_bad_input_is_told_in_one_line(refused: Told, pack: Path, data: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    assert data_main(["pack", str(data), "--out", str(half), "--demos", "2", "--resolution", "half"]) == 0
    told = refused(pack, "--dry-run", "--budget", "1")
    assert re.fullmatch(r"error: --budget 1 is too small for stage facts: give \d+ or more", told)
    assert refused(pack, "--dry-run", "--stages", "fact").startswith("error: unknown stage 'fact': choose from facts")
    assert refused(half, "--dry-run").endswith("pack again with --resolution full")
    assert "there is no pack" in refused(tmp_path / "none.safetensors", "--dry-run")
    if not torch.cuda.is_available():
        assert "there is no CUDA device here: give --dry-run, which needs none" in refused(pack)


def test_the_table_does_without_what_failed_or_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    names = dict(import_module("gpu_stages").stages())
    for figures in ({"failed": "no memory"}, {"left_out": "a pack of four"}):
        assert import_module("gpu").table(dict.fromkeys(names, figures), False).row_count == 0


def test_results_from_elsewhere_write_nothing_outside(refused: Told, pack: Path, tmp_path: Path) -> None:
    path = tmp_path / "out" / "keep" / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"../../evil": {}}')
    assert "results.json holds '../../evil', which is no stage" in refused(pack, "--dry-run")
    path.write_text("[1")
    assert "results.json is damaged" in refused(pack, "--dry-run")
    assert not list(tmp_path.glob("**/evil*")) and not list(tmp_path.parent.glob("evil*"))


def test_archives_from_elsewhere_write_nothing_outside(refused: Told, pack: Path, tmp_path: Path) -> None:
    path = tmp_path / "out" / "keep" / "agents-0.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../evil/config.yaml", "x")
    assert "agents-0.zip holds '../../evil/config.yaml'" in refused(pack, "--dry-run")
    assert not (tmp_path.parent / "evil").exists() and not (tmp_path / "evil").exists()
    path.write_bytes(b"PK")
    assert "agents-0.zip is damaged" in refused(pack, "--dry-run")


def test_a_convolution_in_groups_is_counted_once_for_its_output_and_twice_for_its_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    counted = import_module("training").COUNTED
    images = torch.randn(2, 32, 9, 7, requires_grad=True)
    weights = torch.randn(32, 8, 3, 3, requires_grad=True)
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        functional.conv2d(images, weights, padding=1, groups=4).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * (2 * 32 * 9 * 7) * (8 * 3 * 3)


def test_memory_that_does_not_suffice_says_which_batch_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    speed = import_module("gpu_speed")

    class Scarce:
        def __init__(self, words: tuple[str, ...], *_: Any) -> None:
            self.batch = int(dict(word.split("=") for word in words)["batch"])

        def train(self, steps: int) -> float:
            if self.batch > 100:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return 1.0

    monkeypatch.setattr(speed, "Bench", Scarce)
    with pytest.raises(UserError, match="out of memory: large with batch=512: batch=64 fits"):
        speed.measure({"large": speed.Variant(("batch=512",))}, {}, {}, 1)


def test_a_stage_that_fails_ends_neither_the_others_nor_what_is_done(pack: Path, tmp_path: Path) -> None:
    made = call(pack, tmp_path / "out", "--dry-run", "--stages", "facts,train-plain-1,plain-tf32")
    assert made.returncode == 2
    (line,) = [line for line in made.stderr.splitlines() if "error" in line or "Traceback" in line]
    assert line == "error: train-plain-1: stages that train need the stage targets first: name it, or give no --stages"
    results = json.loads((tmp_path / "out" / "keep" / "results.json").read_text())
    assert set(results) == {"facts", "plain-tf32", "train-plain-1"} and "rows" in results["plain-tf32"]
    assert results["train-plain-1"]["failed"] in line
