"""Mode connectivity: whether a curve of low loss joins two networks."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from zoo.errors import InvalidConfigError
from zoo.measures.gradients import leaves_of, sum_flat
from zoo.measures.networks import Networks, Samples, generator_of

Quantity = Literal["error", "loss"]

_STATISTICS = ("mean", "variance")


@dataclass(frozen=True, kw_only=True)
class CurveConfig:
    """How a curve is trained and looked at; defaults as the model zoo on phase transitions.

    Parameters
    ----------
    epochs, batch_size, learning_rate, momentum
        Of stochastic gradient descent on the bend.
    weight_decay
        Acts on the curve's point of each step, as in the code of the method's authors.
    num_points
        Equally spaced points that are evaluated, ends included.
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    num_points: int = 5

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1 or self.num_points < 3:
            raise InvalidConfigError(
                f"Expected at least 0 epochs, batches of 1 and 3 points, got {self}."
            )

    def rate(self, epoch: int) -> float:
        """Learning rate in an epoch [1]_: constant for a half, then falling linearly to 1 % at 0.9.

        Every epoch's rate is a share of ``learning_rate``, never of the epoch's before.

        References
        ----------
        .. [1] Garipov et al., "Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs",
           NeurIPS 2018, code.
        """
        progress = epoch / self.epochs
        return self.learning_rate * min(1.0, max(0.01, 1 - (progress - 0.5) / 0.4 * 0.99))


@dataclass(frozen=True, eq=False, kw_only=True)
class Paths:
    """Curves between pairs of networks.

    Parameters
    ----------
    positions
        Where curves were evaluated, ``[points]`` from 0 to 1.
    values
        Error or loss there, ``[pairs, points]``, float64; NaN for pairs with a diverged member.
    bends
        Control points of the curves, ``[pairs, P]``; halfway, for straight lines.
    """

    positions: np.ndarray
    values: np.ndarray
    bends: Tensor

    @property
    def connectivity(self) -> np.ndarray:
        """Mean of the ends minus the value that differs most from it, ``[pairs]`` [1]_.

        Negative where a barrier parts the networks, positive where the ends are worse than the
        curve between them, near 0 where they are connected.

        References
        ----------
        .. [1] Yang et al., NeurIPS 2021, Eq. (1).
        """
        excess = self.values - self._ends.mean(-1, keepdims=True)
        widest = np.abs(excess).argmax(-1)  # of a NaN, if there is one
        found: np.ndarray = -np.take_along_axis(excess, widest[:, None], -1)[:, 0]
        return found

    @property
    def barrier(self) -> np.ndarray:
        """Largest excess over the line that joins the ends' values, ``[pairs]``, at least 0 [1]_.

        References
        ----------
        .. [1] Entezari et al., "The Role of Permutation Invariance in Linear Mode Connectivity of
           Neural Networks", ICLR 2022, Def. 2.
        """
        line = self._ends[:, :1] * (1 - self.positions) + self._ends[:, 1:] * self.positions
        found: np.ndarray = (self.values - line).max(-1)
        return found

    @property
    def _ends(self) -> np.ndarray:
        return self.values[:, [0, -1]]


def curves(
    networks: Networks,
    pairs: np.ndarray,
    train: Samples,
    *,
    seeds: Sequence[int],
    test: Samples | None = None,
    quantity: Quantity = "error",
    config: CurveConfig | None = None,
) -> Paths:
    """Train a quadratic Bezier curve between the networks of each pair [1]_, and look along it.

    The ends stay; the bend starts halfway and descends the expected loss at a uniformly random
    position of the curve. Statistics of batch normalisation are those of batches in training, and
    are estimated anew on the training samples at each point that is evaluated.

    Parameters
    ----------
    pairs
        Positions of members, ``[pairs, 2]``.
    train
        What curves are trained on.
    seeds
        Per pair, where its random numbers start.
    test
        What curves are evaluated on; by default ``train``.
    quantity
        What is evaluated: share of wrong classes, or the mean loss.

    Raises
    ------
    InvalidConfigError
        If members have targets of their own: then no loss is common to two of them.

    References
    ----------
    .. [1] Garipov et al., NeurIPS 2018, Eqs. (2) to (4).
    """
    config = config or CurveConfig()
    _check(train)

    def bend(pair: int) -> Tensor:
        first, second = networks.vectors[torch.as_tensor(pairs[pair])]
        return _train(networks, (first, second), train, generator_of(seeds[pair]), config)

    return _paths(networks, pairs, bend, (train, test or train), quantity, config.num_points)


def lines(
    networks: Networks,
    pairs: np.ndarray,
    train: Samples,
    *,
    test: Samples | None = None,
    quantity: Quantity = "error",
    num_points: int = 5,
) -> Paths:
    """Look along the straight line between the networks of each pair; see :func:`curves`.

    ``train`` serves to estimate the statistics of batch normalisation, where there are any.
    """
    _check(train)

    def bend(pair: int) -> Tensor:
        return networks.vectors[torch.as_tensor(pairs[pair])].mean(0)

    return _paths(networks, pairs, bend, (train, test or train), quantity, num_points)


def point(ends: tuple[Tensor, Tensor], bend: Tensor, position: float) -> Tensor:
    """Return the point ``[P]`` of a quadratic Bezier curve at a position in [0, 1]."""
    t = position
    return (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * bend + t**2 * ends[1]


def estimate_statistics(
    networks: Networks, vector: Tensor, inputs: Tensor, *, batch_size: int = 500
) -> Tensor:
    """Replace the statistics of batch normalisation in weights ``[P]`` by those of inputs.

    They are averages over batches, as of ``torch.optim.swa_utils.update_bn``. Weights without such
    statistics come back as they are.
    """
    if not _has_statistics(networks):
        return vector
    module = _in_training(networks.module, momentum=None)
    names = dict(networks.space.tied) | {spec.name: spec.name for spec in networks.space.tensors}
    named = {key: value.clone() for key, value in networks.space.state_dict(vector).items()}
    counts = {name: torch.zeros_like(value) for name, value in module.named_buffers()
              if name not in names}  # fmt: skip
    with torch.no_grad():
        for batch in torch.split(inputs, batch_size):
            functional_call(module, named | counts, (batch,))
    return networks.space.flatten(named)


def _paths(
    networks: Networks,
    pairs: np.ndarray,
    bend_of: Callable[[int], Tensor],
    samples: tuple[Samples, Samples],
    quantity: Quantity,
    num_points: int,
) -> Paths:
    """Make each pair's curve and evaluate it."""
    train, test = samples
    positions = np.linspace(0, 1, num_points)
    values = np.full((len(pairs), num_points), np.nan)
    bends = networks.vectors.new_full((len(pairs), networks.space.num_parameters), torch.nan)
    for pair, (first, second) in enumerate(pairs):
        if not networks.finite[[first, second]].all():
            continue
        ends = (networks.vectors[first], networks.vectors[second])
        bends[pair] = bend_of(pair)
        for column, position in enumerate(positions):
            here = point(ends, bends[pair], float(position))
            here = estimate_statistics(networks, here, train.inputs)
            values[pair, column] = _value(networks, here, test, quantity)
    return Paths(positions=positions, values=values, bends=bends)


def _train(
    networks: Networks,
    ends: tuple[Tensor, Tensor],
    train: Samples,
    generator: torch.Generator,
    config: CurveConfig,
) -> Tensor:
    """Train the bend ``[P]``; its buffers stay halfway."""
    module = _in_training(networks.module, momentum=0.1)
    bend, size = (ends[0] + ends[1]) / 2, networks.space.num_trainable
    velocity = torch.zeros_like(bend[:size])
    for epoch in range(config.epochs):
        rate = config.rate(epoch)
        for batch in _batches(train, generator, config.batch_size):
            position = float(torch.rand(1, generator=generator))
            here = point(ends, bend, position)
            slope = _slope(module, networks, here, batch) + config.weight_decay * here[:size]
            velocity = config.momentum * velocity + 2 * position * (1 - position) * slope
            bend[:size] -= rate * velocity
    return bend


def _slope(module: nn.Module, networks: Networks, vector: Tensor, batch: Samples) -> Tensor:
    """Compute the gradient ``[p]`` of a batch's loss at weights ``[P]``."""
    leaves, fixed = leaves_of(networks, vector)
    named = leaves | {name: value.clone() for name, value in fixed.items()}
    named |= {alias: named[name] for alias, name in networks.space.tied}
    loss = batch.loss(functional_call(module, named, (batch.inputs,)), batch.targets)
    return sum_flat(
        iter([torch.autograd.grad(loss, tuple(leaves.values()), allow_unused=True,
                                  materialize_grads=True)])
    )  # fmt: skip


def _batches(samples: Samples, generator: torch.Generator, size: int) -> Iterator[Samples]:
    """Yield samples in a random order; the last batch may be smaller."""
    order = torch.randperm(len(samples), generator=generator)
    return (samples.part(chosen) for chosen in torch.split(order, size))


def _value(networks: Networks, vector: Tensor, samples: Samples, quantity: Quantity) -> float:
    if quantity == "loss":
        return networks.loss(0, vector, samples)
    single = Networks(module=networks.module, space=networks.space, vectors=vector[None])
    outputs = single.outputs(samples.inputs)[0]
    if not torch.isfinite(outputs).all():
        return float("nan")
    return float((outputs.argmax(-1) != samples.targets).double().mean())


def _in_training(module: nn.Module, *, momentum: float | None) -> nn.Module:
    """Copy a module such that batch normalisation, and nothing else, behaves as in training."""
    copied = copy.deepcopy(module)
    for each in copied.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.track_running_stats:
            each.train()
            each.momentum = momentum
    return copied


def _has_statistics(networks: Networks) -> bool:
    return any(
        spec.kind == "buffer" and spec.role in _STATISTICS for spec in networks.space.tensors
    )


def _check(samples: Samples) -> None:
    if samples.own_targets:
        raise InvalidConfigError(
            "Expected samples with targets that members share, got targets of each member's own: "
            "no loss is common to two networks that fit different signals."
        )
