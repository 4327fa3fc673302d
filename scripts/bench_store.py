"""Measure the gather of random rows: this store against ``np.memmap`` and zarr-python.

All readers take turns on the same random (member, checkpoint) pairs, in one run, so that a busy
machine slows them alike; the ratios of their medians are what counts. Zarr-python reads each row by
``array[member, checkpoint]`` and, as ``vindex``, all rows by their coordinates; the ratio is to the
faster of the two. Data lie in a temporary folder.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr
from jsonargparse import auto_cli
from tqdm import tqdm

import zoo
from zoo.schema import CHECKPOINT, POPULATIONS, WEIGHTS, PopulationSpec
from zoo.space import TensorSpec, WeightSpace
from zoo.store import Population
from zoo.testing import tiny_spec

Gather = Callable[[np.ndarray, np.ndarray], np.ndarray]


def main(
    *,
    members: int = 10_000,
    checkpoints: int = 5,
    parameters: int = 5_018,
    rows: int = 64,
    rounds: int = 15,
    seconds: float = 0.1,
    folder: Path | None = None,
    seed: int = 0,
) -> None:
    """Write a population of noise and gather random rows from it by every reader.

    Parameters
    ----------
    members, checkpoints, parameters
        Size of the population.
    rows
        Rows per gather.
    rounds
        Times each reader has its turn; medians are reported.
    seconds
        Length of a turn.
    folder
        Where the temporary folder goes; the system's default otherwise.
    seed
        Of the numbers and of the rows.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        spec = _spec(members, checkpoints, parameters)
        path = Path(scratch) / "bench.zarr"
        flat = Path(scratch) / "flat.bin"
        _write(path, flat, spec, seed)
        readers = _readers(path, flat, spec)
        pairs = _pairs(spec, rows, seed)
        _agree(readers, pairs[0])
        population = zoo.open(path)[spec.name]
        for io in ("mmap", "pread", "ram"):  # touch, verify and keep every chunk
            _touch(population, readers[f"zoo {io}"])
        _print(_measure(readers, pairs, rounds, seconds), rows, spec)


def _spec(members: int, checkpoints: int, parameters: int) -> PopulationSpec:
    tensor = TensorSpec(
        name="weight", shape=(parameters,), kind="parameter", role="other", layer="", axes=()
    )
    return tiny_spec(
        name="bench",
        space=WeightSpace(tensors=(tensor,), groups=()),
        num_members=members,
        checkpoints=tuple(range(checkpoints)),
        block_size=0,
    )


def _write(path: Path, flat: Path, spec: PopulationSpec, seed: int) -> None:
    """Write the same numbers into a zoo and into one raw file ``[member, checkpoint, P]``."""
    writer = zoo.create(path).create_population(spec)
    shape = (spec.num_members, len(spec.checkpoints), spec.space.num_parameters)
    raw = np.memmap(flat, dtype=np.float32, mode="w+", shape=shape)
    rng = np.random.Generator(np.random.PCG64(seed))
    columns = {"seed": 0, "lineage": 0, "learning_rate": 0.1, "init_scale": 1.0}
    for block in tqdm(range(writer.num_blocks), desc="writing", unit="block", leave=False):
        ids = np.asarray(writer.members_of(block))
        values = rng.standard_normal((len(ids), *shape[1:]), dtype=np.float32)
        raw[ids] = values
        writer.write_block(
            block,
            weights=values,
            metrics={name: values[:, :, 0] for name in spec.metrics},
            columns={name: np.full(len(ids), value) for name, value in columns.items()}
            | {"activation": np.zeros(len(ids), dtype=np.int8), "diverged": ids < 0},
        )
    raw.flush()


def _readers(path: Path, flat: Path, spec: PopulationSpec) -> dict[str, Gather]:
    population = zoo.open(path)[spec.name]
    shape = (spec.num_members, len(spec.checkpoints), spec.space.num_parameters)
    raw = np.memmap(flat, dtype=np.float32, mode="r", shape=shape)
    every = np.arange(shape[2])[None]
    array = zarr.open_array(path / POPULATIONS / spec.name / WEIGHTS, mode="r")
    return {
        "np.memmap": lambda m, c: raw[m, c],
        "zoo mmap": population.reader("mmap").gather,
        "zoo pread": population.reader("pread").gather,
        "zoo ram": population.reader("ram").gather,
        "zarr items": lambda m, c: np.stack(
            [np.asarray(array[i, j]) for i, j in zip(m.tolist(), c.tolist(), strict=True)]
        ),
        "zarr vindex": lambda m, c: np.asarray(array.vindex[m[:, None], c[:, None], every]),
    }


def _pairs(spec: PopulationSpec, rows: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.Generator(np.random.PCG64(seed + 1))
    return [
        (rng.integers(spec.num_members, size=rows), rng.integers(len(spec.checkpoints), size=rows))
        for _ in range(512)
    ]


def _agree(readers: dict[str, Gather], pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Stop unless every reader gives the same numbers."""
    wanted = readers["np.memmap"](*pair)
    for name, gather in readers.items():
        if not np.array_equal(gather(*pair), wanted):
            raise SystemExit(f"{name} reads other numbers than np.memmap.")


def _touch(population: Population, gather: Gather) -> None:
    first = population.member_ids[::16]
    for index in range(len(population.checkpoints)):
        gather(first, np.full(len(first), index))


def _measure(
    readers: dict[str, Gather],
    pairs: list[tuple[np.ndarray, np.ndarray]],
    rounds: int,
    seconds: float,
) -> dict[str, float]:
    """Return the median seconds per gather of each reader, turns interleaved."""
    times: dict[str, list[float]] = {name: [] for name in readers}
    for turn in tqdm(range(rounds), desc="reading", unit="round", leave=False):
        for name, gather in readers.items():
            count, start = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - start) < seconds:
                gather(*pairs[(turn * 31 + count) % len(pairs)])
                count += 1
            times[name].append(elapsed / count)
    return {name: float(np.median(values)) for name, values in times.items()}


def _print(medians: dict[str, float], rows: int, spec: PopulationSpec) -> None:
    print(
        f"gather of {rows} random rows from {spec.num_members:,} members x {len(spec.checkpoints)} "
        f"{CHECKPOINT}s x {spec.space.num_parameters:,} float32, blocks of {spec.block_size}"
    )
    stock = min(median for name, median in medians.items() if name.startswith("zarr"))
    print(f"{'reader':<12} {'rows/s':>12} {'x np.memmap':>12} {'x zarr-python':>14}")
    for name, median in medians.items():
        floor = medians["np.memmap"] / median
        print(f"{name:<12} {rows / median:>12,.0f} {floor:>12.2f} {stock / median:>14.1f}")


if __name__ == "__main__":
    auto_cli(main)
