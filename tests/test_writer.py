"""Demonstrations from elsewhere: written like our own, or refused with one error that names the field."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from multiravens.data import Store, read_episode
from multiravens.data.__main__ import main as data_main
from multiravens.data.storage.codec import HEIGHT_QUANTUM
from multiravens.data.storage.manifest import read_manifest, verify
from multiravens.data.storage.splits import known_splits
from multiravens.data.storage.writer import EpisodeWriter
from multiravens.errors import UserError
from multiravens.geometry import quaternion_yaw
from multiravens.options.search import CONFIGS
from multiravens.support.files import locked
from tests.fake_episodes import ENVIRONMENT, assert_one_line, scene

GUIDE = Path(__file__).parents[1] / "docs" / "own_data.md"
STEPS = 3


def make_fields(seed: int = 0, steps: int = STEPS) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    pictures = [scene(rng, 2, 2) for _ in range(steps + 1)]
    return {
        "color": np.stack([color for color, _ in pictures]),
        "height": np.stack([height for _, height in pictures]),
        "pick": rng.uniform([0.25, -0.5, 0], [0.75, 0.5, 0.28], (steps, 3)),
        "place": rng.uniform([0.25, -0.5, 0], [0.75, 0.5, 0.28], (steps, 3)),
        "turn": rng.uniform(-np.pi, np.pi, steps),
    }


FIELDS = make_fields()


def changed(name: str, index: Any, value: float) -> dict[str, Any]:
    array = FIELDS[name].copy()
    array[index] = value
    return {name: array}


@pytest.fixture
def writer(tmp_path: Path) -> EpisodeWriter:
    return EpisodeWriter(tmp_path, "mine")


def code_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)


class TestWrite:
    def test_what_is_read_is_what_was_given(self, writer: EpisodeWriter) -> None:
        periods = np.array([0.0, np.pi, 2 * np.pi])
        path = writer.write(**FIELDS, period=periods, goal_frames=[2, 2, 3], subgoals=["a", "b", "c"])
        episode = read_episode(path)
        assert path == writer.store.path(0) and (episode.seed, episode.problem, episode.success) == (0, "mine", True)
        assert np.array_equal(episode.color, FIELDS["color"])
        assert abs(episode.height - FIELDS["height"]).max() <= 0.51 * HEIGHT_QUANTUM
        for name in ("pick", "place"):
            assert np.allclose(episode.actions[f"{name}_position"], FIELDS[name], atol=1e-7)
        yaws = [quaternion_yaw(quaternion) for quaternion in episode.actions["place_quaternion"]]
        assert np.allclose(yaws, FIELDS["turn"], atol=1e-6)
        assert episode.actions["pick_quaternion"].tolist() == [[0, 0, 0, 1]] * STEPS
        assert np.allclose(episode.periods, periods)
        assert episode.poses.shape == (STEPS + 1, 0, 7)
        assert (episode.subgoals, episode.goal_frames.tolist()) == (["a", "b", "c"], [2, 2, 3])
        assert episode.pointer.tolist() == [0, 0, 2, 3]
        assert episode.holds.tolist() == [[False] * 3, [False] * 3, [True, True, False], [True] * 3]
        assert np.allclose(episode.rewards, [0, 2 / 3, 1 / 3])

    def test_by_default_each_action_reaches_a_subgoal(self, writer: EpisodeWriter) -> None:
        episode = read_episode(writer.write(**FIELDS))
        assert episode.pointer.tolist() == [0, 1, 2, 3]
        assert episode.goal_frames.tolist() == [1, 2, 3]
        assert episode.subgoals == ["mine/goal 0", "mine/goal 1", "mine/goal 2"]
        assert np.allclose(episode.rewards, 1 / 3)
        assert np.allclose(episode.periods, 2 * np.pi)

    def test_a_position_without_height_lies_on_the_surface_before_the_action(self, writer: EpisodeWriter) -> None:
        height = np.zeros((3, 320, 160))
        height[1, 160, 80], height[0, 319, 159] = 0.05, 0.6
        pick, place = [[0.5, 0.0], [0.5, 0.0]], [[0.75, 0.5], [0.75, 0.5]]
        episode = read_episode(writer.write(FIELDS["color"][:3], height, pick, place))
        assert np.allclose(episode.actions["pick_position"], [[0.5, 0, 0], [0.5, 0, 0.05]])
        assert np.allclose(episode.actions["place_position"], [[0.75, 0.5, 0.28], [0.75, 0.5, 0]])

    @pytest.mark.parametrize("edge", [0, 1])
    def test_the_workspaces_edges_are_inside_in_any_float_type(self, edge: int, writer: EpisodeWriter) -> None:
        corner = np.array([[0.25, -0.5, 0.0], [0.75, 0.5, 0.28]][edge], np.float32)
        height = np.full((2, 320, 160), [0.0, 0.65535][edge], np.float32)
        episode = read_episode(writer.write(FIELDS["color"][:2], height, corner[None], corner[None].astype(np.float64)))
        assert abs(episode.height - height).max() < 1e-6


class TestDataSet:
    def test_it_is_whole_and_shown_like_our_own(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for split in ("train", "validation"):
            for seed in range(2):
                EpisodeWriter(tmp_path, "mine", split).write(**make_fields(seed))
        assert data_main(["verify", str(tmp_path)]) == 0
        assert data_main(["inspect", str(tmp_path)]) == 0
        shown = capsys.readouterr().out
        assert "mine/train: 2 episodes, seeds 0 to 99999" in shown
        assert "mine/validation: 2 episodes, seeds 200000 to 299999" in shown
        assert "2 of 2, mean return 1.000" in shown
        assert (tmp_path / "mine" / "train" / "contact_sheet.png").exists()

    def test_a_writer_opened_again_appends(self, writer: EpisodeWriter, tmp_path: Path) -> None:
        first = writer.write(**FIELDS)
        content = first.read_bytes()
        paths = [EpisodeWriter(tmp_path, "mine").write(**make_fields(seed)) for seed in (1, 2)]
        assert [path.name for path in paths] == [f"episode_{seed:06d}.safetensors" for seed in (1, 2)]
        assert first.read_bytes() == content
        store = Store.open(writer.store.folder)
        assert store.kept() == [0, 1, 2]
        assert len(read_manifest(store)) == 3
        assert verify(store) == []

    def test_equal_fields_give_equal_bytes(self, tmp_path: Path) -> None:
        one, other = (EpisodeWriter(tmp_path / name, "mine").write(**FIELDS) for name in ("one", "other"))
        assert one.read_bytes() == other.read_bytes()

    def test_seeds_of_ones_own_run_out_in_one_line(self, tmp_path: Path) -> None:
        writer = EpisodeWriter(tmp_path, "mine", "lab", seeds=(500_000, 500_001))
        assert writer.write(**FIELDS).name == "episode_500000.safetensors"
        with pytest.raises(UserError) as error:
            writer.write(**FIELDS)
        assert_one_line(error, "seeds of mine/lab, 500000 to 500000, are used up", "another split")

    def test_the_splits_are_those_of_the_demonstrations(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        splits = yaml.safe_load((CONFIGS / "demos.yaml").read_text())["splits"] | {"lab": [500_000, 500_001]}
        (tmp_path / "demos.yaml").write_text(yaml.safe_dump({"splits": splits}))
        monkeypatch.setattr("multiravens.data.storage.splits.CONFIGS", tmp_path)
        for name, (first, end) in splits.items():
            assert EpisodeWriter(tmp_path, "mine", name).store.seeds == range(first, end)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("mine", "trian"), "unknown split 'trian': choose from train, "),
            (("mine", "lab", (5, 5)), "split lab must be"),
            (("mine", "../lab", (5, 9)), "a split's name must be"),
            (("../mine",), "problem.name must be letters"),
        ],
    )
    def test_a_wrong_name_is_one_line(self, arguments: Any, message: str, tmp_path: Path) -> None:
        with pytest.raises(UserError) as error:
            EpisodeWriter(tmp_path, *arguments)
        assert_one_line(error, message)

    def test_simulated_data_of_that_name_is_not_mixed_in(self, tmp_path: Path, writer: EpisodeWriter) -> None:
        with Store.create(tmp_path, "mine", "train", known_splits()["train"], ENVIRONMENT).writing():
            pass
        with pytest.raises(UserError) as error:
            EpisodeWriter(tmp_path, "mine")
        assert_one_line(error, str(writer.store.folder), "give yours another problem's name")
        with pytest.raises(UserError, match="was made with"):
            writer.write(**FIELDS)

    def test_a_data_set_in_use_is_one_line(self, writer: EpisodeWriter) -> None:
        with locked(writer.store.folder), pytest.raises(UserError, match="another command is writing"):
            writer.write(**FIELDS)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"color": FIELDS["color"][0]}, r"color has shape \(320, 160, 3\); it must be \(T \+ 1, 320, 160, 3\)"),
    ({"color": np.zeros((4, 480, 640, 3), np.uint8)}, r"color has shape \(4, 480, 640, 3\).*3.125 mm.*depth_to_points"),
    ({"color": FIELDS["color"] / 255}, r"color is float64 up to 0.\d+; it must be uint8"),
    ({"color": FIELDS["color"][:1], "height": FIELDS["height"][:1]}, "color has 1 frames: give 2 to 1001"),
    ({"height": np.zeros((4, 160, 320))}, r"height has shape \(4, 160, 320\).*rows along \+y"),
    ({"height": FIELDS["height"][:-1]}, r"height has shape \(3, 320, 160\); it must be \(4, 320, 160\)"),
    ({"height": np.zeros((4, 320, 160), np.uint16)}, "height is uint16; it must be floating-point metres"),
    (changed("height", (2, 7, 9), np.nan), r"height\[2, 7, 9\] is nan m.*fill what the camera did not see"),
    (changed("height", (1, 0, 0), -0.01), r"height\[1, 0, 0\] is -0.01 m; it must be within \[0, 0.65535\] m"),
    (changed("height", (3, 0, 0), 1.2), r"height\[3, 0, 0\] is 1.2 m"),
    ({"pick": FIELDS["pick"][:-1]}, r"pick has shape \(2, 3\); it must be \(3, 2\) or \(3, 3\)"),
    ({"pick": [[0.5, 0.0], [0.5], [0.5, 0.0]]}, "pick is not an array of numbers"),
    ({"pick": [["a", "b"]] * 3}, "pick x is <U1; it must be numbers"),
    (changed("pick", (1, 0), 0.8), r"pick x\[1\] is 0.8 m; it must be within \[0.25, 0.75\] m.*away from the robot"),
    (changed("place", (2, 1), -0.6), r"place y\[2\] is -0.6 m; it must be within \[-0.5, 0.5\] m"),
    (changed("place", (0, 2), 0.3), r"place z\[0\] is 0.3 m; it must be within \[0, 0.28\] m"),
    (changed("place", (0, 0), np.nan), r"place x\[0\] is nan m"),
    (changed("turn", 1, np.inf), r"turn\[1\] is inf rad; it must be finite"),
    ({"turn": [0.0, 0.0]}, r"turn has shape \(2,\); it must be \(3,\)"),
    ({"period": -1.0}, r"period\[0\] is -1 rad; it must be within \[0, 6.28319\] rad"),
    ({"goal_frames": [1, 2]}, r"goal_frames is \[1, 2\]; it must .* end with the last frame, 3"),
    ({"goal_frames": [2, 1, 3]}, "never fall"),
    ({"goal_frames": [0, 3]}, "start at 1 or later"),
    ({"goal_frames": [1.0, 3.0]}, r"goal_frames is \(2,\) float64; it must be \(G,\) integers"),
    ({"goal_frames": []}, "G from 1 to"),
    ({"subgoals": ["one"]}, r"subgoals is \['one'\]; it must be 3 names"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_a_wrong_field_is_named_in_one_line_and_nothing_is_written(
    change: dict[str, Any], message: str, writer: EpisodeWriter, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        writer.write(**FIELDS | change)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


class TestGuide:
    @pytest.fixture
    def written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        example = code_blocks()[0]
        assert len([line for line in example.splitlines() if line]) <= 20
        exec(compile(example, str(GUIDE), "exec"), {})
        return tmp_path / "data"

    def test_its_example_writes_episodes_that_are_ready_for_training(self, written: Path) -> None:
        pytest.importorskip("torch")
        from multiravens.data.training.demonstrations import Demonstrations, load

        assert data_main(["verify", str(written)]) == 0
        episodes, environments = load(written, ["mine"], 20, "half")
        assert environments["mine"]["source"] == "external"
        data = Demonstrations(episodes, "half")
        assert data.steps.pointer.tolist() == [0, 1] * 20
        # The label lies on the part that the picture shows.
        rows, columns = np.round(data.steps.pick).astype(int).T
        assert (data.height.numpy()[data.steps.frame, rows, columns] * HEIGHT_QUANTUM > 0.02).all()
        assert data.batch(np.arange(4), np.zeros((4, 1), np.int64)).images.isfinite().all()

    def test_its_example_of_a_depth_picture_gives_a_heightmap_that_can_be_written(self, writer: EpisodeWriter) -> None:
        pose = np.array([[0, -1, 0, 0.5], [-1, 0, 0, 0], [0, 0, -1, 1.0], [0, 0, 0, 1]], float)
        depth = np.full((480, 640), 1.0)
        depth[200:280, 300:340], depth[:5] = 0.95, np.nan
        names = {"depth": depth, "rgb": np.full((480, 640, 3), 200, np.uint8), "camera_to_world": pose}
        exec(compile(code_blocks()[2], str(GUIDE), "exec"), names)
        color, height = np.stack([names["color"]] * 2), np.stack([names["height"]] * 2)
        episode = read_episode(writer.write(color, height, [[0.5, 0.0]], [[0.6, 0.1]]))
        assert np.isclose(episode.actions["pick_position"][0, 2], 0.05, atol=1e-3)
