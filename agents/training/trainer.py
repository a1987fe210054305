"""Training loop: draw a weighted batch, augment it as a whole, score it, take a step. Resuming is exact to the bit."""

import json
import math
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from multiravens.agents.acting.conditioning import Conditioning
from multiravens.agents.networks.checkpoint import fill, read_tensors, write_tensors
from multiravens.agents.networks.patched import Tasks
from multiravens.agents.networks.transporter import Transporter
from multiravens.agents.training.dataset_metrics import goals_of
from multiravens.agents.training.objectives import Outcome, judge
from multiravens.data.training.augmentation import SE2, Warp, move
from multiravens.data.training.demonstrations import Batch, Demonstrations
from multiravens.data.training.sampling import Sampler
from multiravens.data.training.upload import upload_together
from multiravens.errors import UserError
from multiravens.support.files import write_whole
from multiravens.support.runs import METRICS, STATE, WEIGHTS

Update = Callable[[int, Mapping[str, float]], None]
"""Called with the steps taken and the latest figures."""

FIGURES = ("loss_pick", "loss_place", "accuracy_pick", "accuracy_place", "accuracy_rotation")


LAGS = {"cuda": 2}
"""Steps after which losses are recorded, by kind of device: the host then never waits for the latest."""


class Inputs(NamedTuple):
    """Inputs of a training step for N samples, sent to the device in one copy.

    Attributes:
        frames: (N, 1 + K) of the observation and the goals, as the host has them.
        at: the same on the device.
        samples: (N,) rows of the table of steps.
        tasks: their problems.
        weights: (N,) of their losses.
        motion: (N, 10) that move them, or (N, T, 10) to choose from; None to leave them as they are.
    """

    frames: np.ndarray
    at: Tensor
    samples: Tensor
    tasks: Tasks
    weights: Tensor
    motion: Tensor | None


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


class Trainer:
    """Trains a network on demonstrations.

    Args:
        fabric: devices, precision and data-parallel training.
        network: to be trained, already on the fabric's device.
        conditioning: which goal images it is shown.
        data: demonstrations.
        sampler: draws the batches; with several processes each takes its share of every batch.
        augmentation: moves the samples; None leaves them as they are.
        folder: of the run; only the first process writes to it.
        steps: in all.
        seed: of the augmentation.
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
        network: Transporter,
        conditioning: Conditioning,
        data: Demonstrations,
        sampler: Sampler,
        augmentation: SE2 | None,
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
        self.sampler, self.augmentation, self.folder = sampler, augmentation, folder
        self.steps, self.seed, self.learning_rate, self.warmup = steps, seed, learning_rate, warmup
        self.ema, self.clip = ema, clip
        self.tasks = np.array([network.streams.index(name) for name in data.tasks], np.int64)
        self.checkpoint_every, self.log_every, self.memory_format = checkpoint_every, log_every, memory_format
        optimizer = torch.optim.AdamW(_groups(network, weight_decay), lr=learning_rate, fused=True)
        self.averaged = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        # What is frozen stays as it is, to the bit; it need not even be finite.
        moving = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        self._moving, self._latest = list(moving), [parameter.detach() for parameter in moving.values()]
        self._started = network.streams.summary()
        self.model, self.optimizer = fabric.setup(network, optimizer)
        self.step = 0
        self._recent: list[np.ndarray] = []
        self._lag = LAGS.get(fabric.device.type, 0)
        self._waiting: deque[tuple[np.ndarray, _Sent]] = deque()
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
        figures = json.loads(self._metrics[-1]) if self._metrics else {}
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
        motion = self.motion(drawn.samples)
        size = len(drawn.samples) // self.fabric.world_size
        own = slice(self.fabric.global_rank * size, (self.fabric.global_rank + 1) * size)
        inputs = self.send(drawn.samples[own], drawn.weights[own], None if motion is None else motion[own])
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * self._schedule() * group["lr_scale"]
        self.network.streams.anneal(self.step / self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        outcome, penalty = self.score(inputs)
        self.fabric.backward((inputs.weights * (outcome.pick + outcome.place)).mean() + penalty)
        self.fabric.clip_gradients(self.model, self.optimizer, max_norm=self.clip, error_if_nonfinite=False)
        self.optimizer.step()
        self._average()
        self.step += 1
        self._waiting.append((drawn.samples, _Sent(self._gather(torch.stack(list(outcome)).detach().float()))))
        while len(self._waiting) > self._lag:
            self._record()

    def send(self, samples: np.ndarray, weights: np.ndarray | None = None, motion: np.ndarray | None = None) -> Inputs:
        """Samples on their way to the device.

        Args:
            samples: (N,) rows of the table of steps.
            weights: (N,) of their losses; None for 1.
            motion: (N, ..) as in `Inputs`.
        """
        tasks = self.tasks[self.data.steps.task[samples]]
        frames = self.data.frames(samples, goals_of(self.data, self.conditioning, samples))
        weights = np.ones(len(samples), np.float32) if weights is None else weights
        arrays = {"at": frames, "samples": samples, "tasks": tasks, "weights": weights}
        if motion is not None:
            arrays["motion"] = motion
        sent = upload_together(arrays, self.fabric.device)
        # A compiled network is made for batches of several problems, or of the one there is.
        only = int(self.tasks[0]) if len(self.tasks) == 1 else None
        return Inputs(
            frames, sent["at"], sent["samples"], Tasks(sent["tasks"], only), sent["weights"], sent.get("motion")
        )

    def score(self, inputs: Inputs) -> tuple[Outcome, Tensor]:
        """Losses and accuracies of samples, and what is added to the loss."""
        batch = self.batch(inputs)
        if inputs.motion is not None:
            batch = move(batch, inputs.motion)
        images = batch.images.contiguous(memory_format=self.memory_format)
        scored = self.model(images, batch.pick, batch.place, inputs.tasks)
        return judge(scored, batch, self.data.resolution), scored.penalty

    def batch(self, inputs: Inputs) -> Batch:
        """Samples with the goals that the network is shown, as they are."""
        return self.data.gather(inputs.frames, inputs.samples, inputs.at)

    def motion(self, samples: np.ndarray) -> np.ndarray | None:
        """Draw the motion of a whole batch, as in `Inputs`: every process draws it all and takes its share."""
        if self.augmentation is None:
            return None
        table, shape = self.data.steps, tuple(self.data.color.shape[1:3])
        rng = np.random.default_rng([self.seed, self.step])
        warp: Warp = self.augmentation.draw(table.pick[samples], table.place[samples], shape, rng)
        return warp.motion(shape)

    def _schedule(self) -> float:
        rising = (self.step + 1) / max(self.warmup * self.steps, 1)
        return min(rising, 1.0) * 0.5 * (1 + math.cos(math.pi * self.step / self.steps))

    @torch.no_grad()
    def _average(self) -> None:
        # Early on the average follows closely, or it would long remember the start.
        keep = min(self.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_([self.averaged[name] for name in self._moving], self._latest, 1 - keep)

    def _gather(self, figures: Tensor) -> Tensor:
        """(5, N) figures of the whole batch, from all processes, in the order in which it was drawn."""
        if self.fabric.world_size > 1:
            figures = torch.cat(list(self.fabric.all_gather(figures)), dim=1)
        return figures

    def _record(self) -> None:
        """Take up the figures of the step that has waited longest."""
        samples, sent = self._waiting.popleft()
        figures = sent.arrived()
        if not np.isfinite(figures[:2]).all():
            raise self._diverged("the loss")
        self.sampler.record(samples, figures[:2].sum(0))
        self._recent.append(figures.mean(1))

    def _log(self) -> dict[str, float]:
        while self._waiting and (not self._recent or self.step == self.steps):
            self._record()
        means = np.mean(self._recent, axis=0)
        self._recent = []
        figures = {"step": self.step, "learning_rate": self.learning_rate * self._schedule()}
        figures |= {name: round(float(value), 5) for name, value in zip(FIGURES, means, strict=True)}
        told = {"drawn": self.sampler.summary()}
        if programs := self.network.streams.summary():
            told["programs"] = programs
            if not self._metrics:
                told["started"] = self._started
        self._metrics.append(json.dumps(figures | told))
        return figures

    def _save(self) -> None:
        # Every process looks, so that none waits for another that has stopped. All at once: the host waits once.
        finite = torch.stack([self.averaged[name].isfinite().all() for name in self._moving])
        if not bool(finite.all()):
            raise self._diverged("a weight")
        if not self.fabric.is_global_zero:
            return
        state = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        state |= {f"averaged.{name}": tensor for name, tensor in self.averaged.items()}
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                state[f"optimizer.{key}.{name}"] = value
        if self._waiting:
            state["waiting.samples"] = torch.from_numpy(np.stack([samples for samples, _ in self._waiting]))
            state["waiting.figures"] = torch.from_numpy(np.stack([sent.arrived() for _, sent in self._waiting]))
        state["recent"] = torch.from_numpy(np.array(self._recent, np.float32).reshape(-1, len(FIGURES)))
        state |= {f"sampler.{name}": torch.from_numpy(array) for name, array in self.sampler.state().items()}
        write_tensors(self.folder / WEIGHTS, self.averaged, {"step": self.step})
        write_whole(self.folder / METRICS, "".join(f"{line}\n" for line in self._metrics).encode())
        # Last, so that a run which has its state has all else up to that step too.
        write_tensors(self.folder / STATE, state, {"step": self.step})

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
        averaged = _part(state, "averaged.")
        # In the network's own order: a file lists its tensors in another one.
        self.averaged = {name: torch.empty_like(tensor).copy_(averaged[name]) for name, tensor in self.averaged.items()}
        for name, parameter in self.network.named_parameters():
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
        self._recent = list(state["recent"].numpy())
        waiting = _part(state, "waiting.")
        for samples, figures in zip(waiting.get("samples", ()), waiting.get("figures", ()), strict=True):
            self._waiting.append((samples.numpy(), _Sent(figures)))
        self._metrics = _lines(self.folder / METRICS, self.step)


def _lines(path: Path, step: int) -> list[str]:
    """The lines of metrics up to a step."""
    try:
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if json.loads(line)["step"] <= step]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged: remove it, and its curves begin where the run is taken up") from error


def _groups(network: Transporter, weight_decay: float) -> list[dict[str, Any]]:
    # Convolutions decay; biases, normalisation and programs do not.
    orders = {id(parameter) for parameter in network.streams.mixing_logits()}
    decayed = [parameter for parameter in network.parameters() if parameter.ndim >= 4]
    rest = [parameter for parameter in network.parameters() if parameter.ndim < 4 and id(parameter) not in orders]
    groups = [
        {"params": decayed, "weight_decay": weight_decay, "lr_scale": 1.0},
        {"params": rest, "weight_decay": 0.0, "lr_scale": 1.0},
        {"params": network.streams.mixing_logits(), "weight_decay": 0.0, "lr_scale": network.streams.order_lr_scale},
    ]
    return [group for group in groups if group["params"]]


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
