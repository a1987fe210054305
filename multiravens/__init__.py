"""MultiRavens: long, compositional pick-and-place problems, demonstrations of them, and agents that learn them."""

from importlib.util import find_spec

__version__ = "0.1.0"

# Training runs where no simulator is installed; there are no environments to register there.
if find_spec("gymnasium") and find_spec("pybullet"):
    from multiravens.registration import register

    register()
