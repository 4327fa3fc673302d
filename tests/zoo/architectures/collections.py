"""Real checkpoints of other people's networks, with the architectures written down here.

Each collection yields a name, a module that holds the weights, and inputs: real ones where the data
are at hand, else of the right size and scale. Weights are only ever read with ``weights_only``.
"""

import csv
import gzip
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .inputs import noise
from .perceptrons import mlp
from .residual import basic_resnet

Network = tuple[str, nn.Module, tuple[Tensor, ...]]
State = dict[str, Tensor]


def read_state(path: Path) -> State:
    """Tensors of a checkpoint, wherever it was saved, however nested and prefixed."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    content = content.get("state_dict", content)
    return {
        name.removeprefix("module."): value
        for name, value in content.items()
        if isinstance(value, Tensor)
    }


def filled(module: nn.Module, state: State) -> nn.Module:
    module.load_state_dict(state)
    return module.eval()


def cifar_images(root: Path, num: int, *, mean: list[float], std: list[float]) -> Tensor:
    """The first training images of CIFAR-10, [num, 3, 32, 32], standardised."""
    with gzip.open(root / "cifar10" / "data_batch_1_first2500.bin.gz") as file:
        records = np.frombuffer(file.read(num * 3073), dtype=np.uint8).reshape(num, 3073)
    images = torch.from_numpy(records[:, 1:].reshape(num, 3, 32, 32) / np.float32(255))
    return (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def idx_images(path: Path, num: int) -> Tensor:
    """The first images of an IDX file, [num, 1, 28, 28], in [0, 1]."""
    with gzip.open(path) as file:
        pixels = np.frombuffer(file.read(16 + num * 784)[16:], dtype=np.uint8)
    return torch.from_numpy(pixels.reshape(num, 1, 28, 28) / np.float32(255))


class LeNet(nn.Module):
    """Two convolutions and three linear layers of any width, for images of 32 by 32 pixels."""

    def __init__(self, widths: list[int]):
        super().__init__()
        first, second, *hidden = widths
        self.conv1, self.conv2 = nn.Conv2d(3, first, 5), nn.Conv2d(first, second, 5)
        self.linear = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([25 * second, *hidden]))

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = torch.flatten(F.max_pool2d(F.relu(self.conv2(x)), 2), 1)
        for layer in self.linear[:-1]:
            x = F.relu(layer(x))
        return self.linear[-1](x)


def layers_in_order(state: State, fan_in: int) -> Iterator[str]:
    """Names of layers, each reading as many features as the one before writes (or 25 times)."""
    weights = {name.removesuffix(".weight"): w for name, w in state.items() if w.dim() > 1}
    readers = {w.shape[1]: name for name, w in weights.items()}
    assert len(readers) == len(weights), "widths do not tell layers apart"
    for _ in weights:
        layer = readers.get(fan_in) or readers[25 * fan_in]
        yield layer
        fan_in = len(weights[layer])


def wild_lenets(root: Path) -> Iterator[Network]:
    """One tutorial's network, trained by many people who named and sized its layers."""
    images = cifar_images(root, 8, mean=[0.5] * 3, std=[0.5] * 3)
    targets = ("conv1", "conv2", "linear.0", "linear.1", "linear.2")
    for path in sorted((root / "zoos/cifar-lenet-wild").glob("*.pth")):
        state = read_state(path)
        layers = list(layers_in_order(state, 3))
        module = LeNet([len(state[f"{layer}.weight"]) for layer in layers])
        renamed = {
            f"{target}.{kind}": state[f"{layer}.{kind}"]
            for target, layer in zip(targets, layers, strict=True)
            for kind in ("weight", "bias")
        }
        assert len(renamed) == len(state)
        yield path.stem, filled(module, renamed), (images,)


def cifar_resnets(root: Path) -> Iterator[Network]:
    """ResNet-20 and ResNet-32 with padded shortcuts."""
    images = cifar_images(root, 8, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    for path in sorted((root / "zoos/cifar-resnet").glob("*.th")):
        state = read_state(path)
        repeats = len({name for name in state if re.fullmatch(r"layer1\.\d+\.conv1\.weight", name)})

        def rename(name: str, repeats: int = repeats) -> str:
            name = re.sub(r"^conv1\.", "stem.0.", re.sub(r"^bn1\.", "stem.1.", name))
            found = re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn)(\d)\.(.*)", name)
            if not found:
                return name.replace("linear.", "head.")
            stage, block, kind, number, rest = found.groups()
            kind = {"conv": "convs", "bn": "norms"}[kind]
            return (
                f"blocks.{(int(stage) - 1) * repeats + int(block)}.{kind}.{int(number) - 1}.{rest}"
            )

        module = basic_resnet((16, 32, 64), padded=True, repeats=repeats, classes=10)
        # Saved before batch normalisation counted its batches.
        counters = {k: v for k, v in module.state_dict().items() if k.endswith("batches_tracked")}
        renamed = {rename(name): tensor for name, tensor in state.items()}
        yield path.stem, filled(module, counters | renamed), (images,)


def robust_lenets(root: Path) -> Iterator[Network]:
    """Two strided convolutions and two linear layers for digits and for garments."""
    for name, folder in (("mnist", "mnist"), ("fashion_mnist", "fashion-mnist")):
        module = nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 7 * 7, 100), nn.ReLU(), nn.Linear(100, 10),
        )  # fmt: skip
        images = idx_images(root / folder / "t10k-images-idx3-ubyte.gz", 8)
        yield name, filled(module, read_state(root / f"zoos/robust-lenet/{name}.pth")), (images,)


class ActorCritic(nn.Module):
    """Separate tanh perceptrons for the action and the value; the spread may be fixed, or grow
    with the features (generalised state-dependent exploration), or absent for discrete actions."""

    def __init__(self, num_observed: int, num_actions: int, spread: tuple[int, ...] | None):
        super().__init__()
        self.actor = nn.Sequential(mlp(num_observed, 64, 64, activation=nn.Tanh), nn.Tanh())
        self.critic = nn.Sequential(mlp(num_observed, 64, 64, activation=nn.Tanh), nn.Tanh())
        self.action, self.value = nn.Linear(64, num_actions), nn.Linear(64, 1)
        self.log_std = None if spread is None else nn.Parameter(torch.zeros(spread))

    def forward(self, observation):
        features = self.actor(observation)
        outputs = [self.action(features), self.value(self.critic(observation))]
        if self.log_std is not None and self.log_std.dim() == 2:
            outputs.append(torch.sqrt(features**2 @ self.log_std.exp() ** 2 + 1e-6))
        elif self.log_std is not None:
            outputs.append(self.log_std.exp().expand_as(outputs[0]))
        return tuple(outputs)


def actor_critic(state: State) -> nn.Module:
    names = {
        "mlp_extractor.policy_net.": "actor.0.",
        "mlp_extractor.value_net.": "critic.0.",
        "action_net.": "action.",
        "value_net.": "value.",
    }
    pattern = re.compile("|".join(f"^{re.escape(name)}" for name in names))
    renamed = {pattern.sub(lambda m: names[m[0]], name): value for name, value in state.items()}
    spread = state.get("log_std")
    observed, actions = renamed["actor.0.0.weight"].shape[1], len(renamed["action.bias"])
    module = ActorCritic(observed, actions, None if spread is None else tuple(spread.shape))
    return filled(module, renamed)


def search_policy(state: State) -> nn.Module:
    """A policy found by random search: linear, or with one hidden layer."""
    state = {name.removeprefix("action_net."): value for name, value in state.items()}
    if "weight" in state:
        return filled(nn.Linear(*reversed(state["weight"].shape), bias=False), state)
    hidden, observed = state["0.weight"].shape
    return filled(mlp(observed, hidden, len(state["2.weight"])), state)


def rl_policies(root: Path) -> Iterator[Network]:
    """Policies for control, on observations of unit variance."""
    for path in sorted((root / "zoos/rl-policies").glob("*.pth")):
        state = read_state(path)
        module = (search_policy if path.stem.startswith("ars__") else actor_critic)(state)
        first = next(layer for layer in module.modules() if isinstance(layer, nn.Linear))
        yield path.stem, module, (noise(8, first.in_features),)


class Tandem(nn.Module):
    """From the wanted performance to a design, and on to that design's performance."""

    def __init__(self):
        super().__init__()
        self._f, self._i = mlp(17, 64, 64, 64, 11), mlp(11, 64, 64, 64, 17)

    def forward(self, performance):
        shape, material = self._i(performance).split([11, 6], dim=-1)
        design = torch.cat([torch.sigmoid(shape), torch.softmax(material, dim=-1)], dim=-1)
        return design, self._f(design)


def designs(root: Path) -> Tensor:
    """Every thousandth printed part: eleven numbers scaled to [0, 1], the material one-hot."""
    with (root / "zoos/deformation-mlp/data/parameters.csv").open() as file:
        rows = [row[1:] for row in csv.reader(file)][1:]
    numbers = np.array([row[:11] for row in rows], dtype=np.float32)
    numbers = (numbers - numbers.min(0)) / np.ptp(numbers, axis=0)
    kinds = sorted({row[11] for row in rows})
    materials = torch.tensor([kinds.index(row[11]) for row in rows])
    return torch.cat([torch.from_numpy(numbers), F.one_hot(materials)], dim=1)[::1000]


def deformation_mlps(root: Path) -> Iterator[Network]:
    """Perceptrons from design to performance, alone and in tandem with the inverse."""
    folder, inputs = root / "zoos/deformation-mlp", designs(root)
    for path in sorted(folder.glob("forward/*.pt")):
        module = filled(mlp(17, 64, 64, 64, 11), read_state(path))
        yield f"forward/{path.stem}", module, (inputs,)
    for path in sorted(folder.glob("tandem/*.pt")):
        module = filled(Tandem(), read_state(path))
        yield f"tandem/{path.stem}", module, (module._f(inputs).detach(),)


COLLECTIONS: dict[str, Callable[[Path], Iterator[Network]]] = {
    "cifar-lenet-wild": wild_lenets,
    "cifar-resnet": cifar_resnets,
    "robust-lenet": robust_lenets,
    "rl-policies": rl_policies,
    "deformation-mlp": deformation_mlps,
}
"""One iterator for each folder of ``zoos``."""


def real_networks(root: Path) -> Iterator[Network]:
    """Every checkpoint under ``root/zoos`` whose architecture is known, named by collection."""
    for collection, networks in COLLECTIONS.items():
        for name, module, inputs in networks(root):
            yield f"{collection}/{name}", module, inputs
