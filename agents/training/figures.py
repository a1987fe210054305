"""Figures of batches: on their way to the host, and their means from one line of metrics to the next."""

from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from multiravens.agents.networks.network import Terms

LAGS = {"cuda": 2}
"""Steps after which figures are taken up, by kind of device: the host then never waits for the latest."""

Record = Callable[[np.ndarray, Mapping[str, np.ndarray]], None]
"""Called with samples (N,) and their losses (N,) by name."""


class Figures:
    """Takes up the figures of each batch when they have arrived.

    Args:
        record: told the losses of each batch's samples, in the order of the batches.
        device: that figures come from.
    """

    def __init__(self, record: Record, device: torch.device) -> None:
        self.record, self.lag = record, LAGS.get(device.type, 0)
        self._losses: list[str] = []
        self._names: list[str] = []
        self._recent: list[np.ndarray] = []
        self._waiting: deque[tuple[np.ndarray, _Sent]] = deque()

    def add(self, samples: np.ndarray, terms: Terms, gather: Callable[[Tensor], Tensor]) -> None:
        """Send the figures of a batch on their way.

        Args:
            samples: (N,) of the whole batch.
            terms: of this process's share of it.
            gather: makes (F, N) of the whole batch of the shares.
        """
        self._losses = list(terms.losses)
        self._names = [*(f"loss_{name}" for name in terms.losses), *terms.figures]
        figures = torch.stack([*terms.losses.values(), *terms.figures.values()]).detach().float()
        self._waiting.append((samples, _Sent(gather(figures))))
        while len(self._waiting) > self.lag:
            self._take_up()

    def means(self, all_of_them: bool) -> dict[str, float]:
        """Means of what was taken up since the last call, by name.

        Args:
            all_of_them: wait for every batch; otherwise for one at most.
        """
        while self._waiting and (all_of_them or not self._recent):
            self._take_up()
        means = np.mean(self._recent, axis=0)
        self._recent = []
        return {name: round(float(value), 5) for name, value in zip(self._names, means, strict=True)}

    def _take_up(self) -> None:
        samples, sent = self._waiting.popleft()
        figures = sent.arrived()
        self.record(samples, dict(zip(self._losses, figures, strict=False)))
        self._recent.append(figures.mean(1))

    def state(self) -> dict[str, np.ndarray]:
        """Content that a checkpoint must have."""
        state = {"recent": np.array(self._recent or np.zeros((0, 0)), np.float32)}
        if self._waiting:
            state["waiting.samples"] = np.stack([samples for samples, _ in self._waiting])
            state["waiting.figures"] = np.stack([sent.arrived() for _, sent in self._waiting])
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        self._recent = list(state["recent"].numpy())
        waiting = (state.get(f"waiting.{name}", ()) for name in ("samples", "figures"))
        self._waiting = deque((samples.numpy(), _Sent(figures)) for samples, figures in zip(*waiting, strict=True))


class _Sent:
    """Figures on their way to the host."""

    def __init__(self, figures: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._figures = figures
        if figures.is_cuda:
            self._figures = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
            self._figures.copy_(figures, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(figures.device))

    def arrived(self) -> np.ndarray:
        """Wait for them."""
        if self._event is not None:
            self._event.synchronize()
        return np.asarray(self._figures.numpy())
