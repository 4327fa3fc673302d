"""Probe features: what units compute on inputs that are learnt, as features of their nodes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neural_functionals.graphs.template import GraphTemplate
from neural_functionals.layers.activations import ActivationRunner
from zoo.errors import InvalidConfigError
from zoo.space import WeightSpace


class ProbeFeatures(nn.Module):
    """Features of nodes from what their units compute on learned inputs [1]_.

    Members are run on the probes, and what each unit and each output then is (its activation, see
    :class:`~neural_functionals.layers.activations.ActivationRunner`) is mapped to features of its
    node, by a linear map and a layer normalisation per set of nodes. Units that several layers
    write, as those of residual streams, are averaged over these. Network inputs are the same for
    all members and get no features.

    Parameters
    ----------
    template
        Graph of the members.
    space
        Their weight space.
    network
        Their network, as :func:`zoo.networks.build` takes it.
    num_probes
        Inputs that every member is run on, drawn between -1 and 1 at the start.
    width
        Features per node.

    Raises
    ------
    InvalidConfigError
        If no network is given, it does not take real numbers, or it has units that neither a linear
        map nor a convolution writes.

    References
    ----------
    .. [1] Kofinas et al., "Graph Neural Networks for Learning Equivariant Representations of Neural
       Networks", ICLR 2024, Sec. 4.
    """

    nodes: Tensor
    counts: Tensor

    def __init__(
        self,
        template: GraphTemplate,
        space: WeightSpace,
        *,
        network: Mapping[str, Any],
        num_probes: int,
        width: int,
    ) -> None:
        super().__init__()
        if not network:
            raise InvalidConfigError(
                "Expected the members' network, which probes run through, got none. Give "
                "network=population.network_of(member_id), or num_probes=0."
            )
        self.run = ActivationRunner(space, network, num_probes)
        self.probes = nn.Parameter(2 * torch.rand(num_probes, *self.run.input_shape) - 1)
        owners = _owners(template)
        nodes = [_written(space, name, owners) for name in self.run.layers]
        counts = np.bincount(np.concatenate(nodes), minlength=template.num_nodes)
        _check_covered(template, counts)
        self.width, self.sizes = width, [each.size for each in template.node_sets]
        self.maps = nn.ModuleList(
            nn.Sequential(nn.Linear(num_probes, width), nn.LayerNorm(width))
            for each in template.node_sets
            if each.kind != "input"
        )
        self.register_buffer("nodes", torch.from_numpy(np.concatenate(nodes)), persistent=False)
        self.register_buffer("counts", torch.from_numpy(counts)[:, None], persistent=False)
        self.num_inputs = sum(each.size for each in template.node_sets if each.kind == "input")

    def forward(self, weights: Tensor) -> Tensor:
        """Run members ``[batch, P]`` on the probes: features of nodes ``[batch, N, width]``."""
        if not len(weights):
            return weights.new_zeros(0, sum(self.sizes), self.width)
        activations = [each.mT for each in self.run(weights, self.probes)]
        units = weights.new_zeros(len(weights), len(self.counts), len(self.probes))
        units = units.index_add(1, self.nodes, torch.cat(activations, dim=1))
        return self._mapped(units / self.counts.clamp(min=1))

    def _mapped(self, units: Tensor) -> Tensor:
        """Map activations ``[batch, N, probes]`` to features, set by set; inputs come first."""
        parts = torch.split(units, self.sizes, dim=1)
        known = parts[len(parts) - len(self.maps) :]
        mapped = [own(part) for own, part in zip(self.maps, known, strict=True)]
        zeros = mapped[0].new_zeros(len(units), self.num_inputs, self.width)
        return torch.cat([zeros, *mapped], dim=1)


def _owners(template: GraphTemplate) -> np.ndarray:
    """Node that each position of the flat vector leads to, ``[P + 1]``, int64; -1 for none."""
    owners = np.full(template.num_parameters + 1, -1)
    owners[template.edge_gather] = template.edge_index[1][:, None]
    owners[template.node_gather] = np.arange(template.num_nodes)[:, None]
    return owners


def _written(space: WeightSpace, weight: str, owners: np.ndarray) -> np.ndarray:
    """Node of each output of a layer, ``[outputs]``.

    Raises
    ------
    InvalidConfigError
        If an output is no unit of its own.
    """
    tensor = space.tensor(weight)
    start = space.offsets[weight]
    rows = owners[start : start + tensor.numel].reshape(tensor.shape[0], -1)
    if (rows[:, :1] < 0).any() or (rows != rows[:, :1]).any():
        raise InvalidConfigError(
            f"Expected a network whose layers write one unit per output, but in {weight!r} of "
            f"weight space {space.fingerprint} several weights of an output lead to different "
            "nodes. Use num_probes=0."
        )
    return rows[:, 0]


def _check_covered(template: GraphTemplate, counts: np.ndarray) -> None:
    """Raise :class:`InvalidConfigError` if units or outputs are written by no layer."""
    missing = list(_uncovered(template, counts))
    if missing:
        raise InvalidConfigError(
            "Expected a network whose units are the outputs of linear maps and convolutions, got "
            f"{', '.join(missing)}, which none of these writes. Use num_probes=0."
        )


def _uncovered(template: GraphTemplate, counts: Sequence[int] | np.ndarray) -> Iterator[str]:
    """Name the sets of nodes, but inputs, of which some node has no activation."""
    for each in template.node_sets:
        if each.kind != "input" and not np.asarray(counts)[each.nodes].all():
            yield repr(each.name)
