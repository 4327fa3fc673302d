"""What classifiers predict, how sure they are, and how rightly so."""

import numpy as np
import torch
from torch import Tensor

from zoo.errors import InvalidConfigError
from zoo.measures.networks import Networks
from zoo.problems import in_float64
from zoo.problems.scores import CLOSE_CALL

NO_CLASS = -1
"""Predicted class of a network whose logits are not finite."""


def predicted_classes(
    networks: Networks, inputs: Tensor, *, logits: Tensor | None = None
) -> np.ndarray:
    """Predict classes; what float32 cannot tell apart is decided in float64.

    The rule is that of :func:`zoo.problems.score`, so shares of right predictions equal recorded
    accuracies exactly.

    Parameters
    ----------
    inputs
        ``[samples, ...]``.
    logits
        ``[n, samples, classes]``, if they are known.

    Returns
    -------
    np.ndarray
        ``[n, samples]``, int64; :data:`NO_CLASS` where logits are not finite.
    """
    logits = networks.outputs(inputs) if logits is None else logits
    classes = logits.argmax(-1)
    best = logits.topk(2, dim=-1).values
    broken = ~torch.isfinite(logits).all(-1)
    close = best[..., 0] - best[..., 1] <= CLOSE_CALL * logits.abs().amax(-1)
    close &= ~broken
    for member in torch.nonzero(close.any(-1))[:, 0].tolist():
        chosen = torch.nonzero(close[member])[:, 0]
        with torch.no_grad():
            precise = networks.call(networks.vectors[member].double(), in_float64(inputs[chosen]))
        classes[member, chosen] = precise.argmax(-1)
    classes[broken] = NO_CLASS
    return _numpy(classes)


def confidence(logits: Tensor) -> np.ndarray:
    """Compute the mean probability of the predicted class, ``[n]``, of logits ``[n, samples, c]``.

    Here and below, numbers are float64, and NaN for networks some of whose logits are not finite.
    """
    return _numpy(_probabilities(logits).amax(-1).mean(-1))


def entropy(logits: Tensor) -> np.ndarray:
    """Compute the mean entropy of predicted distributions, in nats, ``[n]``."""
    return _numpy(torch.special.entr(_probabilities(logits)).sum(-1).mean(-1))


def calibration_error(logits: Tensor, targets: Tensor, *, num_bins: int = 15) -> np.ndarray:
    """Compute the expected calibration error [1]_, a fraction in [0, 1].

    Samples fall into bins of equal width by their confidence, bin ``b`` holding
    ``(b / num_bins, (b + 1) / num_bins]``; the error is the mean over samples of the difference
    between the accuracy and the mean confidence of their bin.

    Parameters
    ----------
    logits
        ``[n, samples, classes]``.
    targets
        ``[samples]``, int64.

    Returns
    -------
    np.ndarray
        ``[n]``.

    Raises
    ------
    InvalidConfigError
        If there is no bin.

    References
    ----------
    .. [1] Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, Eq. (3).
    """
    if num_bins < 1:
        raise InvalidConfigError(f"Expected at least one bin, got {num_bins}.")
    best, classes = _probabilities(logits).max(-1)
    bins = (best.nan_to_num() * num_bins).ceil().long().clamp(1, num_bins) - 1
    excess = (classes == targets).to(best) - best
    sums = torch.zeros(len(logits), num_bins, dtype=best.dtype).scatter_add_(-1, bins, excess)
    return _numpy(sums.abs().sum(-1) / len(targets))


def _probabilities(logits: Tensor) -> Tensor:
    """Compute probabilities in float64; NaN where a logit is not finite."""
    logits = logits.double()
    broken = ~torch.isfinite(logits).all(-1, keepdim=True)
    return logits.softmax(-1).masked_fill(broken, torch.nan)


def _numpy(values: Tensor) -> np.ndarray:
    found: np.ndarray = values.numpy()
    return found
