"""Loss and accuracy on recorded demonstrations, without augmentation and without a simulator."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multiravens.agents.acting.conditioning import Conditioning
from multiravens.agents.acting.policy import BATCH
from multiravens.agents.networks.patched import Tasks
from multiravens.agents.networks.transporter import Transporter
from multiravens.agents.training.objectives import judge
from multiravens.data.training.demonstrations import Batch, Demonstrations

Measure = Callable[[Batch, Tasks], Tensor]
"""Takes a batch and its problems, and gives a tensor (.., N)."""


def shown(data: Demonstrations, conditioning: Conditioning, samples: NDArray[np.int64]) -> Batch:
    """Samples (N,), rows of the table of steps, with the goals that a network is shown."""
    return data.batch(samples, goals_of(data, conditioning, samples))


def goals_of(data: Demonstrations, conditioning: Conditioning, samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sub-goals (N, K) that a network is shown with samples (N,), rows of the table of steps."""
    table = data.steps
    return conditioning.choose(table.pointer[samples], table.step[samples], data.counts[table.episode[samples]])


@torch.inference_mode()
def in_batches(
    measure: Measure,
    network: Transporter,
    conditioning: Conditioning,
    data: Demonstrations,
    samples: NDArray[np.int64],
    program: str | None = None,
) -> Tensor:
    """Measure samples, few at a time.

    Args:
        measure: of a batch.
        network: whose problems' indices it is given.
        conditioning: which goal images are shown.
        data: of one device with the network.
        samples: (N,) rows of the table of steps.
        program: the problem whose programs all samples run through; None for each its own.

    Returns:
        (.., N).
    """
    problems = data.tasks if program is None else [program] * len(data.tasks)
    tasks = np.array([network.index(problem) for problem in problems])
    parts = [
        measure(shown(data, conditioning, own), Tasks.of(tasks[data.steps.task[own]], data.device))
        for own in np.array_split(samples, -(-len(samples) // BATCH))
    ]
    return torch.cat(parts, dim=-1)


def judging(network: Transporter) -> Measure:
    """Measures losses and accuracies, in the order of `Outcome`."""

    def measure(batch: Batch, tasks: Tasks) -> Tensor:
        return torch.stack(judge(network(batch.images, batch.pick, batch.place, tasks), batch))

    return measure
