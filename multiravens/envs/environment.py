"""The gymnasium environment of every problem."""

import copy
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from multiravens.actions import Fields, spec_of_primitive
from multiravens.envs.action import action_space, fields_of
from multiravens.envs.primitive import OK, PickPlace, Primitive
from multiravens.envs.problem import Problem, pointer
from multiravens.envs.seen import Seen
from multiravens.envs.state import Played, State, compare, pack, unpack
from multiravens.errors import UserError, unknown
from multiravens.geometry import BOUNDS, SHAPE, Array
from multiravens.heightmap import at_resolution
from multiravens.sim.cameras import Camera
from multiravens.sim.connection import has_display
from multiravens.sim.motion import Motion
from multiravens.sim.studio import Studio
from multiravens.sim.world import World

RESOLUTIONS = {"full": 1, "half": 2}
RENDER_MODES = ("human", "rgb_array")

Observation = dict[str, Any]


class PickPlaceEnv(gymnasium.Env[Observation, dict[str, Any]]):
    """Pick and place, or what another primitive does, on a table seen from above.

    Observation: `color` (H, W, 3) uint8; `height` (H, W) float32 above the table [m]; `pointer`, the first sub-goal
    of the goal sequence that does not hold (the number of sub-goals when all do). H, W is 320, 160, or 160, 80 at
    half resolution; rows run along +y, columns along +x.

    Action: the fields of `primitive.spec`; by default `pick_position` (3,), `pick_quaternion` (4,), `place_position`
    (3,), `place_quaternion` (4,): metres and xyzw in the world frame. Only yaw is used of the quaternions; descents end
    at contact.

    Reward: change of the standing credit, so negative when something is undone. Terminates when every sub-goal holds,
    truncates after `problem.max_steps` actions.

    Info: `seed`, `holds` (G,) bool, `credit`, `credit_by_module`, `poses` (B, 7), `motion` (`ok` or why the primitive
    ended early), `vacuum` (how well the tool held to the end) and `ended` (empty, `success` or `steps`).

    A copy (`copy.deepcopy`, `pickle`) has a simulation of its own, in which the episode so far is played again; it has
    no viewer. An environment that nothing uses any more is freed without `close`.

    Args:
        problem: what is on the table.
        camera: how it is seen.
        motion: how it is moved.
        resolution: `full` or `half`.
        render_mode: `rgb_array`, for pictures of the scene; `human`, for Bullet's viewer; or None.
        primitive: what an action asks for; None for picking and placing.

    Raises:
        UserError: an unknown resolution or render mode, a problem that is solved by another primitive, or a viewer that
            cannot be opened.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": 2}

    def __init__(
        self,
        problem: Problem,
        camera: Camera,
        motion: Motion,
        resolution: str = "full",
        render_mode: str | None = None,
        primitive: Primitive | None = None,
    ) -> None:
        self.primitive = primitive or PickPlace()
        if (asked := problem.primitive) != (given := spec_of_primitive(self.primitive).name):
            raise UserError(f"{problem.name} is solved by the primitive {asked}, not {given}: give primitive={asked}")
        if resolution not in RESOLUTIONS:
            raise unknown("resolution", str(resolution), RESOLUTIONS)
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise unknown("render mode", str(render_mode), RENDER_MODES)
        self.problem, self.camera, self.motion, self.resolution = problem, camera, motion, resolution
        self.render_mode = render_mode
        if not has_display():
            self.metadata = {**self.metadata, "render_modes": ["rgb_array"]}
        self.world = World(gui=render_mode == "human")
        self._studio: Studio | None = None
        self._closed = False
        shape = tuple(side // RESOLUTIONS[resolution] for side in SHAPE)
        self.action_space: spaces.Dict = action_space(self.primitive.spec)
        self.observation_space = spaces.Dict(
            {
                "color": spaces.Box(0, 255, (*shape, 3), np.uint8),
                "height": spaces.Box(0.0, float(BOUNDS[2, 1]), shape, np.float32),
                "pointer": spaces.Discrete(problem.size + 1),
            }
        )
        self._holds = np.zeros(problem.size, bool)
        self._taken: list[Fields] = []
        self._tries = [0] * problem.size  # actions of the expert for each sub-goal since it held last
        self._seed: int | None = None
        self._over = False
        self._observation: Observation = {}

    @property
    def episode_seed(self) -> int:
        """Seed of the episode under way; `reset(seed=...)` with it starts the same episode."""
        self._require_open()
        if self._seed is None:
            raise gymnasium.error.ResetNeeded("reset the environment before using it")
        return self._seed

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start the episode of a seed, or of a seed drawn from the environment's generator when there is none.

        Raises:
            UserError: the problem's bodies do not fit on the table.
            gymnasium.error.ClosedEnvironmentError: after `close`.
        """
        self._require_open()
        super().reset(seed=seed)
        self._start(int(self.np_random.integers(2**31)) if seed is None else seed)
        return self._observation, self._info(OK, "")

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Carry out one action.

        Args:
            action: a mapping of its fields, or what makes one by `to_dict`, as an `Action` does.

        Raises:
            ValueError: a field of the action is missing, has another shape or is not finite.
            gymnasium.error.ResetNeeded: before the first reset, or after `demonstrate` has played the episode.
            gymnasium.error.ClosedEnvironmentError: after `close`.
        """
        _ = self.episode_seed
        if self._over:
            raise gymnasium.error.ResetNeeded("this episode was played by `demonstrate`: reset the environment first")
        before = self.credit
        reason = self._act(fields_of(action))
        ended = self._ended()
        reward = self.credit - before
        return self._observation, reward, ended == "success", ended == "steps", self._info(reason, ended)

    def get_state(self) -> State:
        """The episode so far as plain data (text, numbers, arrays), for `set_state` of this or a like environment.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
            gymnasium.error.ClosedEnvironmentError: after `close`.
        """
        return pack(self.problem.name, Played(self.episode_seed, self._taken, self.poses()), self.primitive.spec)

    def set_state(self, state: Mapping[str, Any]) -> tuple[Observation, dict[str, Any]]:
        """Bring an episode to where `get_state` was called, by playing it again from its seed.

        Its next steps give the same bytes. The environment's generator, from which `reset` without a seed draws, stays
        as it is.

        Returns:
            Observation and info as the last step returned them.

        Raises:
            UserError: the state is damaged or another problem's, and the episode under way goes on; or it comes to
                other poses here, and the environment must be reset.
            gymnasium.error.ClosedEnvironmentError: after `close`.
        """
        self._require_open()
        reason = self._play(unpack(state, self.problem.name, self.primitive.spec))
        return self._observation, self._info(reason, self._ended())

    def blank_copy(self) -> "PickPlaceEnv":
        """An independent environment like this one, before its first reset."""
        content = copy.deepcopy(self.__getstate__() | {"_played": None, "_seed": None, "_taken": []})
        other = object.__new__(type(self))
        other.__setstate__(content)
        return other

    def last_action(self) -> dict[str, tuple[float, ...]]:
        """Fields (W,) of the episode's last action, as it was given; none after a reset."""
        return {name: tuple(map(float, value)) for name, value in (self._taken or [{}])[-1].items()}

    def end_episode(self) -> None:
        """Have `step` refuse until the next reset, since somebody else has played the episode."""
        self._over = True

    @property
    def credit(self) -> float:
        """Share of the sub-goals that hold now."""
        return float(self._holds.sum() / len(self._holds))

    def expert(self) -> Any:
        """The scripted oracle's action in the present state, as its module gives it; None if it has none.

        It goes for the first sub-goal that does not hold. One that two of its actions have not reached it leaves for
        later, and goes for the next that it can reach.
        """
        _ = self.episode_seed
        aim = self.problem.aim(self.world, self._tries)
        return None if aim is None else aim.action

    def render(self) -> NDArray[np.uint8] | None:
        """A picture (560, 720, 3) of the table and the arm, in the render mode `rgb_array`; otherwise None.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
            gymnasium.error.ClosedEnvironmentError: after `close`.
        """
        _ = self.episode_seed
        if self.render_mode is None:
            gymnasium.logger.warn('render() draws nothing: make the environment with render_mode="rgb_array"')
        if self.render_mode != "rgb_array":
            return None
        self._studio = self._studio or Studio()
        if self._taken:
            self._studio.follow(self.motion)
        else:
            self._studio.rest(self.motion)
        return self._studio.picture(self.world)

    def close(self) -> None:
        """Disconnect from the simulator; further calls do nothing."""
        self._closed = True
        self.world.close()
        if self._studio is not None:
            self._studio.close()
            self._studio = None

    def __copy__(self) -> "PickPlaceEnv":
        return copy.deepcopy(self)  # two environments cannot share a simulation

    def __getstate__(self) -> dict[str, Any]:
        self._require_open()
        shown = None if self.render_mode == "human" else self.render_mode
        played = None if self._seed is None else Played(self._seed, self._taken, self.poses())
        return self.__dict__ | {"_studio": None, "render_mode": shown, "_played": played}

    def __setstate__(self, content: dict[str, Any]) -> None:
        played, over = content["_played"], content["_over"]
        self.__dict__.update({name: value for name, value in content.items() if name != "_played"})
        # A copied world is an empty one, in which the episode is played again.
        if played is not None:
            self._play(played)
            self._over = over

    def poses(self) -> Array:
        """World poses (B, 7) of all bodies: position [m] and quaternion xyzw."""
        self._require_open()
        return self.world.poses()

    def _require_open(self) -> None:
        if self._closed:
            raise gymnasium.error.ClosedEnvironmentError("the environment is closed: make a new one")

    def _start(self, seed: int) -> None:
        """Start the episode of a seed."""
        self._seed, self._taken, self._over = None, [], False
        self._tries = [0] * self.problem.size
        self._noise = np.random.default_rng([seed, 0, 1])
        self.camera.begin(np.random.default_rng([seed, 0, 2]))
        self.problem.build(self.world, self.motion, seed)
        self.motion.begin(np.random.default_rng([seed, 0, 3]))
        self._holds = self.problem.holds(self.world)
        self._observation = self._observe()
        self._seed = seed

    def _act(self, fields: Mapping[str, ArrayLike]) -> str:
        """Carry out an action; returns how the primitive ended."""
        action = self.primitive.spec.check(fields)
        self._taken.append({name: np.array(fields[name], np.float32) for name in action})
        self._count_try()
        reason = self.primitive(self.world, self.motion, action, self._seen)
        self._holds = self.problem.holds(self.world)
        self._tries = [0 if held else count for held, count in zip(self._holds, self._tries, strict=True)]
        self._observation = self._observe()
        return reason

    def _count_try(self) -> None:
        """Count the action that is about to be carried out, if it is what the expert would do.

        Counted here rather than where the expert is asked, so that an episode that is played again counts the same.
        """
        aim = self.problem.aim(self.world, self._tries)
        if aim is not None:
            own, taken = fields_of(aim.action), self._taken[-1]
            self._tries[aim.step] += all(np.array_equal(taken[name], np.float32(own[name])) for name in taken)

    def _ended(self) -> str:
        """Reason why the episode ends now: `success`, `steps`, or empty if it goes on."""
        if self._holds.all():
            return "success"
        return "steps" if len(self._taken) >= self.problem.max_steps else ""

    def _play(self, played: Played) -> str:
        """Play an episode again; returns how its last primitive ended.

        Raises:
            UserError: it comes to other poses.
        """
        reason = OK
        self._start(played.seed)
        for action in played.actions:
            reason = self._act(action)
        difference = compare(self.poses(), played.poses)
        if difference:
            self._seed = None
            raise UserError(
                f"played again, the episode comes to other poses ({difference}): bodies were moved by other means than "
                "actions, or options, version or machine are not those that the state is from; reset the environment"
            )
        return reason

    def _observe(self) -> Observation:
        color, height = self.camera.observe(self.world, self._noise)
        height = np.minimum(height, np.float32(BOUNDS[2, 1]))
        self._seen = Seen(height)
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
            "vacuum": self.motion.vacuum,
            "ended": ended,
        }
