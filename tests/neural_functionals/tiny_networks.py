"""Networks whose weight spaces are not plain layers: nested, repeated and depthwise groups."""

import torch
from torch import nn

from neural_functionals.testing import example_space
from zoo.symmetry import trace


class TinyAttention(nn.Module):
    """Two heads with two units each: nested groups, and a residual stream."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix = nn.Linear(1, 2, bias=False), nn.Linear(2, 12, bias=False)
        self.out = nn.Linear(4, 2, bias=False)

    def forward(self, x):
        x = self.embed(x)
        q, k, v = self.mix(x).view(*x.shape[:2], 3, 2, 2).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return (x + self.out(mixed.transpose(1, 2).flatten(2))).sum(-1)


class Residual(nn.Module):
    """A block on a stream of four units: matrices that one group moves on both axes."""

    def __init__(self):
        super().__init__()
        self.embed, self.read = nn.Linear(1, 4), nn.Linear(4, 1, bias=False)
        self.block = nn.Linear(4, 4, bias=False)

    def forward(self, x):
        x = self.embed(x)
        return self.read(x + torch.relu(self.block(x)))


class Recurrent(nn.Module):
    """An Elman network."""

    def __init__(self):
        super().__init__()
        self.cell, self.read = nn.RNN(1, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x):
        return self.read(self.cell(x)[0])


class Tied(nn.Module):
    """One matrix used twice."""

    def __init__(self):
        super().__init__()
        self.embed, self.again = nn.Linear(2, 4, bias=False), nn.Linear(4, 4)
        self.read = nn.Linear(4, 2, bias=False)

    def forward(self, x):
        return self.read(torch.tanh(self.again(torch.tanh(self.again(self.embed(x))))))


class Depthwise(nn.Module):
    """Groups of channels: a group that moves one axis of each tensor, kernels as channels."""

    def __init__(self):
        super().__init__()
        self.first, self.depth = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 3, 2, groups=3)
        self.last = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.last(torch.relu(self.depth(torch.relu(self.first(x))))).mean((2, 3))


REPEATED = {
    "residual": (Residual, (2, 1)),
    "recurrent": (Recurrent, (2, 3, 1)),
    "tied": (Tied, (2, 2)),
}
OTHERS = {
    "attention": (TinyAttention, (2, 3, 1)),
    "depthwise": (Depthwise, (2, 1, 4, 4)),
    **REPEATED,
}


def space_called(name):
    if name in OTHERS:
        network, shape = OTHERS[name]
        return trace(network(), torch.zeros(*shape), strict=True)
    return example_space(name)
