"""Film of a demonstration: its environment replays it exactly as it went without a camera."""

from collections.abc import Callable, Sequence

import numpy as np
from omegaconf import DictConfig

from multiravens.drawing.pictures import PAPER, Image, contact_sheet
from multiravens.drawing.video import VIEW, Board, Goals, Status, Video
from multiravens.envs import Demonstration, PickPlaceEnv, demonstrate, from_config
from multiravens.errors import UserError
from multiravens.geometry import Array, Pose, quaternion_yaw
from multiravens.sim.motion import ArmMotion
from multiravens.sim.studio import REST, Studio
from multiravens.sim.world import TICK, World

_ARM_SPEED = 0.8  # most of the shown arm on its way to a pick [m a shown second]
_STILL = 0.0005  # less motion [m] than this since the last frame is not worth another
_OPENING, _BETWEEN, _ENDING = 0.8, 0.25, 1.6  # still frames, as long as this [s]
_MOST_STEPS, _STEP_COLUMNS = 24, 3  # pictures in a sheet of an episode, and in a row of it
_TRIES = 20  # seeds tried for one that the oracle solves


class Film:
    """Writes frames of a demonstration while it is replayed.

    An empty floating gripper travels faster than an arm does; the shown arm goes with it in more frames.

    Args:
        env: what the demonstration was recorded in.
        studio: draws the perspective view.
        video: takes the frames.
        fps: frames a shown second.
        speed: simulated seconds a shown second.
        view: height and width of the studio's pictures.
    """

    def __init__(
        self,
        env: PickPlaceEnv,
        studio: Studio,
        video: Video,
        fps: int,
        speed: float,
        view: tuple[int, int] = VIEW,
    ) -> None:
        self.env, self.studio, self.video, self.fps, self.view = env, studio, video, fps, view
        self._every = speed / TICK / fps  # ticks a frame, not always whole
        self._due = 0.0
        self._shown: Array | None = None

    def shoot(
        self,
        demonstration: Demonstration,
        update: Callable[[float], None],
        goals: Goals | None = None,
        seen: Sequence[Image] | None = None,
        aims: Sequence[int] | None = None,
        actor: str = "",
    ) -> None:
        """Film a demonstration from start to end.

        Args:
            demonstration: whose actions are replayed.
            update: called with the share that is done.
            goals: the strip of sub-goals, if they are not the demonstration's own.
            seen: a picture of the heightmap a frame, if it is not the demonstration's own.
            aims: the sub-goal that is gone for in each frame, if it is not the first that does not hold.
            actor: who acts, for the title.
        """
        title = f"{demonstration.problem}, seed {demonstration.seed}" + (f", {actor}" if actor else "")
        board = self._board = Board(title, goals or goals_of(demonstration), self.view)
        steps = len(demonstration.rewards)
        self.env.reset(seed=demonstration.seed)
        self.studio.rest(self.env.motion)
        # A reset forgets the hooks.
        self.env.world.on_tick.append(self._tick)
        board.update(status_of(demonstration, 0, steps > 0, seen, aims))
        self._still(_OPENING)
        if not isinstance(self.env.motion, ArmMotion):
            tip = self.env.motion.tip()
            self._travel(tip.position, quaternion_yaw(tip.quaternion))
        for step in range(steps):
            self._board.update(status_of(demonstration, step, True, seen, aims))
            self.env.step(demonstration.carried_out(step))
            board.update(status_of(demonstration, step + 1, False, seen, aims))
            self._still(_BETWEEN)
            update((step + 1) / steps)
        if not isinstance(self.env.motion, ArmMotion):
            self._travel(np.array(REST), 0.0)
        self._still(_ENDING)

    def _tick(self, world: World) -> None:
        tip = self.env.motion.tip()
        self._due -= 1
        far = np.linalg.norm(tip.position - self.studio.position) > _ARM_SPEED / self.fps
        floats = not isinstance(self.env.motion, ArmMotion)
        if self._due <= 0 or (far and floats and self.env.motion.held is None):
            self._due = self._every + min(self._due, 0.0)
            self._frame_if_moved(world, tip)

    def _frame_if_moved(self, world: World, tip: Pose) -> None:
        state = np.concatenate([tip.position, tip.quaternion, world.poses().ravel()])
        if self._shown is None or abs(state - self._shown).max() > _STILL:
            self._shown = state
            self.studio.follow(self.env.motion)
            self._write()

    def _travel(self, position: Array, yaw: float) -> None:
        for place, turn in self.studio.travel(position, yaw, _ARM_SPEED / self.fps):
            self.studio.place(place, turn)
            self._write()

    def _still(self, seconds: float) -> None:
        self._write(round(seconds * self.fps))

    def _write(self, repeat: int = 1) -> None:
        self.video.write(self._board.frame(self.studio.picture(self.env.world)), repeat)


def goals_of(demonstration: Demonstration) -> Goals:
    """The sub-goals of a demonstration, each with the heightmap that shows it reached."""
    images = [demonstration.color[frame] if frame >= 0 else None for frame in demonstration.goal_frames]
    return Goals(demonstration.subgoals, images)


def status_of(
    demonstration: Demonstration,
    step: int,
    acting: bool,
    pictures: Sequence[Image] | None = None,
    aims: Sequence[int] | None = None,
) -> Status:
    """Status after a number of steps: the agent's last picture, and its next action if it acts."""
    return Status(
        color=demonstration.color[step] if pictures is None else np.asarray(pictures[step]),
        height=demonstration.height[step],
        holds=demonstration.holds[step],
        aim=int(demonstration.pointer[step]) if aims is None else aims[step],
        step=step + acting,
        steps=len(demonstration.rewards),
        marks=demonstration.marks(step) if acting else (),
    )


def sheet_of_steps(env: PickPlaceEnv, demonstration: Demonstration, studio: Studio) -> Image:
    """A contact sheet of a demonstration: its start and what stands after each step, evenly thinned out."""
    steps = len(demonstration.rewards)
    chosen = set(np.linspace(0, steps, min(steps + 1, _MOST_STEPS)).round().astype(int).tolist())
    env.reset(seed=demonstration.seed)
    studio.rest(env.motion)
    images, titles = [studio.picture(env.world)], [f"{demonstration.problem}, seed {demonstration.seed}"]
    for step in range(steps):
        env.step(demonstration.carried_out(step))
        if step + 1 in chosen:
            studio.follow(env.motion)
            images.append(studio.picture(env.world))
            titles.append(
                f"step {step + 1}: {demonstration.holds[step + 1].sum()} of {len(demonstration.subgoals)} sub-goals"
            )
    return contact_sheet(images, titles, min(_STEP_COLUMNS, len(images)))


def before_and_after(config: DictConfig, seed: int, studio: Studio) -> Image:
    """A problem's start and the end of an oracle's run, one above the other.

    Args:
        config: of the environment.
        seed: the first to try; the next ones follow until the oracle solves one.
        studio: draws both.

    Raises:
        UserError: none of many seeds was solved.
    """
    env = from_config(config)
    try:
        for tried in range(seed, seed + _TRIES):
            if demonstrate(env, tried).success:
                break
        else:
            raise UserError(f"the oracle solves {config.problem.name} for no seed from {seed} to {seed + _TRIES - 1}")
        studio.rest(env.motion)
        after = studio.picture(env.world)
        env.reset(seed=tried)
        studio.rest(env.motion)
        gap = np.full((6, studio.size[1], 3), PAPER, np.uint8)
        return np.concatenate([studio.picture(env.world), gap, after])
    finally:
        env.close()
