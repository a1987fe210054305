"""Teaches a trained agent a new problem by re-ordering the blocks it has; what it knew stays as it was."""

import sys
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from multiravens import cli
from multiravens.construction import instantiate
from multiravens.progress import show_progress
from multiravens.train import keep_memory, short


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: Overrides and flags; the process's own if None.

    Returns:
        The exit status.
    """
    return cli.run(transfer, "transfer", argv)


def transfer(config: DictConfig) -> None:
    """Trains what `train` names and says how much that was.

    Args:
        config: A composed `transfer` configuration.

    Raises:
        UserError: If an option can't be met.
    """
    keep_memory()
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    with show_progress(f"{config.problem}, {config.train}", config.steps, "steps") as update:
        figures = instantiate(config.transferrer)(
            {str(key): value for key, value in plain.items()}, lambda step, latest: update(step, short(latest))
        )
    share = figures["trained"] / figures["parameters"]
    print(f"{config.train} trained {figures['trained']} of {figures['parameters']} parameters ({share:.2%})")


if __name__ == "__main__":
    sys.exit(main())
