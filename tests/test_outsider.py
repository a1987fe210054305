"""The README's module, added the way an outsider would: one class, one YAML, outside the package."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

from multiravens.envs import demonstrate, make
from multiravens.errors import UserError

ROOT = Path(__file__).parents[1]


def block(page: str, language: str, after: str) -> str:
    """The first block of code in a language that follows some text of a page."""
    text = (ROOT / page).read_text()
    found = re.search(rf"```{language}\n(.*?)```", text[text.index(after) :], re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "sorting.py").write_text(block("README.md", "python", "`sorting.py`:"))
    (tmp_path / "my_configs" / "module").mkdir(parents=True)
    (tmp_path / "my_configs" / "module" / "sorting.yaml").write_text(
        block("README.md", "yaml", "`my_configs/module/sorting.yaml`:")
    )
    return tmp_path


def test_the_readmes_module_composes_with_ours_and_its_expert_solves_it(
    outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(outside))
    env = make("sorting-stacking", config_dirs=[outside / "my_configs"])
    run = demonstrate(env, 1)
    env.close()
    assert run.success, run.reason
    assert run.holds.shape == (9, 8)
    assert {name.split("/")[0] for name in run.subgoals} == {"sorting", "stacking"}


def test_demonstrations_of_it_are_made_from_the_command_line(outside: Path) -> None:
    words = ["problem=sorting", "episodes=2", "workers=2", "data=data", "--config-dir", "my_configs"]
    command = [sys.executable, "-m", "multiravens.demos", *words]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{outside}"}
    done = subprocess.run(command, cwd=outside, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((outside / "data" / "sorting" / "train").glob("episode_*.safetensors"))) == 2


def test_a_module_that_is_missing_is_named(outside: Path) -> None:
    with pytest.raises(UserError, match="sorting"):
        make("sortin", config_dirs=[outside / "my_configs"])


def test_a_users_mesh_and_urdf_become_parts(tmp_path: Path) -> None:
    mesh = trimesh.creation.cylinder(22.0, 18.0, 5)  # millimetres
    mesh.export(tmp_path / "pentagon.stl")
    (tmp_path / "block.urdf").write_text(
        '<robot name="block"><link name="base"><inertial><mass value="0.08"/><origin xyz="0 0 0.01"/>'
        '<inertia ixx="1e-5" iyy="1e-5" izz="1e-5" ixy="0" ixz="0" iyz="0"/></inertial>'
        '<visual><origin xyz="0 0 0.01"/><geometry><box size="0.04 0.03 0.02"/></geometry></visual>'
        '<collision><origin xyz="0 0 0.01"/><geometry><box size="0.04 0.03 0.02"/></geometry></collision>'
        "</link></robot>"
    )
    shapes = (
        f"[{{mesh: '{tmp_path}/pentagon.stl', scale: 0.001, symmetry: 72}},"
        f"{{urdf: '{tmp_path}/block.urdf', symmetry: 180}}]"
    )
    env = make("placing", overrides=[f"problem.modules.placing.shapes={shapes}", "problem.modules.placing.parts=2"])
    runs = [demonstrate(env, seed) for seed in range(3)]
    env.close()
    assert [run.success for run in runs] == [True] * 3, [run.reason for run in runs]
    assert {name.split()[0].split("/")[1] for name in runs[0].subgoals} == {"pentagon", "block"}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ("[{mesh: nowhere.stl}]", "nowhere.stl"),
        ("[{stl: nowhere.stl}]", "unknown key"),
        ("[sqare]", "square"),
        ("[square]", "shapes lists 1"),
    ],
)
def test_a_wrong_part_is_one_line(shapes: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make("placing", overrides=[f"problem.modules.placing.shapes={shapes}", "problem.modules.placing.parts=2"])
    assert "\n" not in str(caught.value)


def test_rotation_symmetric_parts_are_turned_no_further_than_needed() -> None:
    env = make("placing", overrides=["problem.modules.placing.shapes=[square]", "problem.modules.placing.parts=1"])
    for seed in range(5):
        env.reset(seed=seed)
        action = env.expert()
        assert action is not None and abs(action.turn) <= np.pi / 4 + 1e-6
    env.close()
