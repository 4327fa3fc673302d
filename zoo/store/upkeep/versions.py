"""Versions of a zoo in an Icechunk repository: one commit for each published dataset version."""

import hashlib
from os import PathLike
from typing import Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from zoo.errors import StoreError
from zoo.schema import CHECKPOINT, CHUNKS, POPULATIONS, SPLITS
from zoo.store.disk.files import PopulationFiles
from zoo.store.disk.frozen import split_names
from zoo.store.disk.metadata import node_bytes, nodes_below
from zoo.store.disk.place import NODE
from zoo.store.root import Zoo
from zoo.store.root import open as open_zoo
from zoo.store.upkeep.publish import Progress, Published, check_complete, chunk_records, read_chunk

PREFIX = "icechunk+"
BRANCH = "main"


def publish_version(
    source: str | PathLike[str], target: str, *, progress: Progress | None = None
) -> Published:
    """Commit a zoo's groups and arrays to a repository, under its dataset version as the message.

    What was measured after the fact does not change the version; the message then ends in
    ``+measures.`` and a hash of it.

    Readers open the repository with ``icechunk`` and zarr. Ledger and table are no part of it:
    Icechunk keeps its own checksums and history. A version that is there already is not written.

    Parameters
    ----------
    source
        A zoo whose populations are complete; it is only read.
    target
        ``icechunk+file:///folder``, or ``icechunk+s3://bucket/prefix`` with the environment's keys.
    progress
        Called with the bytes of every chunk file that is done.

    Raises
    ------
    StoreError
        If a population has no end yet, the package is missing, or the URL is of no such place.
    DamagedChunkError
        If a file of the source cannot be trusted.
    """
    zoo = open_zoo(source)
    populations = [PopulationFiles(zoo.place, name) for name in zoo.populations]
    for files in populations:
        check_complete(files)
    repository = _repository(target)
    version = zoo.version
    message = version + _measures_text(populations)
    if any(each.message == message for each in repository.ancestry(branch=BRANCH)):
        return Published(target=target, version=version, num_bytes=0, num_present=0)
    session = repository.writable_session(BRANCH)
    _write(session.store, NODE, node_bytes(_root_node(zoo)))
    for key, node in nodes_below(zoo.place):
        _write(session.store, f"{key}/{NODE}", node_bytes(node))
    copied = sum(_copy(files, session.store, progress or (lambda _: None)) for files in populations)
    session.commit(message)
    return Published(target=target, version=version, num_bytes=copied, num_present=0)


def _measures_text(populations: list[PopulationFiles]) -> str:
    """Tell states of one dataset version apart by what was measured, empty without measures."""
    lines = sorted(
        f"{measured.ledger.population}/{block} {measured.entry(block).crc32c}"
        for files in populations
        for measured in files.measures.values()
        for block in measured.committed
    )
    if not lines:
        return ""
    return f"+measures.{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:8]}"


def _copy(files: PopulationFiles, store: Any, progress: Progress) -> int:
    """Copy verified chunks; returns their bytes."""
    folder = f"{POPULATIONS}/{files.name}"
    files.check_axis()
    small = [CHECKPOINT, *(f"{SPLITS}/{split}" for split in split_names(files.place))]
    for array in small:
        key = f"{array}/{CHUNKS}/0"
        _write(store, f"{folder}/{key}", files.place.read(key))
    copied = 0
    for key, record in chunk_records(files).items():
        data = read_chunk(files, key, record)
        _write(store, f"{folder}/{key}", data)
        copied += len(data)
        progress(len(data))
    return copied


def _root_node(zoo: Zoo) -> dict[str, Any]:
    node = zoo.place.node()
    return {part: node[part] for part in ("attributes", "zarr_format", "node_type")}


def _write(store: Any, key: str, data: bytes) -> None:
    sync(store.set(key, default_buffer_prototype().buffer.from_bytes(data)))


def _repository(target: str) -> Any:
    try:
        import icechunk
    except ImportError as error:
        raise StoreError(
            f"Expected the package icechunk for {target}, got {error!r}. Install it: "
            'pip install "weight-zoo[icechunk]".'
        ) from error
    protocol, _, rest = target.removeprefix(PREFIX).partition("://")
    if protocol == "file":
        storage = icechunk.local_filesystem_storage(rest)
    elif protocol == "s3":
        bucket, _, prefix = rest.partition("/")
        storage = icechunk.s3_storage(bucket=bucket, prefix=prefix, from_env=True)
    else:
        raise StoreError(
            f"Expected icechunk+file:///folder or icechunk+s3://bucket/prefix, got {target!r}."
        )
    return icechunk.Repository.open_or_create(storage)
