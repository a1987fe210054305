"""The start of a new problem's programs: from the known problem that does best on it, or from one that is named."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multiravens.agents.acting.conditioning import Conditioning
from multiravens.agents.acting.load import build
from multiravens.agents.networks.modular.parts.order import STARTS
from multiravens.agents.networks.modular.streams import ModularStreams
from multiravens.agents.networks.patched import Tasks
from multiravens.agents.networks.transporter import Transporter
from multiravens.agents.training.dataset_metrics import Measure, in_batches, judging
from multiravens.agents.training.self_training import choose, entropies
from multiravens.data.training.demonstrations import Batch, Demonstrations, load
from multiravens.errors import UserError

NEAREST = "nearest"
_PROBED = 64  # samples that tell which known problem is nearest


def build_transporter(config: Mapping[str, Any]) -> tuple[Transporter, Conditioning]:
    """Make the network of a run and its conditioning.

    Raises:
        UserError: the run's agent is no Transporter.
    """
    network, conditioning = build(config)
    if not isinstance(network, Transporter):
        raise UserError(f"{config['agent']['name']} is no Transporter, which alone is taught more: train it anew")
    return network, conditioning


def find_start(config: Mapping[str, Any], trained: Mapping[str, Any], before: Transporter, problem: str) -> str | None:
    """The known problem whose programs the new ones start from; None where they start as drawn.

    Args:
        config: of `transfer.yaml`.
        trained: the configuration of the known run.
        before: the known network.
        problem: the new one.
    """
    start, known = str(config["start"]), before.streams.problems
    if not isinstance(before.streams, ModularStreams) or start in STARTS:
        return None
    if start != NEAREST:
        return start
    if config["labels"] == "none" and problem in known:
        return problem
    episodes, _ = load(config["data"], [problem], config["demos"], trained["resolution"], config["split"])
    data = Demonstrations(episodes, trained["resolution"])
    rng = np.random.default_rng(config["seed"])
    samples = rng.permutation(len(data.steps.task))[:_PROBED]
    _, conditioning = build_transporter(trained)
    before.streams.settle()
    measure = _unsureness(before) if config["labels"] == "none" else judging(before)
    # The first two rows of either are of picks and of places.
    away = [in_batches(measure, before, conditioning, data, samples, name)[:2].sum(0).mean() for name in known]
    return known[int(torch.stack(away).argmin())]


def _unsureness(network: Transporter) -> Measure:
    """Make the measure of the network's uncertainty: the entropies of its own actions."""

    def measure(batch: Batch, tasks: Tasks) -> Tensor:
        chosen, _ = choose(network, batch, tasks)
        return torch.stack(entropies(network(chosen.images, chosen.pick, chosen.place, tasks)))

    return measure


@torch.no_grad()
def take_over(network: Transporter, before: Transporter, problem: str, started: str | None) -> None:
    """Copy what is shared, what known problems have of their own, and the new one's from the problem it starts from.

    Args:
        network: the new one.
        before: the known one.
        problem: the new one.
        started: known problem that the new one starts from; None leaves it as drawn.
    """
    parts = [part for name in network.streams.problems for part in network.own(name)]
    own = {id(each) for part in parts for each in (*part.parameters(), *part.buffers())}
    known = before.state_dict()
    for name, tensor in network.state_dict(keep_vars=True).items():
        if id(tensor) not in own:
            tensor.copy_(known[name])
    sources = {name: name for name in network.streams.problems if name != problem} | {problem: started}
    for name, source in sources.items():
        for part, of in zip(network.own(name), before.own(source), strict=True) if source else ():
            known = of.state_dict()
            for key, tensor in part.state_dict().items():
                if key in known:  # one with a further part may start from one without
                    tensor.copy_(known[key])
