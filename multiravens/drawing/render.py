"""Draw the oracle or an agent at work: a video of an episode, a sheet of its steps, or a sheet of all problems."""

import re
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from multiravens import cli
from multiravens.drawing.pictures import contact_sheet, png
from multiravens.drawing.video import SUFFIXES, VIEW, check_writable, open_video
from multiravens.errors import UserError, unknown
from multiravens.options.compose import compose
from multiravens.options.instantiate import instantiate
from multiravens.options.paths import user_path
from multiravens.options.search import search_path
from multiravens.registration import read_suites
from multiravens.support.files import write_whole
from multiravens.support.progress import show_progress
from multiravens.support.run_environment import environment_of
from multiravens.support.runs import ACTING, find_run, read_config

if TYPE_CHECKING:
    from multiravens.envs import Demonstration, PickPlaceEnv

SHEET = ".png"
FPS, SPEED = (20, 60), (0.05, 10.0)
"""Least and greatest values that are taken."""

_PROBLEM_COLUMNS = 5
SIZES = ((160, 2160), (160, 3840))
"""Least and greatest height and width of a view [px]."""
_TILE = (250, 500)  # height and width of one picture of two in the sheet of problems
_STEP_TILE = (420, 540)  # and of one in the sheet of an episode


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: Overrides and flags; the process's own if None.

    Returns:
        The exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return cli.guard(lambda: _run(arguments))


def _run(arguments: list[str]) -> int:
    """Renders, in the run's own environment where the run alone knows the problem: its name is one of the user's."""
    words, config_dirs = cli.parse(arguments)[:2]
    given = {key: value.strip("'\"") for key, _, value in (word.partition("=") for word in words)}
    name = given.get("problem", "")
    if suite := read_suites(search_path(config_dirs)).get(name):
        if any(word.startswith("problem.") for word in arguments):
            raise UserError(f"problem={name} draws the problems as they are: leave out problem.* options")
        words = [word for word in arguments if not word.startswith("problem=")]
        return cli.run(partial(render_problems, problems=suite), "render", words)
    if not given.get("run") or not name or _is_composed(name, config_dirs):
        return cli.run(render, "render", arguments)
    if name not in read_config(find_run(given["run"])).get("environment", {}):
        return cli.run(render, "render", arguments)  # which says what problems there are
    own = [
        word
        for word in words
        if re.split(r"[.@=]", word.lstrip("+"))[0] in ("problem", "camera", "motion", "primitive", "domain")
    ]
    others = [word for word in arguments if word not in own]
    overrides = [word for word in own if not word.startswith("problem=")]
    return cli.run(partial(render, problem=name, overrides=overrides), "render", others)


def _is_composed(problem: str, config_dirs: Sequence[str]) -> bool:
    try:
        compose("environment", [f"problem={problem}"], config_dirs)
    except UserError:
        return False
    return True


def render(config: DictConfig, problem: str = "", overrides: Sequence[str] = ()) -> None:
    """Draws one episode and says where.

    Args:
        config: A composed `render` configuration.
        problem: The run's name of the problem, if its environment is taken from the run.
        overrides: Of that environment.

    Raises:
        UserError: If an option can't be met, or the disk refuses.
    """
    out = _checked_out(config, (*SUFFIXES, SHEET))
    _check_range("fps", config.fps, FPS)
    _check_range("speed", config.speed, SPEED)
    size = _size(config.size, _STEP_TILE if out.suffix.lower() == SHEET else VIEW)
    # Imported here so that a mistake in the options is told at once.
    from multiravens.drawing.film import Film, sheet_of_steps
    from multiravens.envs import demonstrate, from_config
    from multiravens.sim.studio import WHOLE, Studio, adjusted

    if problem:
        for name, part in environment_of(problem, overrides, read_config(find_run(config.run))).items():
            config[name] = part
    lens = adjusted(WHOLE, **config.lens)
    if config.run is not None:
        config.resolution = "full"  # for the pictures; the agent sees its own
    env = from_config(config)
    shot: dict[str, Any] = {}
    if config.run is None:
        demonstration = demonstrate(env, config.seed)
    else:
        demonstration, shot = _acted(config, env)
    steps = len(demonstration.rewards)
    if out.suffix.lower() == SHEET:
        with closing(env), closing(Studio(size, lens)) as studio:
            write_whole(out, png(sheet_of_steps(env, demonstration, studio)))
        extent = f"{steps} steps"
    else:
        with (
            closing(env),
            closing(Studio(size, lens)) as studio,
            open_video(out, config.fps, size) as video,
            show_progress(f"{demonstration.problem}, seed {config.seed}", 1.0) as update,
        ):
            film = Film(env, studio, video, config.fps, config.speed, size)
            film.shoot(demonstration, lambda share: update(share, ""), **shot)
        extent = f"{steps} steps in {video.frames / config.fps:.1f} s"
    outcome = "solved" if demonstration.success else f"not solved: {demonstration.reason}"
    print(f"{out}: {demonstration.problem}, seed {config.seed}, {extent}, {outcome}")


def _acted(config: DictConfig, env: "PickPlaceEnv") -> tuple["Demonstration", dict[str, Any]]:
    """An agent's run, and what its film shows beside it."""
    from multiravens.drawing.rollout import rollout

    acting = {name: config[name] for name in ("pointer", *ACTING)}
    agent = instantiate(config.loader)(run=str(config.run), **acting)
    played = rollout(env, agent, instantiate(config.view), config.seed)
    return played.run, {"goals": played.goals, "seen": played.seen, "aims": played.aims, "actor": agent.name}


def render_problems(config: DictConfig, problems: Sequence[str]) -> None:
    """Draws problems as they start and as the oracle leaves them.

    Args:
        config: A composed `render` configuration; its problem is not looked at.
        problems: Their names.

    Raises:
        UserError: If an option can't be met, or the disk refuses.
    """
    out = _checked_out(config, (SHEET,))
    from multiravens.drawing.film import before_and_after
    from multiravens.sim.studio import CLOSE, Studio, adjusted

    size, lens = _size(config.size, _TILE), adjusted(CLOSE, **config.lens)
    pairs = []
    with closing(Studio(size, lens)) as studio, show_progress("problems", len(problems), "problems") as update:
        for index, name in enumerate(problems):
            pairs.append(before_and_after(_of_problem(config, name), config.seed, studio))
            update(index + 1, "")
    write_whole(out, png(contact_sheet(pairs, list(problems), min(_PROBLEM_COLUMNS, len(pairs)))))
    print(f"{out}: {len(pairs)} problems, before and after")


def _checked_out(config: DictConfig, suffixes: Sequence[str]) -> Path:
    """The file to write, after checking what can be checked before any work."""
    out = user_path(str(config.out))
    if out.suffix.lower() not in suffixes:
        raise unknown(f"suffix of out={config.out}", out.suffix, suffixes)
    if config.seed < 0:
        raise UserError(f"seed={config.seed}: give 0 or more")
    check_writable(out)
    return out


def _size(given: Sequence[int] | None, default: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the view.

    Raises:
        UserError: they are no two even numbers within bounds.
    """
    if given is None:
        return default
    fits = len(given) == 2 and all(
        isinstance(side, int) and low <= side <= high and side % 2 == 0
        for side, (low, high) in zip(given, SIZES, strict=False)
    )
    if not fits:
        (lowest, highest), (least, most) = SIZES
        raise UserError(
            f"size={list(given)}: give height and width, even numbers from {lowest} to {highest} and {least} to {most}"
        )
    return given[0], given[1]


def _check_range(name: str, value: float, limits: tuple[float, float]) -> None:
    if not limits[0] <= value <= limits[1]:
        raise UserError(f"{name}={value}: give {limits[0]} to {limits[1]}")


def _of_problem(config: DictConfig, name: str) -> DictConfig:
    """The environment's configuration with another problem."""
    environment = compose("environment", [f"problem={name}"])
    for choice in ("camera", "motion", "primitive", "resolution", "gui"):
        environment[choice] = config[choice]
    return environment
