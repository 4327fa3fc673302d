"""Plain fully connected heads."""

from collections.abc import Sequence

from torch import nn


def perceptron(in_features: int, hidden: Sequence[int], out_features: int) -> nn.Sequential:
    """Build linear layers of widths ``hidden`` with ReLU between them and a linear end.

    >>> [tuple(p.shape) for p in perceptron(3, (5,), 2).parameters()]
    [(5, 3), (5,), (2, 5), (2,)]
    """
    widths = [in_features, *hidden]
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], out_features))
