"""Disturbed demonstrations: labels are what the expert chose, everything else is what happened."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from multiravens import demos
from multiravens.agents.adaptation.export import _environment
from multiravens.data import Episode, Store, find_stores, read_episode, write_episode
from multiravens.data.__main__ import main as data_main
from multiravens.data.collecting.disturbance import Disturbance
from multiravens.data.storage.pack import Pack, write_pack
from multiravens.data.training.demonstrations import Demonstrations
from multiravens.drawing.film import sheet_of_steps
from multiravens.envs import PickPlaceEnv, make
from multiravens.envs.oracle import Demonstration, demonstrate
from multiravens.errors import UserError
from multiravens.evaluation.evaluate import main as evaluate_main
from multiravens.geometry import BOUNDS, quaternion_yaw, wrap_angle, yaw_quaternion
from multiravens.options.compose import compose
from multiravens.sim.studio import Studio
from multiravens.support.run_environment import environment_of
from tests.fake_episodes import make_episode, make_store

SEED = 1
ALWAYS = Disturbance(1.0, 0.02, 15.0)
OFTEN = ["problem=stacking", "disturb.share=0.5", "disturb.offset=0.04"]


@pytest.fixture(scope="module")
def env() -> Iterator[PickPlaceEnv]:
    env = make("stacking")
    yield env
    env.close()


@pytest.fixture(scope="module")
def run(env: PickPlaceEnv) -> Demonstration:
    return demonstrate(env, SEED, Disturbance(0.5, 0.04, 15.0))


def disturbed_episode(seed: int = 7) -> Episode:
    episode = make_episode(seed, steps=4)
    episode.executed = {name: values.copy() for name, values in episode.actions.items()}
    episode.executed["place_position"][[1, 2]] += 0.01
    return episode


def test_a_disturbed_file_holds_what_was_carried_out_and_another_one_does_not(tmp_path: Path) -> None:
    written = disturbed_episode()
    write_episode(tmp_path / "disturbed", written)
    read = read_episode(tmp_path / "disturbed")
    for name in written.actions:
        assert np.array_equal(read.actions[name], written.actions[name])
        assert np.array_equal(read.executed[name], written.executed[name])
    assert read.disturbed.tolist() == [False, True, True, False]
    write_episode(tmp_path / "plain", replace(written, executed=dict(written.actions)))
    assert b"executed" in (tmp_path / "disturbed").read_bytes()
    assert b"executed" not in (tmp_path / "plain").read_bytes()
    assert not read_episode(tmp_path / "plain").disturbed.any()


def test_a_pack_holds_it_too_and_inspect_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "data")
    with store.writing():
        for seed, episode in ((100, disturbed_episode(100)), (101, make_episode(101, steps=4))):
            write_episode(store.path(seed), episode, store.fingerprint)
    write_pack(tmp_path / "all.safetensors", find_stores(tmp_path / "data"))
    pack = Pack.open(tmp_path / "all.safetensors")
    for seed, count in ((100, 2), (101, 0)):
        stored, packed = read_episode(store.path(seed)), pack.read(store.name, seed)
        assert packed.disturbed.sum() == count
        assert all(np.array_equal(stored.executed[name], packed.executed[name]) for name in stored.executed)
    for path in (store.folder, tmp_path / "all.safetensors"):
        assert data_main(["inspect", str(path)]) == 0
        assert "disturbed 2 of 8 actions" in capsys.readouterr().out


def test_training_learns_what_was_chosen() -> None:
    disturbed = disturbed_episode()
    plain = replace(disturbed, executed={})
    one, other = (Demonstrations({"fake": [episode]}).steps for episode in (disturbed, plain))
    assert np.array_equal(one.place, other.place) and np.array_equal(one.turn, other.turn)


def test_a_disturbed_action_stays_within_its_size_and_the_workspace() -> None:
    rng, action = np.random.default_rng(0), make_action((0.3, 0.1, 0.02), (0.745, -0.495, 0.02), 3.1)
    drawn = [ALWAYS(action, rng) for _ in range(500)]
    for part in ("pick", "place"):
        moved = np.array([each[f"{part}_position"] for each in drawn]) - action[f"{part}_position"]
        distance = np.linalg.norm(moved, axis=1)
        assert distance.max() <= 0.02 + 1e-6 and distance.max() > 0.018 and not moved[:, 2].any()
    places = np.array([each["place_position"] for each in drawn])
    assert (places >= BOUNDS[:, 0] - 1e-6).all() and (places <= BOUNDS[:, 1] + 1e-6).all()
    turned = [np.degrees(wrap_angle(quaternion_yaw(each["place_quaternion"]) - 3.1)) for each in drawn]
    assert max(turned) <= 15.01 and min(turned) >= -15.01 and max(turned) > 14
    assert all(np.array_equal(each["pick_quaternion"], action["pick_quaternion"]) for each in drawn)


def test_the_share_is_met_and_the_same_steps_are_disturbed_by_any_size() -> None:
    action = make_action((0.5, 0.0, 0.02), (0.4, 0.2, 0.02), 0.0)
    which = []
    for offset in (0.01, 0.05):
        rng, disturb = np.random.default_rng(5), Disturbance(0.3, offset, 0.0)
        which.append([disturb(action, rng) is not action for _ in range(2000)])
    assert which[0] == which[1] and abs(np.mean(which) - 0.3) < 0.03


def test_the_label_of_every_step_is_the_experts_action_there(env: PickPlaceEnv, run: Demonstration) -> None:
    changed = np.any([(run.executed[name] != run.actions[name]).any(1) for name in run.actions], axis=0)
    assert changed.any() and not changed.all()
    env.reset(seed=SEED)
    for step in range(len(run.rewards)):
        expert = env.expert()
        assert expert is not None
        assert all(np.array_equal(run.actions[name][step], value) for name, value in expert.to_dict().items())
        observation, reward, _, _, info = env.step({name: values[step] for name, values in run.executed.items()})
        assert reward == run.rewards[step] and np.array_equal(observation["color"], run.color[step + 1])
        assert np.array_equal(info["poses"].astype(np.float32), run.poses[step + 1])
    state = env.get_state()
    assert all(np.array_equal(state[name], values) for name, values in run.executed.items())


def test_a_disturbed_run_is_drawn_as_it_happened(env: PickPlaceEnv, run: Demonstration) -> None:
    studio = Studio((120, 160))
    try:
        sheet_of_steps(env, run, studio)
    finally:
        studio.close()
    assert np.array_equal(env.poses().astype(np.float32), run.poses[-1])


def test_undisturbed_the_expert_carries_out_what_it_chose(env: PickPlaceEnv) -> None:
    plain, share_none = demonstrate(env, SEED), demonstrate(env, SEED, Disturbance(0.0, 0.02, 15.0))
    for run in (plain, share_none):
        assert all(np.array_equal(run.executed[name], run.actions[name]) for name in run.actions)
    assert np.array_equal(plain.poses, share_none.poses)


def test_disturbed_data_is_the_same_for_any_number_of_workers_and_says_how_it_was_made(tmp_path: Path) -> None:
    for workers in (1, 2):
        assert demos.main([*OFTEN, "episodes=3", f"workers={workers}", f"data={tmp_path / str(workers)}"]) == 0
    one, two = (sorted((tmp_path / name / "stacking" / "train").iterdir()) for name in "12")
    assert [path.name for path in one] == [path.name for path in two]
    assert all(first.read_bytes() == second.read_bytes() for first, second in zip(one, two, strict=True))
    store = Store.open(one[0].parent)
    assert store.environment["disturb"] == {"share": 0.5, "offset": 0.04, "turn": 15.0}
    assert sum(read_episode(store.path(seed)).disturbed.sum() for seed in store.kept()) > 0
    assert data_main(["verify", str(store.folder)]) == 0


def test_the_documents_commands_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demos, "make_oracle", lambda environment, gui: disturbed_episode)
    text = (Path(__file__).parents[1] / "docs" / "demonstrations.md").read_text().split("## Disturbed actions")[1]
    make_them, inspect = text.split("```")[1].strip().splitlines()
    assert demos.main(make_them.split()[3:]) == 0
    assert data_main(inspect.split()[2:]) == 0
    assert "disturbed 40 of 80 actions" in capsys.readouterr().out
    defaults = dict(re.findall(r"^\| `disturb\.(\w+)` \| (\S+) \|", text, re.MULTILINE))
    assert {name: float(value) for name, value in defaults.items()} == compose("demos").disturb


def test_a_model_card_tells_what_was_disturbed() -> None:
    environment = environment_of("stacking", [], {}) | {"disturb": Disturbance(0.2, 0.03, 15).options()}
    assert "disturb.share=0.2" in _environment("stacking", environment)[-1]


def test_other_disturbances_are_not_mixed_nor_taken_for_the_experts_own_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demos, "make_oracle", lambda environment, gui: make_episode)
    options = ["problem=stacking", "episodes=1", "split=test", f"data={tmp_path}", "splits.test=[100000,100020]"]
    assert demos.main([*options, "disturb.share=0.5"]) == 0
    for other in ("disturb.share=0", "disturb.share=0.25", "disturb.turn=3"):
        capsys.readouterr()
        assert demos.main([*options, "disturb.share=0.5", other]) == 2
        assert "was made with disturb" in capsys.readouterr().err
    words = ["agent=oracle", "problems=[stacking]", "episodes=1", f"data={tmp_path}", f"out={tmp_path / 'out'}"]
    assert evaluate_main(words) == 2
    assert "was made with disturb" in capsys.readouterr().err


def test_a_run_that_learned_from_disturbed_data_is_measured_undisturbed() -> None:
    plain = environment_of("stacking", [], {})
    trained = {"environment": {"stacking": plain | {"disturb": {"share": 0.5, "offset": 0.04, "turn": 15.0}}}}
    assert environment_of("stacking", [], trained) == plain


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["disturb.share=1.5"], "disturb.share=1.5: give 0 to 1"),
        (["disturb.share=-0.1"], "disturb.share=-0.1: give 0 to 1"),
        (["disturb.share=many"], "disturb.share=many: give a number"),
        (["disturb.share=0.5", "disturb.offset=1"], "disturb.offset=1: give 0 to 0.2"),
        (["disturb.share=0.5", "disturb.turn=200"], "disturb.turn=200: give 0 to 180"),
        (["disturb.share=0.5", "disturb.offset=0", "disturb.turn=0"], "offset and a turn of 0"),
        (["disturb.sahre=0.5"], "share"),
        (["disturb=0.5"], "disturb"),
        (["disturb=null"], "disturb"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demos.main(["problem=stacking", f"data={tmp_path}", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and told in error
    assert not list(tmp_path.iterdir())


def test_options_from_python_are_checked_alike() -> None:
    with pytest.raises(UserError, match="disturb.share=True"):
        Disturbance(True, 0.02, 15.0)
    assert json.dumps(Disturbance(1, 0.02, 15).options()) == '{"share": 1.0, "offset": 0.02, "turn": 15.0}'


def make_action(pick: tuple[float, ...], place: tuple[float, ...], yaw: float) -> dict[str, np.ndarray]:
    upright, turned = yaw_quaternion(0.0), yaw_quaternion(yaw)
    values = {"pick_position": pick, "pick_quaternion": upright, "place_position": place, "place_quaternion": turned}
    return {name: np.array(value, np.float32) for name, value in values.items()}
