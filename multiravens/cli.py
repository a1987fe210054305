"""The command line: sub-commands, their help, and errors in one line.

A command is a module with `main(argv) -> int`. One that is configured by YAML hands its work to `run`.
"""

import argparse
import errno
import os
import re
import select
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from multiravens.errors import UserError, unknown

if TYPE_CHECKING:
    from omegaconf import DictConfig

COMMANDS = {
    "demos": ("multiravens.demos", "write expert demonstrations of a problem"),
    "train": ("multiravens.train", "train an agent on demonstrations"),
    "transfer": ("multiravens.transfer", "teach a trained agent a new problem"),
    "evaluate": ("multiravens.evaluate", "measure an agent on held-out episodes"),
    "sweep": ("multiravens.sweep", "run what a table of runs still lacks, and report it"),
    "export": ("multiravens.export", "write a trained agent to hand on, with a model card"),
    "report": ("multiravens.report", "compare runs in a page, plots and a table"),
    "render": ("multiravens.render", "draw a video of a problem being solved"),
    "data": ("multiravens.data.__main__", "inspect, verify and pack written demonstrations"),
    "doctor": ("multiravens.doctor", "say what is right and wrong with this machine"),
}

MISTAKE = 2  # exit status after a user's mistake
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
BROKEN_PIPE = 141  # 128 + SIGPIPE

# What the machine refuses rather than the program: told in one line, like a mistake.
_MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP}
_FLAGS = ("--help", "--cfg", "--config-dir", "--allow")
_VALUED = {
    "--config-dir": "a folder laid out like configs/, as in --config-dir my_configs",
    "--allow": "a class of yours that runs' folders may name, as in --allow sorting.Sorting",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `multiravens COMMAND ...`.

    Args:
        argv: Arguments after the program's name; the process's own if None.

    Returns:
        The exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # so that a user's own module is found as it is by `python -m`
    return guard(lambda: _dispatch(arguments))


def run(task: "Callable[[DictConfig], int | None]", config_name: str, argv: Sequence[str] | None = None) -> int:
    """Composes a command's configuration and runs the command with it.

    Args:
        task: The command; it returns the exit status, or None for 0.
        config_name: The command's file in `configs/`, without its suffix.
        argv: Overrides and flags; the process's own if None.

    Returns:
        The exit status: 2 after a `UserError`, 130 after an interrupt.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guard(lambda: _run(task, config_name, arguments))


def command(task: "Callable[[DictConfig], int | None]", config_name: str) -> Callable[..., int]:
    """Makes the `main` of a module whose command is configured by YAML.

    Args:
        task: The command; it returns the exit status, or None for 0.
        config_name: The command's file in `configs/`, without its suffix.

    Returns:
        A function of the overrides and flags (the process's own if None) that returns the exit status, as `run`.
    """

    def main(argv: Sequence[str] | None = None) -> int:
        return run(task, config_name, argv)

    return main


def guard(task: Callable[[], int | None]) -> int:
    """Runs a task and turns a user's mistake, an interrupt or a closed pipe into an exit status.

    Args:
        task: What to run; it returns the exit status, or None for 0.

    Returns:
        The exit status.
    """
    try:
        status = task() or 0
        sys.stdout.flush()
        return status
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if _stdout_is_open():
            raise
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in _MACHINE_ERRORS:
            raise
        return _fail(f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror))


class Parser(argparse.ArgumentParser):
    """A parser for a command without a YAML file, whose mistakes are `UserError`s: use it inside `guard`."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` tells how it is used")


class Arguments(NamedTuple):
    """A configured command's arguments, sorted by kind."""

    overrides: list[str]
    config_dirs: list[str]
    allowed: list[str]
    help: bool
    show: bool


def parse(argv: Sequence[str]) -> Arguments:
    """Separates flags from overrides.

    Args:
        argv: Arguments of a configured command.

    Returns:
        The overrides, the folders of `--config-dir`, the classes of `--allow`, and whether `--help` and `--cfg` were
        given.

    Raises:
        UserError: A flag is unknown or lacks its value.
    """
    overrides: list[str] = []
    valued: dict[str, list[str]] = {name: [] for name in _VALUED}
    flags: set[str] = set()
    remaining = iter(argv)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if name in _VALUED:
            given = value if equals else next(remaining, "")
            if not given:
                raise UserError(f"{name} needs {_VALUED[name]}")
            valued[name].append(given)
        elif argument in ("--help", "-h", "--cfg"):
            flags.add(argument)
        elif argument.startswith("-"):
            raise unknown("flag", argument, _FLAGS)
        else:
            overrides.append(argument)
    return Arguments(
        overrides, valued["--config-dir"], valued["--allow"], bool(flags & {"--help", "-h"}), "--cfg" in flags
    )


def _dispatch(argv: list[str]) -> int:
    """Imports the module of a sub-command and hands it the rest of the arguments."""
    if not argv or argv[0] in ("--help", "-h", "help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        print(installed_version())
        return 0
    if argv[0].startswith("-"):
        raise unknown("flag", argv[0], ("--help", "--version"))
    if argv[0] not in COMMANDS:
        raise unknown("command", argv[0], COMMANDS)
    status: int = import_module(COMMANDS[argv[0]][0]).main(argv[1:])
    return status


def _run(task: "Callable[[DictConfig], int | None]", config_name: str, argv: list[str]) -> int | None:
    """Composes, then shows the help or the configuration, or runs the command."""
    from omegaconf import OmegaConf

    from multiravens.options.compose import compose
    from multiravens.options.search import look_in
    from multiravens.options.trust import allow_for_command

    arguments = parse(argv)
    look_in(arguments.config_dirs)
    config = compose(config_name, arguments.overrides, arguments.config_dirs)
    allow_for_command(arguments.allowed, OmegaConf.to_container(config))
    if arguments.help:
        print(_help(config_name, config, arguments.config_dirs))
    elif arguments.show:
        print(OmegaConf.to_yaml(config), end="")
    else:
        return task(config)
    return 0


def _overview() -> str:
    """Lists the sub-commands."""
    lines = ["usage: multiravens COMMAND [OPTION=VALUE ...]", "", "commands:"]
    lines += [f"  {name:10}{purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join([*lines, "", "`multiravens COMMAND --help` lists a command's options and their defaults."])


def _help(config_name: str, config: "DictConfig", config_dirs: Sequence[str]) -> str:
    """Writes a configured command's help: purpose and examples, groups and their choices, options and defaults."""
    from omegaconf import OmegaConf

    from multiravens.options.search import groups, options, search_path
    from multiravens.options.types import flatten, spell

    roots = search_path(config_dirs)
    lines = [*_header(_find(roots, f"{config_name}.yaml")), ""]
    lines += [
        f"usage: multiravens {config_name} [OPTION=VALUE ...] [--config-dir DIR] [--allow CLASS] [--cfg] [--help]"
    ]
    lines += ["  --config-dir DIR  also look for YAML files in DIR, laid out like configs/ (can be repeated)"]
    lines += [
        "  --allow CLASS     let runs' folders name a class of yours, as in --allow sorting.Sorting (can be repeated)"
    ]
    lines += ["  --cfg             print the composed configuration instead of running", "", "choices (GROUP=NAME):"]
    for group in groups(roots):
        key = {"module": "module@problem.modules.KEY", "suite": "problems"}.get(group, group)
        lines += _columns(key, 28, ", ".join(options(roots, group)))
    lines += ["", "options and their values with the choices given (OPTION=VALUE):"]
    remarks = _remarks(roots, config_name)
    for path, value in flatten(OmegaConf.to_container(config)):
        if not path.endswith(("_target_", "_partial_")):
            lines += _columns(f"{path:36}  {spell(value)}", 58, _remark(path, remarks))
    return "\n".join(lines)


def _columns(left: str, width: int, right: str) -> list[str]:
    """Sets a text beside another, wrapped to the terminal's width."""
    room = max(shutil.get_terminal_size().columns - width - 4, 40)
    wrapped = textwrap.wrap(right, room, break_on_hyphens=False) or [""]
    if len(left) >= width:
        return [f"  {left}  {wrapped[0]}".rstrip(), *(f"  {'':{width}}{line}" for line in wrapped[1:])]
    return [f"  {'' if index else left:{width}}{line}".rstrip() for index, line in enumerate(wrapped)]


def _find(roots: Sequence[Path], name: str) -> Path:
    """Finds a file in the first of the folders that has it."""
    return next(root / name for root in roots if (root / name).is_file())


def _header(path: Path) -> list[str]:
    """Reads the comment lines that open a YAML file."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].removeprefix(" "))
    return lines


def _remarks(roots: Sequence[Path], config_name: str) -> dict[str, str]:
    """Collects the comments that stand behind values in the YAML files, by option; a group's files share their keys."""
    files = [(_find(roots, "environment.yaml"), ""), (_find(roots, f"{config_name}.yaml"), "")]
    files += [(path, f"{path.parent.name}.") for root in roots for path in sorted(root.glob("*/*.yaml"))]
    remarks = {}
    for path, prefix in files:
        text = path.read_text(encoding="utf-8")
        for key, remark in re.findall(r"^ *(\w+):.*?  # (.+)$", text, re.MULTILINE):
            own = f"{prefix}{path.stem}.{key}" if prefix == "module." else prefix + key
            remarks[key if text.startswith("# @package _global_") else own] = remark
    return remarks


def _remark(path: str, remarks: Mapping[str, str]) -> str:
    """Returns the comment of an option, or of the dictionary it is in."""
    # A module's options are commented in its own file, under whatever key (placing_2) it is composed.
    key = re.sub(r"^problem\.modules\.([^.]+?)(_\d+)?(?=\.)", r"module.\1", path)
    # And a loss's or an augmentation's, whatever its name.
    key = re.sub(r"^(augmentation|loss)\.\w+(?=\.)", r"\1", key)
    while key and key not in remarks:
        key = key.rpartition(".")[0]
    return remarks.get(key, "")


def installed_version() -> str:
    """Returns the installed version."""
    try:
        return version("multiravens")
    except PackageNotFoundError:
        return "not installed: run from a checkout"


def _fail(message: str) -> int:
    """Prints an error's line and returns the exit status of a mistake."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return MISTAKE


def _stdout_is_open() -> bool:
    """Tell whether standard output still has a reader; if not, the interpreter's last flush goes nowhere."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return True  # no pipe but an object in memory
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    if not any(event & select.POLLERR for _, event in poller.poll(0)):
        return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return False
