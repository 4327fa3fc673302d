"""Member-steps per second of the engines against plain PyTorch loops, in one interleaved run.

Each round times every way of training once; medians of times and of per-round ratios are printed.
A member-step is one optimiser step of one network. With ``--gpu`` the stacked engine on a GPU is
compared with a loop over models on that GPU, and with the native engine on two processor cores.
"""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jsonargparse import auto_cli
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import zoo
from data_gen.distributions import Constant
from data_gen.engines import Engine, LoopEngine, NativeEngine, StackedEngine
from data_gen.recipe import Recipe
from zoo.networks import (
    CNNConfig,
    LeNetConfig,
    MLPConfig,
    NetworkConfig,
    SirenConfig,
    build,
    example_input,
)
from zoo.problems import Problem, digits, image_signals

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
    batch: int = 64
    init: str = "default"


def _mlp(members: int) -> Workload:
    network = MLPConfig(in_features=64, hidden=(32, 32), out_features=10)
    return Workload("MLP 64-32-32-10, digits", network, digits(), 20, members, 1)


def _cnn(members: int) -> Workload:
    """Return the Small CNN Zoo's network."""
    network = CNNConfig(in_channels=1, image_size=28, out_features=10)
    return Workload("CNN 3x16, 28x28", network, _noise(1, 28), 10, members, 1)


def _lenet(members: int) -> Workload:
    """Return LeNet's sizes: pooling and large linear layers."""
    network = LeNetConfig(in_channels=1, image_size=28, out_features=10, paddings=(2, 0))
    return Workload("LeNet, 28x28", network, _noise(1, 28), 20, members, 1)


def _wide(members: int) -> Workload:
    """Return a network of 32 channels, where plain loops do better."""
    network = CNNConfig(
        in_channels=3, image_size=32, channels=(32, 32, 32), padding=1, out_features=10
    )
    return Workload("CNN 3x32, 32x32x3", network, _noise(3, 32), 20, members, 1)


def _noise(channels: int, side: int) -> Problem:
    """Make 640 random images; the pixels do not matter."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.standard_normal((640, channels, side, side), dtype=np.float32))
    targets = torch.from_numpy(rng.integers(0, 10, 640))
    return Problem(
        name="noise",
        config={},
        train_inputs=images,
        train_targets=targets,
        test_inputs=images[:64],
        test_targets=targets[:64],
        num_classes=10,
    )


def _siren(members: int) -> Workload:
    """Return SIRENs that fit one random 28x28 image each, all pixels in every step."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.random((members, 28, 28), dtype=np.float32))
    none = torch.zeros(0, dtype=torch.int64)
    problem = image_signals(images, none, name="noise", config={}, peak=1.0)
    title = "SIREN 2-32-32-1, 784 points"
    return Workload(title, SirenConfig(), problem, 60, members, 2, 784, "siren")


def _plain_loop(work: Workload, device: str = "cpu") -> int:
    """Do what a tutorial does: module, DataLoader, Adam."""
    steps = 0
    for member in range(work.loop_members):
        data = TensorDataset(work.problem.train_inputs, _targets(work, member))
        module = build(work.network).to(device)
        optimizer = torch.optim.Adam(module.parameters(), _RATE)
        for _ in range(work.epochs):
            for inputs, targets in _batches(work, data):
                _step(work, module, optimizer, inputs.to(device), targets.to(device))
                steps += 1
    return steps


def _batches(work: Workload, data: TensorDataset) -> Iterable[list[torch.Tensor]]:
    """Return an epoch's batches: whole tensors where one batch holds them all."""
    if work.batch == len(data):
        return [list(data.tensors)]
    return DataLoader(data, work.batch, shuffle=True, drop_last=True)


def _targets(work: Workload, member: int) -> torch.Tensor:
    return work.problem.targets_of(member if work.problem.num_signals else None)


def _tuned_loop(work: Workload, device: str = "cpu") -> int:
    """Index tensors on the device, fuse Adam, and lay images out channels last."""
    inputs = work.problem.train_inputs.to(device)
    if inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    steps = 0
    for member in range(work.loop_members):
        module, targets = build(work.network).to(device), _targets(work, member).to(device)
        if inputs.ndim == 4:
            module = module.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(module.parameters(), _RATE, fused=True)
        for _ in range(work.epochs):
            order = torch.randperm(len(inputs), device=device)
            for batch in order[: len(inputs) // work.batch * work.batch].split(work.batch):
                whole = work.batch == len(inputs)
                pair = (inputs, targets) if whole else (inputs[batch], targets[batch])
                _step(work, module, optimizer, *pair)
                steps += 1
    return steps


def _step(
    work: Workload,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: torch.Tensor,
    targets: torch.Tensor,
) -> None:
    optimizer.zero_grad()
    loss = functional.mse_loss if work.problem.num_signals else functional.cross_entropy
    loss(module(inputs), targets).backward()
    optimizer.step()


def _engine(engine: Engine, work: Workload, members: int) -> Callable[[], int]:
    """Train with an engine; initialisation and the last metrics are included."""
    recipe = Recipe(
        name="bench",
        problem={},
        network=work.network,
        hyperparameters={
            "learning_rate": Constant(_RATE),
            "batch_size": Constant(work.batch),
            "init": Constant(work.init),
        },
        num_members=members,
        epochs=work.epochs,
        checkpoints=(work.epochs,),
    )
    space = zoo.trace(build(work.network), example_input(work.network))
    ids = np.arange(members)
    drawn = recipe.draw(ids) | work.problem.assign(ids)
    steps = members * work.epochs * (len(work.problem.train_inputs) // work.batch)

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


def _report_gpu(work: Workload, rounds: int) -> None:
    """Compare by the clock: a GPU works while the processor waits."""
    work = replace(work, loop_members=1)
    few = min(work.members, 64)
    ways: dict[str, Callable[[], int]] = {
        "plain loop, GPU": lambda: _plain_loop(work, "cuda"),
        "tuned loop, GPU": lambda: _tuned_loop(work, "cuda"),
        "native, 2 cores": _engine(NativeEngine(threads=2), work, few),
        "stacked, GPU": _engine(StackedEngine(device="cuda"), work, work.members),
    }
    for name, run in ways.items():
        print(f"warm-up of {name}: {_measure(run)[1]:.2f} us/step", flush=True)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            times[name].append(_measure(run)[1])
    print(
        f"\n{work.title}, B={work.batch}, Adam, {work.members} members on "
        f"{torch.cuda.get_device_name()} ({few} on the processor), {rounds} rounds"
    )
    print(f"{'':16}{'wall us/step':>14}{'x plain':>10}{'x tuned':>10}{'x 2 cores':>10}")
    for name, own in times.items():
        bases = [times[each] for each in list(ways)[:3]]
        ratios = [
            statistics.median(b / o for b, o in zip(base, own, strict=True)) for base in bases
        ]
        shown = "".join(f"{ratio:10.2f}" for ratio in ratios)
        print(f"{name:16}{statistics.median(own):14.2f}{shown}", flush=True)


def _report(work: Workload, rounds: int) -> None:
    ways: dict[str, Callable[[], int]] = {
        "plain loop": lambda: _plain_loop(work),
        "tuned loop": lambda: _tuned_loop(work),
        "engine loop": _engine(LoopEngine(), work, work.loop_members),
        "engine stacked": _engine(StackedEngine(), work, work.members),
        "engine native": _engine(NativeEngine(), work, work.members),
    }
    for run in ways.values():
        run()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            times[name].append(_measure(run))
    print(
        f"\n{work.title}, B={work.batch}, Adam, {work.members} members, {rounds} rounds, 1 thread"
    )
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


def _report_threads(work: Workload, rounds: int) -> None:
    """Compare two threads with one by the clock; means nothing while others use the processor."""
    one, two = (_engine(NativeEngine(threads=threads), work, work.members) for threads in (1, 2))
    one(), two()
    times = [(_measure(one), _measure(two)) for _ in range(rounds)]
    gain = statistics.median(single[1] / double[1] for single, double in times)
    cost = statistics.median(double[0] / single[0] for single, double in times)
    print(f"\n{work.title}: two threads take 1/{gain:.2f} of the time, {cost:.2f} of the CPU time")


def _report_scale(sizes: tuple[int, ...], rounds: int) -> None:
    """Print what a member-step costs in populations of several sizes."""
    ways = {size: _engine(NativeEngine(), replace(_mlp(size), epochs=2), size) for size in sizes}
    times = {size: [] for size in sizes}
    for _ in range(rounds):
        for size, run in ways.items():
            times[size].append(_measure(run)[0])
    print(f"\nMLP 64-32-32-10, engine native, 2 epochs, {rounds} rounds")
    for size, own in times.items():
        print(f"{size:8} members {statistics.median(own):8.1f} CPU us/step")


WORKLOADS: dict[str, tuple[Callable[[int], Workload], int]] = {
    "mlp": (_mlp, 256),
    "cnn": (_cnn, 8),
    "siren": (_siren, 32),
    "lenet": (_lenet, 4),
    "wide": (_wide, 4),
}
"""Workloads, and the members that engines train."""

GPU_MEMBERS = {"mlp": 4096, "cnn": 1024, "siren": 1024, "lenet": 1024, "wide": 512}
"""Members that the stacked engine trains on a GPU."""


def main(
    workload: str = "all",
    *,
    rounds: int = 5,
    members: int | None = None,
    threads: bool = False,
    scale: bool = False,
    gpu: bool = False,
) -> None:
    """Print the table.

    Parameters
    ----------
    workload
        ``mlp``, ``cnn``, ``siren``, ``lenet``, ``wide``, ``all`` or ``none``.
    rounds
        Interleaved rounds.
    members
        Members of the population that engines train; each workload has its own number.
    threads
        Compare two threads with one, on the CNN.
    scale
        Compare populations of 64, 512 and 4,096 perceptrons.
    gpu
        Compare on a GPU instead.
    """
    torch.set_num_threads(1)
    for name, (make, usual) in WORKLOADS.items():
        if workload not in (name, "all"):
            continue
        if gpu:
            _report_gpu(make(members or GPU_MEMBERS[name]), rounds)
        else:
            _report(make(members or usual), rounds)
    if threads:
        _report_threads(_cnn(members or 16), rounds)
    if scale:
        _report_scale((64, 512, 4096), rounds)


if __name__ == "__main__":
    auto_cli(main)
