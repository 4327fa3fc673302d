"""A network as a sequence of tokens: one per output unit and layer, cut to one length."""

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor, nn

from zoo.errors import InvalidConfigError
from zoo.space import TensorSpec, WeightSpace


class Tokeniser(nn.Module):
    """Lay weights out as tokens, and tokens as weights, without loss [1]_.

    A layer's tensors are cut along their output axis. The parts of each output unit are joined into
    a row (the weights that arrive at it, its bias, its gain, shift and statistics), which is padded
    with zeros to a multiple of the token's length and cut into tokens.

    Parameters
    ----------
    space
        Weight space of the members.
    token_size
        Length ``S`` of a token; 0 takes the longest row, so that no row is cut.

    Attributes
    ----------
    num_tokens
        Number ``T`` of tokens.
    mask
        ``[T, S]`` bool: which entries are weights, not padding.
    positions
        ``[T, 3]`` int64: number in the sequence, number of the layer, number of the row in it.

    References
    ----------
    .. [1] Schürholt et al., "Towards Scalable and Versatile Weight Space Learning", ICML 2024.
       Departures: rows follow from the weight space, so normalisation layers have one row
       per unit for all that is known of it; layers without bias count for the longest row.
    """

    source: Tensor
    target: Tensor
    mask: Tensor
    positions: Tensor

    def __init__(self, space: WeightSpace, *, token_size: int = 0) -> None:
        super().__init__()
        if token_size < 0:
            raise InvalidConfigError(f"Expected a token_size of at least 0, got {token_size}.")
        rows = unit_rows(space)
        self.token_size = token_size or max(layer.shape[1] for layer in rows)
        padding = space.num_parameters  # the position of a zero after the last weight
        source, positions = [], []
        for number, layer in enumerate(rows):
            tokens = _cut(layer, self.token_size, padding)
            source.append(tokens.reshape(-1, self.token_size))
            row = np.repeat(np.arange(len(layer)), tokens.shape[1])
            positions.append(np.stack([np.full_like(row, number), row], axis=1))
        places = np.concatenate(source)
        self.num_tokens = len(places)
        numbers = np.column_stack([np.arange(self.num_tokens), np.concatenate(positions)])
        buffers = {
            "source": places,
            "target": np.argsort(places, axis=None)[:padding],
            "mask": places < padding,
            "positions": numbers,
        }
        for name, value in buffers.items():
            self.register_buffer(name, torch.from_numpy(value), persistent=False)

    def forward(self, weights: Tensor) -> Tensor:
        """Lay weights ``[..., P]`` out as tokens ``[..., T, S]``, padded with zeros."""
        padded = nn.functional.pad(weights, (0, 1))
        return padded[..., self.source]

    def weights(self, tokens: Tensor) -> Tensor:
        """Read weights ``[..., P]`` off tokens ``[..., T, S]``; padding is ignored."""
        return tokens.flatten(-2)[..., self.target]


def unit_rows(space: WeightSpace) -> list[np.ndarray]:
    """Positions in the flat vector of each layer's output units, ``[units, entries]`` int64.

    Layers come in the order of the flat vector. Tensors of one layer that have different numbers of
    output units count as layers of their own.
    """
    layers: dict[tuple[str, int], list[np.ndarray]] = defaultdict(list)
    for tensor in space.tensors:
        places = space.offsets[tensor.name] + np.arange(tensor.numel).reshape(tensor.shape)
        if tensor.shape:
            places = np.moveaxis(places, _output_axis(tensor), 0)
        rows = places.reshape(len(places) if tensor.shape else 1, -1)
        layers[tensor.layer, len(rows)].append(rows)
    return [np.concatenate(parts, axis=1) for parts in layers.values()]


def _output_axis(tensor: TensorSpec) -> int:
    """Return the axis of a tensor's output units, the first one where no axis is known for it."""
    roles = [axis.role for axis in tensor.axes]
    return roles.index("out") if "out" in roles else 0


def _cut(layer: np.ndarray, token_size: int, padding: int) -> np.ndarray:
    """Pad rows ``[units, entries]`` and cut them, ``[units, tokens per unit, token_size]``."""
    units, entries = layer.shape
    missing = -entries % token_size
    padded = np.pad(layer, ((0, 0), (0, missing)), constant_values=padding)
    return padded.reshape(units, -1, token_size)
