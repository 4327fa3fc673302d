"""One member in memory: the checked way from Python to the kernels."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_gen.engines.native import table as t
from data_gen.engines.native.kernels import run, score
from data_gen.engines.native.layout import Network
from data_gen.engines.native.tile import address
from zoo.errors import InvalidConfigError

LOSSES = {
    "cross_entropy": t.CROSS_ENTROPY,
    "binary_cross_entropy": t.BINARY_CROSS_ENTROPY,
    "squared_error": t.SQUARED_ERROR,
}
RULES = {
    "sgd": t.SGD,
    "nesterov": t.NESTEROV,
    "adam": t.ADAM,
    "adamw": t.ADAMW,
    "rmsprop": t.RMSPROP,
}
_NO_CLASSES = np.zeros(0, dtype=np.int64)
_NO_TRUTHS = np.zeros((0, 0), dtype=np.float32)
_NO_DRAWS = np.zeros(0, dtype=np.float32)
_NO_RATES = np.zeros(0, dtype=np.float64)
_NO_OUTPUTS = np.zeros((0, 0), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a member learns and how; see :data:`data_gen.hyperparameters.HYPERPARAMETERS`.

    Parameters
    ----------
    loss
        A name of :data:`LOSSES`.
    rule
        A name of :data:`RULES`.
    weight_decay
        ``None`` leaves it out, which differs from 0 in speed alone.
    momentum, clip_norm, temperature
        As in torch; a norm of 0 lets gradients be. Temperature is heeded by ``cross_entropy``.
    dropout
        Probability of all dropout layers; ``None`` takes what each layer says.
    """

    loss: str = "cross_entropy"
    rule: str = "sgd"
    weight_decay: float | None = None
    momentum: float = 0.0
    clip_norm: float = 0.0
    temperature: float = 1.0
    dropout: float | None = None

    def __post_init__(self) -> None:
        for name, known in ((self.loss, LOSSES), (self.rule, RULES)):
            if name not in known:
                raise InvalidConfigError(f"Expected one of {', '.join(known)}, got {name!r}.")
        if not self.temperature > 0 or (self.dropout is not None and not 0 <= self.dropout < 1):
            raise InvalidConfigError(f"Expected temperature > 0, dropout in [0, 1), got {self}.")

    @cached_property
    def settings(self) -> np.ndarray:
        """Settings as kernels take them."""
        values = np.zeros(1, dtype=t.SETTINGS)
        for name in ("momentum", "clip_norm", "temperature"):
            values[name] = getattr(self, name)
        values["weight_decay"] = self.weight_decay or 0.0
        values["has_decay"] = self.weight_decay is not None
        values["dropout"] = -1.0 if self.dropout is None else self.dropout
        return values


_OUTPUTS_ONLY = Task(loss="squared_error")


class Lesson:
    """Samples, their targets and a task, checked against a network.

    Parameters
    ----------
    network
        Its table.
    inputs
        ``[n, ...]``, float32.
    targets
        ``[n]`` int64 classes of ``cross_entropy``, ``[n, outputs]`` float32 otherwise.
    task
        What to minimise, and how.

    Raises
    ------
    InvalidConfigError
        If a shape or type is another.
    """

    def __init__(
        self, network: Network, inputs: np.ndarray, targets: np.ndarray, task: Task
    ) -> None:
        self.network, self.task = network, task
        self.samples = _samples(network, inputs)
        if task.loss == "cross_entropy":
            _expect("targets", targets, (len(inputs),), np.int64)
            self.classes, self.truths = targets, _NO_TRUTHS
        else:
            _expect("targets", targets, (len(inputs), network.num_outputs), np.float32)
            self.classes, self.truths = _NO_CLASSES, targets


class Memory:
    """A member's weights, moments and everything that kernels need to train it.

    One thread at a time may use it; threads with a memory each run side by side.

    Parameters
    ----------
    network
        Its table.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._numbers = np.zeros(network.plan["memory"][0], dtype=np.float32)
        self._steps = 0

    def load(self, weights: np.ndarray) -> None:
        """Begin a member: take its weights ``[P]``, float32; moments and steps become 0."""
        _expect("weights", weights, (len(self.network.places),), np.float32)
        self._numbers[:] = 0
        self._numbers[t.ONE] = 1
        self._numbers[self.network.places] = weights
        self._steps = 0

    @property
    def weights(self) -> np.ndarray:
        """The member's weights, ``[P]`` float32, a copy."""
        vector: np.ndarray = self._numbers[self.network.places]
        return vector

    def train(
        self,
        lesson: Lesson,
        batches: np.ndarray,
        rates: np.ndarray,
        *,
        check_every: int = 1,
        draws: np.ndarray | None = None,
    ) -> tuple[float, int, bool]:
        """Take one step per batch.

        Parameters
        ----------
        lesson
            What is learnt.
        batches
            Samples of each step ``[steps, batch]``, int64.
        rates
            Learning rate of each step ``[steps]``, float64.
        check_every
            After each so many steps, stop if a weight is not finite.
        draws
            Uniform numbers in [0, 1), float32: for each step and dropout layer
            ``[batch, *shape]``, one after the other. ``None`` drops nothing.

        Returns
        -------
        tuple[float, int, bool]
            Mean loss, how many steps were taken, and False if they ended because of a weight.

        Raises
        ------
        InvalidConfigError
            If a shape or type is another.
        IndexError
            If a batch or a target names what does not exist.
        """
        _expect("batches", batches, batches.shape if batches.ndim == 2 else (1, 1), np.int64)
        _expect("rates", rates, (len(batches),), np.float64)
        if draws is not None:
            _expect("draws", draws, (batches.size * self.network.num_draws,), np.float32)
        if not batches.size:
            raise InvalidConfigError(f"Expected batches [steps, batch], got {batches.shape}.")
        if check_every < 1:
            raise InvalidConfigError(f"Expected a positive number of steps, got {check_every}.")
        rule = RULES[lesson.task.rule]
        total, steps, sound = self._run(
            lesson, batches, rule, rates, draws, check_every=check_every
        )
        self._steps += steps
        return total / (steps * batches.shape[1]), steps, sound

    def gradient(self, lesson: Lesson) -> tuple[float, np.ndarray]:
        """Return the mean loss over all samples, nothing dropped, and its gradient ``[P]``."""
        everything = np.arange(len(lesson.samples))[None]
        total, _, _ = self._run(lesson, everything, t.DIFFERENTIATE)
        plan = self.network.plan[0]
        return total / everything.size, self._numbers[
            self.network.places + (plan["gradient"] - plan["weights"])
        ]

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        """Return the network's outputs ``[n, outputs]`` for ``[n, ...]``, nothing dropped."""
        result = np.empty((len(inputs), self.network.num_outputs), dtype=np.float32)
        lesson = Lesson(self.network, inputs, result, _OUTPUTS_ONLY)
        self._run(lesson, np.arange(len(inputs))[None], t.EVALUATE, outputs=result)
        return result

    def judge(
        self, inputs: np.ndarray, targets: np.ndarray, *, margin: float = 0.0
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Measure a classifier, nothing dropped.

        Parameters
        ----------
        margin
            Two logits are too close to call if they differ by at most this times the largest
            magnitude.

        Returns
        -------
        tuple[float, np.ndarray, np.ndarray]
            Mean cross-entropy in nats, the predicted classes ``[n]`` int64, and which of them are
            too close to call ``[n]`` bool.
        """
        _expect("targets", targets, (len(inputs),), np.int64)
        predicted, close = np.empty(len(inputs), np.int64), np.empty(len(inputs), np.bool_)
        loss = score(self.outputs(inputs), targets, margin, predicted, close)
        return float(loss), predicted, close

    def wrong(self, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Say of each sample whether the predicted class is not the true one: ``[n]``, bool."""
        wrong: np.ndarray = self.judge(inputs, targets)[1] != targets
        return wrong

    def _run(
        self,
        lesson: Lesson,
        batches: np.ndarray,
        rule: int,
        rates: np.ndarray = _NO_RATES,
        draws: np.ndarray | None = None,
        outputs: np.ndarray = _NO_OUTPUTS,
        *,
        check_every: int = 1,
    ) -> tuple[float, int, bool]:
        network = self.network
        if lesson.network is not network:
            raise InvalidConfigError("Expected a lesson for the network of this memory.")
        return run(
            address(),
            network.rows,
            network.planes,
            network.plan,
            self._numbers,
            lesson.samples,
            lesson.classes,
            lesson.truths,
            batches,
            LOSSES[lesson.task.loss],
            rule,
            lesson.task.settings,
            rates,
            self._steps,
            check_every,
            _NO_DRAWS if draws is None else draws,
            outputs,
        )


def _samples(network: Network, inputs: np.ndarray) -> np.ndarray:
    _expect("inputs", inputs, inputs.shape, np.float32)
    samples = inputs.reshape(len(inputs), -1) if inputs.size else inputs.reshape(0, 0)
    if not len(samples) or samples.shape[1] != network.num_inputs:
        raise InvalidConfigError(
            f"Expected inputs of {network.num_inputs} numbers per sample, got {inputs.shape}."
        )
    return samples


def _expect(name: str, array: np.ndarray, shape: tuple[int, ...], kind: type) -> None:
    if array.shape != shape or array.dtype != kind or not array.flags.c_contiguous:
        raise InvalidConfigError(
            f"Expected {name} of shape {shape} and type {np.dtype(kind)}, contiguous, got "
            f"{array.shape} and {array.dtype}."
        )
