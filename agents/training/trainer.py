"""Training loop: draw a weighted batch, augment it as a whole, score it, take a step. Resuming is exact to the bit."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from multiravens.agents.acting.conditioning import Conditioning
from multiravens.agents.networks.checkpoint import fill, read_tensors, write_tensors
from multiravens.agents.networks.network import Network, Terms
from multiravens.agents.networks.patched import Tasks
from multiravens.agents.training.dataset_metrics import goals_of
from multiravens.agents.training.figures import Figures
from multiravens.agents.training.losses import Losses, joined
from multiravens.agents.training.objectives import Objective
from multiravens.data.training.augmentation import Augmentation
from multiravens.data.training.demonstrations import Batch, Demonstrations
from multiravens.data.training.sampling import Sampler
from multiravens.data.training.upload import upload_together
from multiravens.errors import UserError
from multiravens.support.files import write_whole
from multiravens.support.runs import METRICS, STATE, WEIGHTS

Update = Callable[[int, Mapping[str, float]], None]
"""Called with the steps taken and the latest figures."""

_DRAWN = "drawn."
"""Prefix of what augmentations drew, among all that is sent."""


class Inputs(NamedTuple):
    """Inputs of a training step for N samples, sent to the device in one copy.

    Attributes:
        frames: (N, 1 + K) of the observation and the goals, as the host has them.
        at: the same on the device.
        samples: (N,) rows of the table of steps.
        tasks: their problems.
        weights: (N,) of their losses.
        drawn: (N, ..) what each augmentation drew for them, by name.
    """

    frames: np.ndarray
    at: Tensor
    samples: Tensor
    tasks: Tasks
    weights: Tensor
    drawn: Mapping[str, Tensor]


class Trainer:
    """Trains a network on demonstrations.

    Args:
        fabric: devices, precision and data-parallel training.
        network: to be trained, already on the fabric's device.
        conditioning: which goal images it is shown.
        data: demonstrations.
        sampler: draws the batches; with several processes each takes its share of every batch.
        objective: what is minimised.
        losses: that are added to it.
        augmentations: of the samples, by name, one after the other.
        folder: of the run; only the first process writes to it.
        steps: in all.
        seed: of the augmentations.
        learning_rate: highest, after the warm-up.
        weight_decay: of AdamW, on weights but not on biases and normalisation.
        warmup: share of the steps in which the learning rate rises; then it falls as a cosine.
        ema: share of the averaged weights that stays in a step; those weights are what is saved for acting.
        clip: the gradient's norm is cut to this.
        checkpoint_every: steps.
        log_every: steps.
        memory_format: of pictures and weights.
    """

    def __init__(
        self,
        fabric: Fabric,
        network: Network,
        conditioning: Conditioning,
        data: Demonstrations,
        sampler: Sampler,
        objective: Objective,
        losses: Losses,
        augmentations: Mapping[str, Augmentation],
        folder: Path,
        *,
        steps: int,
        seed: int,
        learning_rate: float,
        weight_decay: float,
        warmup: float,
        ema: float,
        clip: float,
        checkpoint_every: int,
        log_every: int,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        self.fabric, self.network, self.conditioning, self.data = fabric, network, conditioning, data
        self.sampler, self.objective, self.losses, self.folder = sampler, objective, losses, folder
        self.augmentations = augmentations if objective.augments else {}
        self.steps, self.seed, self.learning_rate, self.warmup = steps, seed, learning_rate, warmup
        self.ema, self.clip = ema, clip
        self.tasks = np.array([network.index(name) for name in data.tasks], np.int64)
        self.checkpoint_every, self.log_every, self.memory_format = checkpoint_every, log_every, memory_format
        self.averaged = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        # What is frozen stays as it is, to the bit; it need not even be finite.
        moving = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        self._moving, self._latest = list(moving), [parameter.detach() for parameter in moving.values()]
        self._started = network.summary()
        groups = _groups(network, losses, weight_decay)
        self.optimizer: Any = None  # a network that only takes samples up has no parameters
        if groups:
            self.optimizer = fabric.setup_optimizers(torch.optim.AdamW(groups, lr=learning_rate, fused=True))
        self.model, self.heads = (_set_up(fabric, module) for module in (network, losses))
        self.step = 0
        self._figures = Figures(self._record, fabric.device)
        self._metrics: list[str] = []

    def run(self, update: Update | None = None, out_of_time: Callable[[], bool] = lambda: False) -> dict[str, float]:
        """Take the steps that are left, from the last checkpoint on.

        Args:
            update: called with the steps taken and the latest figures.
            out_of_time: asked after every step; where it says so the run is saved as it is, to be taken up again.

        Returns:
            The latest figures; `step` is how many steps were taken.

        Raises:
            UserError: a checkpoint does not fit, or the disk refuses.
        """
        self._resume()
        if self.step and not (self.folder / WEIGHTS).exists():
            self._save()  # somebody has removed them; the state has them too
        gathered = self.fabric.all_gather(torch.tensor(self.step, device=self.fabric.device))
        steps = torch.as_tensor(gathered).unique().tolist()
        if len(steps) > 1:
            raise UserError(f"the processes see {self.folder} at steps {steps}: give a folder that they share")
        last = json.loads(self._metrics[-1]) if self._metrics else {}
        figures = {name: value for name, value in last.items() if isinstance(value, int | float)}
        while self.step < self.steps:
            self.take_step()
            if self.step % self.log_every == 0 or self.step == self.steps:
                figures = self._log()
                if update:
                    update(self.step, figures)
            stopping = self.step < self.steps and self._agreed(out_of_time)
            if self.step % self.checkpoint_every == 0 or self.step == self.steps or stopping:
                self._save()
            if stopping:
                break
        return {**figures, "step": self.step}

    def _agreed(self, out_of_time: Callable[[], bool]) -> bool:
        """Tell whether it is time to stop: of several processes the first decides, seldom, since all wait for it."""
        if self.fabric.world_size == 1:
            return out_of_time()
        return self.step % self.log_every == 0 and bool(self.fabric.broadcast(out_of_time()))

    def take_step(self) -> None:
        """One batch, one step."""
        drawn = self.sampler.draw(self.step)
        augmenting = self.draw(len(drawn.samples))
        size = len(drawn.samples) // self.fabric.world_size
        own = slice(self.fabric.global_rank * size, (self.fabric.global_rank + 1) * size)
        numbers = {name: array[own] for name, array in augmenting.items()}
        inputs = self.send(drawn.samples[own], drawn.weights[own], numbers)
        self.network.anneal(self.step / self.steps)
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)
        terms = self.score(inputs)
        if self.optimizer is not None:
            self._learn(self.total(terms, inputs.weights))
        self._average()
        self.step += 1
        self._figures.add(drawn.samples, terms, self._gather)

    def _learn(self, loss: Tensor) -> None:
        """Take one step down a loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * self._schedule() * group["lr_scale"]
        self.fabric.backward(loss)
        self.fabric.clip_gradients(self.model, self.optimizer, max_norm=self.clip, error_if_nonfinite=False)
        self.optimizer.step()

    def send(
        self, samples: np.ndarray, weights: np.ndarray | None = None, drawn: Mapping[str, np.ndarray] | None = None
    ) -> Inputs:
        """Samples on their way to the device.

        Args:
            samples: (N,) rows of the table of steps.
            weights: (N,) of their losses; None for 1.
            drawn: what augmentations drew, as in `Inputs`.
        """
        tasks = self.tasks[self.data.steps.task[samples]]
        frames = self.data.frames(samples, goals_of(self.data, self.conditioning, samples))
        weights = np.ones(len(samples), np.float32) if weights is None else weights
        arrays = {"at": frames, "samples": samples, "tasks": tasks, "weights": weights}
        arrays |= {f"{_DRAWN}{name}": array for name, array in (drawn or {}).items()}
        sent = upload_together(arrays, self.fabric.device)
        # A compiled network is made for batches of several problems, or of the one there is.
        only = int(self.tasks[0]) if len(self.tasks) == 1 else None
        tasks = Tasks(sent["tasks"], only)
        return Inputs(frames, sent["at"], sent["samples"], tasks, sent["weights"], _part(sent, _DRAWN))

    def score(self, inputs: Inputs) -> Terms:
        """Losses and figures of samples."""
        augment = partial(self.augment, drawn=inputs.drawn)
        batch = self.objective.prepare(self.network, self.batch(inputs), inputs.tasks, augment)
        batch = batch._replace(images=batch.images.contiguous(memory_format=self.memory_format))
        terms = self.objective(self.model, batch, inputs.tasks)
        more = self.heads(terms.output, batch) if self.losses.names else Terms({})
        return joined(terms, more, len(inputs.samples))

    def total(self, terms: Terms, weights: Tensor) -> Tensor:
        """Loss (): the mean of the samples' losses, by their weights (N,), and the penalty.

        Raises:
            UserError: there is no loss.
        """
        if not terms.losses:
            raise UserError("the agent has parameters and gives no loss: give one, or keep what it learns in buffers")
        parts = [
            value if self._weight(name) == 1 else self._weight(name) * value for name, value in terms.losses.items()
        ]
        loss = (weights * reduce(add, parts)).mean()
        return loss if terms.penalty is None else loss + terms.penalty

    def _weight(self, name: str) -> float:
        """A loss's weight; those of the agent itself have 1."""
        losses = self.losses.each()
        return losses[name].weight if name in losses else 1.0

    def augment(self, batch: Batch, drawn: Mapping[str, Tensor]) -> Batch:
        """Samples changed by what augmentations drew for them."""
        for name, numbers in drawn.items():
            batch = self.augmentations[name].apply(batch, numbers)
        return batch

    def batch(self, inputs: Inputs) -> Batch:
        """Samples with the goals that the network is shown, as they are."""
        return self.data.gather(inputs.frames, inputs.samples, inputs.at)

    def draw(self, count: int) -> dict[str, np.ndarray]:
        """Draws of the augmentations for a whole batch, by name: every process draws it all and takes its share."""
        rows, columns = self.data.color.shape[1:3]
        return {
            name: augmentation.draw(count, (rows, columns), np.random.default_rng([self.seed, self.step, index]))
            for index, (name, augmentation) in enumerate(self.augmentations.items())
        }

    def _schedule(self) -> float:
        rising = (self.step + 1) / max(self.warmup * self.steps, 1)
        return min(rising, 1.0) * 0.5 * (1 + math.cos(math.pi * self.step / self.steps))

    @torch.no_grad()
    def _average(self) -> None:
        # Early on the average follows closely, or it would long remember the start.
        keep = min(self.ema, (1 + self.step) / (10 + self.step))
        if self._moving:
            torch._foreach_lerp_([self.averaged[name] for name in self._moving], self._latest, 1 - keep)

    def _gather(self, figures: Tensor) -> Tensor:
        """(F, N) figures of the whole batch, from all processes, in the order in which it was drawn."""
        if self.fabric.world_size > 1:
            figures = torch.cat(list(self.fabric.all_gather(figures)), dim=1)
        return figures

    def _record(self, samples: np.ndarray, losses: Mapping[str, np.ndarray]) -> None:
        """Have the sampler know the losses (N,) of samples (N,)."""
        if not all(np.isfinite(values).all() for values in losses.values()):
            raise self._diverged("the loss")
        weighted = [np.float32(self._weight(name)) * values for name, values in losses.items()]
        self.sampler.record(samples, sum(weighted, np.zeros(len(samples), np.float32)))

    def _log(self) -> dict[str, float]:
        figures = {"step": self.step, "learning_rate": self.learning_rate * self._schedule()}
        figures |= self._figures.means(all_of_them=self.step == self.steps)
        told = {"drawn": self.sampler.summary()}
        if programs := self.network.summary():
            told["programs"] = programs
            if not self._metrics:
                told["started"] = self._started
        self._metrics.append(json.dumps(figures | told))
        return figures

    def _save(self) -> None:
        # Every process looks, so that none waits for another that has stopped. All at once: the host waits once.
        finite = [self.averaged[name].isfinite().all() for name in self._moving]
        if finite and not bool(torch.stack(finite).all()):
            raise self._diverged("a weight")
        if not self.fabric.is_global_zero:
            return
        for name, buffer in self.network.named_buffers():
            if name in self.averaged:
                self.averaged[name].copy_(buffer)
        state = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        state |= {f"averaged.{name}": tensor for name, tensor in self.averaged.items()}
        state |= {f"losses.{name}": tensor for name, tensor in self.losses.state_dict().items()}
        for name, parameter in self._parameters():
            for key, value in self.optimizer.state[parameter].items():
                state[f"optimizer.{key}.{name}"] = value
        state |= {name: torch.from_numpy(array) for name, array in self._figures.state().items()}
        state |= {f"sampler.{name}": torch.from_numpy(array) for name, array in self.sampler.state().items()}
        write_tensors(self.folder / WEIGHTS, self.averaged, {"step": self.step})
        write_whole(self.folder / METRICS, "".join(f"{line}\n" for line in self._metrics).encode())
        # Last, so that a run which has its state has all else up to that step too.
        write_tensors(self.folder / STATE, state, {"step": self.step})

    def _parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Names and parameters of all that is optimised."""
        yield from self.network.named_parameters()
        yield from self.losses.named_parameters(prefix="losses")

    def _diverged(self, what: str) -> UserError:
        saved = (self.folder / STATE).exists()
        kept = f" in another folder; {self.folder} is as at its last checkpoint" if saved else "; nothing was saved"
        return UserError(
            f"{what} is no number any more at step {self.step}: lower learning_rate={self.learning_rate}{kept}"
        )

    def _resume(self) -> None:
        path = self.folder / STATE
        if not path.exists():
            return
        state, about = read_tensors(path)
        fill(self.network, _part(state, "network."), path)
        fill(self.losses, _part(state, "losses."), path)
        averaged = _part(state, "averaged.")
        # In the network's own order: a file lists its tensors in another one.
        self.averaged = {name: torch.empty_like(tensor).copy_(averaged[name]) for name, tensor in self.averaged.items()}
        for name, parameter in self._parameters():
            if f"optimizer.step.{name}" not in state:
                continue  # it has had no gradient yet
            # Laid out in memory as the parameter is: the fused optimizer goes through both in the order of memory.
            moments = {
                key: torch.empty_like(parameter).copy_(state[f"optimizer.{key}.{name}"])
                for key in ("exp_avg", "exp_avg_sq")
            }
            step = state[f"optimizer.step.{name}"].to(parameter.device)
            self.optimizer.state[parameter] = {"step": step, **moments}
        self.sampler.restore({name: tensor.numpy() for name, tensor in _part(state, "sampler.").items()})
        self.step = int(about["step"])
        self._figures.restore(state)
        self._metrics = _lines(self.folder / METRICS, self.step)


def _lines(path: Path, step: int) -> list[str]:
    """The lines of metrics up to a step."""
    try:
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if json.loads(line)["step"] <= step]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged: remove it, and its curves begin where the run is taken up") from error


def _set_up(fabric: Fabric, module: torch.nn.Module) -> Any:
    # Nothing of a module without parameters has to be shared among processes, which refuse it.
    return fabric.setup_module(module) if any(each.requires_grad for each in module.parameters()) else module


def _groups(network: Network, losses: Losses, weight_decay: float) -> list[dict[str, Any]]:
    # Convolutions decay; biases, normalisation and programs do not.
    orders = {id(parameter) for parameter in network.mixing_logits()}
    plain = [each for each in (*network.parameters(), *losses.parameters()) if id(each) not in orders]
    groups = [
        {"params": [each for each in plain if each.ndim >= 4], "weight_decay": weight_decay, "lr_scale": 1.0},
        {"params": [each for each in plain if each.ndim < 4], "weight_decay": 0.0, "lr_scale": 1.0},
        {"params": network.mixing_logits(), "weight_decay": 0.0, "lr_scale": network.order_lr_scale},
    ]
    return [group for group in groups if group["params"]]


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
