"""Transfer of a trained agent to a new problem, by a method that a configuration names."""

from collections.abc import Mapping
from typing import Any

from multiravens.agents.acting.load import read_agent
from multiravens.agents.adaptation.method import Known, Method
from multiravens.agents.training.trainer import Update
from multiravens.errors import UserError
from multiravens.options.instantiate import instantiate
from multiravens.support.runs import check_trained_by, find_run


def transfer(config: Mapping[str, Any], update: Update | None = None) -> dict[str, float]:
    """Apply a method to the agent of a run, in a run of its own.

    Args:
        config: of `transfer.yaml`, plain values.
        update: called with the steps taken and the latest figures.

    Returns:
        As `Method.apply`.

    Raises:
        UserError: an option can't be met, the agent has no programs or knows the problem, or what the method raises.
    """
    # Parts that it adds are built with the network, not now.
    method: Method = instantiate({**config["train"], "_recursive_": False})
    if config["run"] is None:
        raise UserError("give the folder of a trained agent's run as run=FOLDER")
    folder = find_run(str(config["run"]))
    trained, tensors = read_agent(folder)
    check_trained_by(trained, folder)
    trained["problems"] = trained["problems"] or ["placing"]  # as it was built
    return method.apply(Known(folder, trained, tensors), config, update)
