"""Packaging: wheel and sdist hold everything, no import is called `agents` or `tasks`, every requirement is pinned."""

import ast
import re
import runpy
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
Command = Callable[..., "subprocess.CompletedProcess[str]"]
LINKED = ("agents", "assets", "configs", "tasks")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def files(folder: str) -> list[str]:
    paths = (path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc")
    return [path.relative_to(ROOT).as_posix() for path in paths]


def expected() -> set[str]:
    """Every source, configuration and asset, as named in the package."""
    linked = {f"multiravens/{name}" for folder in LINKED for name in files(folder)}
    return linked | {name for name in files("multiravens") if name.split("/")[1] not in LINKED}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def wheel_of(folder: Path) -> Path:
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_links_are_relative_and_lead_to_the_folders() -> None:
    for name in LINKED:
        link = ROOT / "multiravens" / name
        assert link.is_symlink()
        assert link.readlink() == Path("..") / name
        assert link.is_dir()


@pytest.mark.parametrize("name", ["agents", "tasks"])
def test_a_bare_name_is_refused_and_the_full_one_is_not(name: str, python: Command) -> None:
    bare = python("-c", f"import {name}")
    assert f"ImportError: no package is named '{name}' here: import multiravens.{name} instead" in bare.stderr
    assert python("-c", f"import multiravens.{name}").returncode == 0


def test_the_wheel_holds_every_file_once_and_one_top_level_name(built: Path) -> None:
    with zipfile.ZipFile(wheel_of(built)) as wheel:
        names = wheel.namelist()
    assert len(names) == len(set(names))
    assert len(expected()) > 30
    assert expected() - set(names) == set()
    assert {name.split("/")[0] for name in names} == {"multiravens", f"multiravens-{PROJECT['version']}.dist-info"}
    assert f"multiravens-{PROJECT['version']}.dist-info/licenses/LICENSE" in names


def test_the_sdist_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert (source / "tests" / "conftest.py").is_file()
    out = tmp_path / "again"
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(command, capture_output=True, check=True)
    with zipfile.ZipFile(wheel_of(out)) as again, zipfile.ZipFile(wheel_of(built)) as first:
        assert sorted(again.namelist()) == sorted(first.namelist())


def test_an_unpacked_wheel_composes_and_runs(built: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel_of(built)) as wheel:
        wheel.extractall(tmp_path)
    script = (
        "import multiravens, sys; from multiravens.cli import main; from multiravens.options.compose import compose; "
        "print(multiravens.__file__, compose('demos', ['problem=stacking-placing']).problem.name); main(['--version'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [
        str(tmp_path / "multiravens" / "__init__.py"),
        "placing-stacking",
        PROJECT["version"],
    ]


def test_the_console_script_is_the_command_line() -> None:
    assert PROJECT["scripts"] == {"multiravens": "multiravens.cli:main"}


def test_every_requirement_is_pinned_without_a_host() -> None:
    lines = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", line) for line in pins)
    names = {line.split("==")[0] for line in pins}
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    assert {re.split(r"[^\w-]", requirement)[0] for requirement in wanted} - names == set()


def test_everything_imported_is_required() -> None:
    """A package that only happens to be installed, as another's requirement, is missing for someone one day."""
    own = {"multiravens", "conftest", "torch"} | set(sys.stdlib_module_names)
    aliases = {"cv2": "opencv-python-headless", "hydra": "hydra-core", "omegaconf": "hydra-core", "yaml": "pyyaml"}
    imported = set()
    for folder in ("multiravens", *LINKED):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    imported.add(node.module.split(".")[0])
    required = {re.split(r"[^\w-]", requirement)[0] for requirement in PROJECT["dependencies"]}
    assert {aliases.get(name, name.replace("_", "-")) for name in imported - own} - required == set()


def test_ci_runs_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text()


def test_the_tables_of_results_are_those_of_the_kept_episodes() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "results.py"))["texts"]()
    assert len(made) > 1
    assert {path: path.read_text() for path in made} == made
