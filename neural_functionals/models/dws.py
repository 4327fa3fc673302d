"""Deep weight space networks: every equivariant map between weights and biases of a perceptron."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from neural_functionals.layers import (
    EquivariantStack,
    InvariantPooling,
    OrbitNormalisation,
    WeightLayout,
    perceptron,
)
from neural_functionals.models.functional import NeuralFunctional, Reads, configure
from zoo.errors import InvalidConfigError
from zoo.space import WeightSpace


@dataclass(frozen=True, kw_only=True)
class DWSNetConfig:
    """Options of :class:`DWSNet`.

    Parameters
    ----------
    channels
        Features per weight after each equivariant layer.
    hidden
        Widths of the head.
    """

    channels: tuple[int, ...] = (32, 32, 32, 32, 32)
    hidden: tuple[int, ...] = (32,)

    def __post_init__(self) -> None:
        if not self.channels or min(*self.channels, *self.hidden) < 1:
            raise InvalidConfigError(
                f"Expected at least one layer and positive widths, got {self}."
            )


class DWSNet(NeuralFunctional):
    r"""Deep weight space network of Navon et al. [1]_.

    .. math:: f(w) = \mathrm{MLP}(\mathrm{pool}(\sigma L_k \cdots \sigma L_1(\mathrm{norm}(w))))

    with :math:`\sigma` ReLU and :math:`L_i` all linear maps between weights and biases that commute
    with relabelling hidden neurons: the paper's blocks from weights to weights, weights to biases
    and so on, each of poolings, matrices and broadcasts, are the terms of
    :class:`~neural_functionals.layers.EquivariantLinear`. They span the maps of NFN-HNP.

    Parameters
    ----------
    space
        Weight space of the members. The paper has perceptrons; others get their own complete maps.
    config
        Options; keyword arguments replace fields of it.
    num_outputs
        Numbers to predict.

    Notes
    -----
    Departures from the paper. Pooling is by means, not sums or maxima. Axes of inputs and outputs
    are channels, with a matrix of their own per position. Inputs are normalised per orbit, not per
    entry, which would break the symmetry.

    References
    ----------
    .. [1] Navon et al., "Equivariant Architectures for Learning in Deep Weight Spaces", ICML 2023.

    Examples
    --------
    >>> import torch, zoo
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> space = zoo.trace(network, torch.zeros(1, 2))
    >>> DWSNet(space, channels=(4, 4), num_outputs=10)(torch.zeros(5, space.num_parameters)).shape
    torch.Size([5, 10])
    """

    name: ClassVar[str] = "dws"
    reads: ClassVar[Reads] = "weights"
    config: DWSNetConfig

    def __init__(
        self,
        space: WeightSpace,
        config: DWSNetConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        config = configure(config or DWSNetConfig(), overrides)
        super().__init__(space, config, num_outputs)
        self.layout = WeightLayout(space, repeated=True)
        self.normalise = OrbitNormalisation(self.layout.orbit)
        blocks = [self.layout.blocks(channels) for channels in (1, *config.channels)]
        self.stack = EquivariantStack(blocks)
        self.pool = InvariantPooling(blocks[-1])
        self.head = perceptron(self.pool.num_features, config.hidden, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map weights ``[batch, P]`` to ``[batch, num_outputs]``."""
        features = self.layout.gather(self.normalise(inputs))
        outputs: Tensor = self.head(self.pool(self.stack(features)))
        return outputs

    def fit_statistics(self, inputs: Tensor) -> None:
        """Measure mean and standard deviation per orbit on weights ``[members, P]``."""
        self.normalise.fit(inputs)
