"""Acting on weights by factors: each hidden unit is multiplied, and its readers divided."""

from collections.abc import Mapping
from itertools import product

import numpy as np
import torch
from torch import Tensor

from zoo.errors import WeightSpaceMismatchError
from zoo.space import Exponent, GLBlock, NeuronGroup, ScaleGroup, Touch, WeightSpace
from zoo.symmetry.act import Action


def sample_scale(
    space: WeightSpace,
    generator: torch.Generator,
    *,
    log_std: float = 0.5,
    scalings: tuple[str, ...] | None = None,
) -> Action:
    """Draw random factors: log-normal ones, and fair signs.

    Parameters
    ----------
    generator
        Source of randomness.
    log_std
        Standard deviation of the natural logarithm of positive factors.
    scalings
        Names of the scalings to use; all of them by default.
    """
    chosen = space.scalings if scalings is None else [space.scaling(name) for name in scalings]
    return from_factors(
        space,
        {one.name: random_factors(space, one, generator, log_std=log_std) for one in chosen},
    )


def random_factors(
    space: WeightSpace, scaling: ScaleGroup, generator: torch.Generator, *, log_std: float = 0.5
) -> Tensor:
    """Draw one factor per unit, ``[copies, size]``, float64."""
    group = space.group(scaling.group)
    shape = (group.copies, group.size)
    if scaling.domain == "sign":
        return 2 * torch.randint(2, shape, generator=generator).double() - 1
    return torch.exp(log_std * torch.randn(shape, generator=generator, dtype=torch.float64))


def from_factors(space: WeightSpace, factors: Mapping[str, Tensor]) -> Action:
    """Build the element that multiplies each unit by a factor.

    Parameters
    ----------
    factors
        Per scaling ``[..., size]``, or ``[..., copies, size]`` where its group is nested; leading
        axes make one element per member of a batch of weights ``[..., P]``.

    Raises
    ------
    WeightSpaceMismatchError
        If factors have another shape, or are not in the scaling's domain.
    """
    per_tensor: dict[str, Tensor] = {}
    for name, given in factors.items():
        scaling = space.scaling(name)
        group = space.group(scaling.group)
        checked = _checked(scaling, group, given)
        for exponent in scaling.exponents:
            grid = _laid_out(space, group, exponent, checked**exponent.exponent)
            known = per_tensor.get(exponent.tensor)
            per_tensor[exponent.tensor] = grid if known is None else known * grid
    ranks = {tensor.name: len(tensor.shape) for tensor in space.tensors}
    batch = np.broadcast_shapes(
        *(tuple(grid.shape[: grid.ndim - ranks[name]]) for name, grid in per_tensor.items())
    )
    return Action(
        torch.arange(space.num_parameters),
        multiplier=torch.cat(
            [
                per_tensor.get(tensor.name, torch.ones((), dtype=torch.float64))
                .expand((*batch, *tensor.shape))
                .reshape((*batch, tensor.numel))
                for tensor in space.tensors
            ],
            dim=-1,
        ),
    )


def _checked(scaling: ScaleGroup, group: NeuronGroup, factors: Tensor) -> Tensor:
    """Return factors ``[..., copies, size]``, float64."""
    values = factors.double()
    if group.copies == 1 and not (values.ndim > 1 and tuple(values.shape[-2:]) == (1, group.size)):
        values = values.unsqueeze(-2)
    valid = values > 0 if scaling.domain == "positive" else values.abs() == 1
    if tuple(values.shape[-2:]) != (group.copies, group.size) or not bool(valid.all()):
        wanted = "positive factors" if scaling.domain == "positive" else "factors of 1 or -1"
        raise WeightSpaceMismatchError(
            f"Expected {wanted} of shape [..., {group.copies}, {group.size}] for scaling "
            f"{scaling.name!r}, got shape {list(factors.shape)} with values from "
            f"{float(factors.min())} to {float(factors.max())}."
        )
    return values


def _touch(group: NeuronGroup, exponent: Exponent) -> Touch:
    return next(t for t in group.touches if (t.tensor, t.dim) == (exponent.tensor, exponent.dim))


def _positions(group: NeuronGroup, exponent: Exponent) -> Tensor:
    """Positions that each unit owns on an axis and that share an exponent, [copies, size, n]."""
    positions = torch.from_numpy(_touch(group, exponent).index.array())
    if exponent.slots is not None:
        positions = positions[:, list(exponent.slots)]
    return positions.reshape(group.copies, group.size, -1)


def _laid_out(space: WeightSpace, group: NeuronGroup, exponent: Exponent, values: Tensor) -> Tensor:
    """Write a value per unit to the entries that it owns, ``[..., *shape or 1]``; else ones."""
    touch = _touch(group, exponent)
    shape = space.tensor(exponent.tensor).shape
    positions = _positions(group, exponent)
    num_rows = 1 if touch.rows_dim is None else shape[touch.rows_dim]
    grid = values.new_ones(*values.shape[:-2], num_rows, shape[touch.dim])
    for copy in range(group.copies):
        written = values[..., copy, :, None].expand(*values.shape[:-2], *positions.shape[1:])
        rows = [0] if touch.rows is None else touch.rows.array()[copy].tolist()
        for row in rows:
            grid[..., row, positions[copy].ravel()] = written.flatten(-2)
    lengths = [1] * len(shape)
    lengths[touch.dim] = shape[touch.dim]
    if touch.rows_dim is not None:
        lengths[touch.rows_dim] = num_rows
        grid = grid if touch.rows_dim < touch.dim else grid.mT
    return grid.reshape(*values.shape[:-2], *lengths)


# ---- general linear blocks --------------------------------------------------------------------
def random_matrices(block: GLBlock, generator: torch.Generator) -> Tensor:
    """Draw one well-conditioned matrix per copy, ``[copies, size, size]``, float64."""
    noise = torch.randn(
        block.copies, 3, block.size, block.size, generator=generator, dtype=torch.float64
    )
    left, right = (torch.linalg.qr(noise[:, at]).Q for at in (0, 1))
    matrices: Tensor = left * torch.exp(0.5 * noise[:, 2, :1]) @ right
    return matrices


def mix(space: WeightSpace, block: GLBlock, matrices: Tensor, vector: Tensor) -> Tensor:
    """Mix the units of a general linear block; the function stays.

    Parameters
    ----------
    matrices
        One invertible matrix per copy, ``[copies, size, size]``.
    vector
        Weights ``[..., P]``.
    """
    space.check_vector(vector)
    group = space.group(block.group)
    tensors = {name: tensor.clone() for name, tensor in space.unflatten(vector).items()}
    matrices = matrices.to(vector)
    inverse = torch.linalg.inv(matrices).mT
    for exponent in block.exponents:
        touch = _touch(group, exponent)
        rank = len(space.tensor(exponent.tensor).shape)
        dims = (
            [touch.dim - rank]
            if touch.rows_dim is None
            else [touch.rows_dim - rank, touch.dim - rank]
        )
        # a view, [..., rows or 1, units]: writes reach the tensor
        view = tensors[exponent.tensor].movedim(dims, list(range(-len(dims), 0)))
        view = view if touch.rows_dim is not None else view.unsqueeze(-2)
        for copy, positions in enumerate(_positions(group, exponent)):
            matrix = (matrices if exponent.exponent == 1 else inverse)[copy]
            rows = [0] if touch.rows is None else touch.rows.array()[copy].tolist()
            for row, slot in product(rows, positions.T):
                view[..., row, slot] = view[..., row, slot] @ matrix.T
    return space.flatten(tensors)
