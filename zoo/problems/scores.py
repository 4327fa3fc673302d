"""How good outputs are: the numbers that are recorded of networks at every checkpoint."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

METRICS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
"""Numbers recorded of classifiers at every checkpoint, in nats and fractions in [0, 1]."""
REGRESSION_METRICS = ("train_loss", "train_r2", "test_loss", "test_r2")
"""Numbers recorded of regressors: mean squared error, and the part of variance explained."""
SIGNAL_METRICS = ("train_loss", "psnr")
"""Numbers recorded of fitted signals: mean squared error, and peak signal-to-noise ratio in dB."""

_LEAST_ERROR = 1e-20
"""Squared error, over the squared peak, below which a fit is called perfect."""
CLOSE_CALL = 1e-3
"""Margin of the two largest logits, over the largest magnitude, that float32 may not decide."""


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


def score_regression(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Measure how well networks predict values.

    Parameters
    ----------
    outputs
        ``[networks, samples, values]``, float32.
    targets
        ``[samples, values]``, float32.

    Returns
    -------
    tuple[Tensor, Tensor]
        Mean squared error, and the coefficient of determination ``1 - error / variance`` with
        errors and variances summed over values; each ``[networks]``, float32.
    """
    wanted = targets.double()
    error = (outputs.double() - wanted).square().flatten(1).mean(1)
    variance = (wanted - wanted.mean(0)).square().mean()
    return error.to(torch.float32), (1 - error / variance).to(torch.float32)
