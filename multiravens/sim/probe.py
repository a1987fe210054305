"""Probes of what this machine's Bullet can do, for `multiravens doctor`.

It uses neither worlds nor cameras, so that it can be asked when those do not work.
"""

from time import perf_counter

import pybullet

from multiravens.geometry import SHAPE

_BOXES = 10
_HALF_EXTENT = 0.03  # [m]; ten such boxes cover a tenth of the workspace, as a problem's bodies do
# Orthographic, 0.5 m by 1 m between 0.1 and 2 m below the camera, column by column as Bullet takes it.
_PROJECTION = (4.0, 0, 0, 0, 0, 2.0, 0, 0, 0, 0, -2 / 1.9, 0, 0, 0, -2.1 / 1.9, 1)


def numpy_enabled() -> bool:
    """Tell whether pybullet was built with numpy; without it a picture takes about a second to unpack."""
    return bool(pybullet.isNumpyEnabled())


def renderer_milliseconds(frames: int = 10) -> float:
    """Times TinyRenderer on ten boxes seen from above, at the heightmap's size.

    Args:
        frames: Pictures drawn; the fastest counts, since other programs only slow one down.

    Returns:
        Time of one picture [ms].
    """
    client = pybullet.connect(pybullet.DIRECT)
    try:
        _load_boxes(client)
        height, width = SHAPE
        eye, target, up = (0.5, 0.0, 1.0), (0.5, 0.0, 0.0), (0.0, -1.0, 0.0)
        view = pybullet.computeViewMatrix(eye, target, up)
        times = []
        for _ in range(frames):
            start = perf_counter()
            pybullet.getCameraImage(
                width,
                height,
                view,
                _PROJECTION,
                shadow=0,
                flags=0,
                renderer=pybullet.ER_TINY_RENDERER,
                physicsClientId=client,
            )
            times.append(perf_counter() - start)
    finally:
        pybullet.disconnect(client)
    return 1000 * min(times)


def _load_boxes(client: int) -> None:
    """Sets two rows of boxes on the table."""
    extents = [_HALF_EXTENT] * 3
    shape = pybullet.createVisualShape(pybullet.GEOM_BOX, halfExtents=extents, physicsClientId=client)
    for index in range(_BOXES):
        position = (0.4 + 0.2 * (index % 2), -0.4 + 0.2 * (index // 2), _HALF_EXTENT)
        pybullet.createMultiBody(baseVisualShapeIndex=shape, basePosition=position, physicsClientId=client)
