"""What blocks cost to make: seconds, kept beside the ledger and no part of a zoo's identity.

One line of JSON is added per block to ``_costs/<population>.jsonl``. Nothing relies on it: a run
that is killed may lose a line, and a block that is made twice has two.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from zoo.store.disk.place import Place

COSTS = "_costs"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Time that something took.

    Parameters
    ----------
    seconds
        By the clock, summed over processes.
    cpu_seconds
        Of processors.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            seconds=self.seconds + other.seconds, cpu_seconds=self.cpu_seconds + other.cpu_seconds
        )

    def __str__(self) -> str:
        return f"{self.cpu_seconds / 3600:.3g} CPU hours ({self.seconds / 3600:.3g} hours of work)"

    def share(self, part: float) -> "Cost":
        """Return a part of it."""
        return Cost(seconds=self.seconds * part, cpu_seconds=self.cpu_seconds * part)


class Stopwatch:
    """Measures this process from when it is made."""

    def __init__(self) -> None:
        self._clock, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> Cost:
        """Return the time since then."""
        return Cost(
            seconds=time.perf_counter() - self._clock, cpu_seconds=time.process_time() - self._cpu
        )


def record_cost(root: Path, population: str, block: int, cost: Cost) -> None:
    """Add a line; processes may do so at the same time."""
    path = root / COSTS / f"{population}.jsonl"
    path.parent.mkdir(exist_ok=True)
    about = {"seconds": round(cost.seconds, 3), "cpu_seconds": round(cost.cpu_seconds, 3)}
    line = json.dumps({"block": block} | about) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def total_cost(root: Place, population: str) -> Cost | None:
    """Return what all blocks of a population cost; ``None`` where nothing was recorded."""
    try:
        lines = root.read(f"{COSTS}/{population}.jsonl").decode().splitlines()
    except OSError:
        return None
    total = Cost()
    for line in lines:
        try:
            entry = json.loads(line)
            total += Cost(seconds=entry["seconds"], cpu_seconds=entry["cpu_seconds"])
        except (ValueError, KeyError, TypeError):
            continue  # the end of a line that a killed process began
    return total
