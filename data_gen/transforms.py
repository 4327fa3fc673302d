"""What is done to stored weights before they are trained on: widening, pruning.

Both are derived from the weight space alone, for whatever network it was traced from.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.errors import WeightSpaceMismatchError
from zoo.networks import build, example_input
from zoo.space import NeuronGroup, TensorSpec, WeightSpace

_TOLERANCE = 1e-4
"""Largest change of outputs that rounding of the weights to float32 explains, relative to them."""
_EXAMPLES = 5


def prune(space: WeightSpace, vector: np.ndarray, *, fraction: float, scope: str) -> np.ndarray:
    """Find the weights of smallest magnitude.

    Parameters
    ----------
    vector
        ``[P]``.
    fraction
        Share of the weights (tensors of role ``weight``) that go; rounded to a whole number.
    scope
        ``global`` or ``layer``: of all weights, or of each tensor.

    Returns
    -------
    np.ndarray
        Which entries stay, ``[P]`` bool. Of equal ones the first go.
    """
    spans = [
        np.arange(space.offsets[tensor.name], space.offsets[tensor.name] + tensor.numel)
        for tensor in space.tensors
        if tensor.role == "weight"
    ]
    stays = np.ones(len(vector), dtype=bool)
    for places in [np.concatenate(spans)] if scope == "global" else spans:
        order = np.argsort(np.abs(vector[places]), kind="stable")
        stays[places[order[: round(fraction * len(places))]]] = False
    return stays


def check_wider(old: WeightSpace, new: WeightSpace) -> None:
    """Check that a space is another one with more units in its neuron groups.

    Raises
    ------
    WeightSpaceMismatchError
        If it is not, or a group is not plain: units that lie inside others, or in grouped
        convolutions.
    """
    sizes = {group.name: group.size for group in new.groups}
    names = [tensor.name for tensor in new.tensors]
    if sizes.keys() != {g.name for g in old.groups} or names != [t.name for t in old.tensors]:
        raise WeightSpaceMismatchError(
            f"Expected weight space {new.fingerprint} to have the tensors and neuron groups of "
            f"{old.fingerprint}, in other sizes, got groups {', '.join(sizes)} in place of "
            f"{', '.join(group.name for group in old.groups)}. Widening keeps the depth."
        )
    for group in old.groups:
        wide = new.group(group.name)
        if wide.size < group.size:
            raise WeightSpaceMismatchError(
                f"Expected at least {group.size} units in group {group.name!r} of the wider "
                f"network, got {wide.size}."
            )
        if group.parent is not None or any(touch.rows is not None for touch in group.touches):
            raise WeightSpaceMismatchError(
                f"Group {group.name!r} of weight space {old.fingerprint} is nested or grouped; "
                "only plain layers can be widened."
            )
    for tensor in new.tensors:
        _check_shape(old, new, tensor)


def widen(
    old: WeightSpace,
    new: WeightSpace,
    vector: np.ndarray,
    *,
    rng: np.random.Generator,
    even: bool = False,
) -> np.ndarray:
    """Duplicate hidden units until a network is as wide as another; its function stays.

    What makes a unit (its row of a weight, its bias, its normalisation) is copied; what reads it is
    divided among the copies.

    Parameters
    ----------
    old, new
        Spaces of the network and of the wider one; see :func:`check_wider`.
    vector
        ``[P]`` of ``old``.
    rng
        Draws the shares.
    even
        Give copies of a unit equal shares.

    Returns
    -------
    np.ndarray
        ``[P]`` of ``new``, float32.
    """
    values = {
        name: tensor.numpy()
        for name, tensor in old.unflatten(torch.from_numpy(vector).double()).items()
    }
    copies = {group.name: _copies(group, new, rng, even=even) for group in old.groups}
    parts = [_widened(old, new, tensor, values[tensor.name], copies) for tensor in new.tensors]
    return np.concatenate([part.reshape(-1) for part in parts]).astype(np.float32)


def check_function(
    old: nn.Module, network: Mapping[str, Any], space: WeightSpace, vector: np.ndarray, *, of: str
) -> None:
    """Compare a network with its wider form on random inputs, in float64.

    Raises
    ------
    WeightSpaceMismatchError
        If their outputs differ by more than rounding: an operator (such as a normalisation over
        units) is not indifferent to copies.
    """
    wide = build(network)
    wide.load_state_dict(space.state_dict(torch.from_numpy(vector)), strict=False)
    example = example_input(network, _EXAMPLES)
    if example.is_floating_point():
        example = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
        example = example.double()
    with torch.no_grad():
        before: Tensor = old.double().eval()(example)
        after: Tensor = wide.double().eval()(example)
    change = (before - after).abs().max() / before.abs().max().clamp(min=1e-12)
    if not change < _TOLERANCE:
        raise WeightSpaceMismatchError(
            f"Widening in {of} should keep the function of every network, and the first one's "
            f"outputs changed by a factor of {float(change):.2g}: the network has operators that "
            "are not indifferent to copies of units. Widen by a whole number, with even shares, "
            "or leave the transform out."
        )


Copies = tuple[np.ndarray, np.ndarray]
"""Per unit of the wider group: which old unit it copies, and its share."""


def _copies(
    group: NeuronGroup, new: WeightSpace, rng: np.random.Generator, *, even: bool
) -> Copies:
    source = np.arange(new.group(group.name).size) % group.size
    weights = np.ones(len(source)) if even else rng.uniform(0.5, 1.5, len(source))
    totals = np.bincount(source, weights=weights, minlength=group.size)
    return source, weights / totals[source]


def _widened(
    old: WeightSpace,
    new: WeightSpace,
    tensor: TensorSpec,
    value: np.ndarray,
    copies: Mapping[str, Copies],
) -> np.ndarray:
    """Copy a tensor's entries to their new places, axis by axis."""
    for dim, size in enumerate(tensor.shape):
        source, share = np.arange(size), np.ones(size)
        for group in old.groups:
            touched = zip(group.touches, new.group(group.name).touches, strict=True)
            for before, after in touched:
                if (after.tensor, after.dim) == (tensor.name, dim):
                    units, shares = copies[group.name]
                    places = after.index.array()
                    source[places] = before.index.array()[units]
                    if tensor.axes[dim].role == "in":
                        share[places] = shares[:, None]
        value = np.take(value, source, axis=dim)
        value = value * share.reshape(-1, *[1] * (value.ndim - dim - 1))
    return value


def _check_shape(old: WeightSpace, new: WeightSpace, tensor: TensorSpec) -> None:
    """Check that a tensor is larger by more units alone, each of as many entries as before."""
    before = old.tensor(tensor.name)
    grown = [size for size, _ in zip(before.shape, tensor.shape, strict=False)]
    for group in old.groups:
        pairs = zip(group.touches, new.group(group.name).touches, strict=False)
        for one, other in pairs:
            if other.tensor == tensor.name and one.index.block == other.index.block:
                grown[other.dim] += (other.index.size - one.index.size) * one.index.block
    if tuple(grown) != tensor.shape:
        raise WeightSpaceMismatchError(
            f"Expected {tensor.name!r} of shape {tuple(grown)} in the wider network, since its "
            f"hidden units alone multiply, got {tensor.shape}. Keep inputs, outputs and kernels."
        )
