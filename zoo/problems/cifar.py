"""CIFAR-10 in the binary records that its authors publish."""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.errors import InvalidConfigError, MissingDataError, ZooError
from zoo.problems.pixels import HALF, scaled
from zoo.problems.problem import Problem

_SIDE, _CHANNELS, _CLASSES = 32, 3, 10
_RECORD = 1 + _CHANNELS * _SIDE**2
_TEST = "test_batch"
_WANTED = (
    "Wanted are data_batch_1.bin ... data_batch_5.bin and test_batch.bin, gzipped or not: records "
    "of a label and 3072 bytes of red, green and blue. They are usually had from "
    "www.cs.toronto.edu/~kriz/cifar.html as 'CIFAR-10 binary version'."
)


class CIFARFormatError(ZooError, ValueError):
    """A file that does not hold intact CIFAR-10 records."""


def cifar10(
    data: Path | None,
    *,
    mean: Sequence[float] = HALF,
    std: Sequence[float] = HALF,
    num_test: int = 0,
) -> Problem:
    """Load CIFAR-10 [1]_ from files ``data_batch_*`` and ``test_batch*`` in one folder.

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
    batches = _found(data, "data_batch_*.bin*")
    tests = _found(data, f"{_TEST}*.bin*")
    if data is None or not batches or not (tests or num_test):
        missing = "data_batch_1.bin" if not batches else f"{_TEST}.bin (or a num_test)"
        raise MissingDataError(f"Expected {missing} in the folder of --data {data}. {_WANTED}")
    train = np.concatenate([read_records(path) for path in batches])
    if num_test >= len(train):
        raise InvalidConfigError(f"Expected fewer than {len(train)} test records, got {num_test}.")
    if tests:
        test = np.concatenate([read_records(path) for path in tests])
    else:
        train, test = train[:-num_test], train[-num_test:]
    config = {"name": "cifar10", "mean": list(mean), "std": list(std), "num_test": num_test}
    parts: dict[str, Any] = {}
    for part, records in (("train", train), ("test", test)):
        images = records[:, 1:].reshape(-1, _CHANNELS, _SIDE, _SIDE)
        parts[f"{part}_inputs"] = scaled(images, mean=mean, std=std)
        parts[f"{part}_targets"] = torch.from_numpy(records[:, 0].astype(np.int64))
    return Problem(name="cifar10", config=config, num_classes=_CLASSES, **parts)


def read_records(path: Path) -> np.ndarray:
    """Read records ``[n, 3073]``, uint8: a label, then the red, green and blue plane.

    Raises
    ------
    CIFARFormatError
        If the file is damaged, or of another format.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise CIFARFormatError(f"Cannot read {path}: {error}. Fetch the file again.") from error
    if not content or len(content) % _RECORD:
        raise CIFARFormatError(
            f"Expected records of {_RECORD} bytes in {path}, got {len(content)} bytes. "
            "Is it the binary version, and all of it?"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    if records[:, 0].max() >= _CLASSES:
        raise CIFARFormatError(
            f"Expected labels 0 to {_CLASSES - 1} in {path}, got {records[:, 0].max()}."
        )
    return records


def _found(data: Path | None, pattern: str) -> list[Path]:
    return sorted(data.glob(pattern)) if data is not None and data.is_dir() else []
