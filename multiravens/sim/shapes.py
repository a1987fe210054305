"""Collision and visual shapes of bodies, and a user's own mesh or URDF files.

A shape stands on its own origin: for everything made here, z = 0 of the shape's frame is its underside unless it says
otherwise, so that a body at height z rests with its underside at z.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pybullet
import trimesh
from numpy.typing import ArrayLike, NDArray

from multiravens.errors import UserError
from multiravens.geometry import Array
from multiravens.sim.decomposition import convex_pieces, nearly_convex, shrunk

RGB = tuple[float, float, float]

SIDES = 28
"""Sides of a drawn cylinder: smooth to the eye at 3 mm a pixel, and cheap for a software renderer."""


_KEPT = 512  # shapes whose meshes are kept: those of a problem, and boxes of many sizes
_DULL = [0.08, 0.08, 0.08]
_lists: dict[tuple[str, bytes], list[Any]] = {}


def _list(array: NDArray[Any]) -> list[Any]:
    """The array as a list, the same object for the same content.

    Pybullet never lets go of the lists of vertices, normals and indices that it was given: a new one for every episode
    would fill the memory. Boxes, whose sizes are drawn, are made without lists.
    """
    key = (str(array.shape), array.tobytes())
    if key not in _lists:
        _lists[key] = array.tolist()
    return _lists[key]


class Solid(Protocol):
    """One convex piece of a shape."""

    def collision(self, origin: Array) -> dict[str, Any]:
        """Arguments of Bullet's createCollisionShape, in a frame with this origin (3,) [m]."""
        ...

    def mesh(self) -> trimesh.Trimesh:
        """The piece as it is drawn."""
        ...


@dataclass(frozen=True)
class Box:
    """A box of size (3,) [m] centred at centre (3,) [m], turned by yaw [rad]."""

    size: tuple[float, float, float]
    centre: tuple[float, float, float]
    yaw: float = 0.0

    def collision(self, origin: Array) -> dict[str, Any]:
        """Arguments of Bullet's createCollisionShape, in a frame with this origin (3,) [m]."""
        return {
            "shapeType": pybullet.GEOM_BOX,
            "halfExtents": [side / 2 for side in self.size],
            "collisionFramePosition": (np.array(self.centre) - origin).tolist(),
            "collisionFrameOrientation": list(pybullet.getQuaternionFromEuler([0, 0, self.yaw])),
        }

    def mesh(self) -> trimesh.Trimesh:
        """The piece as it is drawn."""
        mesh = trimesh.creation.box(self.size, trimesh.transformations.rotation_matrix(self.yaw, [0, 0, 1]))
        return mesh.apply_translation(self.centre)


@dataclass(frozen=True)
class Cylinder:
    """An upright cylinder of a radius and a length [m] centred at centre (3,) [m]."""

    radius: float
    length: float
    centre: tuple[float, float, float]

    def collision(self, origin: Array) -> dict[str, Any]:
        """Arguments of Bullet's createCollisionShape, in a frame with this origin (3,) [m]."""
        return {
            "shapeType": pybullet.GEOM_CYLINDER,
            "radius": self.radius,
            "height": self.length,
            "collisionFramePosition": (np.array(self.centre) - origin).tolist(),
        }

    def mesh(self) -> trimesh.Trimesh:
        """The piece as it is drawn."""
        return trimesh.creation.cylinder(self.radius, self.length, SIDES).apply_translation(self.centre)


@dataclass(frozen=True)
class Ball:
    """A sphere of a radius [m] about the shape's origin."""

    radius: float

    def collision(self, origin: Array) -> dict[str, Any]:
        """Arguments of Bullet's createCollisionShape, in a frame with this origin (3,) [m]."""
        return {"shapeType": pybullet.GEOM_SPHERE, "radius": self.radius, "collisionFramePosition": (-origin).tolist()}

    def mesh(self) -> trimesh.Trimesh:
        """The piece as it is drawn."""
        return trimesh.creation.icosphere(1, self.radius)


@dataclass(frozen=True, eq=False)
class Hull:
    """The convex hull of vertices (N, 3) [m]."""

    vertices: Array

    def collision(self, origin: Array) -> dict[str, Any]:
        """Arguments of Bullet's createCollisionShape, in a frame with this origin (3,) [m]."""
        return {"shapeType": pybullet.GEOM_MESH, "vertices": _list(shrunk(self.vertices) - origin)}

    def mesh(self) -> trimesh.Trimesh:
        """The piece as it is drawn."""
        return trimesh.convex.convex_hull(self.vertices)


@dataclass(frozen=True)
class Shape:
    """A union of convex pieces of one colour.

    Attributes:
        pieces: boxes and cylinders, or one ball or hull.
        color: red, green, blue in [0, 1].
        solid: False for a mark that is seen but not felt.
        smooth: shade across faces, for balls.
    """

    pieces: tuple[Solid, ...]
    color: RGB
    solid: bool = True
    smooth: bool = False

    def painted(self, color: RGB) -> "Shape":
        """The same shape in another colour."""
        return replace(self, color=color)

    def centre(self) -> Array:
        """Centre of mass (3,) [m] in the shape's frame, taking the pieces as disjoint and of one density."""
        return _centre(self.pieces).copy()

    def create(self, client: int, mass: float, positions: Sequence[Array], quaternion: ArrayLike) -> list[int]:
        """Make a body at each position of its centre of mass (3,) [m]; returns Bullet's identifiers."""
        centre = self.centre()
        collision = self._collision(client, centre) if self.solid else -1
        visual = self._visual(client, centre)
        return [
            int(
                pybullet.createMultiBody(
                    mass,
                    collision,
                    visual,
                    basePosition=list(position),
                    baseOrientation=list(np.asarray(quaternion, dtype=float)),
                    # Free bodies need no joints; as plain rigid bodies they simulate a third faster.
                    useMaximalCoordinates=int(mass > 0),
                    physicsClientId=client,
                )
            )
            for position in positions
        ]

    def _collision(self, client: int, centre: Array) -> int:
        pieces = [piece.collision(centre) for piece in self.pieces]
        if len(pieces) == 1:
            return int(pybullet.createCollisionShape(**_plain(pieces[0]), physicsClientId=client))
        plural = {
            "shapeTypes": [piece["shapeType"] for piece in pieces],
            "radii": [piece.get("radius", 0.01) for piece in pieces],
            "halfExtents": [piece.get("halfExtents", [0.01] * 3) for piece in pieces],
            "lengths": [piece.get("height", 0.01) for piece in pieces],
            "collisionFramePositions": [piece["collisionFramePosition"] for piece in pieces],
            "collisionFrameOrientations": [piece.get("collisionFrameOrientation", [0, 0, 0, 1]) for piece in pieces],
        }
        return int(pybullet.createCollisionShapeArray(**plural, physicsClientId=client))

    def _visual(self, client: int, centre: Array) -> int:
        if len(self.pieces) == 1 and isinstance(self.pieces[0], Box):
            box = self.pieces[0].collision(centre)
            return int(
                pybullet.createVisualShape(
                    pybullet.GEOM_BOX,
                    halfExtents=box["halfExtents"],
                    visualFramePosition=box["collisionFramePosition"],
                    visualFrameOrientation=box["collisionFrameOrientation"],
                    rgbaColor=[*self.color, 1.0],
                    specularColor=_DULL,
                    physicsClientId=client,
                )
            )
        vertices, faces, normals = _drawn(self.pieces, self.smooth)
        return int(
            pybullet.createVisualShape(
                pybullet.GEOM_MESH,
                vertices=vertices,
                indices=faces,
                normals=normals,
                rgbaColor=[*self.color, 1.0],
                specularColor=_DULL,
                physicsClientId=client,
            )
        )


def _plain(piece: dict[str, Any]) -> dict[str, Any]:
    """A piece without its frame where that says nothing: Bullet makes a compound of what has one, which is slower."""
    if np.any(np.abs(piece.get("collisionFramePosition", 0.0)) > 1e-9) or any(
        piece.get("collisionFrameOrientation", "")[:3]
    ):
        return piece
    return {name: value for name, value in piece.items() if not name.startswith("collisionFrame")}


@lru_cache(_KEPT)
def _centre(pieces: tuple[Solid, ...]) -> Array:
    """Centre of mass (3,) [m] of disjoint pieces of one density."""
    meshes = [piece.mesh() for piece in pieces]
    return np.average([mesh.center_mass for mesh in meshes], axis=0, weights=[abs(mesh.volume) for mesh in meshes])


@lru_cache(_KEPT)
def _drawn(pieces: tuple[Solid, ...], smooth: bool) -> tuple[list[Any], list[Any], list[Any]]:
    """Vertices about the pieces' centre of mass [m], corners of the triangles, and normals, as Bullet draws them."""
    mesh = cast(trimesh.Trimesh, trimesh.util.concatenate([piece.mesh() for piece in pieces]))
    corners = mesh.vertices - _centre(pieces)
    if smooth:
        return _list(corners), _list(mesh.faces.ravel()), _list(mesh.vertex_normals)
    # Corners are not shared between faces, so that every face has its own normal and looks flat.
    vertices = corners[mesh.faces].reshape(-1, 3)
    return _list(vertices), _list(np.arange(len(vertices))), _list(np.repeat(mesh.face_normals, 3, axis=0))


def slab(size: ArrayLike, color: RGB, solid: bool = True) -> Shape:
    """A box of size (3,) [m] that stands on the origin."""
    length, width, height = np.asarray(size, dtype=float)
    return Shape((Box((length, width, height), (0.0, 0.0, height / 2)),), color, solid)


def disc(radius: float, height: float, color: RGB, solid: bool = True) -> Shape:
    """An upright cylinder that stands on the origin [m]."""
    return Shape((Cylinder(radius, height, (0.0, 0.0, height / 2)),), color, solid)


def prism(outline: ArrayLike, height: float, color: RGB) -> Shape:
    """An upright prism over a convex outline (N, 2) [m], standing on the origin."""
    points = np.asarray(outline, dtype=float)
    lower, upper = np.c_[points, np.zeros(len(points))], np.c_[points, np.full(len(points), height)]
    return Shape((Hull(np.concatenate([lower, upper])),), color)


def ball(radius: float, color: RGB) -> Shape:
    """A sphere [m] about the origin."""
    return Shape((Ball(radius),), color, smooth=True)


@dataclass(frozen=True)
class MeshFile:
    """A user's mesh, standing on the origin: it is drawn as it is, and collides as its hull or as convex pieces.

    Args:
        path: a file that trimesh reads (obj, stl, ply, glb, ...).
        scale: metres a unit of the file.
        color: red, green, blue in [0, 1].

    Raises:
        UserError: the file is missing or holds no solid.
    """

    path: Path
    scale: float
    color: RGB

    def load(self) -> trimesh.Trimesh:
        """The mesh in metres, its bounding box centred in xy and standing on z = 0."""
        return _load(self.path, self.scale)

    def shape(self) -> Shape:
        """The mesh as a shape."""
        return Shape((_solid(self.path, self.scale),), self.color)


UNREADABLE = (ValueError, TypeError, LookupError, AttributeError)
"""Errors that trimesh's readers raise on damaged files."""


# There is a handful of files, which would be read and cut anew for every episode.
@cache
def _load(path: Path, scale: float) -> trimesh.Trimesh:
    if not path.is_file():
        raise UserError(f"no mesh file {str(path)!r}; give a path that exists, relative ones start here")
    if path.suffix.lower().lstrip(".") not in trimesh.available_formats():
        raise UserError(f"{str(path)!r} cannot be read as a mesh (unknown suffix); use obj, stl or ply")
    try:
        loaded = cast(trimesh.Trimesh, trimesh.load(path, force="mesh"))
        # Without texture, faces share their corners, so that it can be told whether they enclose something.
        mesh = trimesh.Trimesh(loaded.vertices * scale, loaded.faces)
        lower, upper = mesh.bounds
    except UNREADABLE as error:
        raise UserError(f"{str(path)!r} cannot be read as a mesh ({error}); use obj, stl or ply") from error
    if not (upper > lower).all():
        raise UserError(f"{str(path)!r} is flat, and a part is a solid: give it a thickness")
    mesh.apply_translation([-(lower[0] + upper[0]) / 2, -(lower[1] + upper[1]) / 2, -lower[2]])
    if not mesh.is_volume:
        mesh.center_mass = mesh.convex_hull.center_mass  # an open surface has no mass of its own
    return mesh


@cache
def _solid(path: Path, scale: float) -> Solid:
    mesh = _load(path, scale)
    return _Drawn(np.array(mesh.convex_hull.vertices), mesh) if nearly_convex(mesh) else _Pieces(mesh, path)


@dataclass(frozen=True, eq=False)
class _Drawn(Hull):
    """A hull that is drawn as the mesh it was taken from."""

    drawn: trimesh.Trimesh

    def mesh(self) -> trimesh.Trimesh:
        """The piece as it is drawn."""
        return self.drawn


class _Pieces:
    """A mesh that collides as the convex pieces it was cut into."""

    def __init__(self, drawn: trimesh.Trimesh, source: Path) -> None:
        self._drawn, self._centre = drawn, drawn.center_mass
        self._pieces = convex_pieces(drawn, self._centre, source)

    def collision(self, origin: Array) -> dict[str, Any]:
        """Arguments of Bullet's createCollisionShape, in a frame with this origin (3,) [m]."""
        return {
            "shapeType": pybullet.GEOM_MESH,
            "fileName": str(self._pieces.path),
            "collisionFramePosition": (self._centre - origin).tolist(),
        }

    def mesh(self) -> trimesh.Trimesh:
        """The piece as it is drawn."""
        return self._drawn
