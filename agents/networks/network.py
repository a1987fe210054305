"""Interface of a network to training and acting, and the whole of an agent in one class.

`Transporter` is a network; what compares it with demonstrations is an objective, and what acts by it a policy, each a
class of its own. A `Learner` is all three.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from multiravens.actions import PICK_PLACE, ActionSpec
from multiravens.agents.networks.patched import Tasks
from multiravens.data.training.demonstrations import Batch

CHANNELS = 4
"""Of one image: red, green, blue and height."""


class NetworkSpec(NamedTuple):
    """Problems and sizes that a network is made for.

    Attributes:
        goals: K, goal images that it is shown beside the observation.
        shape: H and W of the images.
        problems: names of those that it is trained on.
        config: every option of the run, plain values.
        action: the fields of the demonstrations' actions.
    """

    goals: int
    shape: tuple[int, int]
    problems: list[str]
    config: Mapping[str, Any]
    action: ActionSpec = PICK_PLACE

    @property
    def channels(self) -> int:
        """Channels of the images, 4 (1 + K)."""
        return CHANNELS * (1 + self.goals)


class Terms(NamedTuple):
    """Losses and figures of N samples.

    Attributes:
        losses: (N,) each, by name; their sum is minimised.
        figures: (N,) each, by name, for curves and tables; nothing is learned from them.
        penalty: () added to the mean loss; None for none.
        output: of the network for these samples, for further losses to look at.
    """

    losses: Mapping[str, Tensor]
    figures: Mapping[str, Tensor] = {}
    penalty: Tensor | None = None
    output: Any = None


class Choices(NamedTuple):
    """Actions in N images, in the units of `Batch`.

    Attributes:
        pick: (N, 2) row and column [pixels].
        place: (N, 2) row and column [pixels].
        turn: (N,) of what is held, from +x (columns) to +y (rows) [rad].
    """

    pick: Tensor
    place: Tensor
    turn: Tensor


class Network(nn.Module):
    """A network that is trained; all of its methods have a default.

    Args:
        problems: that it is made for; plain networks treat all alike.

    Attributes:
        order_lr_scale: share of the learning rate that is for `mixing_logits`.
        primitive: name of the primitive whose actions it learns; None for whichever the demonstrations are of.
        action: the fields of the actions that it is made for; whoever builds it says so.
    """

    order_lr_scale = 1.0
    primitive: str | None = PICK_PLACE.name
    action: ActionSpec = PICK_PLACE

    def __init__(self, problems: Sequence[str] = ()) -> None:
        super().__init__()
        self.problems = list(problems)

    def index(self, problem: str) -> int:
        """A problem as a number, for `forward`."""
        return self.problems.index(problem) if problem in self.problems else 0

    def anneal(self, share: float) -> None:
        """Be told which share of the training is done."""

    def settle(self) -> None:
        """Be told that training is done."""

    def summary(self) -> dict[str, Any]:
        """Shares in which parts of the network run, for a run's metrics: of each problem, of each stream, (L, K)."""
        return {}

    def mixing_logits(self) -> list[nn.Parameter]:
        """Parameters that say which part of the network runs when."""
        return []

    def own(self, problem: str) -> list[nn.Module]:
        """Modules whose parameters no other problem uses."""
        return []


class Learner(Network, ABC):
    """An agent in one class: what it learns from samples, and how it acts.

    It is made as `Class(spec, **options of agent.network)`. Parameters and buffers are what a run saves.

    Args:
        spec: what it is made for.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec.problems)

    @abstractmethod
    def forward(self, batch: Batch, tasks: Tasks) -> Terms:
        """Take a training step's samples: what is to be minimised, or was taken up into buffers, and figures."""

    @abstractmethod
    def act(self, images: Tensor, tasks: Tasks) -> Choices | Mapping[str, Tensor]:
        """Choose an action in each of N images: of another primitive than picking and placing each field (N, W).

        Args:
            images: (N, 4 (1 + K), H, W) as in `Batch`.
            tasks: their problems.
        """
