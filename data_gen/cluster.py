"""Tasks on a Ray cluster: the data set is shipped once, a task whose worker dies is tried again.

Blocks are written by the worker that trained them, so every node must see the zoo's folder under
the same path (one machine, or a shared file system).
"""

import logging
import os
import socket
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor

import zoo
from data_gen.plan import Task
from data_gen.run import Progress, Run, train_task
from zoo.errors import MissingDataError, ZooError
from zoo.problems import Problem

LOCAL, AUTO = "local", "auto"
_RETRIES = 5
"""How often a task is tried again after its worker died."""
_PATIENCE = 5.0
"""Seconds that an address may take to answer."""
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
_WAY_OUT = (
    "Start a cluster with 'ray start --head', name one by --ray HOST:PORT, or let --ray local "
    "start one on this machine."
)


class ClusterError(ZooError, ConnectionError):
    """A Ray cluster that does not answer, or lost a task for good."""


def find_cluster(address: str) -> str:
    """Return the address that ``--ray`` means, after making sure that somebody answers there.

    Parameters
    ----------
    address
        ``local``, ``auto`` (the cluster that ``RAY_ADDRESS`` or this machine's last ``ray start``
        names), ``HOST:PORT`` or ``ray://HOST:PORT``.

    Raises
    ------
    MissingDataError
        If Ray is not installed.
    ClusterError
        If there is no such cluster.
    """
    if find_spec("ray") is None:
        raise MissingDataError('Ray is not installed: pip install "weight-zoo[ray]".')
    if address == LOCAL:
        return LOCAL
    found = _announced() if address == AUTO else address
    if not found:
        raise ClusterError(f"No Ray cluster is running on this machine. {_WAY_OUT}")
    parts = urlsplit(found if "//" in found else f"//{found}")
    try:
        place = (parts.hostname or "", parts.port or 0)
        socket.create_connection(place, timeout=_PATIENCE).close()
    except (OSError, ValueError) as error:
        raise ClusterError(f"No Ray cluster answers at {found!r} ({error}). {_WAY_OUT}") from error
    return found


def train_on_ray(run: Run, problem: Problem, tasks: Sequence[Task], report: Progress) -> None:
    """Train tasks on the cluster ``run.ray``, at most ``run.workers`` at a time.

    Raises
    ------
    ClusterError
        If the cluster cannot be joined, or a task's workers died again and again.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    with _joined(run):
        gpus = 1 if run.device.startswith("cuda") else 0
        work = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES)(_work)
        data, plan = ray.put(_pack(problem)), ray.put(run)
        waiting = list(tasks[::-1])
        running: dict[Any, Task] = {}
        try:
            while waiting or running:
                while waiting and len(running) < (run.workers or len(tasks)):
                    task = waiting.pop()
                    running[work.remote(plan, data, task)] = task
                done, _ = ray.wait(list(running), num_returns=1)
                ray.get(done[0])
                report(float(running.pop(done[0]).num_members * run.recipe.epochs))
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise ClusterError(
                f"The Ray cluster lost a task for good: {error}. Stored blocks stay: run the same "
                "command to resume."
            ) from error


def _work(run: Run, data: dict[str, Any], task: Task) -> None:
    torch.set_num_threads(1)
    writer = zoo.create(run.out, exist_ok=True).writer(run.recipe.name)
    train_task(run.recipe, run.make_engine(), _unpack(data), writer, task, lambda _: None)


@contextmanager
def _joined(run: Run) -> Iterator[None]:
    """Join a cluster, or start one of ``run.num_workers`` processors that ends with the block."""
    import ray

    address = find_cluster(run.ray or LOCAL)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    place: dict[str, Any] = {"address": address}
    if address == LOCAL:
        place = {"address": LOCAL, "num_cpus": run.num_workers, "include_dashboard": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            ray.init(**place, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"Cannot join the Ray cluster {address!r}: {error} {_WAY_OUT}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _announced() -> str:
    """Return the address of the cluster that this process or machine is part of, if any."""
    if "RAY_ADDRESS" in os.environ:
        return os.environ["RAY_ADDRESS"]
    note = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"
    return note.read_text().strip() if note.is_file() else ""


def _pack(problem: Problem) -> dict[str, Any]:
    """Turn tensors into arrays, which workers of one machine share without copying them."""
    values = {field.name: getattr(problem, field.name) for field in fields(problem)}
    return {
        name: value.numpy() if isinstance(value, Tensor) else value
        for name, value in values.items()
    }


def _unpack(data: dict[str, Any]) -> Problem:
    with warnings.catch_warnings():
        # Shared arrays cannot be written to, and nobody does.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        values: dict[str, Any] = {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in data.items()
        }
    return Problem(**values)
