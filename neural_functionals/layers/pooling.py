"""Invariant pooling: what remains of features when every relabelling is averaged out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neural_functionals.layers.features import FeatureBlock


class InvariantPooling(nn.Module):
    """Mean of each block over its neuron groups, concatenated.

    Parameters
    ----------
    blocks
        Shapes of the features that will come.
    """

    def __init__(self, blocks: Sequence[FeatureBlock]) -> None:
        super().__init__()
        self.num_features = sum(block.channels for block in blocks)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Pool blocks ``[batch, *sizes, channels]`` into ``[batch, num_features]``."""
        means = [
            block.flatten(1, -2).mean(dim=1) if block.ndim > 2 else block for block in features
        ]
        return torch.cat(means, dim=1)
