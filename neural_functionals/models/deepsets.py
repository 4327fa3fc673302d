"""Deep sets: weights as sets of numbers, the simplest network that relabelling cannot fool."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from torch import Tensor

from neural_functionals.layers import (
    EquivariantStack,
    FeatureBlock,
    InvariantPooling,
    OrbitNormalisation,
    WeightLayout,
    perceptron,
)
from neural_functionals.models.functional import NeuralFunctional, Reads, configure
from zoo.errors import InvalidConfigError
from zoo.space import WeightSpace


@dataclass(frozen=True, kw_only=True)
class DeepSetsConfig:
    """Options of :class:`DeepSets`.

    Parameters
    ----------
    channels
        Features per weight after each equivariant layer.
    hidden
        Widths of the head.
    """

    channels: tuple[int, ...] = (32, 32, 32)
    hidden: tuple[int, ...] = (256,)

    def __post_init__(self) -> None:
        if not self.channels or min(*self.channels, *self.hidden) < 1:
            raise InvalidConfigError(
                f"Expected at least one layer and positive widths, got {self}."
            )


class DeepSets(NeuralFunctional):
    r"""Deep sets of Zaheer et al. [1]_, one set per field of the weight space.

    .. math::

        x_s \leftarrow \sigma\big(\Gamma_s x_s + \textstyle\sum_t \Lambda_{st}\,
        \mathrm{mean}(x_t) + b_s\big)

    (Theorem 2 for several sets), then the mean of each set and a head. An element of a set is one
    position of all neuron groups with its channels (kernel entries, inputs). Rows and columns are
    not told apart: what is left of the weights is the distribution of each field.

    Parameters
    ----------
    space
        Weight space of the members.
    config
        Options; keyword arguments replace fields of it.
    num_outputs
        Numbers to predict.

    Notes
    -----
    Departures from the paper. Means replace sums, so that scale does not depend on widths. Sets of
    different fields have parameters of their own and see one another's means. Widths are ours.

    References
    ----------
    .. [1] Zaheer et al., "Deep Sets", NeurIPS 2017.

    Examples
    --------
    >>> import torch, zoo
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> space = zoo.trace(network, torch.zeros(1, 2))
    >>> DeepSets(space, channels=(4, 2))(torch.zeros(5, space.num_parameters)).shape
    torch.Size([5, 1])
    """

    name: ClassVar[str] = "deepsets"
    reads: ClassVar[Reads] = "weights"
    reads_sets: ClassVar[bool] = True
    config: DeepSetsConfig

    def __init__(
        self,
        space: WeightSpace,
        config: DeepSetsConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        config = configure(config or DeepSetsConfig(), overrides)
        super().__init__(space, config, num_outputs)
        self.layout = WeightLayout(space, repeated=True)
        self.normalise = OrbitNormalisation(self.layout.orbit)
        blocks = [_sets(self.layout.blocks(channels)) for channels in (1, *config.channels)]
        self.stack = EquivariantStack(blocks)
        self.pool = InvariantPooling(blocks[-1])
        self.head = perceptron(self.pool.num_features, config.hidden, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map weights ``[batch, P]`` to ``[batch, num_outputs]``."""
        features = [
            block.flatten(1, -2) if block.ndim > 3 else block
            for block in self.layout.gather(self.normalise(inputs))
        ]
        outputs: Tensor = self.head(self.pool(self.stack(features)))
        return outputs

    def fit_statistics(self, inputs: Tensor) -> None:
        """Measure mean and standard deviation per orbit on weights ``[members, P]``."""
        self.normalise.fit(inputs)


def _sets(blocks: Sequence[FeatureBlock]) -> list[FeatureBlock]:
    """Take each block that groups move as one set: its entries may be permuted at will."""
    return [
        FeatureBlock(groups=(f"set{at}",), sizes=(prod(block.sizes),), channels=block.channels)
        if block.groups
        else block
        for at, block in enumerate(blocks)
    ]
