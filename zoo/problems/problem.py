"""What a member is trained for: data, targets, and how well weights solve it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InvalidConfigError

METRICS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
"""Numbers recorded of classifiers at every checkpoint, in nats and fractions in [0, 1]."""
SIGNAL_METRICS = ("train_loss", "psnr")
"""Numbers recorded of fitted signals: mean squared error, and peak signal-to-noise ratio in dB."""

_LEAST_ERROR = 1e-20
"""Squared error, over the squared peak, below which a fit is called perfect."""
_TRAIN_PROBE = 10_000
_EVALUATION_BATCH = 2_000
CLOSE_CALL = 1e-3
"""Margin of the two largest logits, over the largest magnitude, that float32 may not decide."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """A problem, in memory: classes that all members tell apart, or a signal for each to fit.

    Parameters
    ----------
    name
        For titles and file names.
    config
        What :func:`zoo.problems.load` takes to make the problem again.
    train_inputs, test_inputs
        ``[n, ...]``, float32. Of signals, the coordinates, and no test part (``[0, ...]``).
    train_targets, test_targets
        ``[n]``, int64 class ids; of signals ``[signals, n, values]``, float32 in [-peak/2, peak/2]
        or [0, peak].
    num_classes
        Number of classes; 0 where members fit signals, by least squares.
    peak
        Range of a signal's values.
    labels
        Per signal ``[signals]``, int64: what it shows. Empty where that is unknown.
    """

    name: str
    config: dict[str, Any]
    train_inputs: Tensor = field(repr=False)
    train_targets: Tensor = field(repr=False)
    test_inputs: Tensor = field(repr=False)
    test_targets: Tensor = field(repr=False)
    num_classes: int
    peak: float = 1.0
    labels: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64), repr=False)

    @property
    def num_signals(self) -> int:
        """Signals, of which each member fits one; 0 where all members have the same targets."""
        return 0 if self.num_classes else len(self.train_targets)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the numbers recorded at every checkpoint; the last one says how good it is."""
        return SIGNAL_METRICS if self.num_signals else METRICS

    def assign(self, members: np.ndarray) -> dict[str, np.ndarray]:
        """Say what is each member's own: ``signal`` (member ``k`` fits ``k`` modulo their number).

        Parameters
        ----------
        members
            Ids ``[n]``.

        Returns
        -------
        dict[str, np.ndarray]
            Columns ``[n]``, int64: ``signal`` and, where known, ``label``; none where all members
            have the same targets.
        """
        if not self.num_signals:
            return {}
        signals = np.asarray(members, dtype=np.int64) % self.num_signals
        own = {"signal": signals}
        return own | ({"label": self.labels.numpy()[signals]} if len(self.labels) else {})

    def targets_of(self, signal: int | None = None) -> Tensor:
        """Return the training targets ``[n, ...]`` of a member that fits ``signal``."""
        return self.train_targets if signal is None else self.train_targets[signal]

    @property
    def train_probe(self) -> tuple[Tensor, Tensor]:
        """The first 10,000 training samples: training metrics are measured on these."""
        return self.train_inputs[:_TRAIN_PROBE], self.train_targets[:_TRAIN_PROBE]

    @cached_property
    def sha256(self) -> str:
        """Hash of all numbers: equal data, equal hash."""
        digest = hashlib.sha256()
        for tensor in (
            self.train_inputs,
            self.train_targets,
            self.test_inputs,
            self.test_targets,
        ):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def score(
    logits: Tensor, targets: Tensor, *, decide: Callable[[int, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Measure loss and accuracy of many networks on one set of samples.

    Predictions that float32 cannot tell apart are decided in float64, so a network's accuracy does
    not depend on which engine, batch size or number of threads computed its logits.

    Parameters
    ----------
    logits
        ``[networks, samples, classes]``, float32.
    targets
        ``[samples]``, int64.
    decide
        Given a network's position and sample indices ``[k]``, its float64 logits ``[k, classes]``.

    Returns
    -------
    tuple[Tensor, Tensor]
        Mean cross-entropy in nats and accuracy, each ``[networks]``, float32.
    """
    loss = torch.stack([functional.cross_entropy(each, targets) for each in logits])
    predictions = logits.argmax(-1)
    best = logits.topk(2, dim=-1).values
    close = best[..., 0] - best[..., 1] <= CLOSE_CALL * logits.abs().amax(-1)
    for network in torch.nonzero(close.any(-1))[:, 0].tolist():
        samples = torch.nonzero(close[network])[:, 0]
        predictions[network, samples] = decide(network, samples).argmax(-1)
    correct = (predictions == targets).sum(-1)
    accuracy = correct.to(torch.float64) / targets.shape[0]
    accuracy[~torch.isfinite(loss)] = torch.nan
    return loss.to(torch.float32), accuracy.to(torch.float32)


def score_signals(outputs: Tensor, targets: Tensor, *, peak: float) -> tuple[Tensor, Tensor]:
    """Measure how well networks fit their signals.

    Parameters
    ----------
    outputs, targets
        ``[networks, samples, values]``, float32.
    peak
        Range of the values.

    Returns
    -------
    tuple[Tensor, Tensor]
        Mean squared error, and ``10 log10(peak**2 / error)`` in dB, at most 200; each
        ``[networks]``, float32.
    """
    error = (outputs.double() - targets.double()).square().flatten(1).mean(1)
    ratio = -10 * torch.log10((error / peak**2).clamp(min=_LEAST_ERROR))
    return error.to(torch.float32), ratio.to(torch.float32)


def evaluate(problem: Problem, module: nn.Module, *, signal: int | None = None) -> dict[str, float]:
    """Measure one network on a problem.

    Parameters
    ----------
    module
        Any module from inputs to logits ``[batch, num_classes]``, or to the signal's values
        ``[batch, values]``; it is evaluated in eval mode.
    signal
        Which signal it fits, where the problem has signals: a member's column ``signal``.

    Returns
    -------
    dict[str, float]
        The problem's ``metrics``.

    Raises
    ------
    InvalidConfigError
        If the problem has signals and none is named, or the other way round.
    """
    if (signal is not None) != bool(problem.num_signals):
        raise InvalidConfigError(
            f"Expected the number of a signal exactly where a problem has signals, got {signal} "
            f"for problem {problem.name!r} with {problem.num_signals}. A member's column 'signal' "
            "says which it fits."
        )
    was_training = module.training
    module.eval()
    try:
        if signal is None:
            return _evaluate_classes(problem, module)
        outputs = _logits(module, problem.train_inputs)
        values = score_signals(outputs[None], problem.targets_of(signal)[None], peak=problem.peak)
        return dict(zip(SIGNAL_METRICS, map(float, values), strict=True))
    finally:
        module.train(was_training)


def _evaluate_classes(problem: Problem, module: nn.Module) -> dict[str, float]:
    measured: dict[str, float] = {}
    parts = {
        "train": problem.train_probe,
        "test": (problem.test_inputs, problem.test_targets),
    }
    for part, (inputs, targets) in parts.items():
        logits = torch.cat(
            [_logits(module, batch) for batch in torch.split(inputs, _EVALUATION_BATCH)]
        )
        loss, accuracy = score(logits[None], targets, decide=decide_with(lambda _: module, inputs))
        measured[f"{part}_loss"] = float(loss)
        measured[f"{part}_accuracy"] = float(accuracy)
    return measured


def decide_with(
    network: Callable[[int], nn.Module], inputs: Tensor
) -> Callable[[int, Tensor], Tensor]:
    """Make the ``decide`` of :func:`score` from plain modules.

    Parameters
    ----------
    network
        The module at a position, float32, in eval mode; it comes back in float32.
    inputs
        All samples, ``[n, ...]``.
    """

    def decide(position: int, samples: Tensor) -> Tensor:
        module = network(position).double()
        try:
            return _logits(module, inputs[samples].double())
        finally:
            module.float()

    return decide


@torch.no_grad()
def _logits(module: nn.Module, inputs: Tensor) -> Tensor:
    output: Tensor = module(inputs)
    return output
