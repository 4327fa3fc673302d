"""Gradient-boosted trees on statistics of each tensor, held as plain numbers."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from neural_functionals.layers import TensorStatistics
from neural_functionals.models.functional import FittedFunctional, Reads, configure
from zoo.errors import InvalidConfigError
from zoo.space import WeightSpace


@dataclass(frozen=True, kw_only=True)
class BoostedStatisticsConfig:
    """Options of :class:`BoostedStatistics`; the defaults are LightGBM's, the depth aside.

    Parameters
    ----------
    num_trees
        Trees per predicted number.
    learning_rate
        What each tree counts.
    max_leaves, max_depth
        Size of a tree.
    min_members
        Training members in each leaf, at least.
    """

    num_trees: int = 100
    learning_rate: float = 0.1
    max_leaves: int = 31
    max_depth: int = 8
    min_members: int = 20

    def __post_init__(self) -> None:
        if min(self.num_trees, self.max_depth, self.min_members) < 1 or self.max_leaves < 2:
            raise InvalidConfigError(
                "Expected at least one tree of depth 1, two leaves and one member in each, got "
                f"{self}."
            )
        if self.learning_rate <= 0:
            raise InvalidConfigError(
                f"Expected a positive learning rate, got {self.learning_rate}."
            )


class BoostedStatistics(FittedFunctional):
    """Boosted trees of Unterthiner et al. [1]_ on seven statistics per tensor.

    scikit-learn grows the trees; they are kept and evaluated as tensors, so a checkpoint holds
    numbers alone.

    Parameters
    ----------
    space
        Weight space of the members.
    config
        Options; keyword arguments replace fields of it.
    num_outputs
        Numbers to predict, each with trees of its own.

    Notes
    -----
    Departures from the paper. Trees are those of scikit-learn's ``HistGradientBoostingRegressor``,
    which follows LightGBM, with fixed options instead of searched ones. Statistics are those of
    :class:`~neural_functionals.models.StatNN`. Outputs are constant between thresholds, so there
    is no gradient.

    References
    ----------
    .. [1] Unterthiner et al., "Predicting Neural Network Accuracy from Weights", arXiv 2002.11448,
       2020.

    Examples
    --------
    >>> import torch, zoo
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> space = zoo.trace(network, torch.zeros(1, 2))
    >>> weights = torch.randn(99, space.num_parameters, generator=torch.Generator().manual_seed(0))
    >>> spread = weights[:, :6].var(dim=1, keepdim=True)  # of the first tensor
    >>> model = BoostedStatistics(space, num_trees=20)
    >>> model.fit(model.features(weights), spread)
    >>> bool((model(weights) - spread).square().mean() < spread.var() / 4)
    True
    """

    name: ClassVar[str] = "boosted-statistics"
    reads: ClassVar[Reads] = "weights"
    reads_sets: ClassVar[bool] = True
    config: BoostedStatisticsConfig

    def __init__(
        self,
        space: WeightSpace,
        config: BoostedStatisticsConfig | None = None,
        *,
        num_outputs: int = 1,
        **overrides: Any,
    ) -> None:
        config = configure(config or BoostedStatisticsConfig(), overrides)
        super().__init__(space, config, num_outputs)
        self.statistics = TensorStatistics(space)
        self.trees = Trees(
            num_outputs * config.num_trees,
            num_nodes=2 * config.max_leaves - 1,
            depth=config.max_depth,
        )

    def features(self, inputs: Tensor) -> Tensor:
        """Describe weights ``[batch, P]`` by seven numbers per tensor, ``[batch, 7 * tensors]``."""
        described: Tensor = self.statistics(inputs)
        return described

    def predict(self, features: Tensor) -> Tensor:
        """Map statistics ``[batch, 7 * tensors]`` to ``[batch, outputs]``."""
        shape = (len(features), self.num_outputs, self.config.num_trees)
        values = self.trees(features).view(shape)
        total: Tensor = values.sum(dim=2).to(features.dtype)
        return total

    @torch.no_grad()
    def fit(self, features: Tensor, targets: Tensor) -> None:
        """Grow the trees one after another; see :meth:`FittedFunctional.fit`."""
        table = features.double().cpu().numpy()
        for output, wanted in enumerate(targets.double().cpu().numpy().T):
            for at, nodes in enumerate(grow(table, wanted, self.config)):
                self.trees.put(output * self.config.num_trees + at, nodes)


def grow(
    features: np.ndarray, targets: np.ndarray, config: BoostedStatisticsConfig
) -> list[np.ndarray]:
    """Fit ``[members, F]`` to ``[members]``, both float64.

    Returns
    -------
    list of np.ndarray
        Nodes of each tree: a structured array with ``feature_idx``, ``num_threshold``, ``left``,
        ``right``, ``is_leaf`` and ``value``, the root first. The values of the first tree hold the
        mean of the targets, too.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    regressor = HistGradientBoostingRegressor(
        max_iter=config.num_trees,
        learning_rate=config.learning_rate,
        max_leaf_nodes=config.max_leaves,
        max_depth=config.max_depth,
        min_samples_leaf=config.min_members,
        early_stopping=False,
        random_state=0,
    )
    mean = targets.mean()
    regressor.fit(features, targets - mean)
    trees = [predictor.nodes.copy() for (predictor,) in regressor._predictors]
    trees[0]["value"] += mean
    return trees


class Trees(nn.Module):
    """Binary trees of bounded size: from the root, a feature at most its threshold goes left.

    Parameters
    ----------
    num_trees, num_nodes
        Shape; a tree may have fewer nodes.
    depth
        Decisions from root to leaf, at most.
    """

    feature: Tensor
    threshold: Tensor
    child: Tensor
    value: Tensor

    def __init__(self, num_trees: int, *, num_nodes: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        shape = (num_trees, num_nodes)
        self.register_buffer("feature", torch.zeros(shape, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("child", torch.zeros((*shape, 2), dtype=torch.int64))
        self.register_buffer("value", torch.zeros(shape, dtype=torch.float64))

    def forward(self, features: Tensor) -> Tensor:
        """Look up features ``[batch, F]`` in every tree; returns ``[batch, trees]``."""
        trees = torch.arange(len(self.feature), device=features.device)
        node = torch.zeros_like(trees).expand(len(features), -1)
        for _ in range(self.depth):
            goes_right = features.gather(1, self.feature[trees, node]) > self.threshold[trees, node]
            node = self.child[trees, node, goes_right.long()]
        return self.value[trees, node]

    def put(self, tree: int, nodes: np.ndarray) -> None:
        """Store one tree, given as by :func:`grow`; a leaf is its own child."""
        count, itself = len(nodes), np.arange(len(nodes))
        leaf = nodes["is_leaf"].astype(bool)
        children = [np.where(leaf, itself, nodes[side]) for side in ("left", "right")]
        columns = {
            "feature": np.where(leaf, 0, nodes["feature_idx"]),
            "threshold": np.where(leaf, 0.0, nodes["num_threshold"]),
            "child": np.stack(children, axis=1),
            "value": nodes["value"],
        }
        for name, column in columns.items():
            buffer = self.get_buffer(name)
            buffer[tree, :count] = torch.as_tensor(column.astype(np.float64)).to(buffer)
