"""Train an agent on demonstrations; run again, it resumes where it was stopped. It needs no simulator."""

import ctypes
import sys
from collections.abc import Mapping

from omegaconf import DictConfig, OmegaConf

from multiravens import cli
from multiravens.options.instantiate import instantiate
from multiravens.support.progress import show_progress


def train(config: DictConfig) -> None:
    """Trains and says where the agent is.

    Args:
        config: A composed `train` configuration.

    Raises:
        UserError: If an option can't be met.
    """
    figures = carry_out(config, config.trainer, config.run)
    if not figures:
        return  # another of several processes tells
    last = {name: figures[name] for name in figures if name not in ("own", "parameters")}
    print(f"{config.run}: {figures['step']} steps; of the last batches: {_short(last) or 'not told yet'}")
    share = figures["own"] / max(figures["parameters"], 1)
    if figures["step"] < config.steps:
        print(f"stopped after minutes={config.minutes}: the same command takes the {config.steps} steps up where it is")
    print(f"{figures['parameters']} parameters; a problem has {figures['own']} ({share:.2%}) of its own")


def carry_out(config: DictConfig, task: DictConfig, label: str) -> dict[str, float]:
    """Builds and calls what trains, with the configuration as plain values, and shows its progress.

    Args:
        config: with `steps`.
        task: says what trains.
        label: of the progress.
    """
    keep_memory()
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    with show_progress(label, config.steps, "steps") as update:
        figures: dict[str, float] = instantiate(task)(
            {str(key): value for key, value in plain.items()}, lambda step, latest: update(step, _short(latest))
        )
    return figures


def keep_memory() -> None:
    """Has the C library keep freed memory, where it is glibc: half of a Fourier transform's time is page faults."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library has its own ways
    trim, pad, mmap = -1, -2, -3  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD of malloc.h
    mallopt(mmap, 2**30)
    mallopt(trim, 2**31 - 1)
    mallopt(pad, 2**28)


def _short(figures: Mapping[str, float]) -> str:
    """Losses and other figures in a few words."""
    told = [f"{_words(name)} {value:.2f}" for name, value in figures.items() if name not in ("step", "learning_rate")]
    return ", ".join(told)


def _words(name: str) -> str:
    return name.replace("_", " ")


main = cli.command(train, "train")

if __name__ == "__main__":
    sys.exit(main())
