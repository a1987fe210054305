"""Makes the UR5e of `ur5e/`: meshes of our own over its published kinematics, and the URDF that joins them.

Run: python assets/make_arm.py

Kinematics: Universal Robots' published Denavit-Hartenberg parameters of the UR5e, which also give the masses. Shapes
are simplified from the robot's public drawings: tubes, joint housings with blue caps, a flange and a suction tool.
Each link's frame lies on its joint's axis (z), before the link's own Denavit-Hartenberg step.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import trimesh
from trimesh.transformations import rotation_matrix

FOLDER = Path(__file__).parent / "ur5e"
D1, A2, A3, D4, D5, D6 = 0.1625, -0.425, -0.3922, 0.1333, 0.0997, 0.0996
TOOL = 0.15
"""Length of the suction tool beyond the flange [m]: the wrist stays clear of a tower of 0.13 m."""
PEDESTAL = 0.24
UPPER, FORE = 0.138, 0.007  # where the tubes lie along their joints' axes [m]

ALUMINIUM, BLUE, DARK = "0.80 0.82 0.84 1", "0.36 0.57 0.76 1", "0.22 0.23 0.25 1"
STEEL, RUBBER = "0.66 0.68 0.71 1", "0.16 0.16 0.18 1"
MASSES = (3.761, 8.058, 2.846, 1.37, 1.3, 0.365)
EFFORTS = (150.0, 150.0, 150.0, 28.0, 28.0, 28.0)
SPEED = np.pi


def turned(profile: Sequence[tuple[float, float]], axis: str = "z") -> trimesh.Trimesh:
    """A solid of revolution from (radius, height) pairs [m], its axis along z, y or x."""
    # Thick pieces need more sides to look round; all in all the arm keeps within 6,000 triangles, drawn in software.
    sides = 12 + 2 * round(85 * max(radius for radius, _ in profile))
    mesh = trimesh.creation.revolve(np.array(profile), sections=sides)
    if axis == "y":
        mesh.apply_transform(rotation_matrix(-np.pi / 2, [1, 0, 0]))
    elif axis == "x":
        mesh.apply_transform(rotation_matrix(np.pi / 2, [0, 1, 0]))
    return mesh


def housing(radius: float, low: float, high: float, axis: str = "z") -> trimesh.Trimesh:
    """A joint's housing: a cylinder with rounded rims."""
    rim = 0.18 * radius
    return turned(
        [
            (0, low),
            (radius - rim, low),
            (radius - 0.3 * rim, low + 0.3 * rim),
            (radius, low + rim),
            (radius, high - rim),
            (radius - 0.3 * rim, high - 0.3 * rim),
            (radius - rim, high),
            (0, high),
        ],
        axis,
    )


def seal(radius: float, height: float, axis: str = "z") -> trimesh.Trimesh:
    """The dark ring in the groove between two housings that turn against one another."""
    return turned([(radius, height - 0.005), (radius, height + 0.005)], axis)


def tube(start: float, end: float, z: float, thick: float, thin: float) -> trimesh.Trimesh:
    """A tube along x from start to end at height z, waisted towards its end [m]."""
    span = end - start
    mesh = turned([(0, 0), (thick, 0), (thick * 0.97, 0.2 * abs(span)), (thin, abs(span)), (0, abs(span))], "x")
    if span < 0:
        mesh.apply_transform(rotation_matrix(np.pi, [0, 0, 1]))
    return mesh.apply_translation([start, 0, z])


def moved(mesh: trimesh.Trimesh, x: float = 0, y: float = 0, z: float = 0) -> trimesh.Trimesh:
    """The mesh moved [m]."""
    return mesh.apply_translation([x, y, z])


def links() -> list[tuple[str, list[tuple[str, trimesh.Trimesh]]]]:
    """Every link's name and its coloured pieces, in its own frame."""
    adapter = turned([(0, -0.004), (0.020, -0.004), (0.020, 0.026), (0.010, 0.040), (0, 0.040)])
    low = TOOL - 0.024  # where the rod ends and the cup begins
    rod = turned([(0.0055, 0.038), (0.0055, low + 0.002)])
    bellows = [(0.0058, 0.0), (0.0068, 0.002), (0.0068, 0.008), (0.0050, 0.011), (0.0072, 0.014), (0.0050, 0.017)]
    cup = turned([(0, low), *((radius, low + height) for radius, height in bellows), (0.0078, TOOL), (0, TOOL)])
    return [
        (
            "base",
            [
                (
                    DARK,
                    turned(
                        [(0, -PEDESTAL), (0.11, -PEDESTAL), (0.11, -PEDESTAL + 0.015), (0.075, -PEDESTAL + 0.03)]
                        + [(0.068, -0.02), (0, -0.02)]
                    ),
                ),
                (ALUMINIUM, housing(0.076, -0.025, 0.03)),
            ],
        ),
        (
            "shoulder",
            [
                (ALUMINIUM, housing(0.062, 0.03, D1 + 0.062)),
                (DARK, seal(0.058, 0.030)),
                (ALUMINIUM, moved(housing(0.060, 0.0, 0.075, "y"), y=-0.075, z=D1)),
                (BLUE, moved(housing(0.058, 0.0, 0.02, "y"), y=0.048, z=D1)),
            ],
        ),
        (
            "upper_arm",
            [
                (ALUMINIUM, housing(0.060, 0.076, 0.200)),
                (DARK, seal(0.055, 0.0755)),
                (BLUE, housing(0.057, 0.196, 0.212)),
                (ALUMINIUM, tube(-0.04, A2 + 0.03, UPPER, 0.049, 0.043)),
                (ALUMINIUM, moved(housing(0.052, 0.072, 0.184), x=A2)),
                (BLUE, moved(housing(0.049, 0.180, 0.195), x=A2)),
            ],
        ),
        (
            "forearm",
            [
                (ALUMINIUM, housing(0.051, -0.040, 0.072)),
                (DARK, seal(0.047, 0.072)),
                (BLUE, housing(0.048, -0.053, -0.037)),
                (ALUMINIUM, tube(-0.03, A3 + 0.02, FORE, 0.041, 0.034)),
                (ALUMINIUM, moved(housing(0.039, -0.034, 0.060), x=A3)),
                (BLUE, moved(housing(0.037, -0.046, -0.031), x=A3)),
            ],
        ),
        (
            "wrist_1",
            [
                (ALUMINIUM, housing(0.039, 0.060, D4 + 0.040)),
                (DARK, seal(0.0355, 0.060)),
                (ALUMINIUM, moved(housing(0.039, 0.0, 0.052, "y"), y=-0.052, z=D4)),
                (BLUE, housing(0.037, D4 + 0.036, D4 + 0.050)),
            ],
        ),
        (
            "wrist_2",
            [
                (ALUMINIUM, housing(0.039, 0.052, D5 + 0.040)),
                (DARK, seal(0.0355, 0.052)),
                (ALUMINIUM, moved(housing(0.039, 0.0, 0.050, "y"), z=D5)),
                (BLUE, housing(0.037, D5 + 0.036, D5 + 0.050)),
            ],
        ),
        (
            "wrist_3",
            [
                (ALUMINIUM, housing(0.038, 0.050, D6 - 0.012)),
                (DARK, seal(0.0345, 0.050)),
                (DARK, housing(0.0315, D6 - 0.016, D6)),
            ],
        ),
        ("tip", [(DARK, moved(adapter, z=-TOOL)), (STEEL, moved(rod, z=-TOOL)), (RUBBER, moved(cup, z=-TOOL))]),
    ]


# Joint, parent, child, origin xyz, origin rpy, all in the parent's frame.
JOINTS = (
    ("shoulder_pan", "base", "shoulder", (0, 0, 0), (0, 0, 0)),
    ("shoulder_lift", "shoulder", "upper_arm", (0, 0, D1), (np.pi / 2, 0, 0)),
    ("elbow", "upper_arm", "forearm", (A2, 0, 0), (0, 0, 0)),
    ("wrist_1", "forearm", "wrist_1", (A3, 0, 0), (0, 0, 0)),
    ("wrist_2", "wrist_1", "wrist_2", (0, 0, D4), (np.pi / 2, 0, 0)),
    ("wrist_3", "wrist_2", "wrist_3", (0, 0, D5), (-np.pi / 2, 0, 0)),
)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.10g}" for value in values)


def link_xml(name: str, pieces: list[tuple[str, trimesh.Trimesh]], mass: float) -> str:
    """A link with its pieces drawn; only the tip collides."""
    lines = [f'  <link name="{name}">']
    whole = trimesh.util.concatenate([mesh for _, mesh in pieces])
    centre, extent = whole.bounds.mean(0), np.ptp(whole.bounds, axis=0)
    inertia = (
        mass
        / 12
        * np.array([extent[1] ** 2 + extent[2] ** 2, extent[0] ** 2 + extent[2] ** 2, extent[0] ** 2 + extent[1] ** 2])
    )
    ixx, iyy, izz = np.maximum(inertia, 1e-4)
    lines += [
        f'    <inertial><origin xyz="{_numbers(centre)}"/><mass value="{mass}"/>',
        f'      <inertia ixx="{ixx:.6f}" iyy="{iyy:.6f}" izz="{izz:.6f}" ixy="0" ixz="0" iyz="0"/></inertial>',
    ]
    for index, (color, _) in enumerate(pieces):
        lines += [
            f'    <visual><geometry><mesh filename="{name}_{index}.obj"/></geometry>',
            f'      <material name="{name}_{index}"><color rgba="{color}"/></material></visual>',
        ]
    if name == "tip":
        lines.append(
            '    <collision><origin xyz="0 0 -0.02"/><geometry>'
            '<cylinder radius="0.006" length="0.04"/></geometry></collision>'
        )
    return "\n".join([*lines, "  </link>"])


def main() -> None:
    """Write the meshes and the URDF."""
    FOLDER.mkdir(exist_ok=True)
    xml = ['<?xml version="1.0"?>', "<!-- Made by make_arm.py. -->", '<robot name="ur5e">']
    for (name, pieces), mass in zip(links(), (4.0, *MASSES, 0.1), strict=True):
        for index, (_, mesh) in enumerate(pieces):
            mesh.merge_vertices()
            smooth = trimesh.graph.smooth_shade(mesh, angle=np.deg2rad(35))
            text = trimesh.exchange.obj.export_obj(
                smooth, include_normals=True, include_color=False, digits=5, header=""
            )
            (FOLDER / f"{name}_{index}.obj").write_text(text)
        xml.append(link_xml(name, pieces, mass))
    for (name, parent, child, xyz, rpy), effort in zip(JOINTS, EFFORTS, strict=True):
        xml.append(
            f'  <joint name="{name}_joint" type="revolute"><parent link="{parent}"/><child link="{child}"/>\n'
            f'    <origin xyz="{_numbers(xyz)}" rpy="{_numbers(rpy)}"/><axis xyz="0 0 1"/>\n'
            f'    <limit lower="{-2 * np.pi:.6f}" upper="{2 * np.pi:.6f}"'
            f' effort="{effort}" velocity="{SPEED:.6f}"/></joint>'
        )
    xml.append(
        '  <joint name="tool_joint" type="fixed"><parent link="wrist_3"/><child link="tip"/>\n'
        f'    <origin xyz="0 0 {D6 + TOOL:.6g}"/></joint>'
    )
    (FOLDER / "ur5e.urdf").write_text("\n".join([*xml, "</robot>", ""]))


if __name__ == "__main__":
    main()
