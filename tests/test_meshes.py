"""A user's mesh collides as it is drawn, cut into convex pieces once for all processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pybullet_data
import pytest
import trimesh

from multiravens.errors import UserError
from multiravens.geometry import planar_pose
from multiravens.sim import decomposition
from multiravens.sim.shapes import MeshFile, ball
from multiravens.sim.world import World
from multiravens.tasks.parts import part

RED = (0.8, 0.2, 0.2)
INNER, FLOOR, WALL, HIGH = 0.021, 0.005, 0.004, 0.05


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of convex pieces; nothing is remembered from other tests, whose files have other folders."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(decomposition._SETTINGS, "resolution", 20_000)  # a second less
    return tmp_path / "cache" / "multiravens" / "pieces"


def mug(folder: Path, scale: float = 1.0) -> Path:
    """A cup without a handle, open above."""
    outer = INNER + WALL
    profile = [[0, 0], [outer, 0], [outer, HIGH], [INNER, HIGH], [INNER, FLOOR], [0, FLOOR]]
    path = folder / "mug.stl"
    trimesh.creation.revolve(scale * np.array(profile), sections=24).export(path)
    return path


def dropped_into(path: Path, scale: float = 1.0) -> float:
    """Height [m] at which a ball comes to rest that is dropped onto the middle of a mesh or a URDF."""
    world = World()
    if path.suffix == ".urdf":
        world.add_urdf("mesh", path, planar_pose((0.5, 0.0), 0.001), scale)
    else:
        world.add("mesh", MeshFile(path, scale, RED).shape(), planar_pose((0.5, 0.0)), 0.1)
    marble = world.add("ball", ball(0.008, RED), planar_pose((0.502, 0.001), 0.09), 0.01)
    world.settle(cap=5.0)
    height = float(world.pose(marble).position[2])
    world.close()
    return height


def test_a_ball_dropped_into_a_mug_lies_on_its_floor(tmp_path: Path, kept: Path) -> None:
    assert abs(dropped_into(mug(tmp_path)) - (FLOOR + 0.008)) < 0.002


@pytest.mark.parametrize("scale", [1.0, 0.8])
def test_a_ball_dropped_into_a_urdfs_mug_lies_on_its_floor(scale: float, tmp_path: Path, kept: Path) -> None:
    mug(tmp_path, 1000.0)
    (tmp_path / "urdf").mkdir()
    path = tmp_path / "urdf" / "mug.urdf"
    geometry = '<geometry><mesh filename="package://mug.stl" scale="0.001 0.001 0.001"/></geometry>'
    inertia = '<inertia ixx="1e-5" iyy="1e-5" izz="1e-5" ixy="0" ixz="0" iyz="0"/>'
    path.write_text(
        f'<robot name="mug"><link name="base"><inertial><mass value="0.1"/>{inertia}</inertial>'
        f"<visual>{geometry}</visual><collision>{geometry}</collision></link></robot>"
    )
    assert abs(dropped_into(path, scale) - (scale * FLOOR + 0.008)) < 0.002
    for file in kept.iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert abs(dropped_into(path, scale) - (scale * FLOOR + 0.008)) < 0.002


def test_published_models_keep_the_pieces_that_they_have(kept: Path) -> None:
    world = World()
    for name in ("duck_vhacd", "urdf/mug", "teddy_vhacd", "random_urdfs/000/000"):
        world.add_urdf(name, Path(pybullet_data.getDataPath()) / f"{name}.urdf", planar_pose((0.5, 0.0)))
    world.close()
    assert not kept.exists()


def test_a_convex_mesh_is_one_hull_and_nothing_is_kept(tmp_path: Path, kept: Path) -> None:
    path = tmp_path / "box.stl"
    trimesh.creation.box((0.03, 0.03, 0.02)).export(path)
    assert abs(dropped_into(path) - 0.028) < 0.002
    assert not kept.exists()


def test_a_mug_is_picked_at_its_floor_and_not_at_its_rim(tmp_path: Path, kept: Path) -> None:
    path = mug(tmp_path)
    assert part({"mesh": path, "symmetry": 0}).grasp == (0.0, 0.0)
    assert part({"mesh": path, "grasp": [0.004, 0.0], "symmetry": 0}).grasp == (0.004, 0.0)
    with pytest.raises(UserError, match=r"mug.stl' is not flat enough at its grasp \[0.023, 0.0\] .*12 mm") as raised:
        part({"mesh": path, "grasp": [INNER + WALL / 2, 0.0], "symmetry": 0})
    assert "\n" not in str(raised.value)


def cut_in_a_process(path: Path, cache: Path) -> tuple[str, bytes, int]:
    """Name, bytes and time of change of the one file that a process keeps, which says nothing."""
    code = (
        "import sys; from pathlib import Path; from multiravens.sim.shapes import MeshFile;"
        "MeshFile(Path(sys.argv[1]), 1.0, (1, 0, 0)).shape()"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, capture_output=True, check=True)
    assert done.stdout == b""
    (file,) = (cache / "multiravens" / "pieces").iterdir()
    return file.name, file.read_bytes(), file.stat().st_mtime_ns


def test_one_process_cuts_the_next_reads_and_one_with_another_cache_gets_the_same_bytes(tmp_path: Path) -> None:
    path = mug(tmp_path)
    first = cut_in_a_process(path, tmp_path / "one")
    assert cut_in_a_process(path, tmp_path / "one") == first
    assert cut_in_a_process(path, tmp_path / "two")[:2] == first[:2]


def test_what_is_kept_and_damaged_is_made_anew(tmp_path: Path, kept: Path) -> None:
    path = mug(tmp_path)
    mesh = trimesh.load_mesh(path)
    file = decomposition.convex_pieces(mesh, mesh.center_mass, path).path
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole.replace(b"1", b"2")):
        file.write_bytes(damaged)
        assert decomposition.convex_pieces(mesh, mesh.center_mass, path).path.read_bytes() == whole


def test_pieces_removed_during_an_episode_are_there_for_the_next(tmp_path: Path, kept: Path) -> None:
    shape = MeshFile(mug(tmp_path), 1.0, RED).shape()
    (file,) = kept.iterdir()
    whole = file.read_bytes()
    file.unlink()
    world = World()
    world.add("mesh", shape, planar_pose((0.5, 0.0)), 0.1)
    world.close()
    assert file.read_bytes() == whole


def test_a_mesh_that_cannot_be_cut_and_a_cache_that_cannot_be_written_are_told(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="XDG_CACHE_HOME") as raised:
        MeshFile(mug(tmp_path), 1.0, RED).shape()
    assert "\n" not in str(raised.value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    monkeypatch.setattr(decomposition, "_RUN", "import os, sys; print('V-HACD fell', file=sys.stderr); os._exit(3)")
    with pytest.raises(UserError, match=r"mug.stl', of .* faces, cannot be cut .* \(exit status 3, V-HACD fell\)"):
        MeshFile(mug(tmp_path), 1.0, RED).shape()


def test_an_open_surface_is_taken_as_a_thin_shell(tmp_path: Path, kept: Path) -> None:
    bowl = trimesh.creation.box((0.05, 0.05, 0.03))
    bowl.update_faces(bowl.face_normals[:, 2] < 0.5)
    bowl.export(tmp_path / "bowl.obj")
    assert dropped_into(tmp_path / "bowl.obj") < 0.012


def test_a_flat_mesh_is_refused(tmp_path: Path) -> None:
    corners = 0.03 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    flat = trimesh.Trimesh(corners, [[0, 1, 2], [1, 3, 2]])
    flat.export(tmp_path / "flat.stl")
    with pytest.raises(UserError, match="flat.stl' is flat"):
        part({"mesh": tmp_path / "flat.stl"})


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_none_is_refused(scale: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"scale={scale:g}: give metres a unit of the file, above 0"):
        part({"mesh": mug(tmp_path), "scale": scale})


def test_a_part_that_stands_round_a_plate_is_refused(tmp_path: Path, kept: Path) -> None:
    top = trimesh.creation.box((0.084, 0.03, 0.004)).apply_translation([0, 0, 0.022])
    legs = [trimesh.creation.box((0.004, 0.03, 0.02)).apply_translation([x, 0, 0.01]) for x in (-0.04, 0.04)]
    trimesh.util.concatenate([top, *legs]).export(tmp_path / "bench.stl")
    with pytest.raises(UserError, match="bench.stl' does not stand on a plate 72 mm across, but [34] mm lower"):
        part({"mesh": tmp_path / "bench.stl"})
