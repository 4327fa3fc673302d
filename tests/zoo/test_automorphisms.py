"""Completeness on tiny networks: as many relabellings are found as brute force counts.

The candidates make no use of what tracing knows. Every axis of every parameter that does not index
the network's inputs, outputs or kernel positions is permuted by itself: a perceptron with one
hidden layer of three units has 6 x 6 x 6 candidates (rows of the first matrix, its bias, columns of
the second), of which those six keep the function that move all three alike. Only the function on
random weights and inputs in float64 ties the axes together.

One widening and one narrowing, each stated with the network: ``by_row`` permutes an axis anew for
every row (units of a grouped kernel depend on its rows); ``blocks`` keeps the permutations of an
axis within blocks (the gates of a recurrent layer) where all of them would be too many to try.
"""

from dataclasses import dataclass, field
from itertools import permutations, product
from math import prod

import numpy as np
import pytest
import torch
from rule_cases.networks import Case, aten
from torch import Tensor, nn
from torch.nn import functional as F

import zoo

Axis = tuple[str, int]
CHUNK = 1 << 14


@dataclass(frozen=True)
class Tiny:
    """A network as a function of parameters and inputs, and which axes are not candidates."""

    case: Case
    fixed: set[Axis]
    by_row: set[Axis] = field(default_factory=set)
    blocks: dict[Axis, int] = field(default_factory=dict)


def tiny(function, shapes, fixed, inputs=((3, 2),), **options) -> Tiny:
    buffers = options.pop("buffers", ())
    axes = {(name[:-1], int(name[-1])) for name in fixed.split()}
    return Tiny(Case(function, shapes, inputs, buffers=buffers), axes, **options)


def heads(x: Tensor, num: int = 2) -> Tensor:
    """Cut the last axis: [batch, length, heads * width] to [batch, heads, length, width]."""
    return x.unflatten(-1, (num, -1)).transpose(-2, -3)


def attention(p, x):
    q, k, v = (heads(F.linear(x, weight)) for weight in (p.q, p.k, p.v))
    weights = (q @ k.transpose(-1, -2)).softmax(-1)
    return F.linear((weights @ v).transpose(-2, -3).flatten(-2), p.o)


def shared_gain(p, x):
    """Attention whose heads share a gain of queries: their units move alike."""
    q, k, v = (heads(F.linear(x, weight)) for weight in (p.q, p.k, p.v))
    weights = ((q * p.g) @ k.transpose(-1, -2)).softmax(-1)
    return F.linear((weights @ v).transpose(-2, -3).flatten(-2), p.o)


def grouped(p, x):
    return F.linear(F.conv1d(F.conv1d(x, p.a).tanh(), p.g, groups=2).tanh().sum(-1), p.o)


def recurrent(p, x):
    hidden = torch.zeros(len(x), 3, dtype=x.dtype)
    for step in range(x.shape[1]):
        hidden = torch.tanh(F.linear(x[:, step], p.w, p.b) + F.linear(hidden, p.u))
    return F.linear(hidden, p.o)


def long_short_term(p, x):
    hidden = cell = torch.zeros(len(x), 2, dtype=x.dtype)
    for step in range(x.shape[1]):
        gates = F.linear(x[:, step], p.w, p.b) + F.linear(hidden, p.u)
        i, f, g, o = gates.chunk(4, dim=-1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
    return F.linear(hidden, p.o)


def residual(p, x):
    stream = F.linear(x, p.e)
    return F.linear(stream + F.linear(torch.relu(F.linear(stream, p.u)), p.d), p.h)


def perceptron(p, x):
    return F.linear(torch.tanh(F.linear(torch.tanh(F.linear(x, p.a, p.b)), p.c, p.d)), p.o)


def norm(p, x):
    normal = F.batch_norm(F.linear(x, p.a), p.m, p.v, p.g, p.s)
    return F.linear(torch.tanh(normal), p.o)


TOKENS = ((2, 3, 2),)
NETWORKS = {
    "perceptron": tiny(
        perceptron, {"a": (2, 2), "b": (2,), "c": (3, 2), "d": (3,), "o": (2, 3)}, "a1 o0"
    ),
    "sine": tiny(
        lambda p, x: F.linear(torch.sin(30 * F.linear(x, p.a, p.b)), p.o),
        {"a": (3, 2), "b": (3,), "o": (2, 3)},
        "a1 o0",
    ),
    "convolution-flatten": tiny(
        lambda p, x: F.linear(F.conv1d(torch.relu(F.conv1d(x, p.a)), p.b).flatten(1), p.o),
        {"a": (3, 2, 2), "b": (2, 3, 2), "o": (2, 4)},
        "a1 a2 b2 o0",
        inputs=((2, 2, 4),),
    ),
    "batch-norm": tiny(
        norm,
        {"a": (3, 2), "o": (2, 3)} | dict.fromkeys("mvgs", (3,)),
        "a1 o0",
        buffers=("m", "v"),
    ),
    "layer-norm": tiny(
        lambda p, x: F.linear(F.layer_norm(F.linear(x, p.a), (3,), p.g, p.s).tanh(), p.o),
        {"a": (3, 2), "g": (3,), "s": (3,), "o": (2, 3)},
        "a1 o0",
    ),
    "group-norm": tiny(
        lambda p, x: F.linear(F.group_norm(F.conv1d(x, p.a), 2, p.g).tanh().sum(-1), p.o),
        {"a": (4, 2, 1), "g": (4,), "o": (2, 4)},
        "a1 o0",
        inputs=((2, 2, 3),),
    ),
    "residual": tiny(
        residual, {"e": (3, 2), "u": (2, 3), "d": (3, 2), "h": (2, 3)}, "e1 h0"
    ),
    "attention": tiny(
        attention, {"q": (4, 2), "k": (4, 2), "v": (4, 2), "o": (2, 4)}, "q1 k1 v1 o0", TOKENS
    ),
    "attention-shared-gain": tiny(
        shared_gain,
        {"q": (4, 2), "k": (4, 2), "g": (2,), "v": (2, 2), "o": (2, 2)},
        "q1 k1 v1 o0",
        TOKENS,
    ),
    "grouped-convolution": tiny(
        grouped,
        {"a": (4, 2, 1), "g": (4, 2, 1), "o": (2, 4)},
        "a1 o0",
        inputs=((2, 2, 3),),
        by_row={("g", 1)},
    ),
    "gated": tiny(
        lambda p, x: F.linear(F.glu(F.linear(x, p.a, p.b)), p.o),
        {"a": (4, 2), "b": (4,), "o": (2, 2)},
        "a1 o0",
    ),
    "concatenation": tiny(
        lambda p, x: F.linear(
            torch.cat([torch.relu(F.linear(x, p.a)), torch.tanh(F.linear(x, p.b))], -1), p.o
        ),
        {"a": (3, 2), "b": (2, 2), "o": (2, 5)},
        "a1 b1 o0",
    ),
    "recurrent": tiny(
        recurrent, {"w": (3, 2), "u": (3, 3), "b": (3,), "o": (2, 3)}, "w1 o0", TOKENS
    ),
    "long-short-term-memory": tiny(
        long_short_term,
        {"w": (8, 2), "u": (8, 2), "b": (8,), "o": (2, 2)},
        "w1 o0",
        TOKENS,
        blocks={("w", 0): 2, ("u", 0): 2, ("b", 0): 2},
    ),
    "tied": tiny(
        lambda p, x: torch.relu(F.linear(x, p.a, p.b)) @ p.a,
        {"a": (3, 2), "b": (3,)},
        "a1",
    ),
    "shared-steps": tiny(
        lambda p, x: F.linear(step(p, step(p, F.linear(x, p.e))), p.o),
        {"e": (3, 2), "u": (3, 3), "b": (3,), "o": (2, 3)},
        "e1 o0",
    ),
    "maxout": tiny(
        lambda p, x: F.linear(F.linear(x, p.a).unflatten(-1, (3, 2)).amax(-1), p.o),
        {"a": (6, 2), "o": (2, 3)},
        "a1 o0",
    ),
    "shuffled": tiny(
        lambda p, x: F.conv1d(
            aten.channel_shuffle(F.conv1d(x, p.a).tanh(), 2), p.g, groups=2
        ).tanh().sum(-1) @ p.o,
        {"a": (4, 2, 1), "g": (4, 2, 1), "o": (4, 2)},
        "a1 o1",
        inputs=((2, 2, 3),),
        by_row={("g", 1)},
    ),
    "centred-blocks": tiny(
        lambda p, x: F.linear(centred(F.linear(x, p.a)).tanh(), p.o),
        {"a": (4, 2), "o": (2, 4)},
        "a1 o0",
    ),
    "view-transpose-view": tiny(
        lambda p, x: F.linear(shuffled(F.linear(x, p.a).tanh()), p.o),
        {"a": (4, 2), "o": (2, 4)},
        "a1 o0",
    ),
    "view-transpose-view-grouped": tiny(
        lambda p, x: (
            F.conv1d(shuffled(F.conv1d(x, p.a).tanh()), p.g, groups=2).tanh().sum(-1) @ p.o
        ),
        {"a": (4, 2, 1), "g": (4, 2, 1), "o": (4, 2)},
        "a1 o1",
        inputs=((2, 2, 3),),
        by_row={("g", 1)},
    ),
}  # fmt: skip


def shuffled(x: Tensor) -> Tensor:
    """Shuffle two blocks of two channels, written out."""
    return x.unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2)


def centred(x: Tensor) -> Tensor:
    """Subtract the mean of each block of two units, through a view that units must keep."""
    blocks = x.unflatten(1, (2, 2))
    return (blocks - blocks.mean(2, keepdim=True)).flatten(1, 2)


def step(p, x):
    return x + torch.tanh(F.linear(x, p.u, p.b))


def orders(net: Tiny, axis: Axis, length: int) -> list[tuple[int, ...]]:
    """Return all candidate orders of one axis."""
    if axis in net.fixed:
        return [tuple(range(length))]
    size = net.blocks.get(axis, length)
    within = list(permutations(range(size)))
    return [
        tuple(block * size + at for block, order in enumerate(chosen) for at in order)
        for chosen in product(within, repeat=length // size)
    ]


def candidates(net: Tiny, name: str) -> np.ndarray:
    """List the candidate orders of one tensor's entries, [count, numel]."""
    shape = net.case.parameters[name]
    choices, by_row = [], []
    for dim, length in enumerate(shape):
        axis_orders = orders(net, (name, dim), length)
        by_row.append((name, dim) in net.by_row)
        repeat = shape[0] if by_row[-1] else 1
        choices.append(list(product(axis_orders, repeat=repeat)))
    found = []
    for chosen in product(*choices):
        grid = np.arange(int(np.prod(shape))).reshape(shape)
        for dim, own in reversed(list(enumerate(chosen))):
            if by_row[dim]:
                grid = np.stack(
                    [row.take(order, dim - 1) for row, order in zip(grid, own, strict=True)]
                )
            else:
                grid = grid.take(own[0], dim)
        found.append(grid.ravel())
    return np.unique(np.array(found), axis=0)


def count_by_force(net: Tiny, module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Count the candidates that leave the function unchanged."""
    generator = torch.Generator().manual_seed(2)
    shapes = net.case.parameters
    weights = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).abs() + 0.5
        if name in net.case.buffers
        else torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    listed = {name: torch.from_numpy(candidates(net, name)) for name in shapes}
    total = prod(len(each) for each in listed.values())
    assert total <= 500_000, total
    evaluate = torch.vmap(lambda state: torch.func.functional_call(module, state, inputs))
    reference = torch.func.functional_call(module, weights, inputs)
    kept = 0
    for first in range(0, total, CHUNK):
        numbers = np.unravel_index(
            np.arange(first, min(first + CHUNK, total)), [len(each) for each in listed.values()]
        )
        states = {
            name: weights[name].ravel()[each[torch.from_numpy(at)]].unflatten(-1, shapes[name])
            for (name, each), at in zip(listed.items(), numbers, strict=True)
        }
        change = (evaluate(states) - reference).abs().flatten(1).amax(1)
        kept += int((change <= 1e-9 * reference.abs().max()).sum())
    return kept


@pytest.mark.parametrize("name", NETWORKS)
def test_as_many_relabellings_as_brute_force_counts(name):
    net = NETWORKS[name]
    module, inputs = net.case.build()
    space = zoo.trace(module, *inputs, strict=True)
    module, inputs = module.double(), tuple(value.double() for value in inputs)
    assert round(10**space.log10_order) == count_by_force(net, module, inputs)


def test_brute_force_counts_what_is_known():
    """Six relabellings of three units, and none without the hidden layer's bias as candidate."""
    shapes = {"a": (3, 2), "b": (3,), "o": (2, 3)}
    net = tiny(lambda p, x: F.linear(F.linear(x, p.a, p.b).tanh(), p.o), shapes, "a1 o0")
    module, inputs = net.case.build()
    inputs = tuple(value.double() for value in inputs)
    assert count_by_force(net, module.double(), inputs) == 6
    without_bias = Tiny(net.case, net.fixed | {("b", 0)})
    assert count_by_force(without_bias, module, inputs) == 1
