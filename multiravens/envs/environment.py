"""The gymnasium environment of every problem."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from multiravens.envs.action import Action, action_space
from multiravens.envs.primitive import OK, pick_and_place
from multiravens.envs.problem import Problem, pointer
from multiravens.errors import unknown
from multiravens.geometry import BOUNDS, SHAPE, Array
from multiravens.heightmap import at_resolution
from multiravens.sim.cameras import Camera
from multiravens.sim.motion import Motion
from multiravens.sim.world import World

RESOLUTIONS = {"full": 1, "half": 2}

Observation = dict[str, Any]


class PickPlaceEnv(gymnasium.Env[Observation, dict[str, Any]]):
    """Pick and place on a table seen from above.

    Observation: `color` (H, W, 3) uint8; `height` (H, W) float32 above the table [m]; `pointer`, the first sub-goal
    of the goal sequence that does not hold (the number of sub-goals when all do). H, W is 320, 160, or 160, 80 at
    half resolution; rows run along +y, columns along +x.

    Action: `pick_position` (3,), `pick_quaternion` (4,), `place_position` (3,), `place_quaternion` (4,): metres and
    xyzw in the world frame. Only yaw is used of the quaternions; descents end at contact.

    Reward: change of the standing credit, so negative when something is undone. Terminates when every sub-goal holds,
    truncates after `problem.max_steps` actions.

    Info: `seed`, `holds` (G,) bool, `credit`, `credit_by_module`, `poses` (B, 7), `motion` (`ok` or why the primitive
    ended early) and `ended` (empty, `success` or `steps`).

    Args:
        problem: what is on the table.
        camera: how it is seen.
        motion: how it is moved.
        resolution: `full` or `half`.
        gui: open Bullet's viewer.

    Raises:
        UserError: an unknown resolution, or a viewer without a display.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}

    def __init__(
        self, problem: Problem, camera: Camera, motion: Motion, resolution: str = "full", gui: bool = False
    ) -> None:
        if resolution not in RESOLUTIONS:
            raise unknown("resolution", str(resolution), RESOLUTIONS)
        self.problem, self.camera, self.motion, self.resolution = problem, camera, motion, resolution
        self.render_mode = "rgb_array"
        self.world = World(gui)
        shape = tuple(side // RESOLUTIONS[resolution] for side in SHAPE)
        self.action_space: spaces.Dict = action_space()
        self.observation_space = spaces.Dict(
            {
                "color": spaces.Box(0, 255, (*shape, 3), np.uint8),
                "height": spaces.Box(0.0, float(BOUNDS[2, 1]), shape, np.float32),
                "pointer": spaces.Discrete(problem.size + 1),
            }
        )
        self._holds = np.zeros(problem.size, bool)
        self._actions = 0
        self._seed: int | None = None
        self._observation: Observation = {}

    @property
    def episode_seed(self) -> int:
        """Seed of the episode under way; `reset(seed=...)` with it starts the same episode."""
        if self._seed is None:
            raise gymnasium.error.ResetNeeded("reset the environment before using it")
        return self._seed

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start the episode of a seed, or of a seed drawn from the environment's generator when there is none."""
        super().reset(seed=seed)
        self._seed = int(self.np_random.integers(2**31)) if seed is None else seed
        self._noise = np.random.default_rng([self._seed, 0, 1])
        self.camera.begin(np.random.default_rng([self._seed, 0, 2]))
        self.problem.build(self.world, self.motion, self._seed)
        self.motion.begin(np.random.default_rng([self._seed, 0, 3]))
        self._actions = 0
        self._holds = self.problem.holds(self.world)
        self._observation = self._observe()
        return self._observation, self._info(OK, "")

    def step(
        self, action: dict[str, NDArray[np.float32]] | Action
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Carry out one pick and place.

        Raises:
            ValueError: a field of the action is missing, has another shape or is not finite.
            gymnasium.error.ResetNeeded: before the first reset.
        """
        _ = self.episode_seed
        checked = Action.from_dict(action.to_dict() if isinstance(action, Action) else action)
        before = self.credit
        reason = pick_and_place(self.world, self.motion, checked)
        self._holds = self.problem.holds(self.world)
        self._actions += 1
        terminated = bool(self._holds.all())
        truncated = not terminated and self._actions >= self.problem.max_steps
        self._observation = self._observe()
        ended = "success" if terminated else "steps" if truncated else ""
        return self._observation, self.credit - before, terminated, truncated, self._info(reason, ended)

    @property
    def credit(self) -> float:
        """Share of the sub-goals that hold now."""
        return float(self._holds.sum() / len(self._holds))

    def expert(self) -> Action | None:
        """What the scripted oracle does now; None when it knows nothing to do."""
        _ = self.episode_seed
        return self.problem.expert(self.world)

    def render(self) -> NDArray[np.uint8]:
        """The colour heightmap (H, W, 3) as the agent saw it last."""
        _ = self.episode_seed
        return np.asarray(self._observation["color"])

    def close(self) -> None:
        """Disconnect from the simulator."""
        self.world.close()

    def poses(self) -> Array:
        """World poses (B, 7) of all bodies: position [m] and quaternion xyzw."""
        return self.world.poses()

    def _observe(self) -> Observation:
        color, height = self.camera.observe(self.world, self._noise)
        height = np.minimum(height, np.float32(BOUNDS[2, 1]))
        color, height = at_resolution(color, height, self.resolution)
        return {"color": color, "height": height, "pointer": np.int64(pointer(self._holds))}

    def _info(self, motion: str, ended: str) -> dict[str, Any]:
        return {
            "seed": self.episode_seed,
            "holds": self._holds.copy(),
            "credit": self.credit,
            "credit_by_module": self.problem.credit_by_module(self._holds),
            "poses": self.poses(),
            "motion": motion,
            "ended": ended,
        }
