"""Methods of adaptation from outside, as docs/agents.md adds one: through the command, mistakes in one line."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from multiravens import train, transfer
from multiravens.agents.networks.checkpoint import read_tensors
from multiravens.support.runs import CONFIG, WEIGHTS, read_config
from tests import synthetic
from tests.snippets import write_snippets
from tests.tiny_training import MODULAR, TINY

SHORT = ["problem=new", "demos=2", "steps=3", "batch=2", "threads=1"]
NEW = re.compile(r"(?<=\bown\.)2\b|(?<=\bprograms\.)2\b")
"""The new problem's index in the names of parameters."""
NOTHING = """
from multiravens.agents.adaptation.method import Teaching

class Nothing(Teaching):
    def trained(self, network, problem):
        return []
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of docs/agents.md, and a method of no use, in a folder of a user's."""
    folder = tmp_path_factory.mktemp("outside")
    write_snippets("docs/agents.md", ["my_methods.py", "my_configs/train/turns.yaml"], folder)
    (folder / "no_method.py").write_text(NOTHING)
    methods = folder / "my_configs" / "train"
    (methods / "nothing.yaml").write_text("_target_: no_method.Nothing\nname: nothing\nlearning_rate: 0.1\n")
    synthetic.write(folder / "data", 2, "new")
    return folder


@pytest.fixture(autouse=True)
def found(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(outside))
    for name in ("my_methods", "no_method"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "two"
    assert train.main([*TINY, *MODULAR, f"data={data}", f"run={folder}"]) == 0
    return folder


def weights(folder: Path) -> dict[str, Tensor]:
    return read_tensors(folder / WEIGHTS)[0]


def call(outside: Path, run: Path, out: Path, *words: str) -> int:
    given = [f"run={run}", f"data={outside / 'data'}", f"out={out}", *SHORT, *words]
    return transfer.main(["--config-dir", str(outside / "my_configs"), *given])


def test_a_users_method_trains_what_it_says_and_nothing_else(
    outside: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(outside, run, tmp_path / "new", "train=turns", "start=other") == 0
    before, after = weights(run), weights(tmp_path / "new")
    moved = {name for name in after if not torch.equal(after[name], before[NEW.sub("1", name)])}
    assert moved == {"near.own.2.scale", "near.own.2.bias"}
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    counted = sum(after[f"near.own.2.{name}"].numel() for name in ("scale", "bias"))
    assert f"turns trained {counted} of " in capsys.readouterr().out
    told = read_config(tmp_path / "new")
    assert (told["transfer"]["train"], told["learning_rate"]) == ("turns", 0.05)
    assert "my_methods" not in (tmp_path / "new" / CONFIG).read_text()  # the agent is loaded without the method


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train=turn"], "unknown train 'turn': choose from turns, "),
        (["train=nothing"], "train=nothing trains no parameter of new: give another method"),
        (["train=patch", "train.trains=[afine]"], "unknown part of new's programs 'afine': choose from affine, order"),
        (
            ["train=turns", "labels=none"],
            "labels=none adapts a known problem's programs: give train=order or order+patch",
        ),
        (["train=turns", "train.learning_rate=fast"], "train.learning_rate=fast: give a number"),
        (["train=turns", "train.label_fre=true"], "label_fre"),
        (["train=[order]"], "give one name, out of adapter, full, harden"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], message: str, outside: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(outside, run, tmp_path / "new", *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "new" / WEIGHTS).exists()
