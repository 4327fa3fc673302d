"""Engine ``loop``: one plain module at a time, the reference for all others."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from data_gen.engines.losses import training_loss
from data_gen.engines.members import (
    MASK,
    BlockResult,
    initial_vector,
    noisy_targets,
    overrides,
    samples_of,
    settings_of,
    signals_of,
)
from data_gen.engines.schedules import rate_factors
from data_gen.recipe import Recipe
from data_gen.streams import Purpose, stream
from zoo.errors import InvalidConfigError
from zoo.networks import Dropout, build, to_dict
from zoo.problems import Problem, evaluate
from zoo.space import WeightSpace


@dataclass(frozen=True, kw_only=True)
class LoopEngine:
    """Trains members one after the other with ``torch.nn`` and ``torch.optim``, on the CPU.

    Parameters
    ----------
    device
        ``cpu``; the reference runs nowhere else.
    reason
        Why this engine was chosen, where it was not named.
    """

    name: ClassVar[str] = "loop"
    device: str = "cpu"
    reason: str = ""

    def __post_init__(self) -> None:
        if self.device != "cpu":
            raise InvalidConfigError(
                f"Engine 'loop' is the reference and runs on the cpu alone, got {self.device!r}; "
                "use engine 'stacked'."
            )

    def members_per_call(self, recipe: Recipe) -> int:
        """Return 1: members share nothing here."""
        return 1

    def train(
        self,
        recipe: Recipe,
        problem: Problem,
        space: WeightSpace,
        members: np.ndarray,
        hyperparameters: Mapping[str, np.ndarray],
        *,
        progress: Callable[[float], None] | None = None,
    ) -> BlockResult:
        """Train members; see :class:`data_gen.engines.Engine`."""
        settings = settings_of(recipe, hyperparameters, len(members))
        settings["seed"] = hyperparameters["seed"]
        signals = signals_of(problem, hyperparameters)
        result = BlockResult.empty(
            len(members), len(recipe.checkpoints), space.num_parameters, metrics=problem.metrics
        )
        for position in range(len(members)):
            member = _Member(recipe, problem, space, settings, signals[position], position)
            for epoch in member.epochs():
                if not member.record(epoch, result):
                    break
                if progress is not None and epoch > 0:
                    progress(1.0)
        return result


class _Member:
    """One member's module, data and optimiser."""

    def __init__(
        self,
        recipe: Recipe,
        problem: Problem,
        space: WeightSpace,
        settings: Mapping[str, np.ndarray],
        signal: int | None,
        position: int,
    ) -> None:
        self._own = own = {name: values[position] for name, values in settings.items()}
        self._recipe, self._problem, self._space = recipe, problem, space
        self._signal, self._position, self._seed = signal, position, int(own["seed"])
        self._module = build(to_dict(recipe.network) | overrides(settings, recipe, position))
        vector = torch.from_numpy(initial_vector(recipe, space, settings, position))
        self._module.load_state_dict(space.state_dict(vector), strict=False)
        self._samples = samples_of(problem, settings, position)
        self._targets = problem.targets_of(signal)
        if own["label_noise"] > 0:
            noisy = noisy_targets(
                self._targets.numpy(), problem.num_classes, self._seed, own["label_noise"]
            )
            self._targets = torch.from_numpy(noisy)
        self._masks = _masks(space, own.get(MASK))
        self._optimizer = _optimizer(self._module, own)
        self._schedule = self._make_schedule()

    def _make_schedule(self) -> torch.optim.lr_scheduler.LambdaLR:
        """Multiply the learning rate step by step; the last entry is never used."""
        steps = self._recipe.epochs * self._samples.steps
        factors = rate_factors(
            str(self._own["schedule"]),
            np.arange(steps),
            steps,
            warmup=float(self._own["warmup"]),
        )
        entries = [*factors.tolist(), 0.0]
        return torch.optim.lr_scheduler.LambdaLR(self._optimizer, entries.__getitem__)

    def epochs(self) -> Iterator[int]:
        """Train epoch by epoch; yields the number of epochs done, 0 first."""
        yield 0
        for epoch in range(self._recipe.epochs):
            self._set_dropout(stream(self._seed, Purpose.DROPOUT, epoch))
            self._module.train()
            for batch in torch.from_numpy(self._samples.epoch(epoch)):
                self._step(batch)
            yield epoch + 1

    def _step(self, batch: Tensor) -> None:
        self._optimizer.zero_grad()
        torch.autograd.backward(self._loss(batch))
        for name, parameter in self._module.named_parameters():
            if name in self._masks and parameter.grad is not None:
                parameter.grad.mul_(self._masks[name])
        if self._own["clip_norm"] > 0:
            nn.utils.clip_grad_norm_(self._module.parameters(), float(self._own["clip_norm"]))
        self._optimizer.step()
        self._schedule.step()

    def _loss(self, batch: Tensor) -> Tensor:
        problem, module = self._problem, self._module
        inputs, targets = problem.train_inputs[batch], self._targets[batch]
        if problem.equation is not None:
            signals = torch.tensor([self._signal])
            return problem.equation.loss(
                lambda points: module(points[0])[None], inputs[None], targets[None], signals
            )[0]
        temperature = float(self._own["temperature"])
        return training_loss(problem, module(inputs), targets, temperature=temperature)

    def record(self, epoch: int, result: BlockResult) -> bool:
        """Keep a checkpoint where the recipe wants one; False once the member has diverged."""
        vector = self._space.flatten(self._module.state_dict())
        if not torch.isfinite(vector).all():
            result.mark_diverged(self._position, epoch)
            return False
        if epoch not in self._recipe.checkpoints:
            return True
        metrics = evaluate(self._problem, self._module, signal=self._signal)
        return result.record(self._position, epoch, self._recipe, vector.numpy(), metrics)

    def _set_dropout(self, rng: np.random.Generator) -> None:
        def draw(shape: torch.Size) -> Tensor:
            return torch.from_numpy(rng.random(shape, dtype=np.float32))

        for module in self._module.modules():
            # A member without dropout draws nothing, whatever engine trains it.
            if isinstance(module, Dropout):
                module.draw = draw if module.p > 0 else None


def _masks(space: WeightSpace, mask: np.ndarray | None) -> dict[str, Tensor]:
    """Return which entries may change, by parameter; none where all may."""
    return {} if mask is None else space.state_dict(torch.from_numpy(mask))


def _optimizer(module: nn.Module, own: Mapping[str, object]) -> torch.optim.Optimizer:
    rate, decay = float(own["learning_rate"]), float(own["weight_decay"])  # type: ignore[arg-type]
    parameters = module.parameters()
    if own["optimizer"] in ("sgd", "nesterov"):
        momentum = float(own["momentum"])  # type: ignore[arg-type]
        # Without momentum both are the same, and torch wants the plain one named.
        nesterov = own["optimizer"] == "nesterov" and momentum > 0
        return torch.optim.SGD(
            parameters, rate, momentum=momentum, weight_decay=decay, nesterov=nesterov
        )
    if own["optimizer"] == "adam":
        return torch.optim.Adam(parameters, rate, weight_decay=decay)
    if own["optimizer"] == "adamw":
        return torch.optim.AdamW(parameters, rate, weight_decay=decay)
    return torch.optim.RMSprop(parameters, rate, weight_decay=decay)
