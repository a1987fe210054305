"""The simulation room: the only one that imports pybullet."""
