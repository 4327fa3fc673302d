"""First and second derivatives of a member's mean loss by its parameters."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from zoo.measures.networks import Networks, Samples
from zoo.measures.patches import PatchConvolutions

CHUNK = 256
"""Samples whose graph is kept as one piece; small networks then stay within a CPU's caches."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Curvature:
    """The gradient and the Hessian of a network's mean loss; made by :func:`curvature`.

    Parameters
    ----------
    leaves
        The network's parameters, in the order of the flat vector.
    pieces
        Per chunk of samples, the gradient by each of ``leaves``, with the graph that made it.
    """

    leaves: tuple[Tensor, ...]
    pieces: tuple[tuple[Tensor, ...], ...]

    @property
    def num_parameters(self) -> int:
        """Number of parameters ``p``."""
        return sum(leaf.numel() for leaf in self.leaves)

    @property
    def gradient(self) -> Tensor:
        """Gradient of the mean loss, ``[p]``."""
        return sum_flat(piece for piece in self.pieces)

    def product(self, vector: Tensor) -> Tensor:
        """Multiply the Hessian with a vector ``[p]``, exactly [1]_.

        References
        ----------
        .. [1] Pearlmutter, "Fast Exact Multiplication by the Hessian", Neural Computation 1994.
        """
        sizes = [leaf.numel() for leaf in self.leaves]
        along = [
            part.view_as(leaf)
            for part, leaf in zip(torch.split(vector, sizes), self.leaves, strict=True)
        ]
        return sum_flat(self._row(piece, along) for piece in self.pieces)

    def _row(self, piece: tuple[Tensor, ...], along: list[Tensor]) -> tuple[Tensor, ...]:
        curved = [
            pair for pair in zip(piece, along, strict=True) if pair[0].requires_grad
        ]  # a loss that is linear in a parameter leaves its gradient without a graph
        if not curved:
            return tuple(torch.zeros_like(leaf) for leaf in self.leaves)
        return torch.autograd.grad(
            [gradient for gradient, _ in curved],
            self.leaves,
            [direction for _, direction in curved],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )


def curvature(
    networks: Networks, member: int, samples: Samples, *, chunk: int = CHUNK
) -> Curvature:
    """Differentiate a member's loss, keeping what its Hessian needs.

    Buffers, such as the statistics of a batch normalisation, are constants.

    Parameters
    ----------
    member
        Its position.
    chunk
        Samples per piece; results depend on it by rounding alone. Memory for all samples'
        activations and gradients is held as long as the result.
    """
    leaves, fixed = leaves_of(networks, networks.vectors[member])
    with PatchConvolutions():
        pieces = tuple(
            torch.autograd.grad(
                loss, tuple(leaves.values()), create_graph=True, allow_unused=True,
                materialize_grads=True,
            )
            for loss in _pieces(networks, leaves | fixed, member, samples, chunk)
        )  # fmt: skip
    return Curvature(leaves=tuple(leaves.values()), pieces=pieces)


def gradient(
    networks: Networks,
    member: int,
    samples: Samples,
    *,
    vector: Tensor | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """Compute the gradient ``[p]`` of the mean loss with the targets of the member at a position.

    Parameters
    ----------
    vector
        Weights ``[P]`` to take it at; by default the member's.
    """
    leaves, fixed = leaves_of(networks, networks.vectors[member] if vector is None else vector)
    return sum_flat(
        torch.autograd.grad(loss, tuple(leaves.values()), allow_unused=True, materialize_grads=True)
        for loss in _pieces(networks, leaves | fixed, member, samples, chunk)
    )


def leaves_of(networks: Networks, vector: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Cut weights ``[P]`` into parameters to differentiate by, and buffers."""
    tensors = networks.space.unflatten(vector.detach())
    kinds = {tensor.name: tensor.kind for tensor in networks.space.tensors}
    leaves = {
        name: value.clone().requires_grad_()
        for name, value in tensors.items()
        if kinds[name] == "parameter"
    }
    return leaves, {name: value for name, value in tensors.items() if name not in leaves}


def sum_flat(rows: Iterator[tuple[Tensor, ...]]) -> Tensor:
    """Add up gradients and lay them out as one vector ``[p]``."""
    flat = [torch.cat([each.detach().reshape(-1) for each in row]) for row in rows]
    total = flat[0]
    for each in flat[1:]:
        total = total + each
    return total


def _pieces(
    networks: Networks, tensors: dict[str, Tensor], member: int, samples: Samples, chunk: int
) -> Iterator[Tensor]:
    """Compute the share of each chunk of samples in the mean loss."""
    targets = samples.targets_of(member)
    named = tensors | {alias: tensors[name] for alias, name in networks.space.tied}
    for inputs, wanted in zip(
        torch.split(samples.inputs, chunk), torch.split(targets, chunk), strict=True
    ):
        outputs = functional_call(networks.module, named, (inputs,))
        yield samples.loss(outputs, wanted) * (len(inputs) / len(samples))
