"""One member's life: initialisation, epochs, checkpoints."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from data_gen.engines.members import BlockResult, initial_vector, noisy_targets, samples_of
from data_gen.engines.native.layout import Network
from data_gen.engines.native.network import Lesson, Memory, Task
from data_gen.engines.schedules import rate_factors
from data_gen.recipe import Recipe
from data_gen.streams import Purpose, stream
from zoo.networks import build
from zoo.problems import Problem, measure
from zoo.problems.scores import CLOSE_CALL
from zoo.space import WeightSpace

_STEPS_AT_ONCE, _DRAWS_AT_ONCE = 256, 2**20
"""Steps of a call of the kernel, and numbers for dropout (4 MiB), roughly: many enough that calls
cost nothing, few enough that progress shows and memory does not."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the members of one call share; sequences and arrays have one entry per member.

    ``networks`` are the tables of their networks, ``configs`` these networks as JSON.
    """

    recipe: Recipe
    problem: Problem
    space: WeightSpace
    settings: Mapping[str, np.ndarray]
    signals: Sequence[int | None]
    networks: Sequence[Network]
    configs: Sequence[str]
    result: BlockResult
    progress: Callable[[float], None]


class Worker:
    """Trains members one after the other; each thread has one."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._memories: dict[int, Memory] = {}
        self._modules: dict[str, tuple[nn.Module, list[nn.Parameter]]] = {}

    def train(self, position: int) -> None:
        """Train a member to its end, or until it diverges."""
        member, recipe = _Member(self, position), self.job.recipe
        epoch, sound = 0, member.record(0)
        while sound and epoch < recipe.epochs:
            before = epoch
            epoch, sound = member.train(epoch)
            self.job.progress(float(epoch - before))
            sound = sound and member.record(epoch)
        self.job.progress(float(recipe.epochs - epoch))

    def memory(self, network: Network) -> Memory:
        """Return the memory for a network's members."""
        if id(network) not in self._memories:
            self._memories[id(network)] = Memory(network)
        return self._memories[id(network)]

    @torch.no_grad()
    def decide(self, config: str, vector: np.ndarray, inputs: Tensor) -> np.ndarray:
        """Predict classes in float64, with a plain module: where float32 cannot tell."""
        tensors = self.job.space.tensors
        if config not in self._modules:
            module = build(json.loads(config)).double().eval()
            parameters = dict(module.named_parameters())
            self._modules[config] = module, [parameters[tensor.name] for tensor in tensors]
        module, own = self._modules[config]
        values = torch.split(torch.from_numpy(vector), [tensor.numel for tensor in tensors])
        for parameter, value in zip(own, values, strict=True):
            parameter.copy_(value.view_as(parameter))
        predicted: np.ndarray = module(inputs.double()).argmax(-1).numpy()
        return predicted


class _Member:
    """A member in its thread's memory."""

    def __init__(self, worker: Worker, position: int) -> None:
        self._worker, self._job, self._position = worker, worker.job, position
        job = worker.job
        own = {name: values[position] for name, values in job.settings.items()}
        self._samples = samples_of(job.problem, job.settings, position)
        self._network = job.networks[position]
        self._memory = worker.memory(self._network)
        self._memory.load(initial_vector(job.recipe, job.space, job.settings, position))
        self._rates = float(own["learning_rate"]) * rate_factors(
            str(own["schedule"]),
            np.arange(job.recipe.epochs * self._samples.steps),
            job.recipe.epochs * self._samples.steps,
            warmup=float(own["warmup"]),
        )
        self._targets = job.problem.targets_of(job.signals[position]).numpy()
        seen = self._targets
        if own["label_noise"] > 0:
            classes, noise = job.problem.num_classes, float(own["label_noise"])
            seen = noisy_targets(seen, classes, self._samples.seed, noise)
        self._drops = float(own.get("dropout", 0.0)) > 0 and self._network.num_draws > 0
        inputs = job.problem.train_inputs.numpy()
        self._lesson = Lesson(self._network, inputs, seen, _task(own, job))

    def train(self, epoch: int) -> tuple[int, bool]:
        """Train one epoch or several, to a checkpoint at most.

        Returns the epochs that are done then, and False if the member diverged in the last one.
        """
        steps = self._samples.steps
        last = epoch + 1
        if not self._drops:
            stop = next(each for each in self._job.recipe.checkpoints if each > epoch)
            last = min(stop, epoch + max(1, _STEPS_AT_ONCE // steps))
        batches = np.concatenate([self._samples.epoch(each) for each in range(epoch, last)])
        rates = self._rates[epoch * steps : last * steps]
        if self._drops:
            taken, sound = steps, self._train_dropping(epoch, batches, rates)
        else:
            _, taken, sound = self._memory.train(self._lesson, batches, rates, check_every=steps)
        epoch += taken // steps
        if not sound:
            self._job.result.mark_diverged(self._position, epoch)
        return epoch, sound

    def _train_dropping(self, epoch: int, batches: np.ndarray, rates: np.ndarray) -> bool:
        """Train one epoch, in parts of as many steps as there is room for random numbers."""
        rng = stream(self._samples.seed, Purpose.DROPOUT, epoch)
        needed = batches.shape[1] * self._network.num_draws
        at_once, sound = max(1, _DRAWS_AT_ONCE // needed), True
        for start in range(0, len(batches), at_once):
            some = slice(start, start + at_once)
            count = len(batches[some])
            if sound:
                draws = rng.random(count * needed, dtype=np.float32)
                _, _, sound = self._memory.train(
                    self._lesson, batches[some], rates[some], check_every=count, draws=draws
                )
        return sound

    def record(self, epoch: int) -> bool:
        """Keep a checkpoint where the recipe wants one; False if the member has diverged."""
        job, vector = self._job, self._memory.weights
        if epoch not in job.recipe.checkpoints:
            return True
        metrics = self._classify(vector) if job.problem.num_classes else self._predict()
        return job.result.record(self._position, epoch, job.recipe, vector, metrics)

    def _predict(self) -> dict[str, float]:
        problem = self._job.problem
        values = measure(
            problem,
            lambda inputs: torch.from_numpy(self._memory.outputs(inputs.numpy()))[None],
            signals=[self._job.signals[self._position]],
            exact=_unused,
            field=_unused,
        )
        return {name: float(value) for name, value in values.items()}

    def _classify(self, vector: np.ndarray) -> dict[str, float]:
        problem = self._job.problem
        parts = problem.parts
        judged = {
            part: self._memory.judge(inputs.numpy(), targets.numpy(), margin=CLOSE_CALL)
            for part, (inputs, targets) in parts.items()
        }
        self._settle(vector, [(parts[part][0], *judged[part][1:]) for part in parts])
        metrics = {}
        for part, (loss, predicted, _) in judged.items():
            right = float((predicted == parts[part][1].numpy()).mean())
            metrics[f"{part}_loss"] = loss
            metrics[f"{part}_accuracy"] = right if np.isfinite(loss) else np.nan
        return metrics

    def _settle(
        self, vector: np.ndarray, parts: list[tuple[Tensor, np.ndarray, np.ndarray]]
    ) -> None:
        """Decide what is too close to call: inputs, predictions and marks of some samples each."""
        unclear = torch.cat([inputs[torch.from_numpy(close)] for inputs, _, close in parts])
        if not len(unclear):
            return
        classes = self._worker.decide(self._job.configs[self._position], vector, unclear)
        for _, predicted, close in parts:
            count = int(close.sum())
            predicted[close], classes = classes[:count], classes[count:]


def _unused(*_: object) -> Tensor:
    raise AssertionError("values need neither classes decided nor derivatives")


def _task(own: Mapping[str, np.ndarray], job: Job) -> Task:
    """Say what a member minimises, and by which rule; its settings are single values."""
    decays = "weight_decay" in job.recipe.hyperparameters
    return Task(
        loss="cross_entropy" if job.problem.num_classes else "squared_error",
        rule=str(own["optimizer"]),
        weight_decay=float(own["weight_decay"]) if decays else None,
        momentum=float(own["momentum"]),
        clip_norm=float(own["clip_norm"]),
        temperature=float(own["temperature"]),
        dropout=float(own.get("dropout", 0.0)),  # type: ignore[arg-type]
    )
