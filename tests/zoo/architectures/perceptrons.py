"""Perceptrons, coordinate networks and other nets made of linear layers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.networks import MLPConfig, SirenConfig, build

from .inputs import Factory, noise


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


class FourierFeatures(nn.Module):
    """A fixed random projection, its sine and cosine side by side, a perceptron."""

    def __init__(self):
        super().__init__()
        self.register_buffer("frequencies", noise(2, 6), persistent=False)
        self.net = mlp(12, 7, 5, 3, activation=nn.GELU)

    def forward(self, x):
        phase = x @ self.frequencies
        return self.net(torch.cat([phase.sin(), phase.cos()], dim=-1))


def octaves(x: Tensor, num: int) -> Tensor:
    """NeRF's encoding: the coordinates and sines and cosines of their doublings."""
    parts = [x]
    for power in range(num):
        parts += [torch.sin(2**power * x), torch.cos(2**power * x)]
    return torch.cat(parts, dim=-1)


class Nerf(nn.Module):
    """Density and colour; the encoded point comes in again half way, the direction at the end."""

    def __init__(self):
        super().__init__()
        self.before = nn.ModuleList([nn.Linear(15, 11), nn.Linear(11, 7)])
        self.after = nn.ModuleList([nn.Linear(7 + 15, 9), nn.Linear(9, 8)])
        self.density, self.feature = nn.Linear(8, 1), nn.Linear(8, 6)
        self.shade, self.colour = nn.Linear(6 + 9, 5), nn.Linear(5, 3)

    def forward(self, point, direction):
        encoded = hidden = octaves(point, 2)
        for layer in self.before:
            hidden = F.relu(layer(hidden))
        hidden = torch.cat([hidden, encoded], dim=-1)
        for layer in self.after:
            hidden = F.relu(layer(hidden))
        seen = torch.cat([self.feature(hidden), octaves(direction, 1)], dim=-1)
        colour = torch.sigmoid(self.colour(F.relu(self.shade(seen))))
        return torch.cat([colour, F.softplus(self.density(hidden))], dim=-1)


class MultiplicativeFilter(nn.Module):
    """Products of linear layers and Gabor filters of the input."""

    def __init__(self, width: int = 7, depth: int = 3):
        super().__init__()
        self.filters = nn.ModuleList(nn.Linear(2, width) for _ in range(depth))
        self.centres = nn.ParameterList(nn.Parameter(noise(width, 2)) for _ in range(depth))
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(width)) for _ in range(depth))
        self.linears = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.head = nn.Linear(width, 3)

    def gabor(self, x, depth):
        distance = (x[:, None, :] - self.centres[depth]).square().sum(dim=-1)
        window = torch.exp(-0.5 * distance * self.scales[depth][None, :])
        return torch.sin(self.filters[depth](x)) * window

    def forward(self, x):
        hidden = self.gabor(x, 0)
        for depth, linear in enumerate(self.linears, start=1):
            hidden = linear(hidden) * self.gabor(x, depth)
        return self.head(hidden)


class Pinn(nn.Module):
    """A tanh perceptron of space and time, made to vanish at the boundary."""

    def __init__(self):
        super().__init__()
        self.net = mlp(2, 7, 7, 5, 1, activation=nn.Tanh)

    def forward(self, x, t):
        u = self.net(torch.stack([2 * x - 1, t], dim=-1)).squeeze(-1)
        return x * (1 - x) * u + torch.sin(torch.pi * x) * (1 - t)


class Vae(nn.Module):
    """A variational autoencoder; the noise is an input."""

    def __init__(self):
        super().__init__()
        self.encoder = mlp(9, 7, 6)
        self.mean, self.log_variance = nn.Linear(6, 4), nn.Linear(6, 4)
        self.decoder = mlp(4, 5, 8, 9)

    def forward(self, x, noise):
        hidden = F.relu(self.encoder(x))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        latent = mean + torch.exp(0.5 * log_variance) * noise
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1)
        return torch.sigmoid(self.decoder(latent)), kl


class ResidualMlp(nn.Module):
    """Pre-norm residual blocks between two linear layers."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.norms = nn.ModuleList(nn.LayerNorm(6) for _ in range(2))
        self.ups = nn.ModuleList([nn.Linear(6, 8), nn.Linear(6, 5)])
        self.downs = nn.ModuleList([nn.Linear(8, 6), nn.Linear(5, 6)])

    def forward(self, x):
        x = self.embed(x)
        for norm, up, down in zip(self.norms, self.ups, self.downs, strict=True):
            x = x + down(F.gelu(up(norm(x))))
        return self.head(x)


class Maxout(nn.Module):
    """Each unit is the larger of two linear functions, once by chunks, once by a strided view."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 10), nn.Linear(5, 21), nn.Linear(7, 2)

    def forward(self, x):
        x = torch.maximum(*self.first(x).chunk(2, dim=-1))
        return self.head(self.second(x).view(-1, 7, 3).amax(dim=-1))


class Gated(nn.Module):
    """A highway layer, then gated linear units."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 7)
        self.carry, self.transform = nn.Linear(7, 7), nn.Linear(7, 7)
        self.glu, self.head = nn.Linear(7, 10), nn.Linear(5, 3)

    def forward(self, x):
        x = self.embed(x)
        gate = torch.sigmoid(self.carry(x))
        x = torch.lerp(x, torch.tanh(self.transform(x)), gate)
        return self.head(F.glu(self.glu(x), dim=-1))


class KanLayer(nn.Module):
    """A learned spline (here: of Gaussian bumps) on every edge, beside a SiLU."""

    def __init__(self, fan_in: int, fan_out: int, num_knots: int = 4):
        super().__init__()
        self.base = nn.Parameter(noise(fan_out, fan_in))
        self.spline = nn.Parameter(noise(fan_out, fan_in, num_knots))
        self.register_buffer("knots", torch.linspace(-2, 2, num_knots), persistent=False)

    def forward(self, x):
        bumps = torch.exp(-((x.unsqueeze(-1) - self.knots) ** 2))
        return F.linear(F.silu(x), self.base) + torch.einsum("bik,oik->bo", bumps, self.spline)


ARCHITECTURES: dict[str, Factory] = {
    "mlp-relu": lambda: (mlp(4, 7, 5, 3), (noise(2, 4),)),
    "mlp-tanh": lambda: (mlp(3, 5, 8, 6, 2, activation=nn.Tanh), (noise(3, 3),)),
    "mlp-batch-norm": lambda: (
        build(MLPConfig(in_features=6, hidden=(5, 7), out_features=4, batch_norm=True)),
        (noise(3, 2, 3),),
    ),
    "siren": lambda: (
        build(SirenConfig(in_features=2, hidden=(7, 5, 6), out_features=3)),
        (noise(3, 2),),
    ),
    "fourier-features": lambda: (FourierFeatures(), (noise(3, 2),)),
    "nerf": lambda: (Nerf(), (noise(2, 3), noise(2, 3))),
    "multiplicative-filter": lambda: (MultiplicativeFilter(), (noise(3, 2),)),
    "pinn": lambda: (Pinn(), (noise(3), noise(3))),
    "vae": lambda: (Vae(), (noise(2, 9), noise(2, 4))),
    "residual-mlp": lambda: (ResidualMlp(), (noise(3, 4),)),
    "maxout": lambda: (Maxout(), (noise(3, 4),)),
    "gated-mlp": lambda: (Gated(), (noise(2, 4),)),
    "kan": lambda: (nn.Sequential(KanLayer(3, 5), KanLayer(5, 6), KanLayer(6, 2)), (noise(2, 3),)),
}
