"""MultiRavens: long, compositional pick-and-place problems, demonstrations of them, and agents that learn them."""

from importlib.util import find_spec
from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]

# Training runs where no simulator is installed; there are no environments to register there.
if find_spec("gymnasium") and find_spec("pybullet"):
    from multiravens.registration import register

    register()


def load(run: str, device: str = "cpu") -> Any:
    """A trained agent, ready for a robot: `multiravens.load(run).act(color, height, goals)`.

    Args:
        run: folder that `multiravens.train` wrote.
        device: where the network computes.

    Returns:
        A `multiravens.agents.load.Deployed`.

    Raises:
        UserError: the folder is not a run's, or its checkpoint does not fit.
    """
    from multiravens.agents.load import load as load_deployed  # torch is imported only where it is needed

    return load_deployed(run, device)
