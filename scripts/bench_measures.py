"""Time exact Hessian-vector products by several ways of making them, and each measure as a whole.

Networks are those of the Small CNN Zoo, trained on Fashion-MNIST for a moment. Processor time of
one core is counted, medians of interleaved rounds; every product is compared with one in float64.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from jsonargparse import auto_cli
from torch import Tensor
from torch.func import functional_call, grad, jvp

import zoo
from zoo import problems
from zoo.measures.alignment import descent_alignment, sample_alignments
from zoo.measures.calibration import calibration_error, predicted_classes
from zoo.measures.cka import pairwise_cka
from zoo.measures.connectivity import CurveConfig, curves, lines
from zoo.measures.gradients import curvature
from zoo.measures.hessian import HessianConfig, hessian
from zoo.measures.networks import Networks, Samples
from zoo.measures.norms import l2_norm, spectral_norms
from zoo.measures.pairs import pairs_within
from zoo.measures.sharpness import ascent_sharpness, random_sharpness
from zoo.networks import CNNConfig

CONFIG = CNNConfig(in_channels=1, image_size=28, out_features=10)
MEMBERS, CHECKPOINTS, CORES = 256, 3, 2
LIMIT_MINUTES = 10
_PROBES = 20


def main(
    data: Path,
    *,
    samples: int = 512,
    steps: int = 300,
    members: int = 4,
    rounds: int = 5,
    epochs: int = 1,
) -> None:
    """Print both tables.

    Parameters
    ----------
    data
        Folder with the four files of Fashion-MNIST.
    samples
        Of the training part, that measures are taken on.
    steps
        Of training, with batches of 128.
    members
        Networks that measures are timed on.
    rounds
        Timed products of each kind.
    epochs
        That curves between networks are trained, on ten thousand samples.
    """
    torch.set_num_threads(1)
    problem = problems.load({"name": "idx"}, data=data)
    train = Samples(inputs=problem.train_inputs, targets=problem.train_targets)
    networks = _trained(train, steps, members)
    chosen = train.part(torch.randperm(len(train), generator=_generator(0))[:samples])
    print(f"{networks.space.num_trainable:,} parameters, {samples} samples; losses after {steps} "
          f"steps {networks.losses(chosen).round(3).tolist()}\n")  # fmt: skip
    _print_products(networks, chosen, rounds)
    _print_measures(networks, chosen, train.part(slice(10_000)), epochs)


def _print_products(networks: Networks, samples: Samples, rounds: int) -> None:
    vector = torch.randn(networks.space.num_trainable, generator=_generator(1))
    expected = _in_float64(networks, samples, vector)
    ways = _ways(networks, samples)
    times: dict[str, list[float]] = {name: [] for name in ways}
    worst = dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for name, (count, product) in ways.items():
            start = time.process_time()
            found = product(vector)
            times[name].append((time.process_time() - start) / count)
            worst[name] = max(worst[name], float((found - expected).norm() / expected.norm()))
    print("| Hessian-vector product | ms | relative error |\n|---|---|---|")
    for name, taken in times.items():
        print(f"| {name} | {1e3 * median(taken):.1f} | {worst[name]:.1e} |")


def _ways(
    networks: Networks, samples: Samples
) -> dict[str, tuple[int, Callable[[Tensor], Tensor]]]:
    """Ways of making one product, each with the number of products that it makes at once."""
    last = Samples(
        inputs=samples.inputs.to(memory_format=torch.channels_last), targets=samples.targets
    )
    ways = {
        "double backward, graph kept": (1, _double_backward(networks, samples)),
        "double backward, graph kept, channels last": (1, _double_backward(networks, last)),
        f"double backward, {_PROBES} probes at once": (_PROBES, _batched(networks, samples)),
        "forward over reverse": (1, _forward_over_reverse(networks, samples)),
    }
    for chunk in (64, 128, 256, len(samples)):
        operator = curvature(networks, 0, samples, chunk=chunk)
        ways[f"patches, graph kept, {chunk} samples a piece"] = (1, operator.product)
    return ways


def _double_backward(networks: Networks, samples: Samples) -> Callable[[Tensor], Tensor]:
    weights, slope = _graph(networks, samples)
    return lambda vector: torch.autograd.grad(slope, weights, vector, retain_graph=True)[0]


def _batched(networks: Networks, samples: Samples) -> Callable[[Tensor], Tensor]:
    weights, slope = _graph(networks, samples)

    def products(vector: Tensor) -> Tensor:
        rows = vector.expand(_PROBES, -1).contiguous()
        return torch.autograd.grad(slope, weights, rows, retain_graph=True, is_grads_batched=True)[
            0
        ][0]

    return products


def _forward_over_reverse(networks: Networks, samples: Samples) -> Callable[[Tensor], Tensor]:
    def loss(weights: Tensor) -> Tensor:
        outputs = networks.call(weights, samples.inputs)
        return samples.loss(outputs, samples.targets)

    return lambda vector: jvp(grad(loss), (networks.vectors[0],), (vector,))[1].detach()


def _graph(networks: Networks, samples: Samples) -> tuple[Tensor, Tensor]:
    weights = networks.vectors[0].clone().requires_grad_()
    loss = samples.loss(networks.call(weights, samples.inputs), samples.targets)
    return weights, torch.autograd.grad(loss, weights, create_graph=True)[0]


def _in_float64(networks: Networks, samples: Samples, vector: Tensor) -> Tensor:
    """Multiply by the library's own convolutions in float64."""
    double = Networks(
        module=CONFIG.build().double().eval(),
        space=networks.space,
        vectors=networks.vectors[:1].double(),
    )
    wide = Samples(inputs=samples.inputs.double(), targets=samples.targets)
    return _double_backward(double, wide)(vector.double()).float()


def _print_measures(networks: Networks, samples: Samples, train: Samples, epochs: int) -> None:
    seeds = list(range(networks.num_members))
    logits = networks.outputs(samples.inputs)
    pairs = pairs_within([0] * networks.num_members, partners=1)
    fixed = HessianConfig(max_steps=20, max_probes=20, tolerance=0)
    curve = CurveConfig(epochs=epochs)
    measures: dict[str, tuple[int, Callable[[], object]]] = {
        "Hessian, 20 steps and 20 probes": (
            networks.num_members,
            lambda: hessian(networks, samples, seeds=seeds, config=fixed),
        ),
        "Hessian, stopped at a change of 1e-3": (
            networks.num_members,
            lambda: hessian(networks, samples, seeds=seeds),
        ),
        "logits": (networks.num_members, lambda: networks.outputs(samples.inputs)),
        "predicted classes": (
            networks.num_members,
            lambda: predicted_classes(networks, samples.inputs, logits=logits),
        ),
        "calibration error": (
            networks.num_members,
            lambda: calibration_error(logits, samples.targets),
        ),
        "CKA of logits, per pair": (len(pairs), lambda: pairwise_cka(logits, pairs)),
        "alignment of the gradient": (
            networks.num_members,
            lambda: descent_alignment(networks, samples),
        ),
        "alignment of samples' gradients": (
            networks.num_members,
            lambda: sample_alignments(networks, samples),
        ),
        "sharpness, one ascent": (
            networks.num_members,
            lambda: ascent_sharpness(networks, samples),
        ),
        "sharpness, 10 random directions": (
            networks.num_members,
            lambda: random_sharpness(networks, samples, seeds=seeds),
        ),
        "norms": (
            networks.num_members,
            lambda: (l2_norm(networks), spectral_norms(networks)),
        ),
        "straight line, 5 points, per pair": (
            len(pairs),
            lambda: lines(networks, pairs, samples),
        ),
        f"curve, {epochs} epochs of {len(train):,} samples, per pair": (
            1,
            lambda: curves(networks, pairs[:1], train, seeds=[0], config=curve),
        ),
    }  # fmt: skip
    total = MEMBERS * CHECKPOINTS
    print(f"\n| measure | ms | minutes for {total} networks, {CORES} cores |\n|---|---|---|")
    for name, (count, measure) in measures.items():
        start = time.process_time()
        measure()
        taken = (time.process_time() - start) / count
        print(f"| {name} | {1e3 * taken:.1f} | {taken * total / CORES / 60:.2f} |")
    product = LIMIT_MINUTES * 60 * CORES / total / (2 * _PROBES)
    print(
        f"\nOf {LIMIT_MINUTES} minutes for the Hessian, a product may take {1e3 * product:.0f} ms."
    )


def _trained(train: Samples, steps: int, members: int) -> Networks:
    """Train networks by plain gradient descent with momentum."""
    module = CONFIG.build().eval()
    space = zoo.trace(module, CONFIG.example_input(2))
    vectors = []
    for member in range(members):
        generator = _generator(member)
        vector = space.flatten(_initial(generator)).requires_grad_()
        optimiser = torch.optim.SGD([vector], lr=0.05, momentum=0.9)
        for _ in range(steps):
            chosen = torch.randint(len(train), (128,), generator=generator)
            outputs = functional_call(module, space.state_dict(vector), (train.inputs[chosen],))
            optimiser.zero_grad()
            train.loss(outputs, train.targets[chosen]).backward()
            optimiser.step()
        vectors.append(vector.detach())
    return Networks(module=module, space=space, vectors=torch.stack(vectors))


def _initial(generator: torch.Generator) -> dict[str, Tensor]:
    """Draw weights as torch does by default, biases of 0."""
    drawn = {}
    for name, like in CONFIG.build().state_dict().items():
        bound = 0.0 if like.ndim < 2 else float(np.prod(like.shape[1:])) ** -0.5
        drawn[name] = bound * (2 * torch.rand(like.shape, generator=generator) - 1)
    return drawn


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
