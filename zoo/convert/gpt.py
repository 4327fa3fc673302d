"""Checkpoints of G.pt: one LMDB per run, or per some runs, raw numbers by key [1]_.

A folder of LMDB environments; each holds ``runs.json`` and, for the key of every checkpoint, such
as ``run/ep003_it00120.pt``, the flat state dict as little-endian float32, and for ``KEY_arch`` the
sizes of its tensors, as float32, too. Nothing is a pickle, and what does not have these sizes is
refused. Every run kept other steps, drawn at random, so checkpoints are numbered here, and the
metrics ``epoch`` and ``iteration`` say which they were.

References
----------
.. [1] Peebles et al., "Learning to Learn with Generative Models of Neural Network Checkpoints",
   arXiv 2209.12892; files: ``Gpt/data/database.py`` and ``dataset_lmdb.py`` of its code.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.convert.blueprint import shapes_of
from zoo.convert.source import Entry, Shapes, Skipped
from zoo.errors import InvalidConfigError, MissingDataError, ZooError
from zoo.networks import LeNetConfig, MLPConfig, build, to_dict
from zoo.schema import ColumnSpec

if TYPE_CHECKING:
    from types import ModuleType

DATA, RUNS = "data.mdb", "runs.json"

_KEY = re.compile(r".*ep(\d+)_it(\d+)\.pt")
_ARCH = "_arch"
_PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")  # torch's is a zip
_RESULTS = ("optimal_test_loss", "optimal_test_err", "optimal_train_ret")
_TASKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("mnist", to_dict(MLPConfig(in_features=784, hidden=(10,), out_features=10))),
    (
        "cifar10",
        to_dict(
            LeNetConfig(
                in_channels=3,
                image_size=32,
                out_features=10,
                channels=(16, 32),
                kernel_sizes=(3, 3),
                strides=(2, 1),
                paddings=(1, 1),
                pools=(),
                hidden=(),
                head="pool",
                conv_bias=False,
            )
        ),
    ),
)
"""Networks of the released data sets; tensors have our order."""


class DamagedRunError(ZooError, ValueError):
    """A run, or one checkpoint of it, that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One run, as ``runs.json`` describes it: keys of its checkpoints, in order, and metrics."""

    folder: Path
    checkpoints: Mapping[str, Mapping[str, float]]
    metadata: Mapping[str, Any]

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys by epoch and iteration; of the same length but for what overflows their zeros."""
        return tuple(sorted(self.checkpoints, key=_steps))


class GptCheckpoints:
    """Source of a data set of G.pt, or of one LMDB environment.

    Needs the extra ``weight-zoo[convert]``.

    Parameters
    ----------
    path
        The folder.
    network
        What ``zoo.networks.build`` takes, for data sets other than those released for MNIST and
        CIFAR-10; without it tensors have numbers for names, and one axis.

    Raises
    ------
    MissingDataError
        If there is no LMDB environment.
    """

    format = "gpt"
    column_specs: Sequence[ColumnSpec] = tuple(
        ColumnSpec(name=name, dtype="float64", role="result") for name in _RESULTS
    )
    network_columns: Sequence[str] = ()

    def __init__(self, path: Path, *, network: Mapping[str, Any] | None = None) -> None:
        if not recognise(path):
            raise MissingDataError(
                f"Expected LMDB environments ({DATA} and {RUNS}) in {path} or its folders, got "
                "none. Unpack a data set of G.pt there."
            )
        self.path = path
        self.problem: dict[str, Any] = {"name": "unknown", "source": path.resolve().name}
        self.recipe: dict[str, Any] = {"source": "G.pt", "dataset": path.resolve().name}
        self._networks = [("given", dict(network))] if network else list(_TASKS)
        self._runs: dict[str, _Run] = {}
        self._opened: tuple[Path, Any] | None = None

    def scan(self) -> Iterator[Entry | Skipped]:
        """Read every checkpoint of every run, in the order of names."""
        for folder in _environments(self.path):
            runs, fault = _runs(folder)
            if fault:
                yield Skipped(folder.name, fault)
            for name, run in runs.items():
                self._runs[name] = run
                yield from self._read(name, run)
        self._close()

    def load(self, entry: Entry, epoch: int) -> Mapping[str, np.ndarray]:
        """Read one checkpoint, cut into its tensors."""
        run = self._runs[entry.name]
        sizes = [int(np.prod(shape)) for _, shape in entry.shapes]
        parts = np.split(self._vector(run, run.keys[epoch], sizes), np.cumsum(sizes)[:-1])
        return {
            name: part.reshape(shape)
            for (name, shape), part in zip(entry.shapes, parts, strict=True)
        }

    # ---- one run ------------------------------------------------------------------------------
    def _read(self, name: str, run: _Run) -> Iterator[Entry | Skipped]:
        """Yield the run, after those of its checkpoints that are damaged."""
        sizes: list[int] = []
        kept: list[int] = []
        try:
            self._environment(run.folder)
        except DamagedRunError as error:
            yield Skipped(name, str(error))
            return
        for number, key in enumerate(run.keys):
            try:
                found = self._sizes(run, key)
                if sizes and found != sizes:
                    raise DamagedRunError("has other tensors than the run's first checkpoint")
                self._vector(run, key, found)
            except DamagedRunError as error:
                yield Skipped(key, str(error))
                continue
            sizes = found
            kept.append(number)
        if kept:
            yield self._entry(name, run, sizes, kept)
        else:
            yield Skipped(name, "holds no checkpoint that can be read")

    def _entry(self, name: str, run: _Run, sizes: list[int], kept: list[int]) -> Entry:
        network, shapes = self._shapes(sizes)
        keys = [run.keys[number] for number in kept]
        steps = [_steps(key) for key in keys]
        measured = dict.fromkeys(metric for key in keys for metric in run.checkpoints[key])
        return Entry(
            name=name,
            shapes=shapes,
            epochs=tuple(kept),
            network=network,
            columns={
                key: float(value)
                for key, value in run.metadata.items()
                if isinstance(value, int | float)
            },
            metrics={
                "epoch": [epoch for epoch, _ in steps],
                "iteration": [iteration for _, iteration in steps],
            }
            | {
                metric.removeprefix("avg_"): [
                    float(run.checkpoints[key].get(metric, np.nan)) for key in keys
                ]
                for metric in measured
            },
        )

    def _shapes(self, sizes: list[int]) -> tuple[dict[str, Any] | None, Shapes]:
        """Return the network whose tensors have these sizes, in order; none if there is none."""
        for _, network in self._networks:
            shapes = shapes_of(build(network))
            if [int(np.prod(shape)) for _, shape in shapes] == sizes:
                return network, shapes
        return None, tuple((f"tensor_{number}", (size,)) for number, size in enumerate(sizes))

    # ---- LMDB ---------------------------------------------------------------------------------
    def _sizes(self, run: _Run, key: str) -> list[int]:
        """Return the sizes of a checkpoint's tensors."""
        sizes = _numbers(self._value(run, key + _ARCH))
        if not sizes.size or (sizes < 1).any() or (sizes != np.round(sizes)).any():
            raise DamagedRunError("has no list of the sizes of its tensors")
        return [int(size) for size in sizes]

    def _vector(self, run: _Run, key: str, sizes: Sequence[int]) -> np.ndarray:
        value = self._value(run, key)
        if len(value) == 4 * sum(sizes):
            return _numbers(value)
        if value.startswith(_PICKLE):
            raise DamagedRunError("is a pickle, not plain numbers: refused")
        raise DamagedRunError(f"holds {len(value)} bytes, not {sum(sizes)} numbers of float32")

    def _value(self, run: _Run, key: str) -> bytes:
        try:
            with self._environment(run.folder).begin() as transaction:
                value = transaction.get(key.encode())
        except _lmdb().Error as error:
            raise DamagedRunError(f"the database is damaged there: {error}") from error
        if value is None:
            raise DamagedRunError(f"{RUNS} names it, but the database has no {key!r}")
        return bytes(value)

    def _environment(self, folder: Path) -> Any:
        """Open an environment to read, one at a time; it must be as long as it says.

        LMDB maps its file: pages beyond the end of one that was cut off would kill the process.
        """
        if self._opened is not None and self._opened[0] == folder:
            return self._opened[1]
        self._close()
        try:
            opened = _lmdb().open(
                str(folder), readonly=True, lock=False, readahead=False, create=False
            )
        except _lmdb().Error as error:
            raise DamagedRunError(f"{DATA} is damaged: {error}") from error
        needed = (opened.info()["last_pgno"] + 1) * opened.stat()["psize"]
        held = (folder / DATA).stat().st_size
        if held < needed:
            opened.close()
            raise DamagedRunError(f"{DATA} is cut off: {held} of {needed} bytes")
        self._opened = (folder, opened)
        return opened

    def _close(self) -> None:
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None


def recognise(path: Path) -> bool:
    """Tell whether a folder is, or holds, LMDB environments with ``runs.json``."""
    return path.is_dir() and any((folder / RUNS).is_file() for folder in _environments(path))


def _environments(path: Path) -> list[Path]:
    if (path / DATA).is_file():
        return [path]
    return sorted(file.parent for file in path.glob(f"*/{DATA}"))


def _runs(folder: Path) -> tuple[dict[str, _Run], str]:
    """Read ``runs.json``: one run under the folder's name, or several under their own."""
    try:
        content = json.loads((folder / RUNS).read_text(encoding="utf-8"))
        if "checkpoints" in content:
            content = {folder.name: content}
        runs = {
            str(name): _Run(
                folder=folder,
                checkpoints={str(key): dict(value) for key, value in each["checkpoints"].items()},
                metadata=dict(each.get("metadata", {})),
            )
            for name, each in content.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, f"{RUNS} is absent or damaged: {error}"
    odd = [key for run in runs.values() for key in run.checkpoints if not _KEY.fullmatch(key)]
    if odd:
        return {}, f"{RUNS} names {odd[0]!r}, which says no epoch and iteration"
    return runs, ""


def _steps(key: str) -> tuple[int, int]:
    match = _KEY.fullmatch(key)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _numbers(value: bytes) -> np.ndarray:
    """Read little-endian float32 numbers; none where the bytes are no whole number of them."""
    return np.frombuffer(value if len(value) % 4 == 0 else b"", dtype="<f4").astype(np.float32)


def _lmdb() -> "ModuleType":
    try:
        import lmdb
    except ImportError as error:
        raise InvalidConfigError(
            "Reading LMDB needs lmdb. Install it with `pip install 'weight-zoo[convert]'`."
        ) from error
    return lmdb
