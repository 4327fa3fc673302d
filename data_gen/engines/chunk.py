"""One stack of members on its way from initialisation to the last epoch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_gen.engines.evaluation import Evaluator
from data_gen.engines.execution import StackedProgram, sections_of
from data_gen.engines.graph import Program
from data_gen.engines.losses import loss_slope
from data_gen.engines.members import MASK, BlockResult, Samples, initial_vector, noisy_targets
from data_gen.engines.operators import Stack
from data_gen.engines.optim import FlatOptimizer, clip
from data_gen.engines.replay import Replay
from data_gen.engines.schedules import rate_factors
from data_gen.recipe import Recipe
from data_gen.streams import Purpose, stream
from zoo.problems import Problem
from zoo.space import TensorSpec, WeightSpace

ROW_MULTIPLE = 32
"""Rows of the weight buffer are padded to this many numbers: no update ends inside a vector."""
MIN_SLOTS = 2
"""Kernels treat a stack of one as a special case; a single member gets a ghost beside it."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the chunks of one call share; arrays and lists have one entry per member of the call."""

    recipe: Recipe
    problem: Problem
    space: WeightSpace
    settings: Mapping[str, np.ndarray]
    samples: list[Samples]
    signals: Sequence[int | None]
    result: BlockResult
    programs: Callable[[str], tuple[Program, Program]]
    progress: Callable[[float], None]
    device: torch.device

    def activation(self, position: int) -> str:
        """Return a member's activation, empty for a network without that field."""
        return str(self.settings["activation"][position]) if "activation" in self.settings else ""


class Chunk:
    """Members of one batch size that step together, each through its own sequence of batches.

    Slots hold members; ghosts are copies of the first slot that fill the stack up to a size.
    Members leave when they are done or diverge.

    Parameters
    ----------
    job
        Shared by all chunks.
    positions
        The members' positions in the call.
    fixed_size
        Number of slots to keep at all times; ``None`` lets the stack shrink.
    """

    def __init__(self, job: Job, positions: list[int], *, fixed_size: int | None) -> None:
        self._job, self._fixed_size = job, fixed_size
        order = sorted(
            positions, key=lambda k: (job.settings["optimizer"][k], job.activation(k), k)
        )
        self._trainable = [t for t in job.space.tensors if t.kind == "parameter"]
        self._buffers = [t for t in job.space.tensors if t.kind == "buffer"]
        self._width = -(-job.space.num_trainable // ROW_MULTIPLE) * ROW_MULTIPLE
        self._inputs = job.problem.train_inputs.to(job.device)
        self._targets = job.problem.train_targets.to(job.device)
        self._evaluator = Evaluator(
            job.recipe, job.problem, job.space, job.programs, device=job.device
        )
        self._fill(self._with_ghosts(order))

    def run(self) -> None:
        """Train every member to its end and record its checkpoints."""
        self._record(np.arange(self._num_members))
        while self._num_members:
            self._begin_epochs()
            left = self._num_steps - self._step_in_epoch
            count = int(left[: self._num_members].min())
            self._train(count)
            self._end_epochs()

    # ---- slots --------------------------------------------------------------------------------
    def _with_ghosts(self, members: list[int]) -> np.ndarray:
        size = self._fixed_size or max(len(members), MIN_SLOTS)
        self._num_members = len(members)
        return np.array(members + [members[0]] * (size - len(members)), dtype=np.int64)

    def _fill(self, slots: np.ndarray) -> None:
        """Make the stack at epoch 0."""
        job, settings = self._job, self._job.settings
        self._slots = slots
        vectors = {
            k: initial_vector(job.recipe, job.space, settings, k)
            for k in dict.fromkeys(slots.tolist())
        }
        whole = torch.from_numpy(np.stack([vectors[k] for k in slots.tolist()])).to(job.device)
        self._weights = torch.zeros(len(slots), self._width, device=job.device)
        self._weights[:, : job.space.num_trainable] = whole[:, : job.space.num_trainable]
        self._states = whole[:, job.space.num_trainable :].clone()
        self._optimizer = FlatOptimizer(
            [str(rule) for rule in settings["optimizer"][slots]],
            settings["learning_rate"][slots].astype(np.float64),
            settings["weight_decay"][slots].astype(np.float64),
            settings["momentum"][slots].astype(np.float64),
            width=self._width,
            has_decay="weight_decay" in job.recipe.hyperparameters,
            device=job.device,
        )
        self._epoch = np.zeros(len(slots), dtype=np.int64)
        self._step_in_epoch = np.zeros(len(slots), dtype=np.int64)
        self._num_steps = np.array([job.samples[k].steps for k in slots], dtype=np.int64)
        self._batches = [np.zeros((0, 0), dtype=np.int64)] * len(slots)
        self._draws: list[np.random.Generator | None] = [None] * len(slots)
        self._own_targets = self._targets_by_slot()
        self._mask_of_weights = self._masks_by_slot()
        self._prepare()

    def _targets_by_slot(self) -> Tensor | None:
        """Return every slot's targets ``[N, n, ...]``, or ``None`` where all see the same."""
        problem = self._job.problem
        if problem.num_signals:
            signals = [self._job.signals[k] for k in self._slots.tolist()]
            return torch.stack([problem.targets_of(each) for each in signals]).to(self._job.device)
        noise = self._job.settings["label_noise"][self._slots]
        if not (noise > 0).any():
            return None
        targets, classes = problem.train_targets.numpy(), problem.num_classes
        rows = [
            noisy_targets(targets, classes, self._job.samples[k].seed, float(part))
            for k, part in zip(self._slots, noise, strict=True)
        ]
        return torch.from_numpy(np.stack(rows)).to(self._job.device)

    def _masks_by_slot(self) -> Tensor | None:
        """Return which weights may change ``[N, width]``, or ``None`` where all may."""
        if MASK not in self._job.settings:
            return None
        masks = np.stack(list(self._job.settings[MASK][self._slots]))
        found = torch.ones_like(self._weights)
        trainable = self._job.space.num_trainable
        found[:, :trainable] = torch.from_numpy(masks[:, :trainable]).to(found)
        return found

    def _keep(self, rows: np.ndarray) -> None:
        """Let the other members go."""
        rows = np.concatenate([rows, np.zeros(0, dtype=np.int64)])
        self._num_members = len(rows)
        size = self._fixed_size or max(len(rows), MIN_SLOTS)
        if not len(rows) or size == len(self._slots) == len(rows):
            return
        rows = np.concatenate([rows, np.full(size - len(rows), rows[0])])
        index = torch.from_numpy(rows).to(self._job.device)
        self._slots, self._epoch = self._slots[rows], self._epoch[rows]
        self._step_in_epoch, self._num_steps = self._step_in_epoch[rows], self._num_steps[rows]
        self._batches = [self._batches[row] for row in rows]
        self._draws = [self._draws[row] for row in rows]
        self._weights, self._states = self._weights[index], self._states[index]
        if self._own_targets is not None:
            self._own_targets = self._own_targets[index]
        if self._mask_of_weights is not None:
            self._mask_of_weights = self._mask_of_weights[index]
        self._optimizer.select(rows)
        self._prepare()

    def _prepare(self) -> None:
        """Make what depends on the slots alone: program, views of the weights, dropout scales."""
        job = self._job
        self._whole: Tensor | None = None
        self._taken: tuple[Tensor, Tensor] | None = None
        self._replay: Replay | None = None
        kinds = sections_of([job.activation(k) for k in self._slots.tolist()])
        self._program = StackedProgram([(job.programs(kind)[0], count) for kind, count in kinds])
        self._gradients = torch.zeros_like(self._weights)
        self._leaves = {
            name: view.requires_grad_()
            for name, view in self._views(self._weights, self._trainable)
        }
        self._dropout = job.settings.get("dropout", np.zeros(len(job.samples)))[self._slots]
        self._dropout_rate = _column(self._dropout, job.device)
        self._dropout_scale = _column(1 / (1 - self._dropout), job.device)
        self._rows = torch.arange(len(self._slots), device=job.device)[:, None]
        temperature = self._varied("temperature")
        self._temperature = None if temperature is None else temperature[:, None, None]
        self._limits = self._varied("clip_norm")

    def _varied(self, name: str) -> Tensor | None:
        """Return a hyper-parameter by slot ``[N]``; ``None`` if the recipe leaves it alone."""
        if name not in self._job.recipe.hyperparameters:
            return None
        return _column(self._job.settings[name][self._slots], self._job.device)

    def _views(self, rows: Tensor, tensors: list[TensorSpec]) -> list[tuple[str, Tensor]]:
        start, views = 0, []
        for tensor in tensors:
            part = rows[:, start : start + tensor.numel].detach()
            views.append((tensor.name, part.view(len(rows), *tensor.shape)))
            start += tensor.numel
        return views

    # ---- epochs -------------------------------------------------------------------------------
    def _begin_epochs(self) -> None:
        for slot in np.flatnonzero(self._step_in_epoch == 0):
            if slot >= self._num_members:
                self._batches[slot] = self._batches[0]
                continue
            samples, epoch = self._job.samples[self._slots[slot]], int(self._epoch[slot])
            if epoch == 0 or not samples.is_whole:
                self._batches[slot] = samples.epoch(epoch)
            if self._dropout[slot] > 0:
                self._draws[slot] = stream(samples.seed, Purpose.DROPOUT, epoch)

    def _end_epochs(self) -> None:
        ended = self._step_in_epoch == self._num_steps
        self._epoch[ended] += 1
        self._step_in_epoch[ended] = 0
        rows = np.flatnonzero(ended[: self._num_members])
        if not len(rows):
            return
        self._drop_diverged(rows)

    def _drop_diverged(self, rows: np.ndarray) -> None:
        finite = torch.isfinite(self._weights[torch.from_numpy(rows)]).all(1).cpu().numpy()
        for row in rows[~finite]:
            self._job.result.mark_diverged(int(self._slots[row]), int(self._epoch[row]))
        gone = set(rows[~finite].tolist()) | set(self._record(rows[finite]))
        self._job.progress(float(len(rows)))
        done = set(rows[self._epoch[rows] == self._job.recipe.epochs].tolist())
        lost = sum(self._job.recipe.epochs - int(self._epoch[row]) for row in gone - done)
        if lost:
            self._job.progress(float(lost))
        kept = [row for row in range(self._num_members) if row not in gone | done]
        self._keep(np.array(kept, dtype=np.int64))

    def _record(self, rows: np.ndarray) -> list[int]:
        """Keep checkpoints of members that have one now; returns the rows that have diverged."""
        recipe, diverged = self._job.recipe, []
        rows = np.array([row for row in rows if self._epoch[row] in recipe.checkpoints], dtype=int)
        if not len(rows):
            return []
        vectors = self._vectors(rows)
        kinds = [self._job.activation(k) for k in self._slots[rows].tolist()]
        signals = [self._job.signals[k] for k in self._slots[rows].tolist()]
        metrics = self._evaluator.measure(
            vectors, kinds, signals=signals, fixed_size=self._fixed_size
        )
        plain = vectors.cpu().numpy()
        for place, row in enumerate(rows):
            own = {name: float(values[place]) for name, values in metrics.items()}
            position, epoch = int(self._slots[row]), int(self._epoch[row])
            if not self._job.result.record(position, epoch, recipe, plain[place], own):
                diverged.append(int(row))
        return diverged

    def _vectors(self, rows: np.ndarray) -> Tensor:
        index = torch.from_numpy(rows).to(self._job.device)
        trainable = self._weights[index, : self._job.space.num_trainable]
        return torch.cat([trainable, self._states[index]], dim=1)

    # ---- steps --------------------------------------------------------------------------------
    def _train(self, count: int) -> None:
        """Let every member take its next ``count`` steps."""
        factors, samples = self._rate_factors(count), self._next_samples(count)
        for step in range(count):
            self._optimizer.advance(None if factors is None else factors[:, step])
            self._step(samples[:, step])
        self._step_in_epoch += count

    def _next_samples(self, count: int) -> Tensor:
        """Return the indices ``[N, count, batch]`` of the next steps' samples."""
        if self._whole is not None:
            return self._whole
        chosen = np.stack(
            [
                batches[start : start + count]
                for batches, start in zip(self._batches, self._step_in_epoch, strict=True)
            ]
        )
        samples = torch.from_numpy(chosen).to(self._job.device)
        if all(self._job.samples[k].is_whole for k in self._slots):
            self._whole, self._taken = samples, self._take(samples[:, 0])
        return samples

    def _take(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Gather samples ``[N, batch]``: inputs and targets, ``[N, batch, ...]`` each."""
        if self._taken is not None:
            return self._taken
        samples = samples.contiguous()
        inputs = self._inputs.index_select(0, samples.flatten())
        return inputs.view(*samples.shape, *self._inputs.shape[1:]), self._take_targets(samples)

    def _rate_factors(self, count: int) -> np.ndarray | None:
        """Return what learning rates are multiplied by in the next steps ``[N, count]``."""
        job, settings = self._job, self._job.settings
        if not {"schedule", "warmup"} & set(job.recipe.hyperparameters):
            return None
        done = self._epoch * self._num_steps + self._step_in_epoch
        rows = [
            rate_factors(
                str(settings["schedule"][k]),
                np.arange(start, start + count),
                job.recipe.epochs * job.samples[k].steps,
                warmup=float(settings["warmup"][k]),
            )
            for k, start in zip(self._slots, done, strict=True)
        ]
        return np.stack(rows)

    def _step(self, samples: Tensor) -> None:
        """Take one step with the samples ``[N, batch]``; on a GPU from a recording if possible."""
        if self._job.device.type != "cuda" or (self._dropout > 0).any():
            self._change(samples)
            return
        if self._replay is None:
            state = [self._weights, self._states, *self._optimizer.state]
            self._replay = Replay(self._change, samples, state)
        self._replay(samples)

    def _change(self, samples: Tensor) -> None:
        """Change weights, optimiser and buffers by one step."""
        inputs, targets = self._take(samples)
        dropout = self._mask if (self._dropout > 0).any() else None
        tensors = self._leaves | dict(self._views(self._states, self._buffers))
        stack = Stack(inputs.shape[1], dropout)
        gradients, updates = self._differentiate(tensors, inputs, targets, stack)
        with torch.no_grad():
            self._gather_gradients(gradients)
            if self._mask_of_weights is not None:
                # No rule moves a weight that is 0 and has never had a gradient.
                self._gradients.mul_(self._mask_of_weights)
            if self._limits is not None:
                clip(self._gradients, self._limits)
            self._optimizer.update(self._weights, self._gradients)
            self._update_states(updates)

    def _differentiate(
        self, tensors: dict[str, Tensor], inputs: Tensor, targets: Tensor, stack: Stack
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Return the gradients of every member's loss, and the buffers' new values."""
        problem, leaves = self._job.problem, list(self._leaves.values())
        if problem.equation is None:
            outputs, updates = self._program(tensors, inputs, stack)
            slope = loss_slope(problem, outputs.detach(), targets, temperature=self._temperature)
            return torch.autograd.grad(outputs, leaves, slope), updates

        def field(points: Tensor) -> Tensor:
            return self._program(tensors, points, Stack(points.shape[1], stack.dropout))[0]

        signals = torch.tensor([self._job.signals[k] for k in self._slots.tolist()])
        loss = problem.equation.loss(field, inputs, targets, signals.to(inputs.device))
        return torch.autograd.grad(loss.sum(), leaves), {}

    def _take_targets(self, indices: Tensor) -> Tensor:
        if self._own_targets is None:
            taken = self._targets.index_select(0, indices.flatten())
            return taken.view(*indices.shape, *taken.shape[1:])
        if self._own_targets.ndim == 2:
            return self._own_targets.gather(1, indices)
        return self._own_targets[self._rows, indices]

    def _gather_gradients(self, gradients: tuple[Tensor, ...]) -> None:
        parts = [gradient.flatten(1) for gradient in gradients]
        torch.cat(parts, dim=1, out=self._gradients[:, : self._job.space.num_trainable])

    def _update_states(self, updates: Mapping[str, Tensor]) -> None:
        for name, view in self._views(self._states, self._buffers):
            if name in updates:
                view.copy_(updates[name].view(view.shape))

    def _mask(self, shape: torch.Size) -> Tensor:
        """Draw what activations ``[N, ...]`` are multiplied with: 0, or ``1 / (1 - p)``."""
        uniform = np.ones(shape, dtype=np.float32)
        for slot, rng in enumerate(self._draws[: self._num_members]):
            if rng is not None:
                rng.random(dtype=np.float32, out=uniform[slot])
        drawn = torch.from_numpy(uniform).to(self._job.device)
        column = (-1, *[1] * (len(shape) - 1))
        return (drawn >= self._dropout_rate.view(column)) * self._dropout_scale.view(column)


def _column(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device)
