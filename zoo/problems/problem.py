"""What a member is trained for: data, targets, and how well weights solve it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

METRICS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
"""Numbers recorded at every checkpoint, in nats and fractions in [0, 1]."""

_TRAIN_PROBE = 10_000
_EVALUATION_BATCH = 2_000
_CLOSE_CALL = 1e-3
"""Margin of the two largest logits, over the largest magnitude, that float32 may not decide."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """A classification problem, in memory.

    Parameters
    ----------
    name
        For titles and file names.
    config
        What :func:`zoo.problems.load` takes to make the problem again.
    train_inputs, test_inputs
        ``[n, ...]``, float32.
    train_targets, test_targets
        ``[n]``, int64 class ids.
    num_classes
        Number of classes.
    """

    name: str
    config: dict[str, Any]
    train_inputs: Tensor = field(repr=False)
    train_targets: Tensor = field(repr=False)
    test_inputs: Tensor = field(repr=False)
    test_targets: Tensor = field(repr=False)
    num_classes: int

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
    close = best[..., 0] - best[..., 1] <= _CLOSE_CALL * logits.abs().amax(-1)
    for network in torch.nonzero(close.any(-1))[:, 0].tolist():
        samples = torch.nonzero(close[network])[:, 0]
        predictions[network, samples] = decide(network, samples).argmax(-1)
    correct = (predictions == targets).sum(-1)
    accuracy = correct.to(torch.float64) / targets.shape[0]
    accuracy[~torch.isfinite(loss)] = torch.nan
    return loss.to(torch.float32), accuracy.to(torch.float32)


def evaluate(problem: Problem, module: nn.Module) -> dict[str, float]:
    """Measure one network on a problem.

    Parameters
    ----------
    module
        Any module from inputs to logits ``[batch, num_classes]``; it is evaluated in eval mode.

    Returns
    -------
    dict[str, float]
        The :data:`METRICS`.
    """
    was_training = module.training
    module.eval()
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
    module.train(was_training)
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
