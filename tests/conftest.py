"""Fixtures shared by all tests."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tests import synthetic

ROOT = Path(__file__).resolve().parents[1]

# The same examples in every run, and no time limit on one: the machines that run this are shared.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six demonstrations of each of two problems."""
    folder = tmp_path_factory.mktemp("data")
    for problem in ("synthetic", "other"):
        synthetic.write(folder, 6, problem)
    return folder


@pytest.fixture
def python() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs this interpreter from the repository's root: `python("-m", "multiravens", "--help")`."""

    def run(*arguments: str, timeout: float = 120.0) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)

    return run
