"""Convex pieces of meshes that are not convex, kept in the user's cache.

Bullet moves convex bodies alone: taken as its hull, a mug has a lid. V-HACD cuts a mesh into convex pieces, in seconds,
so that they are kept: in `multiravens/pieces` of `$XDG_CACHE_HOME`, or of `~/.cache`, under the digest of what they
were made of.

Reference: Mamou and Ghorbel, "A simple and efficient approach for 3D mesh approximate convex decomposition", ICIP 2009.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import trimesh

from multiravens.errors import UserError
from multiravens.geometry import Array
from multiravens.options.paths import user_path
from multiravens.support.files import in_turn, read_whole, write_whole

MARGIN = 0.001
"""Bullet rounds convex hulls outwards by this much [m]; hulls are made smaller by it to measure what they say."""
NEARLY_CONVEX = 0.95
"""A mesh that fills this share of its convex hull collides as the hull."""
_SETTINGS = {
    # A voxel is a fiftieth of a cube's side, 1 mm of a part; ten times as many take half a minute.
    "resolution": 100_000,
    "concavity": 0.001,
    "gamma": 0.001,  # concavity that merging may leave
    "maxNumVerticesPerCH": 64,
}
_VERSION = 1  # of what is kept; another one is made anew
_MOST_BYTES = 2**26
# In a process of its own, because V-HACD writes to the stdout of whoever runs it, and a crash would take that along.
_RUN = "import json, sys, pybullet; pybullet.vhacd(*sys.argv[1:4], **json.loads(sys.argv[4]))"


def shrunk(vertices: Array) -> Array:
    """Vertices (N, 3) [m] of a hull that `MARGIN` brings back to its size."""
    centre = (vertices.min(0) + vertices.max(0)) / 2
    half = (vertices.max(0) - vertices.min(0)) / 2
    return np.asarray(centre + (vertices - centre) * (1 - MARGIN / np.maximum(half, 2 * MARGIN)))


def nearly_convex(mesh: trimesh.Trimesh) -> bool:
    """Tell whether a mesh is closed and fills its convex hull."""
    return bool(mesh.is_volume and mesh.volume >= NEARLY_CONVEX * mesh.convex_hull.volume)


@dataclass(frozen=True)
class Kept:
    """A file of the cache and what is in it."""

    name: str
    content: bytes

    @property
    def path(self) -> Path:
        """The file, which is written again where it was removed or damaged meanwhile."""
        path = _folder() / self.name
        if _read(path) != self.content:
            write_whole(path, self.content)
        return path


def convex_pieces(mesh: trimesh.Trimesh, origin: Array, source: Path) -> Kept:
    """Cut a mesh into convex pieces, or take those that are kept.

    Args:
        mesh: in metres.
        origin: (3,) of the file's frame in the mesh's [m].
        source: where the mesh is from, for the error.

    Returns:
        A file that Bullet reads, an OBJ with an object a piece.

    Raises:
        UserError: V-HACD cannot cut the mesh, or the cache cannot be written.
    """
    key = sha256(repr((_VERSION, _SETTINGS, MARGIN, mesh.vertices.shape)).encode())
    for array in (mesh.vertices, mesh.faces, origin):
        key.update(np.asarray(array).tobytes())
    path = _folder() / f"{key.hexdigest()}.obj"
    with in_turn(path.parent):  # of several processes with the same mesh, one cuts it
        content = _read(path)
        if content != _signed(content.partition(b"\n")[2]):
            content = _signed(_pieces(mesh, origin, source))
            write_whole(path, content)
    return Kept(path.name, content)


def _folder() -> Path:
    asked = os.environ.get("XDG_CACHE_HOME", "")
    # The standard has relative ones passed over.
    folder = (Path(asked) if os.path.isabs(asked) else user_path("~/.cache")) / "multiravens" / "pieces"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.R_OK | os.W_OK | os.X_OK) else "Permission denied"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise UserError(
            f"cannot write to {folder} ({reason}), where convex pieces of meshes are kept: set XDG_CACHE_HOME to a "
            "folder that you may write to"
        )
    return folder


def _read(path: Path) -> bytes:
    """Content kept at a path; empty if there is nothing."""
    try:
        return read_whole(path, _MOST_BYTES)
    except FileNotFoundError:
        return b""


def _signed(pieces: bytes) -> bytes:
    """Pieces below a line with their digest, by which damage shows."""
    return b"# sha256 " + sha256(pieces).hexdigest().encode() + b"\n" + pieces


def _pieces(mesh: trimesh.Trimesh, origin: Array, source: Path) -> bytes:
    """Cut a mesh into convex pieces: objects of an OBJ, from an origin (3,) of the mesh's frame [m]."""
    # V-HACD writes six decimals, so that it gets meshes of size 1.
    corner, size = mesh.bounds[0], float(mesh.extents.max())
    unit = trimesh.Trimesh((mesh.vertices - corner) / size, mesh.faces, process=False)
    lines, before = [], 0
    for index, hull in enumerate(_cut(unit, source)):
        vertices = shrunk(hull.vertices * size + corner) - origin
        lines += [f"o piece_{index}", *("v {:.9f} {:.9f} {:.9f}".format(*vertex) for vertex in vertices)]
        lines += ["f {} {} {}".format(*(face + before + 1)) for face in hull.faces]
        before += len(vertices)
    return "\n".join([*lines, ""]).encode()


def _cut(mesh: trimesh.Trimesh, source: Path) -> list[trimesh.Trimesh]:
    """The convex hulls, in V-HACD's order."""
    with TemporaryDirectory() as folder:
        given, made, log = (str(Path(folder) / name) for name in ("given.obj", "made.obj", "log.txt"))
        mesh.export(given)
        done = subprocess.run(
            [sys.executable, "-P", "-c", _RUN, given, made, log, json.dumps(_SETTINGS)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        objects = Path(made).read_text().split("\no ") if Path(made).is_file() else []
    corners = [[line.split()[1:4] for line in text.splitlines() if line.startswith("v ")] for text in objects]
    if done.returncode or not any(corners):
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise UserError(
            f"{str(source)!r}, of {len(mesh.faces)} faces, cannot be cut into convex pieces (exit status "
            f"{done.returncode}{''.join(f', {line}' for line in said)}): repair the mesh, or give its convex hull"
        )
    return [trimesh.convex.convex_hull(np.array(rows, float)) for rows in corners if rows]
