"""Compare runs in a self-contained page, plots, and a table in Markdown."""

import base64
import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from multiravens import cli
from multiravens.errors import UserError
from multiravens.options.defaults import chosen_names
from multiravens.options.instantiate import instantiate
from multiravens.support.files import read_whole, storage_error, user_path, write_whole
from multiravens.support.markdown import markdown_table
from multiravens.support.run_environment import refuse_foreign
from multiravens.support.runs import ACTING, EVALUATION, METRICS, find_run, read_config, read_evaluation
from multiravens.support.statistics import figure_cells, shown_metrics, summarise, title

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;color:#262a32;background:#fafaf8;max-width:1180px;margin:2em auto;
padding:0 1em}table{border-collapse:collapse;margin:1em 0}td,th{padding:.3em .8em;border-bottom:1px solid #d8dbe0;
text-align:left}
th{font-weight:600}td.n{font-variant-numeric:tabular-nums}img{max-width:100%;display:block;margin:.6em 0}
h2{margin-top:2em}p.note{color:#686e78}"""


NOTE = "Intervals are 95 %: bootstrap over episodes for means, Wilson for rates."
_ALL = "all"
_UNTRAINED = dict.fromkeys(("demos", "steps", "network", "resolution", "sampling", *ACTING), "")
_METRICS_BYTES = 2**28
_NO_FIGURES = ("drawn", "programs", "started")
"""Of a line of metrics, what is no number."""
_MOST_FIGURES = 64
"""Values in a line of metrics; each has a panel."""
_OF_A_LINE = ("step", "learning_rate")
"""Of a line of metrics, what is told of the step and not of its batch."""


@dataclass(frozen=True)
class Run:
    """A run as far as it has come.

    Attributes:
        label: the folder's name, with its parents where two are called alike.
        folder: of the run.
        config: it was made with.
        metrics: lines of `metrics.jsonl`.
        evaluations: of each problem that was measured.
    """

    label: str
    folder: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    evaluations: dict[str, dict[str, Any]]


def report(config: DictConfig) -> None:
    """Writes the page, the plots and the table, and says where.

    Args:
        config: A composed `report` configuration.

    Raises:
        UserError: If there is no run, one is damaged, or the disk refuses.
    """
    folders = _folders(config.runs)
    if not folders:
        raise UserError("runs=[] names no run: give folders as in runs=[runs/A,runs/B]")
    if config.gallery < 0:
        raise UserError(f"gallery={config.gallery}: give 0 or more")
    runs = [read_run(folder, _label(folder, folders)) for folder in folders]
    out = user_path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(out, error) from error
    rows = list(table_rows(runs))
    pictures = plots(runs, rows)
    if config.gallery:
        pictures += [picture for run in runs for picture in gallery(run, config)]
    for name, _, content in pictures:
        write_whole(out / f"{name}.png", content)
    write_whole(out / "report.md", "\n".join(filter(None, [markdown(rows), _sources(runs)])).encode())
    write_whole(out / "report.html", page(runs, rows, pictures).encode())
    print(f"{out / 'report.html'}: {len(runs)} runs, {len(rows)} rows, {len(pictures)} pictures")


def _folders(runs: Any) -> list[Path]:
    """The folders that the option `runs` names, itself or in the lines of a file."""
    if not isinstance(runs, str):
        return [find_run(str(folder)) for folder in runs or []]
    try:
        return [find_run(line) for line in user_path(runs).read_text().splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"runs={runs}: give folders as in runs=[{runs}], or a file that names one a line") from error


def read_run(folder: Path, label: str) -> Run:
    """Read what a run's folder holds.

    Raises:
        UserError: it is not a run's, or damaged.
    """
    config, path = read_config(folder), folder / METRICS
    try:
        lines = read_whole(path, _METRICS_BYTES).decode().splitlines() if path.exists() else []
        metrics = [json.loads(line) for line in lines]
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error
    if not all(isinstance(line, dict) and _is_whole(line) for line in metrics):
        raise UserError(f"{path} is damaged: a line lacks its step, what was drawn, or a figure's number")
    for name in ("problems", "demos", "steps", "resolution", "task_sampling", "step_sampling"):
        if name not in config:
            raise UserError(f"{folder} is damaged: its configuration lacks {name}")
    backbone = config.get("backbone")
    node = (backbone.get("streams") or backbone.get("network")) if isinstance(backbone, dict) else None
    for name, part in (("backbone", node), *((name, config[name]) for name in ("task_sampling", "step_sampling"))):
        if not isinstance(part, dict) or "_target_" not in part:
            raise UserError(f"{folder} is damaged: its configuration has no valid {name}")
    chosen = config.get("chosen", {})
    if not isinstance(chosen, dict) or not all(isinstance(name, str) for name in chosen.values()):
        raise UserError(f"{folder} is damaged: its configuration has no valid chosen")
    evaluations = {path.stem: read_evaluation(path) for path in (folder / EVALUATION).glob("*.json")}
    return Run(label, folder, config, metrics, dict(sorted(evaluations.items())))


def _is_whole(line: Mapping[str, Any]) -> bool:
    """Tell whether a line of metrics has all that plots take from it."""
    numbers = all(isinstance(value, int | float) for name, value in line.items() if name not in _NO_FIGURES)
    drawn = line.get("drawn")
    return (
        numbers
        and "step" in line
        and len(line) <= _MOST_FIGURES
        and isinstance(drawn, dict)
        and isinstance(drawn.get("tasks"), dict)
    )


def table_rows(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """A row for each run and problem, and one of all that it learned; those measured beside stand beside the first."""
    told = set()
    for run in runs:
        measured, chosen = dict(run.evaluations), chosen_names(run.config)
        learned = [content for problem, content in measured.items() if problem in run.config["problems"]]
        if len(learned) > 1:
            measured[f"{_ALL} {len(learned)}"] = _together(learned)
        for problem, content in measured.items():
            yield {
                "problem": problem,
                "label": run.label,
                "agent": content["agent"],
                "demos": run.config["demos"],
                "steps": run.config["steps"],
                "network": chosen["backbone"],
                "resolution": run.config["resolution"],
                "sampling": _sampling(chosen),
                **{name: content[name] for name in ACTING},
                "way": _way(run.config, content),
                "metrics": content["metrics"],
                "summary": content["summary"],
                "skipped": len(content["skipped"]),
            }
            for name, other in content["beside"].items():
                if (problem, name) not in told:
                    told.add((problem, name))
                    figures = {"summary": other["summary"], "skipped": len(other["skipped"])}
                    own = {"problem": problem, "label": name, "agent": name, "metrics": content["metrics"]}
                    yield {**own, **_UNTRAINED, **figures}


def _together(contents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Evaluations of several problems as one, with the metrics of a single value that all have; of the agents beside,
    those that are in all.
    """
    beside = set.intersection(*(set(content["beside"]) for content in contents))
    parts = {name: [content["beside"][name] for content in contents] for name in sorted(beside)}
    acting = {name: sorted({content[name] for content in contents}) for name in ACTING}
    own = [set(shown_metrics([content])) for content in contents]
    metrics = [name for name in shown_metrics(contents) if name in set.intersection(*own)]
    return {
        "agent": contents[0]["agent"],
        "metrics": metrics,
        **{name: " and ".join(map(str, values)) for name, values in acting.items()},
        **_pooled(contents, metrics),
        "beside": {name: _pooled(each, metrics) for name, each in parts.items()},
    }


def _pooled(parts: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, Any]:
    rows = [row["metrics"] for part in parts for row in part["episodes"]]
    figures: dict[str, Any] = {"episodes": len(rows)}
    for name in metrics:
        figures[name], figures[f"{name}_interval"] = summarise([row[name] for row in rows])
    return {"summary": figures, "skipped": [row for part in parts for row in part["skipped"]]}


def plots(runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, bytes]]:
    """Name, caption and PNG of each plot."""
    from multiravens.experiments import plots as draw  # matplotlib takes a second to import

    made = []
    trained = [row for row in rows if row["demos"] != ""]
    # Where problems were learned together, one line for all of them says more than ten.
    trained = [row for row in trained if row["problem"].startswith(_ALL)] or trained
    for name in shown_metrics(rows):
        own, learned = ([row for row in part if name in row["metrics"]] for part in (rows, trained))
        caption = f"{title(name).capitalize()} with 95 % intervals"
        made.append((f"{name}_by_problem", f"{caption}.", draw.by_problem(own, name)))
        if learned:
            picture = draw.by_demonstrations(learned, name)
            made.append((f"{name}_by_demonstrations", f"{caption}, by demonstrations.", picture))
    metrics = {run.label: run.metrics for run in runs if run.metrics}
    if metrics:
        names = figure_names(metrics.values())
        caption = f"Losses and figures of the batches: {', '.join(names)}."
        made.append(("learning", caption, draw.learning_curves(metrics, names)))
    for run in runs:
        if run.metrics and len(run.metrics[-1]["drawn"]["tasks"]) > 1:
            picture = draw.drawn_shares(run.metrics)
            made.append((f"drawn_{_file(run.label)}", f"{run.label}: what was drawn.", picture))
        made += [(f"{name}_{_file(run.label)}", caption, picture) for name, caption, picture in _programs(run)]
    return made


def figure_names(metrics: Iterable[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Names of the figures in runs' lines of metrics: losses first, then what else was told of batches."""
    lines = [line for run in metrics for line in run[:1]]
    names = dict.fromkeys(name for line in lines for name in line if name not in (*_NO_FIGURES, *_OF_A_LINE))
    return sorted(names, key=lambda name: not name.startswith("loss_"))


def _programs(run: Run) -> Iterator[tuple[str, str, bytes]]:
    """Plots of the programs of a run that has some."""
    from multiravens.experiments import plots as draw

    lines = [line for line in run.metrics if "programs" in line]
    if not lines:
        return
    first, last = lines[0].get("started", lines[0]["programs"]), lines[-1]["programs"]
    yield "programs", f"{run.label}: which block runs at which step, by problem and stream.", draw.programs(last)
    yield "forming", f"{run.label}: how sure the programs became.", draw.forming(lines)
    if len(last) > 1:
        yield "distances", f"{run.label}: how far problems' programs are apart.", draw.program_distances(last)
    new = run.config.get("transfer", {}).get("problem")
    if new in last:
        before, after = {new: first[new]}, {new: last[new]}
        yield (
            "transfer",
            f"{run.label}: {new}'s programs as transfer began and ended.",
            draw.before_and_after(before, after),
        )


def gallery(run: Run, config: DictConfig) -> Iterator[tuple[str, str, bytes]]:
    """Heatmaps of pick and place with the action chosen: of the first episodes, and of failed ones to their ends."""
    from multiravens.drawing.pictures import contact_sheet, png
    from multiravens.drawing.rollout import panels, rollout
    from multiravens.envs import from_config

    if not run.evaluations:
        return
    view = instantiate(config.view)
    for problem, content in run.evaluations.items():
        environment = refuse_foreign(content["environment"], problem)
        agent = instantiate(config.loader)(
            run=run.folder,
            pointer=None if content["pointer"] == "none" else content["pointer"],
            **{name: content[name] for name in ACTING},
        )
        with closing(from_config(OmegaConf.create({**environment, "resolution": "full", "gui": False}))) as env:
            seeds = [row["seed"] for row in content["episodes"]]
            failed = [row["seed"] for row in content["episodes"] if not row["success"]]
            for kind, chosen in (("episode", seeds[: config.gallery]), ("failure", failed[: config.gallery])):
                for seed in chosen:
                    images, titles = panels(rollout(env, agent, view, seed))
                    sheet = png(contact_sheet(images, titles, min(4, len(images))))
                    yield f"{_file(run.label)}_{problem}_{kind}_{seed}", f"{run.label}, {problem}: {kind} {seed}", sheet


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown."""
    return markdown_table(_headings(rows), _cells(rows)) + "\n"


def page(runs: Sequence[Run], rows: Sequence[Mapping[str, Any]], pictures: Sequence[tuple[str, str, bytes]]) -> str:
    """The page, its pictures inside it."""
    heads = "".join(f"<th>{html.escape(heading)}</th>" for heading in _headings(rows))
    body = "".join(
        "<tr>" + "".join(f'<td class="n">{html.escape(cell)}</td>' for cell in cells) + "</tr>"
        for cells in _cells(rows)
    )
    images = "".join(
        f'<h3>{html.escape(caption)}</h3><img alt="{html.escape(name)}" '
        f'src="data:image/png;base64,{base64.b64encode(content).decode()}">'
        for name, caption, content in pictures
    )
    settings = "".join(
        f"<details><summary>{html.escape(run.label)}</summary><pre>{html.escape(yaml.safe_dump(_brief(run.config)))}"
        "</pre></details>"
        for run in runs
    )
    note = html.escape(f"{NOTE} {_sources(runs)}".strip())
    missing = "" if rows else "<p>No run here was measured yet: run multiravens.evaluation.evaluate.</p>"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>MultiRavens report</title><style>{_STYLE}</style>'
        f'<h1>MultiRavens report</h1>{missing}<table><tr>{heads}</tr>{body}</table><p class="note">{note}</p>'
        f"<h2>Pictures</h2>{images}<h2>Settings</h2>{settings}</html>"
    )


def _headings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return ["problem", "run", "agent", "demos", "steps", "sampling", *map(title, shown_metrics(rows)), "episodes"]


def _cells(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    shown = shown_metrics(rows)
    for row in rows:
        texts = [str(row[name]) for name in ("problem", "label", "agent", "demos", "steps", "sampling")]
        yield [*texts, *figure_cells(row["summary"], shown), str(row["summary"]["episodes"])]


def _sources(runs: Sequence[Run]) -> str:
    """Tell which code measured each run, unless it was the same for all."""
    found = {run.label: sorted({content["source"] or "" for content in run.evaluations.values()}) for run in runs}
    if len({source for sources in found.values() for source in sources}) < 2:
        return ""
    by = {label: " and ".join(source[:8] or "code not noted" for source in sources) for label, sources in found.items()}
    told = ", ".join(f"{label} by {name}" for label, name in by.items() if name)
    return f"Not all were measured by the same code: {told}.\n"


def _sampling(chosen: Mapping[str, str]) -> str:
    return f"{chosen['task_sampling']} {chosen['step_sampling']}"


def _way(config: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Agent, backbone, sampling and how it acts in a few words."""
    chosen = chosen_names(config)
    acting = [f"{name} {content[name]}" for name in ACTING if str(content[name]) not in ("0", "0.0")]
    return ", ".join([config["agent"]["name"], chosen["backbone"], _sampling(chosen), *acting])


def _brief(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "environment"}


def _label(folder: Path, folders: Sequence[Path]) -> str:
    alike = sum(other.name == folder.name for other in folders) > 1
    label = str(folder) if alike else folder.resolve().name
    return label.replace("_", "-", 1) if label.startswith("_") else label  # plots leave such labels out


def _file(label: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in label).strip("._") or "run"


main = cli.command(report, "report")
