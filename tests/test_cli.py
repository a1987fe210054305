"""The command line: dispatch, help, exit statuses, errors in one line."""

import errno
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig

from multiravens import cli
from multiravens.errors import UserError
from multiravens.options.compose import compose
from multiravens.options.types import flatten

ROOT = Path(__file__).resolve().parents[1]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def episodes(config: DictConfig) -> None:
    print(f"episodes={config.episodes}")


def raising(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_in_each_spelling(name: str, python: Command) -> None:
    by_dispatch = python("-m", "multiravens", name, "--help")
    assert by_dispatch.returncode == 0, by_dispatch.stderr
    assert name in by_dispatch.stdout
    alone = python("-m", f"multiravens.{name}", "--help")
    assert (alone.returncode, alone.stdout) == (0, by_dispatch.stdout)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_refuses_a_mistyped_option_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert import_module(cli.COMMANDS[name][0]).main(["--hlep"]) == cli.MISTAKE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert "--help" in captured.err


def test_the_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text and purpose in text for name, (_, purpose) in cli.COMMANDS.items())


def test_an_unknown_command_names_the_nearest_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo"]) == cli.MISTAKE
    told, names = capsys.readouterr().err.strip().split(": choose from ")
    assert told == "error: unknown command 'demo'" and names.startswith("demos, doctor, ")
    assert sorted(names.split(", ")) == sorted(cli.COMMANDS)


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip()


def test_run_hands_the_composed_configuration_to_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(episodes, "demos", ["episodes=3"]) == 0
    assert capsys.readouterr().out == "episodes=3\n"
    assert cli.run(lambda config: 7, "demos", []) == 7


def test_help_lists_every_option_with_its_value_and_every_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(episodes, "demos", ["--help", "camera=realsense", "episodes=3"]) == 0
    text = capsys.readouterr().out
    names = [path for path, _ in flatten(compose("demos", ["camera=realsense"])) if not path.endswith("_target_")]
    assert len(names) > 10
    assert all(f"  {name} " in text for name in names)
    assert "python -m multiravens.demos" in text
    assert "orthographic, realsense" in text
    line = next(line for line in text.splitlines() if line.startswith("  episodes"))
    assert line.split()[1] == "3" and line.endswith("successful episodes wanted in the folder")


def test_cfg_prints_yaml_that_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(episodes, "render", ["--cfg", "seed=4", "out=7"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["seed"], printed["out"], printed["problem"]["name"]) == (4, "7", "chaining-placing")


def test_a_config_dir_is_searched_after_the_projects_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "sorting.yaml").write_text("_target_: outsider.Sorting\nbins: 3  # how many\n")
    for flags in (["--config-dir", str(tmp_path)], [f"--config-dir={tmp_path}"]):
        assert cli.run(episodes, "demos", ["problem=sorting-placing", *flags, "--help"]) == 0
        text = capsys.readouterr().out
        assert "placing, routing, sorting, stacking" in text
        assert next(line for line in text.splitlines() if "sorting.bins" in line).endswith("how many")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--cgf"], "unknown flag '--cgf': choose from --cfg,"),
        (["--config-dir"], "--config-dir needs a folder"),
        (["--config-dir", "/nothing/here"], "there is no such folder"),
        (["episods=3"], "unknown option 'episods'"),
        (["a\nb"], "cannot read"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(episodes, "demos", argv) == cli.MISTAKE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert message in captured.err


def test_a_parsers_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    parser = cli.Parser(prog="multiravens data")
    parser.add_argument("path")
    assert cli.guard(lambda: bool(parser.parse_args(["a", "--bad"]))) == cli.MISTAKE
    expected = "error: unrecognized arguments: --bad; `multiravens data --help` tells how it is used\n"
    assert capsys.readouterr().err == expected


def test_a_message_of_several_lines_becomes_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.guard(lambda: raising(UserError("first\n  second"))) == cli.MISTAKE
    assert capsys.readouterr().err == "error: first second\n"


def test_an_interrupt_is_one_line_and_exit_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.guard(lambda: raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_disk_is_one_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(number, "cannot write", "data/x")
    assert cli.guard(lambda: raising(error)) == cli.MISTAKE
    assert capsys.readouterr().err == "error: cannot write: data/x\n"


def test_a_fault_of_the_programs_own_keeps_its_traceback() -> None:
    for error in (RuntimeError("a fault"), OSError(errno.EIO, "broken"), BrokenPipeError()):
        with pytest.raises(type(error)):
            cli.guard(lambda error=error: raising(error))  # type: ignore[misc]


def test_a_closed_pipe_is_quiet() -> None:
    script = "import sys; from multiravens import cli; sys.exit(cli.guard(lambda: print('x' * 10**6)))"
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == cli.BROKEN_PIPE


def test_a_users_class_beside_the_working_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "outsider.py").write_text("")
    script = "import sys; sys.path.remove(''); from multiravens import cli; cli.main([]); import outsider"
    environment = {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
