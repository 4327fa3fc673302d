"""Invariant pooling: what remains of features when every relabelling is averaged out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neural_functionals.layers.features import FeatureBlock
from neural_functionals.layers.partitions import count_repeats, output_views, take


class InvariantPooling(nn.Module):
    """Mean of each block over its neuron groups, and of its diagonals, concatenated.

    Where one group moves several axes, entries on a diagonal are an orbit of their own.

    Parameters
    ----------
    blocks
        Shapes of the features that will come.
    """

    def __init__(self, blocks: Sequence[FeatureBlock]) -> None:
        super().__init__()
        self._views = output_views(blocks, count_repeats(blocks))
        self.num_features = sum(view.shape.channels for view in self._views)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Pool blocks ``[batch, *sizes, channels]`` into ``[batch, num_features]``."""
        seen = [take(features[view.block], view.parts) for view in self._views]
        means = [view.flatten(1, -2).mean(dim=1) if view.ndim > 2 else view for view in seen]
        return torch.cat(means, dim=1)
