"""Export a trained agent: its weights alone, smaller if wanted, and a model card."""

import sys

from omegaconf import DictConfig, OmegaConf

from multiravens import cli
from multiravens.options.instantiate import instantiate


def export(config: DictConfig) -> None:
    """Exports and says what was written.

    Args:
        config: A composed `export` configuration.

    Raises:
        UserError: If an option can't be met.
    """
    for path in instantiate(config.exporter)(OmegaConf.to_container(config, resolve=True)):
        print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB")


main = cli.command(export, "export")

if __name__ == "__main__":
    sys.exit(main())
