"""Hardening of a trained agent: of every step of its programs the block with the largest share, and no other."""

from collections.abc import Mapping
from typing import Any

from multiravens.agents.adaptation.method import Known, Method
from multiravens.agents.adaptation.start import build_transporter
from multiravens.agents.networks.checkpoint import fill, write_tensors
from multiravens.agents.networks.modular.streams import ModularStreams
from multiravens.agents.training.trainer import Update
from multiravens.errors import UserError
from multiravens.support.files import locked, user_path
from multiravens.support.runs import CONFIG, WEIGHTS, write_config


class Harden(Method):
    """Makes every known program one-hot, in a run of its own; nothing is trained."""

    def apply(self, known: Known, config: Mapping[str, Any], update: Update | None) -> dict[str, float]:
        """Write the run.

        Raises:
            UserError: the agent has no programs, or the new run's folder holds a run.
        """
        folder = user_path(config["run_out"] or f"{str(config['run']).rstrip('/')}-hard")
        network, _ = build_transporter(known.config)
        fill(network, known.tensors, known.folder / WEIGHTS)
        if not isinstance(network.streams, ModularStreams):
            raise UserError(f"{known.folder} has no programs: train it with backbone=modular")
        for choice in network.streams.choices():
            choice.discretise()
        with locked(folder, "run"):
            if (folder / CONFIG).exists():
                raise UserError(f"{folder} holds a run already: give another out=FOLDER")
            write_tensors(folder / WEIGHTS, network.state_dict(), {"step": 0})
            told = {"run": str(known.folder), "train": self.name}
            write_config(folder, {**known.config, "run": str(folder), "transfer": told})
        return {"trained": 0, "parameters": sum(parameter.numel() for parameter in network.parameters())}
