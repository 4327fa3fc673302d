"""Architectures in which weights are generated, mixed, shared, factorised or normalised."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from .inputs import Factory, noise
from .perceptrons import mlp


class HyperNetwork(nn.Module):
    """A condition generates the weights of the hidden layer of another network."""

    def __init__(self, fan_in: int = 3, width: int = 5, fan_out: int = 2):
        super().__init__()
        self.shape = (width, fan_in)
        self.trunk, self.weights = mlp(4, 6, 7), nn.Linear(7, width * fan_in)
        self.biases, self.head = nn.Linear(7, width), nn.Linear(width, fan_out)

    def forward(self, x, condition):
        code = torch.tanh(self.trunk(condition))
        weight = self.weights(code).view(-1, *self.shape)
        hidden = torch.einsum("boi,bni->bno", weight, x) + self.biases(code).unsqueeze(1)
        return self.head(torch.relu(hidden))


class Experts(nn.Module):
    """Every expert computes; a softmax mixes them."""

    def __init__(self, fan_in: int = 4, num: int = 3, hidden: int = 5, fan_out: int = 2):
        super().__init__()
        self.router = nn.Linear(fan_in, num)
        self.up = nn.Parameter(noise(num, fan_in, hidden))
        self.up_bias = nn.Parameter(noise(num, hidden))
        self.down = nn.Parameter(noise(num, hidden, fan_out))

    def forward(self, x):
        gates = self.router(x).softmax(dim=-1)
        hidden = F.relu(torch.einsum("bi,eih->beh", x, self.up) + self.up_bias)
        return torch.einsum("be,beh,eho->bo", gates, hidden, self.down)


class Film(nn.Module):
    """A condition scales and shifts the channels of a convolution."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5, affine=False)
        self.film, self.head = mlp(3, 6, 10), nn.Linear(5, 4)

    def forward(self, x, condition):
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        x = F.relu(self.norm(self.conv(x)) * (1 + scale) + shift)
        return self.head(x.amax(dim=(2, 3)))


class DeepSets(nn.Module):
    """A perceptron per element, sum, mean and maximum, a perceptron."""

    def __init__(self):
        super().__init__()
        self.element, self.pooled = mlp(3, 7, 5), mlp(15, 6, 2)

    def forward(self, x):
        x = F.relu(self.element(x))
        return self.pooled(torch.cat([x.sum(dim=1), x.mean(dim=1), x.max(dim=1).values], dim=-1))


def ring(num: int) -> torch.Tensor:
    """Normalised adjacency of a ring with one chord and self-loops."""
    adjacency = torch.eye(num) + torch.eye(num).roll(1, 0) + torch.eye(num).roll(-1, 0)
    adjacency[0, num // 2] = adjacency[num // 2, 0] = 1
    degree = adjacency.sum(0).rsqrt()
    return degree[:, None] * adjacency * degree


class GraphConvolution(nn.Module):
    """Features averaged over the neighbours in a fixed graph."""

    def __init__(self):
        super().__init__()
        self.register_buffer("adjacency", ring(6), persistent=False)
        self.layers = nn.ModuleList([nn.Linear(3, 5), nn.Linear(5, 7), nn.Linear(7, 2)])

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = F.relu(self.adjacency @ layer(x))
        return self.layers[-1](self.adjacency @ x)


class GraphAttention(nn.Module):
    """Two heads that score pairs of neighbours additively; messages go along an edge list."""

    def __init__(self, heads: int = 2, width: int = 3):
        super().__init__()
        edges = ring(5).nonzero().T
        self.register_buffer("source", edges[0].clone(), persistent=False)
        self.register_buffer("target", edges[1].clone(), persistent=False)
        self.linear, self.heads = nn.Linear(4, heads * width, bias=False), heads
        self.from_source = nn.Parameter(noise(heads, width))
        self.to_target = nn.Parameter(noise(heads, width))
        self.head = nn.Linear(heads * width, 2)

    def forward(self, x):
        nodes = self.linear(x).view(len(x), self.heads, -1)
        scores = (nodes * self.from_source).sum(-1)[self.source]
        scores = scores + (nodes * self.to_target).sum(-1)[self.target]
        weights = F.leaky_relu(scores, 0.2).exp()
        total = weights.new_zeros(len(x), self.heads).index_add(0, self.target, weights)
        messages = nodes[self.source] * (weights / total[self.target]).unsqueeze(-1)
        gathered = torch.zeros_like(nodes).index_add(0, self.target, messages)
        return self.head(F.elu(gathered.flatten(1)))


class TiedAutoencoder(nn.Module):
    """The decoder is the encoder's transpose."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(noise(5, 8))
        self.up, self.down = nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(8))

    def forward(self, x):
        code = torch.sigmoid(F.linear(x, self.weight, self.up))
        return torch.addmm(self.down, code, self.weight)


class LowRank(nn.Module):
    """A linear layer with a low-rank addition, as left by an adapter."""

    def __init__(self, fan_in: int, fan_out: int, rank: int):
        super().__init__()
        self.base = nn.Linear(fan_in, fan_out)
        self.a, self.b = nn.Parameter(noise(rank, fan_in)), nn.Parameter(noise(fan_out, rank))

    def forward(self, x):
        return self.base(x) + 0.5 * (x @ self.a.T @ self.b.T)


class EulerSteps(nn.Module):
    """A neural differential equation: one perceptron, applied again and again."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(3, 6), nn.Linear(6, 2)
        self.up, self.down = nn.Linear(6 + 1, 5), nn.Linear(5, 6)

    def forward(self, x):
        x = self.embed(x)
        for step in range(3):
            time = torch.full_like(x[:, :1], step / 3)
            x = x + self.down(torch.tanh(self.up(torch.cat([x, time], dim=-1)))) / 3
        return self.head(x)


class Siamese(nn.Module):
    """Two inputs through one tower, compared by cosine and by distance."""

    def __init__(self):
        super().__init__()
        self.tower = mlp(4, 7, 5)

    def forward(self, first, second):
        first, second = self.tower(first), self.tower(second)
        cosine = (F.normalize(first, dim=-1) * F.normalize(second, dim=-1)).sum(dim=-1)
        return torch.stack([cosine, torch.linalg.vector_norm(first - second, dim=-1)], dim=-1)


def normalised() -> nn.Module:
    layers = [parametrizations.weight_norm(nn.Linear(*shape)) for shape in ((3, 5), (5, 7), (7, 2))]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


ARCHITECTURES: dict[str, Factory] = {
    "hypernetwork": lambda: (HyperNetwork(), (noise(2, 6, 3), noise(2, 4))),
    "soft-experts": lambda: (Experts(), (noise(3, 4),)),
    "film": lambda: (Film(), (noise(2, 2, 5, 6), noise(2, 3))),
    "deep-sets": lambda: (DeepSets(), (noise(2, 4, 3),)),
    "graph-convolution": lambda: (GraphConvolution(), (noise(2, 6, 3),)),
    "graph-attention": lambda: (GraphAttention(), (noise(5, 4),)),
    "tied-autoencoder": lambda: (TiedAutoencoder(), (noise(3, 8),)),
    "low-rank": lambda: (
        nn.Sequential(LowRank(4, 7, 2), nn.ReLU(), LowRank(7, 3, 5)),
        (noise(2, 4),),
    ),
    "euler-steps": lambda: (EulerSteps(), (noise(2, 3),)),
    "siamese": lambda: (Siamese(), (noise(3, 4), noise(3, 4))),
    "weight-norm": lambda: (normalised(), (noise(3, 3),)),
}
