"""Equivariant linear maps with rectifiers between them."""

from collections.abc import Sequence
from math import sqrt

from torch import Tensor, nn

from neural_functionals.layers.equivariant import EquivariantLinear
from neural_functionals.layers.features import FeatureBlock


class EquivariantStack(nn.Module):
    """``ReLU L_k ... ReLU L_1`` with the complete equivariant linear maps ``L``.

    Parameters
    ----------
    blocks
        Shapes of the features: of the inputs, then after each map.
    """

    def __init__(self, blocks: Sequence[Sequence[FeatureBlock]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EquivariantLinear(inputs, outputs, gain=sqrt(2.0) if depth else 1.0)
            for depth, (inputs, outputs) in enumerate(zip(blocks[:-1], blocks[1:], strict=True))
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map blocks ``[batch, *sizes, channels]`` of the first shapes to those of the last."""
        mapped = list(features)
        for layer in self.layers:
            mapped = [_rectify(block) for block in layer(mapped)]
        return mapped


def _rectify(block: Tensor) -> Tensor:
    """ReLU, in place on blocks that groups move: a large new tensor costs more than the ReLU."""
    return block.relu_() if block.ndim > 2 else block.relu()
