"""Who is at work: locks of the operating system that vanish with the process that holds them."""

import errno
import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zoo.errors import StoreError
from zoo.schema import LEDGER
from zoo.store.disk.chunks import TEMPORARY

COORDINATOR_SECONDS = 60.0
BLOCK_SECONDS = 10.0
_UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
_POLL_SECONDS = 0.02

logger = logging.getLogger(__name__)
_mine = threading.local()


@contextmanager
def block_claim(root: Path, population: str, block: int) -> Iterator[None]:
    """Own a block while it is written; a second owner waits a little, and is refused.

    Of two owners that made the same numbers, as when a killed run is resumed before its workers
    have noticed, the second finds the block committed and has nothing to do.

    Raises
    ------
    StoreError
        If somebody else still is writing it, or repairs the population.
    """
    folder = root / LEDGER / population
    what = f"block {block} of population {population!r} in {root}"
    with (
        _claim(
            folder / f".writers.claim{TEMPORARY}",
            what=what,
            patience=COORDINATOR_SECONDS,
            shared=True,
        ),
        _claim(folder / f".{block:06d}.claim{TEMPORARY}", what=what, patience=BLOCK_SECONDS),
    ):
        yield


@contextmanager
def measure_claim(root: Path, population: str, ledger: str, block: int) -> Iterator[None]:
    """Own a block of a measure while it is written, as a writer of its population.

    Parameters
    ----------
    root, population, block
        Whose block it is.
    ledger
        Name of the measure's ledger.

    Raises
    ------
    StoreError
        If somebody else still is writing it, or repairs the population.
    """
    folder = root / LEDGER
    what = f"block {block} of {ledger} in {root}"
    with (
        _claim(
            folder / population / f".writers.claim{TEMPORARY}",
            what=what,
            patience=COORDINATOR_SECONDS,
            shared=True,
        ),
        _claim(
            folder / ledger / f".{block:06d}.claim{TEMPORARY}", what=what, patience=BLOCK_SECONDS
        ),
    ):
        yield


@contextmanager
def no_writers(root: Path, population: str) -> Iterator[None]:
    """Keep writers of blocks away while the population's plan or leftovers change.

    Raises
    ------
    StoreError
        If somebody is writing a block.
    """
    folder = root / LEDGER / population
    what = f"the whole population {population!r} in {root}"
    with _claim(folder / f".writers.claim{TEMPORARY}", what=what, patience=COORDINATOR_SECONDS):
        yield


@contextmanager
def coordinator_claim(root: Path, *, patience: float = COORDINATOR_SECONDS) -> Iterator[None]:
    """Be the one who creates, grows, compacts, finishes or repairs; others wait.

    Raises
    ------
    StoreError
        If somebody else still is after ``patience`` seconds.
    """
    path = root.resolve() / LEDGER / f".coordinator.claim{TEMPORARY}"
    held: set[Path] = _mine.__dict__.setdefault("held", set())
    if path in held:
        yield  # this thread is the coordinator already
        return
    with _claim(path, what=f"the zoo {root} as its coordinator", patience=patience):
        held.add(path)
        try:
            yield
        finally:
            held.remove(path)


def remove_claims(root: Path, population: str) -> None:
    """Remove claim files that dead writers left; those of the living stay."""
    for path in (root / LEDGER / population).glob(f".*.claim{TEMPORARY}"):
        with suppress(StoreError), _claim(path, what=f"{path}"):
            pass


@contextmanager
def _claim(path: Path, *, what: str, patience: float = 0.0, shared: bool = False) -> Iterator[None]:
    """Hold a lock on a file; the file goes with the last holder, or stays when it is killed."""
    descriptor = _acquire(path, what, patience, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        yield
    finally:
        _release(path, descriptor)


def _acquire(path: Path, what: str, patience: float, mode: int) -> int:
    deadline = time.monotonic() + patience
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # the folder was tidied away just now
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
            os.close(descriptor)
            if time.monotonic() >= deadline:
                raise StoreError(
                    f"Expected to own {what}, but {holder} is at work on it. Wait until it is "
                    "done; a process that died holds nothing."
                ) from error
            time.sleep(_POLL_SECONDS)
            continue
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise
            logger.warning("%s has no file locks (%s): owners are not enforced", path, error)
        if _is_at(descriptor, path):
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            return descriptor
        os.close(descriptor)  # the holder before us removed it; take the new one


def _release(path: Path, descriptor: int) -> None:
    """Remove the file if nobody else holds it, then let go."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(descriptor, path):
            path.unlink()
    except OSError:
        pass  # others share it, or the system has no locks: the file stays
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def is_claim(path: Path) -> bool:
    """Whether a path is a claim, which says who is at work and nothing about data."""
    return path.name.startswith(".") and path.name.endswith(f".claim{TEMPORARY}")
