"""The 8x8 handwritten digits that scikit-learn carries: real data that needs no download."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from zoo.problems.problem import Problem

_NUM_TEST = 360
_SPLIT_SEED = 0


def digits() -> Problem:
    """Load the digits [1]_: 1,437 training and 360 test images, ``[n, 64]`` in [0, 1], 10 classes.

    References
    ----------
    .. [1] Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998
       (its test part).
    """
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(labels))
    inputs = torch.from_numpy((pixels[order] / 16).astype(np.float32))
    targets = torch.from_numpy(labels[order].astype(np.int64))
    train, test = slice(_NUM_TEST, None), slice(None, _NUM_TEST)

    def part(tensor: Tensor, which: slice) -> Tensor:
        return tensor[which].clone()

    return Problem(
        name="digits",
        config={"name": "digits"},
        train_inputs=part(inputs, train),
        train_targets=part(targets, train),
        test_inputs=part(inputs, test),
        test_targets=part(targets, test),
        num_classes=10,
        licence="CC BY 4.0",
        source="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
    )
