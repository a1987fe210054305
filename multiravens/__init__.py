"""MultiRavens: long, compositional pick-and-place problems, demonstrations of them, and agents that learn them."""

from importlib.util import find_spec
from typing import Any

__version__ = "0.1.0"
__all__ = ["allow", "load"]

# Training runs where no simulator is installed; there are no environments to register there.
if find_spec("gymnasium") and find_spec("pybullet"):
    from multiravens.registration import register

    register()


def load(run: str, problem: str = "", device: str = "cpu") -> Any:
    """A trained agent, ready for a robot: `multiravens.load(run).act(color, height, goals)`.

    Args:
        run: folder that `multiravens.train` wrote.
        problem: that it is set to; only an agent with programs for several needs it.
        device: where the network computes.

    Returns:
        A `multiravens.agents.acting.load.Deployed`.

    Raises:
        UserError: the folder is not a run's, its checkpoint does not fit, or it does not know the problem.
    """
    from multiravens.agents.acting.load import load as load_deployed  # torch is imported only where it is needed

    return load_deployed(run, problem, device)


def allow(*names: str) -> None:
    """Lets runs' folders name classes of yours, until this process ends: `multiravens.allow("my_nets.Wide")`.

    Args:
        *names: dotted paths of classes.

    Raises:
        UserError: one is not a dotted path, or of multiravens itself.
    """
    from multiravens.options.trust import allow as allow_names

    allow_names(*names)
