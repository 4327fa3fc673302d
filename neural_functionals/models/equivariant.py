"""What networks of complete equivariant linear maps share: stack, invariant pooling, head."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from neural_functionals.layers import (
    EquivariantStack,
    InvariantPooling,
    OrbitNormalisation,
    WeightLayout,
    perceptron,
)
from neural_functionals.models.functional import NeuralFunctional, Reads
from zoo.errors import InvalidConfigError
from zoo.space import WeightSpace


@dataclass(frozen=True, kw_only=True)
class EquivariantConfig:
    """Options of networks of equivariant linear maps.

    Parameters
    ----------
    channels
        Features per weight after each equivariant layer.
    hidden
        Widths of the head.
    """

    channels: tuple[int, ...] = (16, 16, 5)
    hidden: tuple[int, ...] = (1000, 1000)

    def __post_init__(self) -> None:
        if not self.channels or min(*self.channels, *self.hidden) < 1:
            raise InvalidConfigError(
                f"Expected at least one layer and positive widths, got {self}."
            )


class Positions(nn.Module, ABC):
    """Appends features of positions to the blocks of a layout.

    Attributes
    ----------
    num_features
        Of each block.
    """

    num_features: list[int]

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Append to blocks ``[batch, *sizes, channels]``."""


class EquivariantFunctional(NeuralFunctional):
    r"""A head on invariants of equivariant features of weights.

    .. math:: f(w) = \mathrm{MLP}(\mathrm{pool}(\sigma L_k \cdots \sigma L_1(\mathrm{norm}(w))))

    Parameters
    ----------
    space, config, num_outputs
        As of the model.
    layout
        Cuts weights into blocks; one group may move several axes.
    positions
        What appends features of positions to the blocks of normalised weights, if anything does.
    """

    reads: ClassVar[Reads] = "weights"
    config: EquivariantConfig

    def __init__(
        self,
        space: WeightSpace,
        config: EquivariantConfig,
        num_outputs: int,
        *,
        layout: WeightLayout,
        positions: Positions | None = None,
    ) -> None:
        super().__init__(space, config, num_outputs)
        self.layout, self.positions = layout, positions
        self.normalise = OrbitNormalisation(layout.orbit)
        extra = None if positions is None else positions.num_features
        blocks = [layout.blocks(extra=extra), *(layout.blocks(each) for each in config.channels)]
        self.stack = EquivariantStack(blocks)
        self.pool = InvariantPooling(blocks[-1])
        self.head = perceptron(self.pool.num_features, config.hidden, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map weights ``[batch, P]`` to ``[batch, num_outputs]``."""
        features = self.layout.gather(self.normalise(inputs))
        if self.positions is not None:
            features = self.positions(features)
        outputs: Tensor = self.head(self.pool(self.stack(features)))
        return outputs

    def fit_statistics(self, inputs: Tensor) -> None:
        """Measure mean and standard deviation per orbit on weights ``[members, P]``."""
        self.normalise.fit(inputs)
