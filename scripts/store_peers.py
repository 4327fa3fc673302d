"""Ways to keep the same networks on disk, for ``bench_store.py``: this store, and what others use.

A peer writes blocks of members, opens what it wrote, and gathers rows of (member, checkpoint) into
``[n, P]`` float32. Peers with a file per network keep fewer members, or writing would take longer
than all the measurements.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import safetensors
import safetensors.numpy
import torch
import zarr

import zoo
from zoo.schema import POPULATIONS, WEIGHTS, PopulationSpec
from zoo.space import TensorSpec, WeightSpace
from zoo.store.reading.gather import Io
from zoo.testing import tiny_spec

NAME = "weights"


@dataclass(frozen=True, kw_only=True)
class Load:
    """How much is stored: normal numbers ``[members, checkpoints, parameters]``.

    ``few`` members at most go to peers with a file per network.
    """

    members: int
    checkpoints: int
    parameters: int
    few: int
    seed: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the whole."""
        return self.members, self.checkpoints, self.parameters

    @property
    def spec(self) -> PopulationSpec:
        """As a population of vectors without structure."""
        shape = (self.parameters,)
        tensor = TensorSpec(
            name="weight", shape=shape, kind="parameter", role="other", layer="", axes=()
        )
        return tiny_spec(
            name="bench",
            space=WeightSpace(tensors=(tensor,), groups=()),
            num_members=self.members,
            checkpoints=tuple(range(self.checkpoints)),
            metrics=("test_accuracy",),
            block_size=0,
        )

    def blocks(self) -> Iterator[tuple[range, np.ndarray]]:
        """Yield the members of each block and their numbers ``[n, C, P]``."""
        for block in range(self.spec.num_blocks):
            ids = self.spec.members_of(block)
            rng = np.random.Generator(np.random.PCG64([self.seed, block]))
            yield ids, rng.standard_normal((len(ids), *self.shape[1:]), dtype=np.float32)


class Peer(ABC):
    """One way to keep networks; opened when written, or by :meth:`open`."""

    name: str
    per_network = False

    def __init__(self, path: Path, load: Load) -> None:
        self.path = path
        self.load = load
        self.members = min(load.few, load.members) if self.per_network else load.members

    @abstractmethod
    def create(self) -> None:
        """Make ready to write."""

    @abstractmethod
    def write(self, ids: range, values: np.ndarray) -> None:
        """Write members with consecutive ids, ``[n, C, P]``."""

    @abstractmethod
    def open(self) -> None:
        """Open for reading what was written; closes what was open."""

    @abstractmethod
    def gather(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        """Read rows ``[n, P]``."""

    @property
    def files(self) -> list[Path]:
        """Every file."""
        if self.path.is_file():
            return [self.path]
        return [path for path in self.path.rglob("*") if path.is_file()]

    @property
    def disk_bytes(self) -> int:
        """Bytes of the disk's blocks that the files take."""
        return sum(path.stat().st_blocks * 512 for path in self.files)

    @property
    def raw_bytes(self) -> int:
        """Bytes of the numbers alone."""
        return self.members * self.load.checkpoints * self.load.parameters * 4


class _Memmap(Peer):
    """One raw file ``[member, checkpoint, parameter]``: as fast as a machine can."""

    name = "np.memmap"

    def create(self) -> None:
        self.raw = np.memmap(self.path, dtype=np.float32, mode="w+", shape=self.load.shape)

    def write(self, ids: range, values: np.ndarray) -> None:
        self.raw[ids.start : ids.stop] = values

    def open(self) -> None:
        self.raw = np.memmap(self.path, dtype=np.float32, mode="r", shape=self.load.shape)

    def gather(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        return np.asarray(self.raw[members, checkpoints])


class _Ours(Peer):
    """Our store, its weights read by one ``io``."""

    io: Io

    def create(self) -> None:
        self.writer = zoo.create(self.path).create_population(self.load.spec)

    def write(self, ids: range, values: np.ndarray) -> None:
        spec, count = self.load.spec, len(ids)
        columns = {"seed": 0, "lineage": 0, "learning_rate": 0.1, "init_scale": 1.0}
        self.writer.write_block(
            ids.start // spec.block_size,
            weights=values,
            metrics={name: values[:, :, 0] for name in spec.metrics},
            columns={name: np.full(count, value) for name, value in columns.items()}
            | {"activation": np.zeros(count, dtype=np.int8), "diverged": np.zeros(count, bool)},
        )

    def open(self) -> None:
        self.population = zoo.open(self.path)["bench"]
        self.reader = self.population.reader(self.io)

    def gather(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        return self.reader.gather(members, checkpoints)


class _OursInMemory(_Ours):
    """Our store, kept in memory."""

    name, io = "zoo ram", "ram"


class _OursMapped(_Ours):
    """Our store, mapped files."""

    name, io = "zoo mmap", "mmap"


class _OursRead(_Ours):
    """Our store, rows read from files."""

    name, io = "zoo pread", "pread"


class _Zarr(Peer):
    """Reads what :class:`_Ours` wrote by zarr-python."""

    def create(self) -> None: ...

    def write(self, ids: range, values: np.ndarray) -> None: ...

    def open(self) -> None:
        self.array: Any = zarr.open_array(self.path / POPULATIONS / "bench" / WEIGHTS, mode="r")
        self.every = np.arange(self.load.parameters)[None]


class _ZarrItems(_Zarr):
    """``array[member, checkpoint]``, row by row."""

    name = "zarr items"

    def gather(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        pairs = zip(members.tolist(), checkpoints.tolist(), strict=True)
        return np.stack([np.asarray(self.array[pair]) for pair in pairs])


class _ZarrVindex(_Zarr):
    """All rows at once by coordinates."""

    name = "zarr vindex"

    def gather(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        return np.asarray(self.array.vindex[members[:, None], checkpoints[:, None], self.every])


class _Lmdb(Peer):
    """One record per network in LMDB, without the read-ahead that slows random reads down."""

    name = "LMDB"

    def create(self) -> None:
        self.path.mkdir()
        size = 2 * self.raw_bytes + 2**26
        self.env = lmdb.open(str(self.path), map_size=size, sync=False, metasync=False)

    def write(self, ids: range, values: np.ndarray) -> None:
        with self.env.begin(write=True) as transaction:
            for member, rows in zip(ids, values, strict=True):
                for checkpoint, row in enumerate(rows):
                    transaction.put(_key(member, checkpoint), row.tobytes(), append=True)

    def open(self) -> None:
        self.env.close()
        self.env = lmdb.open(str(self.path), readonly=True, lock=False, readahead=False)

    def gather(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        out = np.empty((len(members), self.load.parameters), dtype=np.float32)
        with self.env.begin(buffers=True) as transaction:
            for i, pair in enumerate(zip(members.tolist(), checkpoints.tolist(), strict=True)):
                out[i] = np.frombuffer(transaction.get(_key(*pair)), dtype=np.float32)
        return out


class _Hdf5(Peer):
    """One contiguous HDF5 data set, read row by row."""

    name = "HDF5 contiguous"

    def create(self) -> None:
        self.file = h5py.File(self.path, "w")
        self.data = self.file.create_dataset(NAME, shape=self.load.shape, dtype="f4")

    def write(self, ids: range, values: np.ndarray) -> None:
        self.data[ids.start : ids.stop] = values

    def open(self) -> None:
        self.file.close()
        self.file = h5py.File(self.path)
        self.data = self.file[NAME]

    def gather(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        out = np.empty((len(members), self.load.parameters), dtype=np.float32)
        for i, pair in enumerate(zip(members.tolist(), checkpoints.tolist(), strict=True)):
            self.data.read_direct(out[i], np.s_[pair])
        return out


class _Safetensors(Peer):
    """A safetensors file per member, a tensor per checkpoint."""

    name, per_network = "safetensors/model", True

    def create(self) -> None:
        self.path.mkdir()

    def write(self, ids: range, values: np.ndarray) -> None:
        for member, rows in zip(ids, values, strict=True):
            if member < self.members:
                tensors = {str(checkpoint): row for checkpoint, row in enumerate(rows)}
                safetensors.numpy.save_file(tensors, self._file(member))

    def open(self) -> None: ...

    def gather(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        out = np.empty((len(members), self.load.parameters), dtype=np.float32)
        for i, (m, c) in enumerate(zip(members.tolist(), checkpoints.tolist(), strict=True)):
            with safetensors.safe_open(self._file(m), framework="numpy") as file:
                out[i] = file.get_tensor(str(c))
        return out

    def _file(self, member: int) -> Path:
        return self.path / f"{member:06}.safetensors"


class _TorchFolders(Peer):
    """A folder per member, a torch file per checkpoint."""

    name, per_network = "torch folders", True

    def create(self) -> None:
        self.path.mkdir()

    def write(self, ids: range, values: np.ndarray) -> None:
        for member, rows in zip(ids, values, strict=True):
            if member < self.members:
                self._file(member, 0).parent.mkdir()
                for checkpoint, row in enumerate(rows):
                    state = {NAME: torch.from_numpy(row.copy())}
                    torch.save(state, self._file(member, checkpoint))

    def open(self) -> None: ...

    def gather(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        out = torch.empty(len(members), self.load.parameters)
        for i, pair in enumerate(zip(members.tolist(), checkpoints.tolist(), strict=True)):
            out[i] = torch.load(self._file(*pair), weights_only=True)[NAME]
        return out.numpy()

    def _file(self, member: int, checkpoint: int) -> Path:
        return self.path / f"{member:06}" / f"checkpoint_{checkpoint}.pt"


def _key(member: int, checkpoint: int) -> bytes:
    return b"%08d/%04d" % (member, checkpoint)


PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        _Memmap,
        _OursInMemory,
        _OursMapped,
        _OursRead,
        _ZarrItems,
        _ZarrVindex,
        _Lmdb,
        _Hdf5,
        _Safetensors,
        _TorchFolders,
    )
}
