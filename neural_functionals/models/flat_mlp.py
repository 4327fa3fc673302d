"""A fully connected network on the flat vector, taught the symmetry by examples."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from neural_functionals.layers import OrbitNormalisation, WeightLayout, perceptron
from neural_functionals.models.functional import NeuralFunctional, Reads, Symmetry, configure
from zoo.errors import InvalidConfigError
from zoo.space import WeightSpace
from zoo.symmetry import fields


@dataclass(frozen=True, kw_only=True)
class FlatMLPConfig:
    """Options of :class:`FlatMLP`.

    Parameters
    ----------
    hidden
        Widths of the fully connected layers.
    augment
        Whether every training step relabels the hidden units of each member at random.
    num_views
        Evaluation averages the outputs of so many random relabellings, the same for all members;
        0 takes the weights as they are.
    """

    hidden: tuple[int, ...] = (1000, 1000)
    augment: bool = True
    num_views: int = 0

    def __post_init__(self) -> None:
        if self.num_views < 0:
            raise InvalidConfigError(f"Expected num_views of at least 0, got {self.num_views}.")


class FlatMLP(NeuralFunctional):
    """The MLP baselines of Zhou et al. [1]_, with and without permutation augmentation.

    It is *not* invariant: it has to learn from relabelled members what other models know.

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
    Departures from the paper. Inputs are normalised per orbit. Averaging over relabellings at
    evaluation is an option of ours.

    References
    ----------
    .. [1] Zhou et al., "Permutation Equivariant Neural Functionals", NeurIPS 2023.

    Examples
    --------
    >>> import torch, zoo
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> space = zoo.trace(network, torch.zeros(1, 2))
    >>> model = FlatMLP(space, hidden=(8,), num_views=4).eval()
    >>> model(torch.zeros(5, space.num_parameters)).shape
    torch.Size([5, 1])
    """

    name: ClassVar[str] = "flat-mlp"
    reads: ClassVar[Reads] = "weights"
    symmetries: tuple[Symmetry, ...] = ()
    config: FlatMLPConfig
    views: Tensor

    def __init__(
        self,
        space: WeightSpace,
        config: FlatMLPConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        config = configure(config or FlatMLPConfig(), overrides)
        super().__init__(space, config, num_outputs)
        self.relabellings = RandomRelabellings(space)
        self.normalise = OrbitNormalisation(WeightLayout(space, repeated=True).orbit)
        self.head = perceptron(space.num_parameters, config.hidden, num_outputs)
        self.register_buffer("views", self.relabellings(config.num_views))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map weights ``[batch, P]`` to ``[batch, num_outputs]``.

        In training, relabellings are drawn from torch's current generator.
        """
        weights = self.normalise(inputs)
        if self.training:
            if self.config.augment:
                weights = weights.gather(1, self.relabellings(len(weights)))
        elif len(self.views):
            every: Tensor = self.head(weights[:, self.views])
            return every.mean(dim=1)
        outputs: Tensor = self.head(weights)
        return outputs

    def fit_statistics(self, inputs: Tensor) -> None:
        """Measure mean and standard deviation per orbit on weights ``[members, P]``."""
        self.normalise.fit(inputs)


class RandomRelabellings(nn.Module):
    """Uniformly random elements of a weight space's group, many at a time.

    Parameters
    ----------
    space
        The weight space.
    """

    inverse: Tensor

    def __init__(self, space: WeightSpace) -> None:
        super().__init__()
        self.groups = {group.name: (group.copies, group.size) for group in space.groups}
        self.parents = {group.name: group.parent for group in space.groups}
        pieces = fields(space)
        self.axes = [piece.groups for piece in pieces]
        for at, piece in enumerate(pieces):
            self.register_buffer(f"index{at}", torch.from_numpy(piece.index), persistent=False)
        flat = np.concatenate([piece.index.ravel() for piece in pieces])
        self.register_buffer("inverse", torch.from_numpy(np.argsort(flat)), persistent=False)

    def forward(self, count: int) -> Tensor:
        """Draw ``[count, P]``, int64: new entry ``i`` of each is old entry ``index[i]``.

        Uses torch's current generator.
        """
        orders = {
            name: torch.rand(count, *shape, device=self.inverse.device).argsort(dim=-1)
            for name, shape in self.groups.items()
        }
        parts = [
            self._sources(groups, self.get_buffer(f"index{at}"), orders).expand(count, -1)
            for at, groups in enumerate(self.axes)
        ]
        return torch.cat(parts, dim=1).index_select(1, self.inverse)

    def _sources(self, groups: tuple[str, ...], index: Tensor, orders: dict[str, Tensor]) -> Tensor:
        """Where the entries of a field ``[*sizes, channels]`` come from, ``[count or 1, n]``."""
        units = []
        for axis, name in enumerate(groups):
            dims = {axis, *self._ancestors(groups, axis)}
            shape = [size if dim in dims else 1 for dim, size in enumerate(index.shape[:-1])]
            units.append(orders[name].reshape(-1, *shape))
        return index[tuple(units)].flatten(1) if units else index[None]

    def _ancestors(self, groups: tuple[str, ...], axis: int) -> list[int]:
        """Axes of the groups that an axis's group is nested inside."""
        parent, found = self.parents[groups[axis]], []
        for outer in reversed(range(axis)):
            if parent is not None and groups[outer] == parent:
                found.append(outer)
                parent = self.parents[parent]
        return found
