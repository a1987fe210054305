"""Chaining: a closed belt round the right posts, as on pulleys."""

import numpy as np
from numpy.typing import NDArray

from multiravens.envs.action import Action
from multiravens.envs.module import SubGoal, TaskModule
from multiravens.envs.region import Region
from multiravens.geometry import Array, Pose, planar_pose, yaw_quaternion
from multiravens.sim.beads import LINK, RADIUS, add_beads, beside, spaced
from multiravens.sim.shapes import disc
from multiravens.sim.world import World

BELT_COLOR = (0.93, 0.74, 0.20)
POST_COLOR = (0.88, 0.88, 0.92)
POST_RADIUS, POST_HEIGHT = 0.009, 0.035
SIDES = {2: 0.160, 3: 0.150}
"""Distance of neighbouring posts [m] by how many are wanted: the two furthest wanted ones are further apart than a
slack belt of the length that goes round them is wide."""
SLACK = {2: 0.055, 3: 0.035}  # of the belt's length, beyond what goes tightly round the wanted posts [m]
JITTER = 0.003  # of each post, along each axis [m]
BEYOND = 0.025
"""Distance outside a post at which the belt is put down [m]: strands from there back inside clear a post by 1 cm."""
REACHABLE = 0.019  # a bead this far from a post's axis [m] can be picked beside it
INSIDE, FURTHER = 0.6, 0.4
"""A strand on top of a post, or outside of one, is put this share of the way from the posts' middle to it, where a loop
over the next post still opens."""
GRID = 0.005  # between the spots inside the belt that a strand taken off a post may be put at [m]
FAR = 0.125  # a strand further from a post [m] comes as a narrow fold, which opens over none: it is first laid by it
PAST, SHORT = 0.045, 0.008
"""Offsets of the fold's end [m]: this far past the post, across the line from the posts' middle, and short of it."""
_CORNERS = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1], [3, 1], [3, -1]]) / 2
"""Posts in sides of their square: four round the belt, in turn, and two more that are never wanted but look it."""
_TIGHT = POST_RADIUS + RADIUS


class Chaining(TaskModule):
    """A closed belt round the right posts, as on pulleys.

    Description:
        A beaded belt lies slack amid posts that all look alike. It belongs round two (or three) neighbouring ones;
        the goal images alone say which. To get there, a bead is lifted, carried over a post and put down outside of it.

    Randomizations:
        Which posts are wanted, where the posts stand, where the belt lies and in what shape.

    Success:
        A wanted post's sub-goal holds while the belt's winding number round it is +1 or -1, no other wanted post has
        the opposite sign (of two signs the one of fewer posts does not count), no unwanted post is wound round, and
        no bead lies over the post above its top.

    Args:
        posts: how many posts, 4 to 6; the belt lies amid four.
        wanted: how many of them the belt goes round, 2 or 3.

    Raises:
        ValueError: a count out of its range.
    """

    tool = "fingers"

    def __init__(self, posts: int = 4, wanted: int = 2) -> None:
        if not 4 <= posts <= 6:
            raise ValueError(f"posts={posts}: give 4 to 6")
        if wanted not in SIDES:
            raise ValueError(f"wanted={wanted}: give 2 or 3")
        self.posts, self.wanted = posts, wanted
        corners = SIDES[wanted] * _CORNERS[:wanted]
        around = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1).sum()
        self.beads = int(np.ceil((around + 2 * np.pi * _TIGHT + SLACK[wanted]) / LINK))

    @property
    def _middle(self) -> Array:
        """(2,) middle of the square of posts that the belt lies in, in the region's frame."""
        return np.array([-0.5 * SIDES[self.wanted] * (self.posts > 4), 0.0])

    @property
    def footprint(self) -> tuple[float, float]:
        """(length, width) [m] of the rectangle of table it needs."""
        side = SIDES[self.wanted]
        width = side + 2 * (BEYOND + 0.024)
        return round(width + side * (self.posts > 4), 2), round(width, 2)

    @property
    def size(self) -> int:
        """Number of sub-goals: one a wanted post."""
        return self.wanted

    @property
    def steps(self) -> int:
        """Actions an expert takes: one a wanted post, and two to put a slipped strand right."""
        return self.wanted + 2

    def build(self, world: World, region: Region, rng: np.random.Generator) -> list[SubGoal]:
        """Set up the posts, lay the belt amid them and draw which are wanted."""
        corners = self._middle + SIDES[self.wanted] * _CORNERS[: self.posts]
        corners += rng.uniform(-JITTER, JITTER, corners.shape)
        self._centre = region.xy(self._middle)
        self._places = region.xy(corners)
        post = disc(POST_RADIUS, POST_HEIGHT, POST_COLOR)
        for index, xy in enumerate(self._places):
            world.add(f"post {index}", post, planar_pose(xy))
        self._belt = add_beads(world, "belt", BELT_COLOR, region.xy(self._middle + self._lay(rng)), closed=True)
        first = int(rng.integers(4))
        self._goals = [(first + step) % 4 for step in range(self.wanted)]
        return [SubGoal(f"belt round post {post}") for post in self._goals]

    def _lay(self, rng: np.random.Generator) -> Array:
        """(beads, 2) a slack belt about the origin, amid four posts: a rough circle, dented where posts are near."""
        angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
        radius = SIDES[self.wanted] / np.sqrt(2)
        length = self.beads * LINK
        room = radius - length / (2 * np.pi) - _TIGHT
        dents = 0.0 if room > 0.008 else 0.16
        waves = rng.uniform(-0.04, 0.04, 2)
        shape = 1 - dents * np.cos(4 * angles - np.pi)
        shape += waves[0] * np.cos(2 * angles + rng.uniform(0, 2 * np.pi))
        shape += waves[1] * np.cos(3 * angles + rng.uniform(0, 2 * np.pi))
        curve = shape[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        curve = spaced(curve, self.beads, closed=True)
        curve *= LINK / np.linalg.norm(curve - np.roll(curve, 1, axis=0), axis=1).mean()
        curve = np.roll(curve, int(rng.integers(self.beads)), axis=0)[:: int(rng.choice([-1, 1]))]
        spare = max(room, 0.0) * 0.5
        return curve + rng.uniform(-spare, spare, 2)

    def holds(self, world: World) -> NDArray[np.bool_]:
        """(wanted,) which wanted posts the belt goes round."""
        beads = world.positions(self._belt.beads)
        return drives(beads, self._places, self._goals)

    def expert(self, world: World, index: int) -> Action | None:
        """Loop the belt over the wanted post; first take it off posts where it does not belong."""
        beads = world.positions(self._belt.beads)
        turns = winding(beads[:, :2], self._places)
        sign = _sign(turns[self._goals])
        for post, turn in enumerate(turns):
            wrong = turn != 0 and (post not in self._goals or turn != sign)
            if wrong:
                return self._take_off(beads, post)
        post = self._goals[index]
        for other in range(self.posts):
            bead = _over(beads, self._places[other])
            if bead is not None:
                goal = self._outside(other) if other in self._goals else self._inside(other)
                return self._carry(beads, bead, goal)
        sense = sign if turns[self._goals].any() else 0
        if self._passes_outside(beads, post):
            return self._loop_inwards(beads, post, sense)
        bead = self._facing(beads, post, sense)
        if np.linalg.norm(beads[bead, :2] - self._places[post]) > FAR:
            return self._carry(beads, bead, self._alongside(beads, post))
        return self._carry(beads, bead, self._outside(post))

    def _take_off(self, beads: Array, post: int) -> Action:
        """Put the middle of the strand that passes round a post where the belt is widest, so that it crosses none."""
        spot = _roomiest(beads[:, :2])
        offsets = beads[:, :2] - self._places[post]
        near = np.linalg.norm(offsets, axis=1) < 2 * BEYOND
        return self._carry(beads, int(np.where(near, offsets @ (self._places[post] - spot), -np.inf).argmax()), spot)

    def _loop_inwards(self, beads: Array, post: int, sense: int) -> Action:
        """Carry a strand that lies outside of a post straight across it; where none closes the belt round it, back."""
        offsets = beads[:, :2] - self._places[post]
        distances = np.linalg.norm(offsets, axis=1)
        across = self._places[post] - BEYOND * offsets / distances[:, None]
        near = self._reachable(beads) & (offsets @ self._outward(post) > 0) & (distances < 3 * BEYOND)
        ready = near & self._closes(beads, post, across, sense)
        if not ready.any():
            return self._carry(beads, self._outermost(beads, post), self._inside(post, FURTHER))
        bead = int(np.where(ready, distances, np.inf).argmin())
        return self._carry(beads, bead, across[bead])

    def _closes(self, beads: Array, post: int, goals: Array, sense: int) -> NDArray[np.bool_]:
        """Tell which beads lead the belt round a post.

        A belt that is twisted goes round the next post in the right sense only if its far strand is looped over.

        Args:
            beads: (N, 3) positions [m].
            post: to be gone round.
            goals: (N, 2) where each bead would be put, the others staying where they are [m].
            sense: in which to go round, +1 or -1; 0 for either.

        Returns:
            (N,) bool.
        """
        belts = np.repeat(beads[None, :, :2], len(beads), axis=0)
        belts[np.arange(len(beads)), np.arange(len(beads))] = goals
        turns = np.array([winding(belt, self._places[post : post + 1])[0] for belt in belts])
        return turns == sense if sense else np.abs(turns) == 1

    def _reachable(self, beads: Array) -> NDArray[np.bool_]:
        """(N,) which beads can be picked without touching a post."""
        return (np.linalg.norm(beads[:, None, :2] - self._places, axis=-1) > REACHABLE).all(1)

    def _outward(self, post: int) -> Array:
        away = self._places[post] - self._centre
        return np.asarray(away / np.linalg.norm(away))

    def _outside(self, post: int) -> Array:
        return self._places[post] + BEYOND * self._outward(post)

    def _inside(self, post: int, share: float = INSIDE) -> Array:
        return self._centre + share * (self._places[post] - self._centre)

    def _alongside(self, beads: Array, post: int) -> Array:
        """Position (2,) [m] of a fold's end from which both its strands pass the post on the inner side."""
        outward = self._outward(post)
        along = np.array([-outward[1], outward[0]])
        if along @ (self._places[post] - beads[:, :2].mean(0)) < 0:
            along = -along
        return np.asarray(self._places[post] + PAST * along - SHORT * outward)

    def _passes_outside(self, beads: Array, post: int) -> bool:
        """Tell whether a strand lies outside of a post that the belt is not round: no loop over it opens from there."""
        offsets = beads[:, :2] - self._places[post]
        near = np.linalg.norm(offsets, axis=1) < 2 * BEYOND
        return bool((near & (offsets @ self._outward(post) > POST_RADIUS)).any())

    def _facing(self, beads: Array, post: int, sense: int = 0) -> int:
        """The bead in front of a post, on its inner side, where the tip touches no post: a loop opens evenly there.

        Of two strands it is the nearer one, or the one that closes the belt in the sense asked for, +1 or -1.
        """
        offsets, outward = beads[:, :2] - self._places[post], self._outward(post)
        ahead, aside = offsets @ outward, np.abs(offsets @ np.array([-outward[1], outward[0]]))
        cost = np.where(self._reachable(beads) & (ahead < 0), aside - ahead, np.inf)
        if sense:
            goals = np.tile(self._outside(post), (len(beads), 1))
            cost += ~self._closes(beads, post, goals, sense)
        return int(cost.argmin())

    def _outermost(self, beads: Array, post: int) -> int:
        """The bead of the strand that passes outside a post: the furthest out among those near it."""
        offsets = beads[:, :2] - self._places[post]
        near = np.linalg.norm(offsets, axis=1) < 2 * BEYOND
        outward = offsets @ self._outward(post) - 10.0 * ~near
        return int(outward.argmax())

    def _carry(self, beads: Array, bead: int, goal: Array) -> Action:
        still = yaw_quaternion(0.0)
        pick = np.array([*beside(beads[bead, :2], self._places, REACHABLE), beads[bead, 2] + RADIUS])
        return Action(Pose(pick, still), Pose(np.array([*goal, 2 * RADIUS]), still), period=0.0)


def _roomiest(belt: Array) -> Array:
    """The spot (2,) [m] inside a belt (N, 2) that is furthest from its beads."""
    axes = [np.arange(low, high, GRID) for low, high in zip(belt.min(0), belt.max(0), strict=True)]
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    room = np.linalg.norm(grid[:, None] - belt, axis=-1).min(1) * (winding(belt, grid) != 0)
    return np.asarray(grid[room.argmax()])


def winding(polygon: Array, points: Array) -> NDArray[np.int64]:
    """Winding numbers (P,) of a closed polygon (N, 2) about points (P, 2), counter-clockwise positive."""
    spokes = polygon[None] - points[:, None]
    following = np.roll(spokes, -1, axis=1)
    cross = spokes[..., 0] * following[..., 1] - spokes[..., 1] * following[..., 0]
    return np.rint(np.arctan2(cross, (spokes * following).sum(-1)).sum(1) / (2 * np.pi)).astype(np.int64)


def drives(beads: Array, posts: Array, goals: list[int]) -> NDArray[np.bool_]:
    """Find the wanted posts that a belt drives.

    Args:
        beads: (N, 3) world positions of the belt's beads, in order [m].
        posts: (P, 2) world xy of all posts [m].
        goals: indices of the wanted ones.

    Returns:
        (len(goals),) bool, by the module's definition of success.
    """
    turns = winding(beads[:, :2], posts)
    if np.delete(turns, goals).any():
        return np.zeros(len(goals), bool)
    free = np.array([_over(beads, posts[goal]) is None for goal in goals])
    return free & (turns[goals] == _sign(turns[goals]))


def _sign(turns: NDArray[np.int64]) -> int:
    """The sign, +1 or -1, of most of the winding numbers that are one of the two; +1 where they tie."""
    return 1 if (turns == 1).sum() >= (turns == -1).sum() else -1


def _over(beads: Array, post: Array) -> int | None:
    """The bead nearest to a post's axis of those that lie over it; None where none does."""
    distances = np.linalg.norm(beads[:, :2] - post, axis=1)
    above = (distances < _TIGHT) & (beads[:, 2] > POST_HEIGHT)
    return int(np.where(above, distances, np.inf).argmin()) if above.any() else None
