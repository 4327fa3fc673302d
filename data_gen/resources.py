"""Memory and disk that a run will take, compared with what there is before it starts."""

import shutil
from pathlib import Path

from data_gen.plan import Plan
from zoo.errors import StoreError, ZooError
from zoo.problems import Problem

_PROCESS = 450 * 2**20
"""Bytes of a process that has imported torch."""
_ENGINE = 160 * 2**20
"""Bytes that an engine's intermediates may take."""
_STATE = 6
"""Copies of the weights that training holds: gradients, moments and scratch among them."""
_NUMBER = 4


class MemoryNeededError(ZooError, MemoryError):
    """A run that would not fit the memory at hand."""


def memory_needed(plan: Plan, problem: Problem, *, workers: int) -> int:
    """Estimate the memory that ``workers`` local processes will take together, in bytes.

    Each holds the data set, and for its largest task the checkpoints (twice: as trained and as
    encoded) and what training needs beside them.
    """
    if not plan.tasks:
        return 0
    members = max(task.num_members for task in plan.tasks)
    numbers = members * plan.num_parameters * (2 * plan.num_checkpoints + _STATE)
    each = _PROCESS + _ENGINE + data_bytes(problem) + _NUMBER * numbers
    return each * min(workers, len(plan.tasks))


def data_bytes(problem: Problem) -> int:
    """Return the size of a problem's tensors in bytes."""
    tensors = (
        problem.train_inputs,
        problem.train_targets,
        problem.test_inputs,
        problem.test_targets,
    )
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def check_memory(plan: Plan, problem: Problem, *, workers: int) -> None:
    """Raise :class:`MemoryNeededError` unless the plan fits the memory that is free now."""
    needed, free = memory_needed(plan, problem, workers=workers), free_memory()
    if free is not None and needed > free:
        largest = max(task.num_members for task in plan.tasks)
        raise MemoryNeededError(
            f"Expected about {needed / 2**20:,.0f} MiB of free memory for {workers} workers (each "
            f"with {data_bytes(problem) / 2**20:,.0f} MiB of data and up to {largest} members of "
            f"{plan.num_checkpoints} checkpoints, {plan.num_parameters:,} numbers each), got "
            f"{free / 2**20:,.0f} MiB. Use fewer --workers, close other programs, or train fewer "
            "--members or checkpoints."
        )


def check_space(plan: Plan, path: Path) -> None:
    """Raise :class:`StoreError` unless the plan fits the disk that ``path`` is on."""
    free = shutil.disk_usage(path).free
    if plan.bytes_needed > free:
        raise StoreError(
            f"Expected {plan.bytes_needed / 2**20:,.1f} MiB of free disk space for {path}, got "
            f"{free / 2**20:,.1f} MiB. Free some, choose another place by --out, or train fewer "
            "--members; blocks that are stored already stay."
        )


def free_memory(root: Path = Path("/")) -> int | None:
    """Return the memory that new processes may take, in bytes; ``None`` where Linux is not.

    The least of what the machine has available and what the control group still allows.

    Parameters
    ----------
    root
        Where ``proc`` and ``sys`` are.
    """
    listing = root / "proc/meminfo"
    if not listing.is_file():
        return None
    lines = dict(line.split(":", 1) for line in listing.read_text().splitlines() if ":" in line)
    if "MemAvailable" not in lines:
        return None
    available = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = (
        _number(root / "sys/fs/cgroup" / name) for name in ("memory.max", "memory.current")
    )
    return available if limit is None or used is None else min(available, max(limit - used, 0))


def _number(path: Path) -> int | None:
    text = path.read_text().strip() if path.is_file() else ""
    return int(text) if text.isdigit() else None
