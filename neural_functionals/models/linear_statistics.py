"""Linear regression on statistics of each tensor, or on the weights themselves, in closed form."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from neural_functionals.layers import Standardise, TensorStatistics
from neural_functionals.models.functional import FittedFunctional, Reads, configure
from zoo.errors import InvalidConfigError
from zoo.space import WeightSpace

_QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)


@dataclass(frozen=True, kw_only=True)
class LinearStatisticsConfig:
    """Options of :class:`LinearStatistics`.

    Parameters
    ----------
    features
        ``"statistics"`` for s(W), seven numbers per tensor; ``"weights"`` for W, the flat vector.
    ridge
        Squared norm of the coefficients, of standardised features, that costs as much as a mean
        squared error of 1; positive.
    """

    features: Literal["statistics", "weights"] = "statistics"
    ridge: float = 1e-4

    def __post_init__(self) -> None:
        if self.features not in ("statistics", "weights") or self.ridge <= 0:
            raise InvalidConfigError(
                "Expected features 'statistics' or 'weights' and a positive ridge, got "
                f"{self.features!r} and {self.ridge}."
            )


class LinearStatistics(FittedFunctional):
    r"""Baselines s(W) and W of Schürholt et al. [1]_: linear regression in closed form.

    The statistics are mean, variance and the percentiles 1, 25, 50, 75 and 99 of the weights and of
    the biases of each layer. With standardised features :math:`X` of :math:`N` members,

    .. math:: \beta = (X^\top X / N + \rho I)^{-1} X^\top y / N .

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
    Departures from the paper. A small ridge :math:`\rho` makes the solution unique where features
    depend on each other or outnumber the members. Floating-point buffers count as tensors.
    Only s(W) is invariant under relabelling of hidden units.

    References
    ----------
    .. [1] Schürholt et al., "Model Zoos: A Dataset of Diverse Populations of Neural Network
       Models", NeurIPS 2022 Datasets and Benchmarks.

    Examples
    --------
    >>> import torch, zoo
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> space = zoo.trace(network, torch.zeros(1, 2))
    >>> weights = torch.randn(50, space.num_parameters, generator=torch.Generator().manual_seed(0))
    >>> largest = weights[:, :6].amax(dim=1, keepdim=True)  # of the first tensor
    >>> model = LinearStatistics(space)
    >>> model.fit(model.features(weights), largest)
    >>> bool((model(weights) - largest).abs().max() < 0.1)
    True
    """

    name: ClassVar[str] = "linear-statistics"
    reads: ClassVar[Reads] = "weights"
    reads_sets: ClassVar[bool] = True
    config: LinearStatisticsConfig
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        space: WeightSpace,
        config: LinearStatisticsConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        config = configure(config or LinearStatisticsConfig(), overrides)
        super().__init__(space, config, num_outputs)
        statistics = TensorStatistics(space, quantiles=_QUANTILES)
        takes_weights = config.features == "weights"
        num_features = space.num_parameters if takes_weights else statistics.num_features
        self.describe = nn.Identity() if takes_weights else statistics
        self.normalise = Standardise(num_features)
        self.register_buffer("weight", torch.zeros(num_outputs, num_features))
        self.register_buffer("bias", torch.zeros(num_outputs))

    def features(self, inputs: Tensor) -> Tensor:
        """Describe weights ``[batch, P]``, as ``[batch, F]``."""
        described: Tensor = self.describe(inputs)
        return described

    def predict(self, features: Tensor) -> Tensor:
        """Map features ``[batch, F]`` to ``[batch, outputs]``."""
        return nn.functional.linear(self.normalise(features), self.weight, self.bias)

    @torch.no_grad()
    def fit(self, features: Tensor, targets: Tensor) -> None:
        """Solve for the coefficients in float64; see :meth:`FittedFunctional.fit`."""
        self.normalise.fit(features)
        x = self.normalise(features.double())
        x_mean, y_mean = x.mean(dim=0), targets.double().mean(dim=0)
        coefficients = _ridge(x - x_mean, targets.double() - y_mean, self.config.ridge)
        self.weight.copy_(coefficients.T)
        self.bias.copy_(y_mean - x_mean @ coefficients)


def _ridge(x: Tensor, y: Tensor, ridge: float) -> Tensor:
    """Coefficients ``[F, outputs]`` for centred ``[members, F]`` and ``[members, outputs]``.

    Solves the smaller of the two equivalent systems, with as many unknowns as features or members.
    """
    count, num_features = x.shape
    is_tall = num_features <= count
    gram = (x.T @ x if is_tall else x @ x.T) / count
    gram.diagonal().add_(ridge)
    solution: Tensor = torch.linalg.solve(gram, (x.T @ y if is_tall else y) / count)
    return solution if is_tall else x.T @ solution
