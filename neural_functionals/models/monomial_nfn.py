"""Neural functional networks that commute with relabelling and scaling hidden units."""

from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar

from torch import Tensor, nn

from neural_functionals.layers import WeightLayout, perceptron
from neural_functionals.layers.monomial import MonomialLinear, cut, monomial_blocks
from neural_functionals.layers.monomial_pooling import MonomialPooling
from neural_functionals.layers.scale_normalise import ScaleNormalisation
from neural_functionals.models.functional import (
    EVERY_SYMMETRY,
    NeuralFunctional,
    Reads,
    Symmetry,
    configure,
)
from zoo.errors import InvalidConfigError
from zoo.space import WeightSpace


@dataclass(frozen=True, kw_only=True)
class MonomialNFNConfig:
    """Options of :class:`MonomialNFN`; the defaults are the paper's for predicting generalisation.

    Parameters
    ----------
    channels
        Features per weight after each equivariant layer.
    hidden
        Widths of the head.
    """

    channels: tuple[int, ...] = (16, 16, 5)
    hidden: tuple[int, ...] = (200, 200)

    def __post_init__(self) -> None:
        if not self.channels or min(*self.channels, *self.hidden) < 1:
            raise InvalidConfigError(
                f"Expected at least one layer and positive widths, got {self}."
            )


class MonomialNFN(NeuralFunctional):
    r"""Monomial neural functional network of Tran et al. [1]_ on any weight space.

    .. math:: f(w) = \mathrm{MLP}(\mathrm{pool}(\sigma L_k \cdots \sigma L_1(r^{-1} w)))

    with :math:`L_i` the complete linear maps that commute with monomial matrices (Sec. 4;
    :class:`~neural_functionals.layers.monomial.MonomialLinear`), :math:`\sigma` ReLU, or tanh for
    features that signs flip, and invariant pooling (Sec. 4.2;
    :class:`~neural_functionals.layers.monomial_pooling.MonomialPooling`).

    Parameters
    ----------
    space
        Weight space of the members. Groups that have factors or signs are treated so, others are
        relabelled only; without any scaling this is an NFN (HNP).
    config
        Options; keyword arguments replace fields of it.
    num_outputs
        Numbers to predict.

    Notes
    -----
    Departures from the paper. Which channels may be mixed is read from the powers that the space
    states, so BatchNorm and flattened convolutions need no rule. Invariance to positive factors
    comes from dividing by a reference of each unit
    (:class:`~neural_functionals.layers.scaling.ScaleReference`) in place of the norm of the pooled
    features. Maps without bias and ReLU commute with that, so it is done first, where weights can
    also be normalised per orbit. The paper pools absolute values of what signs flip; means of
    products come beside them, for without those the network misses a sign that is flipped on one
    side of a layer only, or units that are. So do means over units of a map of all that is a
    unit's own: types that maps cannot mix would never meet, and the network would miss that one of
    them is relabelled alone. Weights start so that outputs have unit variance.

    References
    ----------
    .. [1] Tran, Vo, Tran, Nguyen, Nguyen, "Monomial Matrix Group Equivariant Neural Functional
       Networks", NeurIPS 2024.

    Examples
    --------
    >>> import torch, zoo
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> space = zoo.trace(network, torch.zeros(1, 2))
    >>> model = MonomialNFN(space, channels=(4, 2), hidden=(8,))
    >>> weights = torch.randn(5, space.num_parameters)
    >>> flipped = zoo.symmetry.sample_scale(space, torch.Generator().manual_seed(0))(weights)
    >>> torch.allclose(model(weights), model(flipped), atol=1e-6)
    True
    """

    name: ClassVar[str] = "monomial-nfn"
    reads: ClassVar[Reads] = "weights"
    symmetries: tuple[Symmetry, ...] = EVERY_SYMMETRY
    config: MonomialNFNConfig

    def __init__(
        self,
        space: WeightSpace,
        config: MonomialNFNConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        config = configure(config or MonomialNFNConfig(), overrides)
        super().__init__(space, config, num_outputs)
        layout = WeightLayout(space)
        self.normalise = ScaleNormalisation(space, layout)
        self.blocks = monomial_blocks(space, layout)
        widths = [1, *config.channels]
        self.layers = nn.ModuleList(
            MonomialLinear(self.blocks, *pair, gain=sqrt(2.0) if depth else 1.0)
            for depth, pair in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )
        self.pool = MonomialPooling(self.blocks, widths[-1])
        self.head = perceptron(self.pool.num_features, config.hidden, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map weights ``[batch, P]`` to ``[batch, num_outputs]``."""
        features = list(cut(self.normalise(inputs), self.blocks))
        for layer in self.layers:
            features = [
                x.tanh() if block.signs else x.relu()
                for x, block in zip(layer(features), self.blocks, strict=True)
            ]
        outputs: Tensor = self.head(self.pool(features))
        return outputs

    def fit_statistics(self, inputs: Tensor) -> None:
        """Measure the scale of each orbit, without the units' factors, on ``[members, P]``."""
        self.normalise.fit(inputs)
