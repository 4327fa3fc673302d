"""Images in IDX files: MNIST, Fashion-MNIST, KMNIST, EMNIST and any other set in that format."""

import gzip
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.errors import MissingDataError, ZooError
from zoo.problems.pixels import scaled
from zoo.problems.problem import Problem

_FILES = {
    "train_inputs": "train-images-idx3-ubyte",
    "train_targets": "train-labels-idx1-ubyte",
    "test_inputs": "t10k-images-idx3-ubyte",
    "test_targets": "t10k-labels-idx1-ubyte",
}
_USUAL = (0.5, 0.5)
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class IDXFormatError(ZooError, ValueError):
    """A file that is not an intact IDX file."""


def idx(data: Path | None, *, mean: float = 0.5, std: float = 0.5) -> Problem:
    """Load images and labels from four IDX or IDX.gz files in one folder.

    Images come as ``[n, 1, y, x]``.

    Parameters
    ----------
    data
        The folder.
    mean, std
        Pixels are scaled to [0, 1], then by these; by default they end in [-1, 1].

    Raises
    ------
    MissingDataError
        If the folder or a file is not there.
    IDXFormatError
        If a file is damaged, or images and labels do not match.
    """
    if data is None:
        raise MissingDataError(
            f"This problem reads images from a folder: give --data DIR. {_WANTED}"
        )
    raw = {part: read_idx(_find(data, stem)) for part, stem in _FILES.items()}
    for part in ("train", "test"):
        images, labels = raw[f"{part}_inputs"], raw[f"{part}_targets"]
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise IDXFormatError(
                f"Expected {part} images [n, y, x] and labels [n] in {data}, got "
                f"{images.shape} and {labels.shape}. Are the files of one data set?"
            )
    targets = {
        part: torch.from_numpy(raw[f"{part}_targets"].astype(np.int64))
        for part in ("train", "test")
    }
    return Problem(
        name=data.resolve().name,
        config={"name": "idx"} | ({} if (mean, std) == _USUAL else {"mean": mean, "std": std}),
        train_inputs=_pixels(raw["train_inputs"], mean, std),
        train_targets=targets["train"],
        test_inputs=_pixels(raw["test_inputs"], mean, std),
        test_targets=targets["test"],
        num_classes=int(max(part.max() for part in targets.values())) + 1,
    )


def read_idx(path: Path) -> np.ndarray:
    """Read one IDX file, gzipped where its name ends in ``.gz``.

    The format: two zero bytes, a type code, the rank, big-endian lengths, then the numbers.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise IDXFormatError(f"Cannot read {path}: {error}. Fetch the file again.") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _DTYPES:
        raise IDXFormatError(f"Expected an IDX file (two zero bytes, a type code), got {path}.")
    dtype, rank = np.dtype(_DTYPES[content[2]]), content[3]
    header = 4 + 4 * rank
    shape = struct.unpack(f">{rank}I", content[4:header]) if len(content) >= header else ()
    expected = header + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(content) != expected:
        raise IDXFormatError(
            f"Expected {expected} bytes in {path} for shape {shape}, got {len(content)}. "
            "Fetch the file again."
        )
    return np.frombuffer(content, dtype, offset=header).reshape(shape)


def _find(folder: Path, stem: str) -> Path:
    for name in (
        stem,
        f"{stem}.gz",
        stem.replace("-idx", ".idx"),
        stem.replace("-idx", ".idx") + ".gz",
    ):
        if (folder / name).is_file():
            return folder / name
    raise MissingDataError(f"Expected {stem} or {stem}.gz in {folder}. {_WANTED}")


def _pixels(images: np.ndarray, mean: float, std: float) -> Tensor:
    if (mean, std) == _USUAL:  # rounded as in every zoo made so far
        return torch.from_numpy(images.astype(np.float32) / 127.5 - 1)[:, None]
    return scaled(images[:, None], mean=(mean,), std=(std,))


_WANTED = (
    f"Wanted are four IDX files, gzipped or not: {', '.join(_FILES.values())}. "
    "MNIST's are usually had from its home page, Fashion-MNIST's from "
    "github.com/zalandoresearch/fashion-mnist."
)
