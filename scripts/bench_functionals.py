"""Time a training step of every model that reads weights, side by side in one interleaved run.

A step is what training does per batch: zero the gradients, forward, loss, backward, Adam, on fresh
random weights. Times are CPU seconds of this process; peak memory is that of a step in a process of
its own, less what was there before.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from torch.nn import functional

import zoo
from neural_functionals.models import MODELS, FittedFunctional, build_model, needs_network
from zoo.networks import build, example_input
from zoo.space import WeightSpace

NETWORKS: dict[str, dict[str, Any]] = {
    "inr": {"name": "siren"},
    "cnn": {"name": "cnn", "in_channels": 1, "image_size": 28, "out_features": 10},
}
"""A SIREN 2-32-32-1 and the Small CNN Zoo's network 1-16-16-16-10."""


def trainable() -> list[str]:
    """Return the models that read weights and take gradient steps."""
    return [
        name
        for name, (_, cls) in MODELS.items()
        if cls.reads == "weights" and not issubclass(cls, FittedFunctional)
    ]


def make_step(
    model: str, network: dict[str, Any], batch: int, device: str
) -> tuple[Callable[[], None], int]:
    """Make a training step at the paper's settings; also the number of parameters."""
    space: WeightSpace = zoo.trace(build(network), example_input(network))
    options = {"network": network} if needs_network(model, {}) else {}
    torch.manual_seed(0)
    reader = build_model(model, space=space, num_hyperparameters=1, **options).to(device)
    optimizer = torch.optim.Adam(reader.parameters(), 1e-3)
    targets = torch.rand(batch, 1, device=device)

    def step() -> None:
        weights = torch.randn(batch, space.num_parameters, device=device) * 0.1
        optimizer.zero_grad()
        functional.binary_cross_entropy_with_logits(reader(weights), targets).backward()
        optimizer.step()
        if device != "cpu":
            torch.cuda.synchronize()

    return step, sum(parameter.numel() for parameter in reader.parameters())


def peak(model: str, network: str, batch: int) -> float:
    """Measure the memory of a step in a process of its own, MiB."""
    command = [
        sys.executable,
        __file__,
        "--only_memory",
        model,
        "--networks",
        json.dumps([network]),
    ]
    done = subprocess.run(
        [*command, "--batch", str(batch)], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def own_peak(model: str, network: str, batch: int) -> float:
    """Measure what a step adds to the largest memory of this process, MiB (Linux only)."""
    step, _ = make_step(model, NETWORKS[network], batch, "cpu")
    step()
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    step()
    return (_memory("VmHWM") - before) / 1024


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name)))


def main(
    *,
    models: list[str] | None = None,
    networks: list[str] = list(NETWORKS),  # noqa: B006 - read only
    batch: int = 64,
    rounds: int = 5,
    threads: int = 1,
    device: str = "cpu",
    only_memory: str | None = None,
) -> None:
    """Print the table.

    Parameters
    ----------
    models
        Names; by default all that take gradient steps.
    networks
        inr, cnn.
    batch
        Networks per step.
    rounds
        Interleaved rounds.
    threads
        Threads of torch.
    device
        cpu or cuda; on cuda times are by the clock and memory is left out.
    only_memory
        Print what a step of this model takes, MiB, and nothing else.
    """
    torch.set_num_threads(threads)
    if only_memory is not None:
        print(own_peak(only_memory, networks[0], batch))
        return
    clock = time.process_time if device == "cpu" else time.perf_counter
    for network in networks:
        made = {
            name: make_step(name, NETWORKS[network], batch, device)
            for name in models or trainable()
        }
        times: dict[str, list[float]] = {name: [] for name in made}
        for number in range(rounds + 1):
            for name, (step, _) in made.items():
                start = clock()
                step()
                if number:  # the first one warms up
                    times[name].append(clock() - start)
        print(f"\n{network}, batch {batch}, {threads} thread(s), {device}, {rounds} rounds")
        print(f"{'model':22}{'parameters':>12}{'ms/step':>10}{'MiB':>8}")
        for name, own in times.items():
            memory = f"{peak(name, network, batch):8.0f}" if device == "cpu" else ""
            count = made[name][1]
            print(f"{name:22}{count:12,}{statistics.median(own) * 1e3:10.1f}{memory}", flush=True)


if __name__ == "__main__":
    auto_cli(main)
