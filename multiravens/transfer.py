"""Teach a trained agent a new problem by re-ordering the blocks it has; what it knew stays unchanged."""

import sys

from omegaconf import DictConfig

from multiravens import cli
from multiravens.train import carry_out


def transfer(config: DictConfig) -> None:
    """Trains what `train` names and says how much that was.

    Args:
        config: A composed `transfer` configuration.

    Raises:
        UserError: If an option can't be met.
    """
    figures = carry_out(config, config.transferrer, f"{config.problem}, {config.train.name}")
    share = figures["trained"] / figures["parameters"]
    print(f"{config.train.name} trained {figures['trained']} of {figures['parameters']} parameters ({share:.2%})")


main = cli.command(transfer, "transfer")

if __name__ == "__main__":
    sys.exit(main())
