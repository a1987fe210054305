"""Run what a table of runs still lacks, one after the other or through hydra's launchers, and report the runs."""

import ctypes
import importlib.util
import itertools
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from multiravens import cli
from multiravens.data.storage.pack import SUFFIX
from multiravens.errors import UserError, quote, unknown
from multiravens.evaluation.source import package_source, users_source
from multiravens.options.compose import compose
from multiravens.options.defaults import choices
from multiravens.options.problems import parse_problems
from multiravens.options.search import groups, search_path
from multiravens.options.trust import allowed_by_command, outside_targets
from multiravens.options.types import spell
from multiravens.support.files import locked, read_json, user_path, write_json, write_whole

STAGES = ("demos", "train", "evaluate")
LAUNCHERS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
}
"""Hydra's launchers, each with the package that brings it."""
_DONE, _PLAN, _RUNS = "stages.json", "plan.json", "runs.txt"
_SOURCE = "source:"  # what measures is noted so behind the options
_DONE_FORMAT = ("multiravens-stages", 1)
_PLAN_FORMAT = ("multiravens-plan", 1)
_KEYS = {"name": str, "train": list, "evaluate": list, "parts": list}


@dataclass(frozen=True)
class Job:
    """A run of the table.

    Attributes:
        folder: of the run.
        problems: it is trained on.
        demos: of each, that training takes.
        split: of those.
        commands: the arguments of each stage's command, as in `{"train": ["train", "agent=sctn"]}`.
        decides: what the outcome of each stage depends on; a stage that was done with the same is not done again.
    """

    folder: str
    problems: list[str]
    demos: int
    split: str
    commands: dict[str, list[str]]
    decides: dict[str, list[str]]

    def is_done(self, stage: str) -> bool:
        """Tell whether a stage was done as the table has it."""
        return bool(_done(Path(self.folder)).get(stage) == self.decides[stage])

    def is_measured(self) -> bool:
        """Tell whether the run was measured as the table has it, by today's code or by earlier code."""
        known = _done(Path(self.folder)).get("evaluate")
        return isinstance(known, list) and _options(known) == _options(self.decides["evaluate"])

    def missing(self, stages: Sequence[str]) -> list[str]:
        """Those stages that are still to be done; nothing can be measured before training has ended."""
        left = [stage for stage in self.commands if stage in stages and not self.is_done(stage)]
        return left if "train" in left or self.is_done("train") else []

    def run(self, stages: Sequence[str]) -> None:
        """Do what is missing, up to a stage that fails."""
        for stage in self.missing(stages):
            if _call(self.commands[stage]):
                return
            # What is known of a run's evaluation is of the weights before, once it was trained again.
            known = {} if stage == "train" else _done(Path(self.folder))
            _write(Path(self.folder) / _DONE, _DONE_FORMAT, {"stages": known | {stage: self.decides[stage]}})


def sweep(config: DictConfig) -> int:
    """Does what is missing of a table, and reports what was measured.

    Args:
        config: A composed `sweep` configuration.

    Returns:
        1 if a run failed.

    Raises:
        UserError: If the table or an option can't be met, or the disk refuses.
    """
    _check(config)
    jobs, stages = list(plan(config).values()), list(config.stages)
    missing = [job for job in jobs if job.missing(stages)]
    print(f"{config.out}: {len(missing)} of {len(jobs)} runs have something missing")
    if config.list:
        for job in missing:
            print(f"  {job.folder}: {', '.join(job.missing(stages))}")
        return 0
    out = user_path(config.out)
    with locked(out, "out"):
        if "demos" in stages and Path(config.data).suffix != SUFFIX:
            _demonstrate(config, jobs)
        if config.launcher:
            _launch(config, out, missing)
        else:
            for count, job in enumerate(missing, 1):
                print(f"{count} of {len(missing)}: {job.folder}", flush=True)
                job.run(stages)
    left = [job for job in missing if job.missing(stages)]
    for job in left:
        print(f"error: {job.folder} failed at {job.missing(stages)[0]}; what it said is above", file=sys.stderr)
    measured = [job.folder for job in jobs if job.is_measured()]
    return 1 if left or (measured and _report(out, measured)) else 0


def _report(out: Path, folders: Sequence[str]) -> int:
    """Has the runs compared, named in a file: there may be too many for a command."""
    write_whole(out / _RUNS, "".join(f"{Path(folder).absolute()}\n" for folder in folders).encode())
    return _call(["report", f"runs={_quoted(out / _RUNS)}", f"out={_quoted(out / 'report')}", "gallery=0"])


def plan(config: DictConfig) -> dict[str, Job]:
    """The runs of a table by name, in its order.

    Args:
        config: A composed `sweep` configuration.

    Raises:
        UserError: If the table is not one, two of its runs are called alike, or a run's options can't be met.
    """
    table = _table(config)
    chosen: dict[str, list[str]] = {}
    for part in table["parts"]:
        for name, words in _product(part):
            if chosen.setdefault(name, words) != words:
                raise UserError(f"table {table['name']} has two runs called {name}: name the values of an axis")
    told: set[str] = set()
    # A user's classes that some run builds; evaluate, given again, knows of each run whether it was one of them.
    source = f"{package_source()} {users_source(*map(choices, groups(search_path(None))))}"
    return {name: _job(config, table, name, words, told, source) for name, words in chosen.items()}


def _demonstrate(config: DictConfig, jobs: Sequence[Job]) -> None:
    """Has the expert make what training takes: once, before jobs that may run beside one another."""
    most: dict[tuple[str, str], int] = {}
    for job in jobs:
        for problem in () if job.is_done("train") else job.problems:
            most[problem, job.split] = max(job.demos, most.get((problem, job.split), 0))
    for (problem, split), episodes in most.items():
        where = [f"data={_quoted(config.data)}", f"workers={config.workers}", *_folders()]
        if _call(["demos", f"problem={problem}", f"split={split}", f"episodes={episodes}", *where]):
            raise UserError(f"the expert's demonstrations of {problem} could not be made; what it said is above")


def _folders() -> list[str]:
    """The flags that make other commands look for YAML files where this one does, and allow what it does."""
    folders = [word for folder in search_path(None)[1:] for word in ("--config-dir", str(folder))]
    return folders + _allowing(allowed_by_command())


def _allowing(names: Sequence[str]) -> list[str]:
    return [word for name in names for word in ("--allow", name)]


def _check(config: DictConfig) -> None:
    for stage in config.stages:
        if stage not in STAGES:
            raise unknown("stage", str(stage), STAGES)
    if not isinstance(config.out, str) or not isinstance(config.data, str):
        raise UserError(f"out={config.out}, data={config.data}: give the names of folders")
    if config.workers < 1:
        raise UserError(f"workers={config.workers}: give 1 or more")
    if config.launcher is None:
        return
    if config.launcher not in LAUNCHERS:
        raise unknown("launcher", str(config.launcher), LAUNCHERS)
    package = LAUNCHERS[config.launcher]
    if importlib.util.find_spec("hydra_plugins") is None or importlib.util.find_spec(package) is None:
        extra = config.launcher.partition("_")[0]
        raise UserError(f"launcher={config.launcher} is not installed: pip install 'multiravens[{extra}]'")


def _table(config: DictConfig) -> dict[str, Any]:
    table = OmegaConf.to_container(config.table, resolve=True)
    assert isinstance(table, dict)
    for key, kind in _KEYS.items():
        if not isinstance(table.get(key), kind):
            raise UserError(f"the table's {key} is {quote(table.get(key))}: see configs/table/singles.yaml")
    for part in table["parts"]:
        if not isinstance(part, dict):
            raise UserError(f"a part of table {table['name']} is {quote(part)}: give axes, as in {{agent: [sctn]}}")
        for axis, values in part.items():
            named = isinstance(values, dict) and all(isinstance(words, list) for words in values.values())
            if not values or not (named or isinstance(values, list)):
                raise UserError(
                    f"{axis} of table {table['name']} is {quote(values)}: give a list of values, or a list of options "
                    "for each name, as in {plain: [], weighted: [task_sampling=adaptive]}"
                )
    return {str(key): value for key, value in table.items()}


def _product(part: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Names and options of a part's runs."""
    axes = [
        [(str(label), [str(word) for word in words]) for label, words in values.items()]
        if isinstance(values, Mapping)
        else [(spell(value), [f"{axis}={spell(value)}"]) for value in values]
        for axis, values in part.items()
    ]
    for combination in itertools.product(*axes):
        name = "-".join(label for label, _ in combination)
        if not re.fullmatch(r"\w[\w.+-]*", name, re.ASCII):
            raise UserError(f"{quote(name)} can't be a folder: give the axis names, as in NAME: [OPTION=VALUE]")
        yield name, [word for _, words in combination for word in words]


def _job(
    config: DictConfig, table: Mapping[str, Any], name: str, words: Sequence[str], told: set[str], source: str
) -> Job:
    folder = user_path(config.out) / name
    chosen = [*map(str, table["train"]), *words]
    try:
        trained = compose("train", chosen)
    except UserError as error:
        raise UserError(f"run {name} of table {table['name']}: {error}") from error
    plain = OmegaConf.to_container(trained)
    assert isinstance(plain, dict)
    problems = parse_problems(plain["problems"] or ["placing"])
    # The expert and random actions are measured once, beside the first agent that is.
    beside = not set(problems) <= told
    told |= set(problems)
    measured = list(map(str, table["evaluate"]))
    data, run = f"data={_quoted(config.data)}", f"run={_quoted(folder)}"
    commands = {
        "train": ["train", *chosen, data, run, *_folders()],
        "evaluate": [
            "evaluate",
            run,
            f"workers={config.workers}",
            f"beside={str(beside).lower()}",
            *measured,
            *_folders(),
            *_allowing(outside_targets(plain)),
        ],
    }
    decides = {"train": chosen, "evaluate": [*chosen, *measured, f"{_SOURCE}{source}"]}
    return Job(str(folder), problems, int(plain["demos"]), str(plain["split"]), commands, decides)


def _options(decides: Sequence[Any]) -> list[Any]:
    return [word for word in decides if not str(word).startswith(_SOURCE)]


def _done(folder: Path) -> dict[str, Any]:
    path = folder / _DONE
    stages = read_json(path, *_DONE_FORMAT).get("stages") if path.exists() else {}
    return stages if isinstance(stages, dict) else {}


def _quoted(value: object) -> str:
    return "'" + str(value).replace("'", r"\'") + "'"


def _call(words: Sequence[str]) -> int:
    """Runs one of the commands in a process of its own, which ends with this one."""
    return subprocess.call([sys.executable, "-m", f"multiravens.{words[0]}", *words[1:]], preexec_fn=die_with_parent)


def die_with_parent() -> None:
    """Has the system kill this process when the one that started it is gone; Linux alone can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of sys/prctl.h


def _launch(config: DictConfig, out: Path, jobs: Sequence[Job]) -> None:
    """Has one of hydra's launchers run jobs."""
    if not jobs:
        return
    options = dict(config.launcher_options or {})
    content = {"stages": list(config.stages), "jobs": [asdict(job) for job in jobs]}
    _write(out / _PLAN, _PLAN_FORMAT, content)
    words = [
        f"+plan={_quoted((out / _PLAN).resolve())}",
        f"+index={','.join(map(str, range(len(jobs))))}",
        f"hydra/launcher={config.launcher}",
        f"hydra.sweep.dir={_quoted((out / '.hydra').resolve())}",
        *(f"hydra.launcher.{name}={spell(value)}" for name, value in options.items()),
    ]
    status = subprocess.call(
        [sys.executable, "-m", "multiravens.experiments.sweep_job", "--multirun", *words], preexec_fn=die_with_parent
    )
    if status:
        raise UserError(f"launcher={config.launcher} failed; what it said is above")


def _write(path: Path, form: tuple[str, int], content: Mapping[str, Any]) -> None:
    write_json(path, {"format": form[0], "version": form[1], **content})


def run_planned(path: str | Path, index: int) -> None:
    """Do what is missing of one of the jobs that `sweep` left for a launcher.

    Raises:
        UserError: If the file is no plan.
    """
    content = read_json(Path(path), *_PLAN_FORMAT)
    job = content["jobs"][index]
    # JSON has sorted the stages by name; their order is `STAGES`.
    commands = {stage: job["commands"][stage] for stage in STAGES if stage in job["commands"]}
    Job(**{**job, "commands": commands}).run(content["stages"])


main = cli.command(sweep, "sweep")
