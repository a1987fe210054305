"""The digest of the source that measures: what changes it and what does not."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from multiravens.evaluation import source
from multiravens.evaluation.source import package_source, users_source

ROOT = Path(source.__file__).parents[1]
ACTING = {
    *(f"evaluation/{name}.py" for name in ("measure", "metrics", "record", "workers")),
    *("support/statistics.py", "geometry.py", "heightmap.py"),
    "assets/ur5e/ur5e.urdf",
    *("envs/__init__.py", "envs/environment.py", "envs/primitive.py", "envs/problem.py", "envs/oracle.py"),
    *("sim/world.py", "sim/cameras.py", "sim/domain.py", "sim/motion.py", "sim/arm.py", "sim/shapes.py"),
    *("tasks/chaining.py", "tasks/parts.py", "tasks/placing.py", "tasks/routing.py", "tasks/stacking.py"),
    *(f"agents/acting/{name}.py" for name in ("agent", "load", "policy", "pointer", "retry", "conditioning")),
    *(f"agents/networks/{name}.py" for name in ("isometric", "modular/streams", "resnet43")),
}
OTHERS = {
    *("experiments/report.py", "experiments/plots.py", "drawing/video.py", "experiments/sweep.py"),
    *(f"agents/training/{name}.py" for name in ("trainer", "session", "objectives", "losses")),
    *("agents/adaptation/method.py", "data/training/augmentation.py"),
}


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Have files read again afterwards: a process reads each once."""
    yield
    _forget()


def _forget() -> None:
    for cached in (source._file, source._imports, source._hash, source.package_source):
        cached.cache_clear()


def test_what_acts_in_a_rollout_is_part_of_the_digest_and_what_trains_and_draws_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _forget()
    read: list[str] = []

    def noted(path: Path) -> str:
        read.append(str(path.relative_to(ROOT)))
        return ""

    monkeypatch.setattr(source, "_hash", noted)
    package_source()
    assert ACTING <= set(read) and not OTHERS & set(read)
    assert all((ROOT / name).exists() for name in OTHERS)


def test_edited_code_has_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    _forget()
    before, hashed = package_source(), source._hash
    _forget()
    assert package_source() == before
    monkeypatch.setattr(source, "_hash", lambda path: "edited" if path.name == "world.py" else hashed(path))
    package_source.cache_clear()
    assert package_source() != before
    monkeypatch.undo()


def test_a_users_own_classes_and_what_they_import_are_part_of_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_of_source").mkdir()
    files = {name: tmp_path / "mine_of_source" / f"{name}.py" for name in ("__init__", "task", "helper", "unused")}
    for path in files.values():
        path.write_text("")
    files["task"].write_text("import numpy\ndef late():\n    from .helper import thing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    target = {"modules": [{"_target_": "mine_of_source.task.Task"}]}
    digests = {"": users_source(target)}
    for name, path in files.items():
        path.write_text(f"{path.read_text()}# edited\n")
        _forget()
        digests[name] = users_source(target)
    assert len(set(digests.values())) == 4 and digests["unused"] == digests["helper"]
    assert "mine_of_source" not in sys.modules


@pytest.mark.parametrize(
    "target",
    ["multiravens.envs.Problem", "torch.nn.Conv2d", "os.system", "builtins.len", "nowhere.Class", "", "..", 5],
)
def test_no_class_of_a_users_own_has_no_digest(target: object) -> None:
    assert users_source({"_target_": target}) is None


def test_it_is_found_without_importing_what_acts() -> None:
    code = "import sys; from multiravens.evaluation.source import package_source; package_source(); "
    code += "print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
