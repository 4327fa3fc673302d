"""Member-steps per second of the engines against plain PyTorch loops, in one interleaved run.

Each round times every way of training once; medians of times and of per-round ratios are printed.
A member-step is one optimiser step of one network.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jsonargparse import auto_cli
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import zoo
from data_gen.distributions import Constant
from data_gen.engines import Engine, LoopEngine, StackedEngine
from data_gen.recipe import Recipe
from zoo.networks import CNNConfig, MLPConfig, NetworkConfig, build, example_input
from zoo.problems import Problem, digits

_BATCH = 64
_RATE = 1e-3


@dataclass(frozen=True)
class Workload:
    """What is trained, and how many members each way takes per round."""

    title: str
    network: NetworkConfig
    problem: Problem
    epochs: int
    members: int
    loop_members: int


def _mlp(members: int) -> Workload:
    network = MLPConfig(in_features=64, hidden=(32, 32), out_features=10)
    return Workload("MLP 64-32-32-10, digits", network, digits(), 10, members, 1)


def _cnn(members: int) -> Workload:
    """Return the Small CNN Zoo's network on random 28x28 images; the pixels do not matter."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.standard_normal((640, 1, 28, 28), dtype=np.float32))
    targets = torch.from_numpy(rng.integers(0, 10, 640))
    problem = Problem(
        name="noise",
        config={},
        train_inputs=images,
        train_targets=targets,
        test_inputs=images[:64],
        test_targets=targets[:64],
        num_classes=10,
    )
    network = CNNConfig(in_channels=1, image_size=28, out_features=10)
    return Workload("CNN 3x16, 28x28", network, problem, 5, members, 1)


def _plain_loop(work: Workload) -> int:
    """Do what a tutorial does: module, DataLoader, Adam."""
    data = TensorDataset(work.problem.train_inputs, work.problem.train_targets)
    steps = 0
    for _ in range(work.loop_members):
        module = build(work.network)
        optimizer = torch.optim.Adam(module.parameters(), _RATE)
        for _ in range(work.epochs):
            for inputs, targets in DataLoader(data, _BATCH, shuffle=True, drop_last=True):
                _step(module, optimizer, inputs, targets)
                steps += 1
    return steps


def _tuned_loop(work: Workload) -> int:
    """Index tensors, fuse Adam, and lay images out channels last."""
    inputs, targets = work.problem.train_inputs, work.problem.train_targets
    if inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    steps = 0
    for _ in range(work.loop_members):
        module = build(work.network)
        if inputs.ndim == 4:
            module = module.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(module.parameters(), _RATE, fused=True)
        for _ in range(work.epochs):
            order = torch.randperm(len(inputs))
            for batch in order[: len(inputs) // _BATCH * _BATCH].split(_BATCH):
                _step(module, optimizer, inputs[batch], targets[batch])
                steps += 1
    return steps


def _step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: torch.Tensor,
    targets: torch.Tensor,
) -> None:
    optimizer.zero_grad()
    functional.cross_entropy(module(inputs), targets).backward()
    optimizer.step()


def _engine(engine: Engine, work: Workload, members: int) -> Callable[[], int]:
    """Train with an engine; initialisation and the last metrics are included."""
    recipe = Recipe(
        name="bench",
        problem={},
        network=work.network,
        hyperparameters={"learning_rate": Constant(_RATE), "batch_size": Constant(_BATCH)},
        num_members=members,
        epochs=work.epochs,
        checkpoints=(work.epochs,),
    )
    space = zoo.trace(build(work.network), example_input(work.network))
    ids = np.arange(members)
    drawn = recipe.draw(ids)
    steps = members * work.epochs * (len(work.problem.train_inputs) // _BATCH)

    def run() -> int:
        engine.train(recipe, work.problem, space, ids, drawn)
        return steps

    return run


def _measure(run: Callable[[], int]) -> tuple[float, float]:
    """Return process time and wall time in microseconds per member-step."""
    wall, cpu = time.perf_counter(), time.process_time()
    steps = run()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return cpu / steps * 1e6, wall / steps * 1e6


def _report(work: Workload, rounds: int) -> None:
    ways: dict[str, Callable[[], int]] = {
        "plain loop": lambda: _plain_loop(work),
        "tuned loop": lambda: _tuned_loop(work),
        "engine loop": _engine(LoopEngine(), work, work.loop_members),
        "engine stacked": _engine(StackedEngine(), work, work.members),
    }
    for run in ways.values():
        run()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            times[name].append(_measure(run))
    print(f"\n{work.title}, B={_BATCH}, Adam, {work.members} members, {rounds} rounds, 1 thread")
    print(
        f"{'':16}{'CPU us/step':>12}{'wall us/step':>14}{'x plain':>9}{'x tuned':>9}   (CPU, wall)"
    )
    for name, own in times.items():
        cpu, wall = (statistics.median(each) for each in zip(*own, strict=True))
        ratios = [
            statistics.median(
                base[kind] / mine[kind] for base, mine in zip(times[to], own, strict=True)
            )
            for to in ("plain loop", "tuned loop")
            for kind in (0, 1)
        ]
        print(
            f"{name:16}{cpu:12.1f}{wall:14.1f}{ratios[0]:9.2f}{ratios[2]:9.2f}   "
            f"wall: {ratios[1]:.2f}, {ratios[3]:.2f}"
        )


def main(
    workload: str = "all", *, rounds: int = 5, mlp_members: int = 256, cnn_members: int = 8
) -> None:
    """Print the table.

    Parameters
    ----------
    workload
        ``mlp``, ``cnn`` or ``all``.
    rounds
        Interleaved rounds.
    mlp_members, cnn_members
        Members of the population that the stacked engine trains.
    """
    torch.set_num_threads(1)
    if workload in ("mlp", "all"):
        _report(_mlp(mlp_members), rounds)
    if workload in ("cnn", "all"):
        _report(_cnn(cnn_members), rounds)


if __name__ == "__main__":
    auto_cli(main)
