"""Deep weight space networks: every equivariant map between weights and biases of a perceptron."""

from dataclasses import dataclass
from typing import Any, ClassVar

from neural_functionals.layers import WeightLayout
from neural_functionals.models.equivariant import EquivariantConfig, EquivariantFunctional
from neural_functionals.models.functional import configure
from zoo.space import WeightSpace


@dataclass(frozen=True, kw_only=True)
class DWSNetConfig(EquivariantConfig):
    """Options of :class:`DWSNet`: features per weight after each layer, widths of the head."""

    channels: tuple[int, ...] = (32, 32, 32, 32, 32)
    hidden: tuple[int, ...] = (32,)


class DWSNet(EquivariantFunctional):
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
        super().__init__(space, config, num_outputs, layout=WeightLayout(space, repeated=True))
