"""References beside an agent: they tell how much of a return comes from looking, and how much from the goals."""

from collections.abc import Sequence

from multiravens.agents.acting.agent import Action, Agent, Random, View


class Replay(Agent):
    """The expert's recorded actions in the episode that they are of: what is reached without looking again."""

    name = "replay"
    follows_plan = True

    def act(self, views: Sequence[View]) -> list[Action]:
        """Not possible from what a camera sees.

        Raises:
            TypeError: always; the expert's run has the actions.
        """
        raise TypeError("the actions are the expert's of this episode: take them from its run")


class Blind(Agent):
    """Somebody's skill with the goals of another episode of the problem: what is reached without knowing the goals.

    Args:
        agent: who is shown the other episode's goal images; None for the expert, whose actions in the other episode are
            carried out in this one.
    """

    name = "blind"
    other_goals = True

    def __init__(self, agent: Agent | None = None) -> None:
        self.agent, self.follows_plan = agent, agent is None
        if agent is not None:
            self.pointer, self.resolution, self.acting = agent.pointer, agent.resolution, agent.acting

    def act(self, views: Sequence[View]) -> list[Action]:
        """Choose as the agent does for these views, whose goals are another episode's.

        Raises:
            TypeError: it's the expert, whose run has the actions.
        """
        if self.agent is None:
            raise TypeError("the actions are the expert's of another episode: take them from its run")
        return self.agent.act(views)

    def beside(self, measured: Agent) -> Agent:
        """The measured agent with other goals; the expert with them beside one that looks at no goals."""
        sees_none = measured.asks_environment or measured.follows_plan or isinstance(measured, Random)
        return self if sees_none else Blind(measured)
