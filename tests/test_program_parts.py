"""Parts of programs from outside, as docs/agents.md adds one: it is trained, saved, transferred, and runs grouped."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from multiravens import train, transfer
from multiravens.agents.acting.load import build
from multiravens.agents.networks.checkpoint import read_tensors
from multiravens.agents.networks.isometric import Isometric
from multiravens.agents.networks.modular.bank import Blocks
from multiravens.agents.networks.modular.parts.adapter import Adapter
from multiravens.agents.networks.modular.parts.affine import Affine
from multiravens.agents.networks.modular.parts.order import Order, entropy
from multiravens.agents.networks.modular.parts.width import Width
from multiravens.agents.networks.modular.program import Own, ProgramPart, Size
from multiravens.agents.networks.modular.streams import ModularStreams
from multiravens.agents.networks.patched import Tasks, by_problem
from multiravens.agents.networks.transporter import StreamMaps, Transporter
from multiravens.errors import UserError
from multiravens.options import search as configuration
from multiravens.options.trust import check_parts
from multiravens.support.runs import METRICS, STATE, WEIGHTS, read_config
from tests import synthetic
from tests.snippets import write_snippets
from tests.test_modular import Kernels
from tests.tiny_training import MODULAR, TINY, configured

MASKED = [*TINY, *MODULAR, "+program_part@backbone.streams.parts.mask=mask"]
NEW = re.compile(r"(?<=\bown\.)2\b|(?<=\bprograms\.)2\b")
"""The new problem's index in the names of parameters."""
FACTOR = "streams.programs.{}.pick.mask.factor"


class Bottleneck(ProgramPart):
    """Two narrow layers beside each block, by products of matrices."""

    def make(self, size: Size) -> nn.Module:
        return nn.ParameterDict(
            {"down": torch.randn(size.steps, 3, size.width), "up": torch.randn(size.steps, size.width, 3)}
        )

    def residual(self, x: Tensor, y: Tensor, own: Own) -> Tensor:
        narrow = torch.einsum("ntchw,trc->ntrhw", x, own["down"]).relu()
        return y + torch.einsum("ntrhw,tcr->ntchw", narrow, own["up"])

    def penalty(self, own: Own) -> Tensor:
        return own["up"].square().sum()


class Sparse(ProgramPart):
    """Each program uses weights of its own choice, which is not trained."""

    def make(self, size: Size) -> nn.Module:
        made = nn.Module()
        made.register_buffer("kept", (torch.rand(size.steps, size.width, size.width) < 0.5).float())
        return made

    def adjust(self, blocks: Blocks, own: Own) -> Blocks:
        weight = blocks.first.weight * own["kept"].flatten(1, 2)[..., None, None]
        return blocks._replace(first=blocks.first._replace(weight=weight))


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of docs/agents.md, in a folder of a user's."""
    folder = tmp_path_factory.mktemp("outside")
    names = ["my_parts.py", "my_configs/program_part/mask.yaml", "my_configs/train/mask.yaml"]
    write_snippets("docs/agents.md", names, folder)
    return folder


@pytest.fixture(autouse=True)
def found(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(outside))
    monkeypatch.setattr(configuration, "_of_the_command", [outside / "my_configs"])


@pytest.fixture(scope="module")
def run(outside: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two problems whose programs have a mask."""
    folder = tmp_path_factory.mktemp("run") / "masked"
    sys.path.insert(0, str(outside))
    words = ["--config-dir", str(outside / "my_configs"), *MASKED, f"data={data}", f"run={folder}"]
    assert train.main(words) == 0
    sys.path.remove(str(outside))
    return folder


def weights(folder: Path) -> dict[str, Tensor]:
    return read_tensors(folder / WEIGHTS)[0]


def streams(problems: Sequence[str], parts: dict[str, ProgramPart]) -> ModularStreams:
    torch.manual_seed(0)

    def frame(channels: int, pixels: int, patches: int) -> nn.Module:
        return Isometric(channels, pixels, patches, width=16, depth=0, fine=8)

    composed = {"order": Order(), "affine": Affine(), **parts}
    made = ModularStreams(frame, 1, problems=problems, blocks=2, depth=3, parts=composed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "banks" in name or "programs" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def mask() -> ProgramPart:
    from my_parts import Mask  # type: ignore[import-not-found]

    made = Mask()
    assert isinstance(made, ProgramPart)
    return made


def test_it_is_trained_and_its_penalty_is_in_the_loss(data: Path, run: Path, outside: Path, tmp_path: Path) -> None:
    first = weights(run)[FACTOR.format(0)]
    assert first.shape == (2, 16) and (first - 1).abs().max() > 1e-5
    network, _ = build(configured(data, tmp_path, *MODULAR, MASKED[-1]))
    assert isinstance(network, Transporter)
    factors = [tensor for name, tensor in network.named_parameters() if name.endswith(".factor")]
    assert len(factors) == 6
    torch.nn.init.constant_(factors[0], 7.0)
    network.streams.anneal(0.5)
    taxed = 0.005 * entropy(torch.stack([*network.streams.mixing_logits()]), 0.1**0.5).item()
    assert network.streams.penalty(torch.zeros(1)).item() == pytest.approx(taxed + 0.01 * (7 + 5) / 6, rel=1e-4)
    costly = [*MASKED, "backbone.streams.parts.mask.weight=1000", f"data={data}", f"run={tmp_path / 'costly'}"]
    assert train.main(["--config-dir", str(outside / "my_configs"), *costly]) == 0
    assert weights(tmp_path / "costly")[FACTOR.format(0)].mean() < first.mean() - 1e-3


def test_a_stopped_training_ends_with_the_same_bytes(data: Path, run: Path, outside: Path, tmp_path: Path) -> None:
    words = ["--config-dir", str(outside / "my_configs"), *MASKED, f"data={data}", f"run={tmp_path / 'again'}"]
    for _ in range(9):
        assert train.main([*words, "minutes=1e-9"]) == 0
    for name in (WEIGHTS, STATE, METRICS):
        assert (run / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


@pytest.mark.parametrize(("method", "same"), [("patch", True), ("mask", False)])
def test_a_new_program_starts_with_it(method: str, same: bool, run: Path, outside: Path, tmp_path: Path) -> None:
    synthetic.write(tmp_path / "data", 2, "new")
    words = ["--config-dir", str(outside / "my_configs"), f"run={run}", "problem=new", f"train={method}", "start=other"]
    words += [f"data={tmp_path / 'data'}", f"out={tmp_path / 'new'}", "demos=2", "steps=3", "batch=2", "threads=1"]
    assert transfer.main(words) == 0
    before, after = weights(run), weights(tmp_path / "new")
    assert torch.equal(after[FACTOR.format(2)], before[FACTOR.format(1)]) == same
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    old = {name: NEW.sub("1", name) for name in after}
    moved = {name.rpartition(".")[2] for name in after if not torch.equal(after[name], before[old[name]])}
    assert moved == ({"scale", "bias"} if same else {"factor"})


def test_a_part_may_be_the_new_problems_alone(run: Path, outside: Path, data: Path, tmp_path: Path) -> None:
    plain = [*TINY, *MODULAR, f"data={data}", f"run={tmp_path / 'plain'}", "steps=2"]
    assert train.main(plain) == 0
    synthetic.write(tmp_path / "data", 2, "new")
    words = ["--config-dir", str(outside / "my_configs"), f"run={tmp_path / 'plain'}", "problem=new", "train=mask"]
    words += ["+program_part@train.adds.mask=mask", "demos=2", "steps=3", "batch=2", "threads=1"]
    assert transfer.main([*words, f"data={tmp_path / 'data'}", f"out={tmp_path / 'new'}"]) == 0
    holding = {name for name in weights(tmp_path / "new") if "mask" in name}
    assert holding == {FACTOR.format(2).replace("pick", stream) for stream in ("pick", "query", "key")}
    assert list(read_config(tmp_path / "new")["backbone"]["streams"]["added"]) == ["new"]


@pytest.mark.parametrize("kind", ["mask", "bottleneck", "sparse", "adapter", "width", "all"])
def test_a_grouped_run_equals_one_by_one(kind: str) -> None:
    parts = {"mask": mask(), "bottleneck": Bottleneck(), "sparse": Sparse(), "adapter": Adapter(2), "width": Width(8)}
    network = streams(["one", "two", "three"], parts if kind == "all" else {kind: parts[kind]})
    images = torch.randn(5, 8, 32, 16, generator=torch.Generator().manual_seed(3))
    tasks = Tasks.of([0, 2, 1, 0, 2])
    made = []
    for maps in (
        network(images, tasks),
        StreamMaps(*by_problem(tasks, lambda task, own: network(images[own], Tasks.of([task] * len(own))))),
    ):
        network.zero_grad()
        present = [each for each in maps if each is not None]
        sums = [(each * torch.linspace(0, 1, each[0].numel()).view(each[0].shape)).sum() for each in present]
        torch.stack(sums).sum().backward()
        made.append((maps, {name: p.grad for name, p in network.named_parameters() if p.grad is not None}))
    (maps, gradients), (others, expected) = made
    for name, one, other in zip(maps._fields, maps, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4, msg=name)
    assert gradients.keys() == expected.keys() and sum(kind in name for name in gradients) == {
        "mask": 9,
        "bottleneck": 18,
        "adapter": 18,
    }.get(kind, 0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=2e-3, rtol=1e-3, msg=name)


def test_a_network_with_it_is_one_graph() -> None:
    network = streams(["one", "two"], {"mask": mask()})
    images, tasks = torch.randn(4, 8, 32, 16), Tasks.of(np.array([0, 1, 1, 0]))
    traced = torch.compile(network, backend="eager", fullgraph=True)
    for one, other in zip(network(images, tasks), traced(images, tasks), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+program_part@backbone.streams.parts.mask=msk"], "unknown program_part 'msk': choose from mask, "),
        (["backbone.streams.parts.mask.wieght=1"], "weight"),
        (["backbone.streams.parts.mask.weight=x"], "backbone.streams.parts.mask.weight=x: give a number"),
        (["+program_part@backbone.streams.parts.keys=mask"], "a part is named 'keys': give it another name"),
        (
            ["+program_part@backbone.streams.parts.width=width", "backbone.streams.parts.width.inside=3"],
            "inside=3: give",
        ),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], message: str, outside: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*MASKED, *words, f"data={data}", f"run={tmp_path / 'run'}"]
    assert train.main(["--config-dir", str(outside / "my_configs"), *given]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_run_that_names_it_is_not_built_unasked(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert transfer.main([f"run={run}", "problem=new", f"out={tmp_path / 'new'}"]) == 2
    assert "names 'my_parts.Mask' for backbone.streams.parts.mask, which is not a class" in capsys.readouterr().err


def test_a_strangers_run_names_only_parts_where_parts_are() -> None:
    streams = {"_target_": "multiravens.agents.networks.modular.streams.ModularStreams", "_partial_": True}
    part = "multiravens.agents.networks.modular.parts.adapter.Adapter"
    for target in (part, "os.system", "multiravens.envs.make", streams["_target_"]):
        node = {"x": {"_target_": target}}
        for held in ({"parts": node}, {"added": {"a.b": node}}):
            given = {"backbone": {"streams": {**streams, **held}}}
            if target == part:
                assert check_parts(given, "a run") == given
                continue
            with pytest.raises(UserError, match="only classes of"):
                check_parts(given, "a run")


def test_ten_problems_with_it_start_hardly_more_operators_than_two() -> None:
    counts = []
    for count in (2, 10):
        network = streams([f"problem {index}" for index in range(count)], {"mask": mask()})
        images, tasks = torch.randn(20, 8, 32, 16), Tasks.of(np.arange(20) % count)
        with Kernels() as kernels:
            torch.stack([each.sum() for each in network(images, tasks) if each is not None]).sum().backward()
        counts.append(kernels.counted)
    assert counts[1] < 1.2 * counts[0]
