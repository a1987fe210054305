"""The guide's push, a primitive with an action of its own, added as an outsider adds it; actions field by field."""

import copy
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from omegaconf import OmegaConf

import multiravens
from multiravens import demos, train
from multiravens.actions import PICK_PLACE, ActionField, ActionSpec, pick_place_fields
from multiravens.agents.acting.agent import View
from multiravens.agents.acting.load import load_agent
from multiravens.data import EpisodeWriter
from multiravens.data.__main__ import main as data_main
from multiravens.data.collecting.disturbance import Disturbance
from multiravens.data.storage.episode import encode_episode, read_episode, read_header, write_episode
from multiravens.data.storage.manifest import verify
from multiravens.data.storage.pack import Pack
from multiravens.data.storage.store import Store
from multiravens.data.training.demonstrations import Demonstrations
from multiravens.drawing import render
from multiravens.drawing.video import frame_size
from multiravens.envs import PickPlaceEnv, demonstrate, make
from multiravens.errors import UserError
from multiravens.evaluation import evaluate
from multiravens.geometry import BOUNDS
from multiravens.options import trust
from multiravens.options.compose import compose
from multiravens.support.run_environment import environment_of
from multiravens.support.runs import CONFIG, read_config
from tests import fake_episodes
from tests.test_outsider import block
from tests.tiny_training import TINY

GUIDE = "docs/environment.md"
MINE = ["--config-dir", "my_configs"]
SEEDS = "splits.test=[300000,300100]"
PUSH = ["problem=shoving", "primitive=push"]
TURNED = ActionSpec(
    "screw",
    (ActionField("at", "position"), ActionField("turned", "quaternion"), ActionField("force", "scalar", 1.0, 5.0, "N")),
)
NEAREST = '''
import torch
from torch.nn import functional

from multiravens.agents.networks.network import Learner, Terms


class Nearest(Learner):
    """The action of the demonstrations' most similar picture."""

    primitive = "push"

    def __init__(self, spec, rows=100):
        super().__init__(spec)
        self.widths = spec.action.widths
        self.register_buffer("seen", torch.zeros(rows, spec.channels * spec.shape[0] * spec.shape[1] // 64))
        self.register_buffer("done", torch.zeros(rows, sum(self.widths.values())))
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))

    def forward(self, batch, tasks):
        at = (self.taken + torch.arange(len(batch.images))) % len(self.seen)
        self.seen[at] = functional.avg_pool2d(batch.images, 8).flatten(1)
        self.done[at] = torch.cat([batch.action[name] for name in self.widths], dim=1)
        self.taken += len(at)
        return Terms(losses={}, figures={"row": at.float()})

    def act(self, images, tasks):
        known = self.seen[: int(self.taken)]
        nearest = torch.cdist(functional.avg_pool2d(images, 8).flatten(1), known).argmin(1)
        return dict(zip(self.widths, self.done[nearest].split(list(self.widths.values()), dim=1), strict=True))
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the guide's classes and YAMLs."""
    path = tmp_path_factory.mktemp("outside")
    (path / "pushing.py").write_text(block(GUIDE, "python", "`pushing.py`:"))
    (path / "nearest_push.py").write_text(NEAREST)
    agent = block("docs/agents.md", "yaml", "`my_configs/agent/nearest.yaml`")
    for name, text in {
        "primitive/push": block(GUIDE, "yaml", "`my_configs/primitive/push.yaml`"),
        "module/shoving": block(GUIDE, "yaml", "`my_configs/module/shoving.yaml`"),
        "agent/nearest_push": agent.replace("nearest.Nearest", "nearest_push.Nearest"),
    }.items():
        yaml = path / "my_configs" / f"{name}.yaml"
        yaml.parent.mkdir(parents=True, exist_ok=True)
        yaml.write_text(text)
    return path


@pytest.fixture
def outside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, in which the commands are given."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(trust, "_of_the_program", set())
    for name in ("pushing", "nearest_push"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


@pytest.fixture
def data(outside: Path) -> Path:
    """Demonstrations of pushing, made once."""
    if not (outside / "data").exists():
        words = [*MINE, *PUSH, SEEDS, "split=test", "episodes=2", "data=data"]
        assert demos.main(words) == 0
    return outside / "data" / "shoving" / "test"


@pytest.fixture
def env(outside: Path) -> Any:
    made = make("shoving", config_dirs="my_configs", primitive="push")
    yield made
    made.close()


def refused(call: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """The line by which a command refuses."""
    assert call() == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ") and len(line.splitlines()) == 1, line
    return line


def test_a_push_is_an_environments_action(env: PickPlaceEnv) -> None:
    assert set(env.action_space.spaces) == {"start_position", "end_position"}
    check_env(env, skip_render_check=True)
    env.action_space.seed(1)
    one, other = env.action_space.sample(), env.action_space.sample()
    assert all((BOUNDS[:, 0] <= value).all() and (value <= BOUNDS[:, 1]).all() for value in one.values())
    env.reset(seed=300000)
    start = env.poses()
    *_, terminated, _, info = env.step(env.expert())
    assert info["motion"] == "ok" and not terminated and info["credit"] == 0.5
    moved = np.linalg.norm(info["poses"][:, :2] - start[:, :2], axis=1)
    assert (moved > 0.05).sum() == 1  # it was pushed, not carried
    assert np.allclose(info["poses"][:, 2], start[:, 2], atol=1e-3)
    state = env.get_state()
    assert state["start_position"].shape == (1, 3) and "pick_position" not in state
    twin = copy.deepcopy(env)
    seen = env.step(other)
    for again in (twin.step(other), (env.set_state(state), env.step(other))[1]):
        assert np.array_equal(again[0]["color"], seen[0]["color"])
        assert np.array_equal(again[-1]["poses"], seen[-1]["poses"])
    twin.close()
    env.set_state(state)
    blocked = np.append(env.poses()[1, :2], 0.0)
    *_, info = env.step({"start_position": blocked, "end_position": blocked})
    assert info["motion"].startswith("blocked: ")
    with pytest.raises(ValueError, match="the action lacks 'start_position'; it needs start_position, end_position"):
        env.step(PICK_PLACE.draw(np.random.default_rng(0)))
    with pytest.raises(ValueError, match=r"end_position is \[nan, 0.0, 0.0\]; every number must be finite"):
        env.step(one | {"end_position": np.array([np.nan, 0, 0], np.float32)})


@pytest.mark.parametrize(
    ("problem", "choices", "message"),
    [
        ("shoving", {}, "shoving is solved by the primitive push, not pick_place: give primitive=push"),
        ("placing", {"primitive": "push"}, "placing is solved by the primitive pick_place, not push: give"),
        ("placing-shoving", {"primitive": "push"}, r"several primitives \(placing by pick_place, shoving by push\)"),
        ("shoving", {"primitive": "pusch"}, "unknown primitive 'pusch': choose from push, pick_place"),
        ("shoving", {"primitive": "push", "primitive.lov": 1}, "unknown option 'primitive.lov'"),
    ],
)
def test_primitives_that_do_not_fit_are_one_line(
    problem: str, choices: dict[str, Any], message: str, outside: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make(problem, config_dirs="my_configs", **choices)
    assert "\n" not in str(caught.value)


def test_a_run_builds_no_primitive_that_its_user_has_not_named(folder: Path) -> None:
    made = OmegaConf.to_container(compose("environment", ["problem=placing"]), resolve=True)
    assert isinstance(made, dict)
    assert sorted(environment_of("kit", [], {"environment": {"kit": made}})) == ["camera", "motion", "problem"]
    for node, message in (
        ({"_target_": "os.system"}, "names 'os.system' for primitive, which is not a class of multiravens"),
        ({"_target_": "multiravens.sim.motion.GripperMotion"}, "Choose from multiravens.envs.primitive.PickPlace"),
        ({"low": 1}, "its primitive is {'low': 1}, which builds nothing"),
    ):
        with pytest.raises(UserError, match=message):
            environment_of("kit", [], {"environment": {"kit": made | {"primitive": node}}})


def test_what_is_no_primitive_is_one_line(outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (outside / "my_configs" / "primitive" / "wrong.yaml").write_text("_target_: pushing.Shoving\n")
    with pytest.raises(UserError, match="Shoving is no primitive: "):
        make("shoving", config_dirs="my_configs", primitive="wrong")
    line = refused(lambda: demos.main([*MINE, "problem=shoving", "primitive=wrong", "data=wrong"]), capsys)
    assert "Shoving is no primitive: its `spec` must be an ActionSpec" in line and not Path("wrong").exists()


def test_demonstrations_of_it_are_written_verified_packed_and_read(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = sorted(data.glob("episode_*"))
    episode = read_episode(paths[0])
    assert len(paths) == 2 and episode.spec.name == "push" and episode.success
    assert episode.actions["start_position"].shape == (len(episode.rewards), 3)
    assert json.loads((data / "dataset.json").read_text())["environment"]["primitive"]["_target_"] == "pushing.Push"
    assert encode_episode(episode, read_header(paths[0]).fingerprint) == paths[0].read_bytes()
    for command in ("verify", "inspect"):
        assert data_main([command, str(data)]) == 0
    assert data_main(["pack", str(data), "--out", "push.safetensors"]) == 0
    assert data_main(["verify", "push.safetensors"]) == 0 and data_main(["inspect", "push.safetensors"]) == 0
    packed = Pack.open("push.safetensors").read("shoving/test", 300000)
    assert packed.spec == episode.spec
    assert all(np.array_equal(packed.actions[name], value) for name, value in episode.actions.items())
    capsys.readouterr()
    other = [*MINE, *PUSH, SEEDS, "split=test", "episodes=3", "data=data", "primitive.low=0.02"]
    assert "was made with primitive.low=0.012 instead of 0.02" in refused(lambda: demos.main(other), capsys)
    edited = Path("pushing.py").read_text().replace('"end_position"', '"stop_position"')
    Path("pushing.py").write_text(edited)
    del sys.modules["pushing"]
    line = refused(lambda: demos.main([*other[:-1], "episodes=3"]), capsys)
    assert "action.end_position='position' instead of None" in line
    Path("pushing.py").write_text(edited.replace("stop_position", "end_position"))
    store = Store.open(data)
    assert store.spec == episode.spec
    assert "holds actions of push (start_position, end_position), and" in verify(replace(store, spec=PICK_PLACE))[0]


def test_an_agent_of_ones_own_learns_pushes_and_is_measured(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["demos=2", "split=test", "steps=8", "batch=2", "log_every=4", "checkpoint_every=8", "threads=1"]
    words = [*MINE, "agent=nearest_push", "augmentation=none", "problems=[shoving]", *few]
    assert train.main([*words, "run=run"]) == 0
    assert read_config(Path("run"))["action"]["name"] == "push"
    assert evaluate.main([*MINE, "run=run", "episodes=2", "first_seed=300000", "data=data"]) == 0
    found = json.loads(Path("run/evaluation/shoving.json").read_text())
    # In the episodes of its demonstrations it does what was done there; random pushes do not.
    assert found["summary"]["full_success"] == 1
    random = found["beside"]["random"]["summary"]
    assert random["full_success"] < 1 and random["episodes"] == 2
    multiravens.allow("nearest_push.Nearest")
    episode = read_episode(sorted(data.glob("episode_*"))[0])
    goals = list(zip(episode.color[1:], episode.height[1:], strict=True))
    action = multiravens.load("run").act(episode.color[0], episode.height[0], goals)
    assert all(np.array_equal(action[name], value[0]) for name, value in episode.actions.items())
    with pytest.raises(UserError, match="nearest chooses actions of push .*, not of pick_place"):
        now = episode.color[0], episode.height[0]
        load_agent("run").act([View(*now, *now, episode.color[1:], episode.height[1:], 0, 0, 0)])
    film = [*MINE, *PUSH, "run=run", "seed=300000", "size=[160,240]", "speed=8", "fps=20", "out=push.mp4"]
    assert render.main(film) == 0
    frame = iio.imread("push.mp4", index=0)
    assert frame.shape == (*frame_size((160, 240)), 3) and frame.std() > 20
    capsys.readouterr()
    line = refused(lambda: train.main([*words, "run=other", "augmentation=se2"]), capsys)
    assert "SE2 moves picks and places, not start_position, end_position: give augmentation=none" in line
    config = Path("run", CONFIG).read_text()
    Path("run", CONFIG).write_text(config.replace("kind: position", "kind: place", 1))
    assert "is of kind 'place': choose from position" in refused(lambda: evaluate.main([*MINE, "run=run"]), capsys)
    Path("run", CONFIG).write_text(config)


def test_a_transporter_says_that_it_picks_and_places(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TINY, *MINE, "problems=[shoving]", "demos=2", "split=test", "data=data", "run=transporter"]
    line = refused(lambda: train.main(words), capsys)
    assert re.search(r"Transporter learns actions of pick_place, and these are of push \(start_position, end", line)
    assert "a Learner with primitive = 'push'" in line
    assert demos.main(["problem=placing", "problem.modules.placing.parts=1", SEEDS, "split=test", "episodes=1"]) == 0
    both = ["agent=nearest_push", "augmentation=none", "problems=[shoving,placing]", "demos=1", "split=test"]
    capsys.readouterr()
    line = refused(lambda: train.main([*MINE, *both, "run=both"]), capsys)
    assert "not all of one primitive (placing by pick_place (pick_position, pick_quaternion, place_position" in line
    assert "shoving by push (start_position, end_position))" in line
    swapped = [*MINE, *both[:2], "problems=[placing]", "demos=1", "split=test", "run=both"]
    line = refused(lambda: train.main(swapped), capsys)
    assert "Nearest learns actions of push, and these are of pick_place" in line


def test_pushes_are_disturbed_by_their_positions(env: PickPlaceEnv) -> None:
    spec = env.primitive.spec
    run = demonstrate(env, 300001, Disturbance(1.0, 0.02, 0.0, spec))
    for name in spec.widths:
        moved = np.linalg.norm(run.executed[name] - run.actions[name], axis=1)
        assert (moved > 0).all() and (moved <= 0.02 + 1e-6).all()
    with pytest.raises(UserError, match="move none of the fields of push"):
        Disturbance.of({"share": 1.0, "offset": 0.0, "turn": 10.0}, spec)


def test_every_kind_of_field_is_drawn_checked_disturbed_and_stored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    drawn = [TURNED.draw(rng) for _ in range(50)]
    forces = np.array([each["force"] for each in drawn])
    assert forces.shape == (50, 1) and 1 <= forces.min() < 2 and 4 < forces.max() <= 5
    checked = TURNED.check({"at": [9, 9, 9], "turned": [0, 0, 0, 2], "force": [7]})
    assert np.allclose(checked["at"], BOUNDS[:, 1]) and checked["turned"][3] == 1 and checked["force"] == 5
    (mark,) = TURNED.marks(checked | {"turned": np.array([0, 0, np.sin(0.2), np.cos(0.2)])})
    assert mark.yaw == pytest.approx(0.4)
    changed = Disturbance(1.0, 0.02, 20.0, TURNED)(drawn[0], rng)
    assert {name: np.array_equal(changed[name], drawn[0][name]) for name in changed} == {
        "at": False,
        "turned": False,
        "force": True,
    }
    assert ActionSpec.parse(json.loads(json.dumps(TURNED.plain()))) == TURNED
    episode = replace(fake_episodes.make_episode(1), spec=TURNED, actions=TURNED.columns(drawn[:2]), executed={})
    write_episode(tmp_path / "one", episode)
    read = read_episode(tmp_path / "one")
    assert read.spec == TURNED and np.array_equal(read.actions["force"], episode.actions["force"])
    made = Demonstrations({"fake": [read]})
    batch = made.batch(np.array([1]), np.array([[0]]))
    assert np.allclose(batch.action["force"], episode.actions["force"][1:]) and batch.pick.isnan().all()


def test_ones_own_data_holds_fields_of_ones_own(tmp_path: Path) -> None:
    episode = fake_episodes.make_episode(1, steps=2)
    pictures, drawn = (episode.color, episode.height), TURNED.columns([TURNED.draw(np.random.default_rng(3))] * 2)
    writer = EpisodeWriter(tmp_path, "mine", spec=TURNED)
    path = writer.write_actions(*pictures, drawn | {"at": drawn["at"][:, :2]})
    read = read_episode(path)
    assert read.spec == TURNED and verify(writer.store) == []
    assert np.array_equal(read.actions["force"], drawn["force"]) and read.actions["at"].shape == (2, 3)
    assert np.allclose(read.actions["turned"], drawn["turned"]) and np.array_equal(read.color, episode.color)
    for wrong, message in (
        ({"at": drawn["at"] + 1}, "at x"),
        ({"force": drawn["force"][:1]}, r"force has shape \(1, 1\)"),
        ({"turned": 0 * drawn["turned"]}, "turned is zero"),
    ):
        with pytest.raises(ValueError, match=message):
            writer.write_actions(*pictures, drawn | wrong)
    with pytest.raises(ValueError, match="actions lacks 'at'"):
        writer.write_actions(*pictures, {})
    with pytest.raises(ValueError, match=r"holds actions of screw \(at, turned, force\): write"):
        writer.write(*pictures, drawn["at"], drawn["at"])
    with pytest.raises(UserError, match="was made with action.at='position' instead of None"):
        EpisodeWriter(tmp_path, "mine").write(*pictures, drawn["at"], drawn["at"])
    assert len(writer.store.kept()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plain: plain | {"fields": "text"}, "no valid list of an action's fields"),
        (lambda plain: plain | {"fields": plain["fields"] * 20}, "give 1 to 32"),
        (lambda plain: plain | {"fields": []}, "give 1 to 32"),
        (lambda plain: plain | {"fields": plain["fields"] * 2}, "two fields of one name"),
        (lambda plain: plain | {"name": "../x"}, "a primitive is called '../x'"),
        (lambda plain: plain | {"name": "pick_place"}, "pick_place has other fields: pick_position"),
        (lambda plain: _field(plain, name="poses"), "not called poses"),
        (lambda plain: _field(plain, name=3), "a field is called 3"),
        (lambda plain: _field(plain, high=float("nan")), "give finite numbers"),
        (lambda plain: _field(plain, low=2), "give a lower and a higher one"),
        (lambda plain: _field(plain, free="yes"), "true or false"),
        (lambda plain: _field(plain, more=1), "no valid list"),
    ],
)
def test_an_action_from_elsewhere_that_is_none_is_one_line(change: Any, message: str, tmp_path: Path) -> None:
    plain = json.loads(json.dumps(TURNED.plain()))
    with pytest.raises(ValueError, match=message) as caught:
        ActionSpec.parse(change(plain))
    assert "\n" not in str(caught.value)
    episode = replace(
        fake_episodes.make_episode(1),
        spec=TURNED,
        actions=TURNED.columns([TURNED.draw(np.random.default_rng(each)) for each in range(2)]),
        executed={},
    )
    content = encode_episode(episode)
    old = json.dumps(plain["name"]).replace('"', '\\"').encode()
    assert content.count(old) == 1
    (tmp_path / "one").write_bytes(content.replace(old, b'\\"scr w\\"'))
    with pytest.raises(UserError, match="its header has no valid action: a primitive is called 'scr w'"):
        read_episode(tmp_path / "one")


def test_picking_and_placing_is_drawn_and_written_as_it_ever_was() -> None:
    rng, again = np.random.default_rng([7, 0, 2]), np.random.default_rng([7, 0, 2])
    pick, place = again.uniform(BOUNDS[:, 0], BOUNDS[:, 1], (2, 3))
    wanted = pick_place_fields(pick, place, again.uniform(-np.pi, np.pi))
    drawn = PICK_PLACE.draw(rng)
    assert list(drawn) == ["pick_position", "pick_quaternion", "place_position", "place_quaternion"]
    assert all(np.array_equal(drawn[name], wanted[name]) for name in wanted)
    assert drawn["pick_quaternion"].tolist() == [0, 0, 0, 1]
    content = encode_episode(fake_episodes.make_episode(1))
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    assert b'action\\"' not in header and b'"actions.pick_quaternion"' in header


def _field(plain: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return plain | {"fields": [plain["fields"][0] | changed]}
