"""CIFAR-10 and CIFAR-100 in the two formats that their authors publish."""

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.errors import InvalidConfigError, MissingDataError
from zoo.problems.parts import DataFormatError
from zoo.problems.pickles import read_pickle
from zoo.problems.pixels import HALF, scaled
from zoo.problems.problem import Problem

_SIDE, _CHANNELS = 32, 3
_PIXELS = _CHANNELS * _SIDE**2
_HOME = "They are usually had from www.cs.toronto.edu/~kriz/cifar.html as"
_SOURCE = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"


class CIFARFormatError(DataFormatError):
    """A file that does not hold intact CIFAR records."""


@dataclass(frozen=True, kw_only=True)
class _Edition:
    """How one of the two sets lies in files."""

    name: str
    num_classes: int
    train: str
    """Pattern of training files, before ``.bin`` or ``.bin.gz``; pickles have no suffix."""
    test: str
    first: tuple[str, str]
    """A file of each part."""
    skipped: int
    """Bytes before the label in binary records: CIFAR-100 puts the coarse label there."""
    labels: str
    wanted: str


_TEN = _Edition(
    name="cifar10",
    num_classes=10,
    train="data_batch_*",
    test="test_batch*",
    first=("data_batch_1", "test_batch"),
    skipped=0,
    labels="labels",
    wanted="Wanted are data_batch_1.bin ... data_batch_5.bin and test_batch.bin, gzipped or not: "
    "records of a label and 3072 bytes of red, green and blue; or the pickles data_batch_1 ... "
    f"data_batch_5 and test_batch. {_HOME} 'CIFAR-10 binary version' or 'python version'.",
)
_HUNDRED = _Edition(
    name="cifar100",
    num_classes=100,
    train="train*",
    test="test*",
    first=("train", "test"),
    skipped=1,
    labels="fine_labels",
    wanted="Wanted are train.bin and test.bin, gzipped or not: records of a coarse label, a fine "
    "label and 3072 bytes of red, green and blue; or the pickles train and test. "
    f"{_HOME} 'CIFAR-100 binary version' or 'python version'.",
)


def cifar10(
    data: Path | None,
    *,
    mean: Sequence[float] = HALF,
    std: Sequence[float] = HALF,
    num_test: int = 0,
) -> Problem:
    """Load CIFAR-10 [1]_ from files ``data_batch_*`` and ``test_batch*`` in one folder.

    Binary records are taken where there are some, else the pickles of the Python version, which are
    read without running them.

    Parameters
    ----------
    data
        The folder.
    mean, std
        Normalisation of the pixels; see :func:`zoo.problems.pixels.scaled`.
    num_test
        With a part of the data only: how many of the last training records are the test part, where
        there is no test batch.

    Raises
    ------
    MissingDataError
        If the folder or a file is not there.
    CIFARFormatError
        If a file is damaged.
    InvalidConfigError
        If ``num_test`` leaves no training records.

    References
    ----------
    .. [1] Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    return _cifar(_TEN, data, mean=mean, std=std, num_test=num_test)


def cifar100(
    data: Path | None,
    *,
    mean: Sequence[float] = HALF,
    std: Sequence[float] = HALF,
    num_test: int = 0,
) -> Problem:
    """Load CIFAR-100 with its 100 fine classes from files ``train*`` and ``test*`` in one folder.

    Parameters, errors and reference are those of :func:`cifar10`.
    """
    return _cifar(_HUNDRED, data, mean=mean, std=std, num_test=num_test)


def _cifar(
    edition: _Edition,
    data: Path | None,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    num_test: int,
) -> Problem:
    batches, tests = _found(data, edition.train), _found(data, edition.test)
    if data is None or not batches or not (tests or num_test):
        missing = edition.first[bool(batches)]
        instead = "" if not batches else " (or a num_test)"
        raise MissingDataError(
            f"Expected {missing}.bin{instead} in the folder of --data {data}. {edition.wanted}"
        )
    train = np.concatenate([_records(path, edition) for path in batches])
    if num_test >= len(train):
        raise InvalidConfigError(f"Expected fewer than {len(train)} test records, got {num_test}.")
    if tests:
        test = np.concatenate([_records(path, edition) for path in tests])
    else:
        train, test = train[:-num_test], train[-num_test:]
    config = {"name": edition.name, "mean": list(mean), "std": list(std), "num_test": num_test}
    parts: dict[str, Any] = {}
    for part, records in (("train", train), ("test", test)):
        images = records[:, 1:].reshape(-1, _CHANNELS, _SIDE, _SIDE)
        parts[f"{part}_inputs"] = scaled(images, mean=mean, std=std)
        parts[f"{part}_targets"] = torch.from_numpy(records[:, 0].astype(np.int64))
    return Problem(
        name=edition.name,
        config=config,
        num_classes=edition.num_classes,
        source=_SOURCE,
        **parts,
    )


def _found(data: Path | None, pattern: str) -> list[Path]:
    """List the binary files of a part, or its pickles where there are none."""
    if data is None or not data.is_dir():
        return []
    binary = {*data.glob(f"{pattern}.bin"), *data.glob(f"{pattern}.bin.gz")}
    pickled = {path for path in data.glob(pattern) if path.is_file() and not path.suffix}
    return sorted(binary or pickled)


def _records(path: Path, edition: _Edition) -> np.ndarray:
    """Read records ``[n, 3073]``, uint8: a label, then the red, green and blue plane.

    Raises
    ------
    CIFARFormatError
        If the file is damaged, or of another format.
    """
    records = _binary(path, edition) if ".bin" in path.suffixes else _pickled(path, edition)
    if records[:, 0].max() >= edition.num_classes:
        raise CIFARFormatError(
            f"Expected labels 0 to {edition.num_classes - 1} in {path}, got {records[:, 0].max()}."
        )
    return records


def _binary(path: Path, edition: _Edition) -> np.ndarray:
    length = edition.skipped + 1 + _PIXELS
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise CIFARFormatError(f"Cannot read {path}: {error}. Fetch the file again.") from error
    if not content or len(content) % length:
        raise CIFARFormatError(
            f"Expected records of {length} bytes in {path}, got {len(content)} bytes. "
            "Is it the binary version, and all of it?"
        )
    return np.frombuffer(content, np.uint8).reshape(-1, length)[:, edition.skipped :]


def _pickled(path: Path, edition: _Edition) -> np.ndarray:
    batch = read_pickle(path)
    named = {_text(key): value for key, value in batch.items()} if isinstance(batch, dict) else {}
    images, labels = named.get("data"), np.asarray(named.get(edition.labels, []))
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.shape != (len(labels), _PIXELS)
        or not np.issubdtype(labels.dtype, np.integer)
        or not 0 <= labels.min(initial=0) <= labels.max(initial=0) < 256
    ):
        raise CIFARFormatError(
            f"Expected 'data' of bytes [n, {_PIXELS}] and '{edition.labels}' [n] in {path}, got "
            f"{', '.join(sorted(named)) or type(batch).__name__}. Is it of {edition.name}?"
        )
    return np.concatenate([labels[:, None].astype(np.uint8), images], axis=1)


def _text(key: object) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)
