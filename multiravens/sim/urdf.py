"""A user's URDF file as one body that a suction tip can move."""

import re
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

import numpy as np
import pybullet
import trimesh

from multiravens.errors import UserError
from multiravens.geometry import Pose
from multiravens.sim.decomposition import Kept, convex_pieces, nearly_convex
from multiravens.sim.shapes import UNREADABLE

LIGHTEST = 0.02
"""Least mass [kg] that a smaller scale leaves: files in millimetres have masses in kilograms all the same."""


_OBJECT = re.compile(rb"^[og]\b[^\n]*\n(?:[^fog\n][^\n]*\n|\n)*f\b", re.MULTILINE)  # with a face in it


def load(client: int, path: Path, scale: float, pose: Pose) -> tuple[int, Pose]:
    """Put a URDF's body into a client.

    Args:
        client: Bullet's.
        path: of the file.
        scale: of all lengths; below 1, the mass shrinks with the volume, down to `LIGHTEST`.
        pose: world pose of the file's own frame.

    Returns:
        Bullet's identifier, and the pose in the file's frame of the centre of mass, of which Bullet tells poses.

    Raises:
        UserError: the file is missing, Bullet cannot load it, or the body cannot be moved as a whole.
    """
    if not path.is_file():
        raise UserError(f"no URDF file {str(path)!r}; give a path that exists, relative ones start here")
    try:
        body = pybullet.loadURDF(
            str(_as_drawn(path, scale)),
            list(pose.position),
            list(pose.quaternion),
            globalScaling=scale,
            flags=pybullet.URDF_ENABLE_CACHED_GRAPHICS_SHAPES,
            physicsClientId=client,
        )
    except pybullet.error as error:
        raise UserError(f"{str(path)!r} cannot be loaded as a URDF ({error}); try it in Bullet's viewer") from error
    mass, *_, position, quaternion = pybullet.getDynamicsInfo(body, -1, physicsClientId=client)[:5]
    if scale < 1 and mass > LIGHTEST:
        # Bullet shrinks lengths alone; of the same density, a half-size mug weighs an eighth.
        mass = max(mass * scale**3, LIGHTEST)
        pybullet.changeDynamics(body, -1, mass=mass, physicsClientId=client)
    joints = pybullet.getNumJoints(body, physicsClientId=client)
    solid = pybullet.getCollisionShapeData(body, -1, physicsClientId=client)
    reason = _fault(float(mass), int(joints), bool(solid))
    if reason:
        raise UserError(f"urdf: {str(path)!r} {reason}")
    return int(body), Pose(np.array(position), np.array(quaternion))


def _as_drawn(path: Path, scale: float) -> Path:
    """A URDF whose collision meshes are convex pieces, where Bullet would take a mesh's convex hull; the same if none.

    Models that carry pieces of their own, as objects of an OBJ, keep them.
    """
    cut = _cut(path, scale, path.stat().st_mtime_ns)
    if cut is None:
        return path
    for file in cut:
        written = file.path
    return written


@cache
def _cut(path: Path, scale: float, _changed: int) -> tuple[Kept, ...] | None:
    """The files of pieces and, last, of the URDF that names them."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError:
        return None  # Bullet reads files that are not quite XML, and says better what is wrong with others
    cut = []
    for mesh in root.iterfind(".//collision/geometry/mesh"):
        pieces = _pieces(_found(path, mesh.get("filename", "")), mesh.get("scale", "1 1 1"), scale)
        if pieces is not None:
            mesh.attrib.update(filename=str(pieces.path), scale=" ".join([repr(1 / scale)] * 3))
            cut.append(pieces)
    if not cut:
        return None
    for element in root.iterfind(".//*[@filename]"):
        file = _found(path, element.attrib["filename"])
        if file is not None:
            element.set("filename", str(file))
    content = ElementTree.tostring(root)
    return (*cut, Kept(f"{sha256(content).hexdigest()}.urdf", content))


def _found(path: Path, filename: str) -> Path | None:
    """The file that a URDF names, beside it or in a folder above, as Bullet looks for it."""
    name = filename.removeprefix("package://").removeprefix("model://")
    places = (folder / name for folder in path.resolve().parents)
    return next((place for place in places if place.is_file()), None)


def _pieces(file: Path | None, stretched: str, scale: float) -> Kept | None:
    """The convex pieces of a mesh; None if its hull will do, it has its own, or it is for Bullet to read."""
    if file is None or file.suffix.lower() not in (".obj", ".stl"):
        return None
    if file.suffix.lower() == ".obj" and len(_OBJECT.findall(file.read_bytes())) > 1:
        return None
    try:
        loaded = cast(trimesh.Trimesh, trimesh.load(file, force="mesh"))
        mesh = trimesh.Trimesh(loaded.vertices * np.array(stretched.split(), float) * scale, loaded.faces)
    except UNREADABLE:
        return None
    return None if nearly_convex(mesh) else convex_pieces(mesh, np.zeros(3), file)


def _fault(mass: float, joints: int, solid: bool) -> str:
    """Reason why a body can't be a part; empty if it can."""
    if joints:
        return f"has {joints} joints, and a part is one rigid body: give a file with one link"
    if not solid:
        return "has no collision shape, so nothing can hold it: give its link a <collision>"
    if mass <= 0:
        return f"has mass {mass:g} kg, which Bullet takes as fixed to the world: give its link a <mass> above 0"
    return ""
