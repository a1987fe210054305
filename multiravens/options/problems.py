"""Names of problems: a problem is composed of the modules that its name joins by hyphens; a suite names several."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from multiravens.errors import UserError, quote, unknown
from multiravens.options.search import BASE_PROBLEM, module_names, options, search_path
from multiravens.registration import read_suites

_MOST_MODULES = 16  # a bound on the work of composing; the table is full well before


def parse_problems(value: str | Sequence[str]) -> list[str]:
    """The problems that an option names.

    Args:
        value: a name, a list of names, or a suite's name; modules of a problem may come in any order.

    Returns:
        Each name once, in the order given; names of a user's own data sets stay as they are.

    Raises:
        UserError: it is neither, or empty, or a suite has a problem that can't be composed.
    """
    roots = search_path(None)
    suites = read_suites(roots)
    if isinstance(value, str):
        for name in suites.get(value, ()):
            composition(name, roots)
        value = suites.get(value, [value])
    if not value or not isinstance(value, Sequence) or not all(isinstance(name, str) and name for name in value):
        raise UserError(
            f"problems={quote(value)}: give names as in [placing,chaining], or a suite: {', '.join(suites)}"
        )
    return list(dict.fromkeys(_in_order(name, roots) for name in value))


def refused(name: str) -> str:
    """Say why a name is no problem's; empty where it can be composed."""
    try:
        composition(name, search_path(None))
    except UserError as error:
        return str(error)
    return ""


def composition(name: str, roots: Sequence[Path]) -> list[str]:
    """Find the overrides that choose a problem: a user's own file, or the known modules that its name joins.

    Args:
        name: of the problem, modules in any order.
        roots: folders of YAML files.

    Raises:
        UserError: there is no such file, or no such module.
    """
    parts = sorted(name.split("-"))
    for known in (name, "-".join(parts)):
        if known != BASE_PROBLEM and any((root / "problem" / f"{known}.yaml").exists() for root in roots):
            return [f"problem={known}"]
    modules = module_names(roots)
    wrong = [part for part in parts if part not in modules]
    if len(wrong) == len(parts):
        suites = read_suites(roots)
        if name in suites:
            raise UserError(f"{name} is a suite, not a problem: give problems={name} where several are taken")
        raise unknown("problem", name, [*options(roots, "problem"), *modules, *suites])
    if wrong:
        raise unknown(f"module in the problem {quote(name)},", wrong[0], modules)
    if len(parts) > _MOST_MODULES:
        raise UserError(f"problem {quote(name)} has {len(parts)} modules, at most {_MOST_MODULES} are composed")
    seen: Counter[str] = Counter()
    added = []
    for part in parts:
        seen[part] += 1
        key = part if seen[part] == 1 else f"{part}_{seen[part]}"
        added.append(f"+module@problem.modules.{key}={part}")
    return [f"problem={BASE_PROBLEM}", *added, f"problem.name={'-'.join(parts)}"]


def _in_order(name: str, roots: Sequence[Path]) -> str:
    """A name with its modules in alphabetical order, if they are modules."""
    parts = sorted(name.split("-"))
    modules = set(parts) <= set(module_names(roots))
    return "-".join(parts) if modules and name not in options(roots, "problem") else name
