"""One job of a sweep in a process of one of hydra's launchers, started by the sweep."""

import hydra
from omegaconf import DictConfig

from multiravens.experiments.sweep import die_with_parent, run_planned


@hydra.main(version_base="1.3", config_path=None)
def main(config: DictConfig) -> None:
    """Runs the job that `index` names of the plan at `plan`."""
    die_with_parent()
    run_planned(config.plan, config.index)


if __name__ == "__main__":
    main()
