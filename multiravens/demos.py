"""Write the expert's demonstrations of a problem, one file an episode; run again, it resumes."""

import sys
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from multiravens import cli
from multiravens.actions import PICK_PLACE, spec_of_primitive
from multiravens.data.collecting.collection import Collected, Run, collect
from multiravens.data.collecting.disturbance import Disturbance
from multiravens.data.storage.splits import parse_splits
from multiravens.data.storage.store import Store
from multiravens.errors import UserError, unknown
from multiravens.options.compose import compose
from multiravens.options.instantiate import instantiate
from multiravens.options.problems import parse_problems
from multiravens.support.progress import show_progress
from multiravens.support.run_environment import parts_of


def write_demonstrations(config: DictConfig) -> None:
    """Brings data sets to the number of episodes asked for and says where they are.

    Args:
        config: A composed `demos` configuration; `problems` names several in place of `problem`.

    Raises:
        UserError: If an option can't be met, or the disk refuses.
    """
    if config.problems is None:
        _write(config)
        return
    if config.problem != compose("environment").problem:
        raise UserError("problems=... takes each problem as it is: leave out problem= and problem.* options")
    for each in [compose("environment", [f"problem={name}"]).problem for name in parse_problems(config.problems)]:
        config.problem = each
        _write(config)


def _write(config: DictConfig) -> None:
    """Brings the data set of one problem to the number of episodes asked for."""
    ranges = parse_splits(OmegaConf.to_container(config.splits, resolve=True))
    if config.split not in ranges:
        raise unknown("split", str(config.split), ranges)
    environment = environment_config(config)
    # The primitive brings the simulator: where it is our own, its fields are known without.
    spec = spec_of_primitive(instantiate(environment["primitive"])) if "primitive" in environment else PICK_PLACE
    store = Store.create(config.data, config.problem.name, config.split, ranges[config.split], environment, spec)
    make_run = partial(make_oracle, environment, gui=bool(config.gui))
    if config.gui and config.workers != 1:
        raise UserError(f"gui=true shows one environment: use workers=1, not {config.workers}")
    with show_progress(store.name, config.episodes, "episodes") as update:

        def told(kept: int, rejected: int) -> None:
            update(kept, f"{rejected} rejected")

        collected = collect(make_run, store, config.episodes, config.workers, told)
    print(_summary(store, collected, config.episodes))


def environment_config(config: DictConfig) -> dict[str, Any]:
    """Takes from a configuration what decides an episode's bytes; data sets always hold full resolution.

    Args:
        config: A composed `demos` configuration.

    Returns:
        Plain values, resolved; `disturb` only where actions are disturbed.

    Raises:
        UserError: If an option of `disturb` is out of range.
    """
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    disturbance = Disturbance.of(container["disturb"])
    disturbed = {"disturb": disturbance.options()} if disturbance else {}
    return parts_of({str(name): value for name, value in container.items()}) | disturbed


def make_oracle(environment: dict[str, Any], gui: bool = False) -> Run:
    """Builds an environment and the oracle that demonstrates in it.

    Args:
        environment: What `environment_config` returned.
        gui: True to open Bullet's viewer.

    Returns:
        A function of a seed that returns its `Demonstration`.

    Raises:
        UserError: If the environment can't be built.
    """
    # Imported here so that checking the options and finding nothing to do stay quick.
    from multiravens.envs import from_config
    from multiravens.envs.oracle import demonstrate

    env = from_config(OmegaConf.create(environment | {"resolution": "full", "gui": gui}))
    disturb = Disturbance.of(environment["disturb"], env.primitive.spec) if "disturb" in environment else None
    return partial(demonstrate, env, disturb=disturb)


def _summary(store: Store, collected: Collected, asked: int) -> str:
    if collected.new == 0:
        extra = f", more than the {asked} asked for; all stay" if collected.kept > asked else ""
        return f"{store.folder} has {collected.kept} episodes already{extra}"
    counts = f"{collected.kept} episodes, {collected.new} of them new; {collected.rejected} seeds rejected"
    return f"{store.folder} has {counts}"


main = cli.command(write_demonstrations, "demos")

if __name__ == "__main__":
    sys.exit(main())
