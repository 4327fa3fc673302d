"""How often members are right on fixed samples, and on which they are wrong."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zoo.measures.calibration import predicted_classes
from zoo.measures.networks import Networks, Samples
from zoo.problems import in_float64, score

_NOT_MEASURED = 255


@dataclass(frozen=True, eq=False, kw_only=True)
class Accuracy:
    """Mean cross-entropy in nats and accuracy in [0, 1], ``[n]`` float32 each.

    NaN for diverged members.
    """

    loss: np.ndarray
    accuracy: np.ndarray


def accuracy(networks: Networks, samples: Samples) -> Accuracy:
    """Measure members on samples; predictions too close to call are decided in float64.

    Parameters
    ----------
    samples
        Of a problem with classes.
    """

    def decide(member: int, chosen: Tensor) -> Tensor:
        inputs = in_float64(samples.inputs[chosen])
        with torch.no_grad():
            return networks.call(networks.vectors[member].double(), inputs)

    loss, right = score(networks.outputs(samples.inputs), samples.targets, decide=decide)
    return Accuracy(loss=_finite(loss.numpy(), networks), accuracy=_finite(right.numpy(), networks))


def wrong(networks: Networks, samples: Samples) -> np.ndarray:
    """Mark the samples that members get wrong.

    Returns
    -------
    np.ndarray
        ``[n, bytes]`` uint8: bit 7 of byte 0 is the first sample, and 1 where it is wrong; bits
        after the last sample are 0. Every bit is 1 for diverged members.
    """
    predicted = predicted_classes(networks, samples.inputs)
    bits = np.packbits(predicted != samples.targets.numpy(), axis=1)
    bits[~networks.finite] = _NOT_MEASURED
    return bits


def unpacked(masks: np.ndarray, num_samples: int) -> np.ndarray:
    """Turn masks ``[..., bytes]`` into ``[..., num_samples]``, bool; True where wrong."""
    return np.unpackbits(masks, axis=-1, count=num_samples).astype(bool)


def _finite(values: np.ndarray, networks: Networks) -> np.ndarray:
    return np.where(networks.finite, values, np.nan).astype(np.float32)
