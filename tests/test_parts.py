"""Parts of one's own: published models are placed as they come, and what cannot be moved is refused with its key."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pybullet_data
import pytest
import trimesh

from multiravens.actions import PICK_PLACE
from multiravens.envs import Action, demonstrate, make
from multiravens.envs.primitive import OK, PickPlace
from multiravens.errors import UserError
from multiravens.geometry import Pose, planar_pose, tilt
from multiravens.sim.motion import GripperMotion
from multiravens.sim.shapes import slab
from multiravens.sim.world import World
from multiravens.tasks.parts import part
from tests.worlds import seen

MODELS = Path(pybullet_data.getDataPath())
# No domino: it stands on edge, 7 mm wide, and a cup is 12 mm across.
PUBLISHED = {
    "block.urdf": 0.8,
    "cube_small.urdf": 0.8,
    "duck_vhacd.urdf": 0.6,  # its origin is beside it, and it rocks on a curved base
    "jenga/jenga.urdf": 0.5,
    "lego/lego.urdf": 1.0,
    "urdf/mug.urdf": 0.5,
    "teddy_vhacd.urdf": 0.6,
    "random_urdfs/000/000.urdf": 0.5,
    "random_urdfs/003/003.urdf": 0.4,
    "random_urdfs/004/004.urdf": 0.5,
    "random_urdfs/009/009.urdf": 0.5,
}
SHAPES = "problem.modules.placing.shapes"
INERTIA = '<inertia ixx="1e-5" iyy="1e-5" izz="1e-5" ixy="0" ixz="0" iyz="0"/>'
BOX = '<geometry><box size="{size}"/></geometry>'


def block(
    folder: Path,
    mass: str = "0.1",
    origin: str = "0 0 0",
    inertial: str = "",
    size: str = "0.04 0.03 0.02",
    **more: str,
) -> Path:
    """A URDF of one box, its middle at an origin of the file's frame."""
    collision = more.get("collision", f'<collision><origin xyz="{origin}"/>{BOX.format(size=size)}</collision>')
    path = folder / "block.urdf"
    path.write_text(
        f'<robot name="block"><link name="base"><inertial><mass value="{mass}"/>'
        f'<origin xyz="{origin}" {inertial}/>{INERTIA}</inertial>'
        f'<visual><origin xyz="{origin}"/>{BOX.format(size=size)}</visual>'
        f"{collision}</link>{more.get('rest', '')}</robot>"
    )
    return path


def placed(*shapes: Any, seeds: int = 1) -> list[bool]:
    choices: dict[str, Any] = {SHAPES: list(shapes), "problem.modules.placing.parts": len(shapes)}
    env = make("placing", **choices)
    runs = [demonstrate(env, seed) for seed in range(seeds)]
    env.close()
    return [run.success for run in runs]


def test_the_oracle_places_published_models() -> None:
    assert len(PUBLISHED) >= 10
    shapes = [{"urdf": MODELS / name, "scale": scale} for name, scale in PUBLISHED.items()]
    for first in range(0, len(shapes), 4):
        assert placed(*shapes[first : first + 4], seeds=2) == [True, True], list(PUBLISHED)[first : first + 4]


@pytest.mark.parametrize(
    "where",
    [
        {"origin": "0 0 0"},
        {"origin": "0 0 0.01"},
        {"origin": "0.3 -0.2 0.5"},
        {"origin": "0.05 0 -0.1", "inertial": 'rpy="0.4 -0.9 2.1"'},
        {"mass": "0.002"},
        {"mass": "0.26"},
    ],
)
def test_a_body_is_placed_wherever_its_origin_is(where: dict[str, str], tmp_path: Path) -> None:
    assert placed({"urdf": block(tmp_path, **where), "symmetry": 180}) == [True]


def test_a_body_stands_where_it_is_put_whatever_axes_bullet_takes(tmp_path: Path) -> None:
    path = block(tmp_path, origin="0.05 0.02 -0.1", inertial='rpy="0.4 -0.9 2.1"')
    kind = part({"urdf": path})
    for yaw in (0.0, 1.0):
        world = World()
        pose = planar_pose((0.5, 0.1), 0.0, yaw)
        body = kind.add(world, f"part {yaw}", pose, (0, 0, 0), 0.1)
        for put in (pose, planar_pose((0.4, -0.1), 0.0, 1 - yaw)):
            if put is not pose:
                world.move(body, put)
            for got, asked in zip(world.pose(body), put, strict=True):
                np.testing.assert_allclose(got, asked, atol=1e-6)
            world.step()  # which brings Bullet's rays up to date
            seen = world.seen_above(body, 0.001)
            np.testing.assert_allclose((seen.min(0) + seen.max(0))[:2] / 2, put.position[:2], atol=1e-3)
            assert abs(seen[:, 2].max() - 0.02) < 1e-3
        world.close()


def test_a_model_that_topples_is_taken_as_it_comes_to_lie() -> None:
    kind, world = part({"urdf": MODELS / "duck_vhacd.urdf", "scale": 0.6}), World()
    body = kind.add(world, "duck", planar_pose((0.5, 0.0)), (0, 0, 0), 0.1)
    world.settle()
    assert tilt(world.pose(body).quaternion) < np.deg2rad(3)
    assert abs(world.pose(body).position).max() < 0.51 and abs(world.pose(body).position[2]) < 0.003
    world.close()


def test_a_model_that_rocks_on_a_curved_base_is_taken_as_it_withstands_knocks() -> None:
    kind = part({"urdf": MODELS / "duck_vhacd.urdf", "scale": 0.6})
    for angle in np.arange(0, 2 * np.pi, np.pi / 6):
        world = World()
        body = kind.add(world, "duck", planar_pose((0.5, 0.0)), (0, 0, 0), 0.1)
        half = np.deg2rad(4) / 2
        turn = np.array([np.sin(half) * np.cos(angle), np.sin(half) * np.sin(angle), 0, np.cos(half)])
        world.move(body, Pose(np.array([0.5, 0, 0.002]), turn))
        world.settle(cap=4.0)
        assert tilt(world.pose(body).quaternion) < np.deg2rad(8)
        world.close()


def test_a_load_is_not_let_go_in_the_air_beside_something_tall() -> None:
    world, motion = World(), GripperMotion()
    motion.attach(world)
    tile = world.add("tile", slab((0.06, 0.06, 0.01), (1, 0, 0)), planar_pose((0.5, -0.2), 0.0, np.pi / 4), 0.05)
    # It stands in the box round the turned tile, and not where the tile comes down.
    world.add("post", slab((0.02, 0.02, 0.06), (0, 0, 1)), planar_pose((0.543, 0.243)))
    lowest: list[float] = []
    world.on_tick.append(lambda _: lowest.append(world.bounds(tile)[0, 2]) if motion.held is not None else None)
    action = PICK_PLACE.check(Action(planar_pose((0.5, -0.2)), planar_pose((0.5, 0.2))).to_dict())
    assert PickPlace()(world, motion, action, seen(world)) == OK
    assert lowest[-1] < 0.002
    world.close()


def test_an_environment_with_models_is_copied() -> None:
    choices: dict[str, Any] = {SHAPES: [{"urdf": MODELS / "lego/lego.urdf"}], "problem.modules.placing.parts": 1}
    env = make("placing", **choices)
    env.reset(seed=1)
    twin = copy.deepcopy(env)
    np.testing.assert_array_equal(twin.poses(), env.poses())
    env.close()
    twin.close()


JOINT = f'<link name="arm"><inertial><mass value="0.1"/>{INERTIA}</inertial></link>'
JOINT += '<joint name="j" type="continuous"><parent link="base"/><child link="arm"/></joint>'


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mass": "0"}, "urdf: .* has mass 0 kg, which Bullet takes as fixed"),
        ({"mass": "20"}, "urdf: .* has mass 20 kg, more than a suction cup holds: .* at most 0.26"),
        ({"collision": ""}, "urdf: .* has no collision shape"),
        ({"rest": JOINT}, "urdf: .* has 1 joints, and a part is one rigid body"),
        ({"size": "0.2 0.03 0.02"}, "set scale"),
    ],
)
def test_a_body_that_cannot_be_moved_is_refused(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    path = block(tmp_path, **changes)
    with pytest.raises(UserError, match=message) as raised:
        part({"urdf": path})
    assert "\n" not in str(raised.value) and "block.urdf" in str(raised.value)


def test_a_grasp_beside_the_part_and_a_mesh_that_topples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"grasp: nothing of .*block.urdf' is at \[0.03, 0.0\]"):
        part({"urdf": block(tmp_path), "grasp": [0.03, 0.0]})
    turned = trimesh.transformations.rotation_matrix(0.5, [1, 0, 0])
    trimesh.creation.box((0.03, 0.03, 0.04)).apply_transform(turned).export(tmp_path / "turned.stl")
    with pytest.raises(UserError, match="turned.stl' does not stand"):
        part({"mesh": tmp_path / "turned.stl"})


def test_a_tilde_in_a_parts_path_is_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert part({"urdf": "~/block.urdf"}).name == "block"
