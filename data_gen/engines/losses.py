"""What members minimise: cross-entropy of classes, mean squared error of values."""

import torch
from torch import Tensor
from torch.nn import functional

from zoo.problems import Problem


def training_loss(
    problem: Problem, outputs: Tensor, targets: Tensor, *, temperature: float
) -> Tensor:
    """Compute one member's loss on a batch, a mean over its samples (and values).

    Parameters
    ----------
    outputs
        Logits ``[batch, classes]``, or values ``[batch, values]``.
    targets
        Class ids ``[batch]``, or values as ``outputs``.
    temperature
        What logits are divided by; values have none.
    """
    if not problem.num_classes:
        return functional.mse_loss(outputs, targets)
    return functional.cross_entropy(outputs / temperature, targets)


def loss_slope(
    problem: Problem, outputs: Tensor, targets: Tensor, *, temperature: Tensor | None
) -> Tensor:
    """Compute the gradient of every member's :func:`training_loss` with respect to its outputs.

    Parameters
    ----------
    outputs
        ``[N, batch, classes]`` or ``[N, batch, values]``.
    targets
        ``[N, batch]`` or ``[N, batch, values]``.
    temperature
        Per member ``[N, 1, 1]``; ``None`` where it is 1 for all.
    """
    batch = outputs.shape[1]
    if not problem.num_classes:
        return (outputs - targets).mul_(2 / (batch * outputs.shape[2]))
    # Samples come last in memory.
    scaled = outputs.transpose(1, 2)
    if temperature is not None:
        scaled = scaled / temperature
    slope = torch.softmax(scaled, 1)
    minus_one = slope.new_full((1, 1, 1), -1).expand(len(slope), 1, batch)
    slope.scatter_add_(1, targets[:, None], minus_one)
    slope.div_(batch)
    return (slope if temperature is None else slope.div_(temperature)).transpose(1, 2)
