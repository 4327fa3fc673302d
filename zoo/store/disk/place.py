"""Where a zoo lies: a folder of files named by keys, on a file system or elsewhere."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from zoo.errors import StoreError

NODE = "zarr.json"
CONSOLIDATED = "consolidated_metadata"


class Place(ABC):
    """A folder of files named by relative keys such as ``weights/c/0/0/0``.

    ``place / key`` is a folder inside; ``str(place)`` is what people call it. Places hold no open
    files, so they may be pickled to other processes.
    """

    @property
    @abstractmethod
    def local(self) -> Path | None:
        """Its path on this machine's file system; ``None`` elsewhere."""

    @abstractmethod
    def __truediv__(self, key: str) -> "Place":
        """Return the folder ``key`` inside this one; it need not exist."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """Return a whole file.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        StoreError
            If the place does not answer, or refuses.
        """

    @abstractmethod
    def read_many(self, keys: Sequence[str], *, at_once: int = 1) -> Iterator[bytes | None]:
        """Yield whole files in order, ``None`` for those missing, up to ``at_once`` in flight."""

    @abstractmethod
    def node(self, key: str = "") -> dict[str, Any]:
        """Return the metadata of the Zarr group or array at ``key``; errors as :meth:`read`."""

    @abstractmethod
    def nodes(self, key: str = "") -> list[str]:
        """Return the names of the Zarr groups and arrays directly inside ``key``, sorted."""

    @abstractmethod
    def names(self, key: str = "") -> list[str]:
        """Return the names of files and folders in ``key``; none where there is no listing."""

    @abstractmethod
    def sizes(self, key: str = "") -> dict[str, int]:
        """Return every file below ``key`` with its bytes; none where there is no listing."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Write a file whole or not at all, replacing what was there."""

    def exists(self, key: str) -> bool:
        """Whether there is a file ``key``."""
        try:
            self.read(key)
        except FileNotFoundError:
            return False
        return True

    def tails(self, sizes: dict[str, int], *, num_bytes: int) -> dict[str, bytes]:
        """Return the last bytes of files of known size."""
        files = self.read_many(list(sizes))
        return {
            key: data[-num_bytes:]
            for key, data in zip(sizes, files, strict=True)
            if data is not None
        }


class LocalPlace(Place):
    """A folder of this machine's file system.

    Parameters
    ----------
    path
        The folder; it need not exist.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def local(self) -> Path:
        """The folder itself."""
        return self.path

    def __truediv__(self, key: str) -> "LocalPlace":
        return LocalPlace(self.path / key)

    def read(self, key: str) -> bytes:
        """Return a whole file."""
        return (self.path / key).read_bytes()

    def read_many(self, keys: Sequence[str], *, at_once: int = 1) -> Iterator[bytes | None]:
        """Yield whole files one after the other."""
        for key in keys:
            try:
                yield self.read(key)
            except (FileNotFoundError, NotADirectoryError):
                yield None

    def node(self, key: str = "") -> dict[str, Any]:
        """Return what ``zarr.json`` says."""
        return dict(json.loads((self.path / key / NODE).read_bytes()))

    def nodes(self, key: str = "") -> list[str]:
        """Return the names of folders with a ``zarr.json``, but for hidden ones."""
        found = (self.path / key).glob(f"*/{NODE}")
        return sorted(path.parent.name for path in found if not path.parent.name.startswith("."))

    def names(self, key: str = "") -> list[str]:
        """Return the names of files and folders, hidden ones too."""
        folder = self.path / key
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def sizes(self, key: str = "") -> dict[str, int]:
        """Return every file with its bytes."""
        found = (self.path / key).rglob("*")
        return {
            path.relative_to(self.path).as_posix(): path.stat().st_size
            for path in found
            if path.is_file()
        }

    def write(self, key: str, data: bytes) -> None:
        """Write a durable temporary file and rename it."""
        from zoo.store.disk.chunks import replace_file

        replace_file(self.path / key, data)

    def exists(self, key: str) -> bool:
        """Whether there is a file ``key``."""
        return (self.path / key).is_file()

    def tails(self, sizes: dict[str, int], *, num_bytes: int) -> dict[str, bytes]:
        """Return the last bytes of files of known size."""
        found = {}
        for key, size in sizes.items():
            with (self.path / key).open("rb") as file:
                file.seek(max(size - num_bytes, 0))
                found[key] = file.read(num_bytes)
        return found


def is_url(path: str | PathLike[str]) -> bool:
    """Whether a path names a place elsewhere, such as ``s3://bucket/zoo.zarr``."""
    return "://" in fspath(path)


def place_of(
    path: "str | PathLike[str] | Place", *, storage_options: dict[str, Any] | None = None
) -> Place:
    """Return the place that a path or a URL names; nothing is opened.

    Parameters
    ----------
    path
        A path, or a URL that fsspec understands: ``s3://``, ``https://``, ``memory://`` ...
    storage_options
        What fsspec's file system takes: keys, endpoint, timeouts. For URLs only.

    Raises
    ------
    StoreError
        If the packages for such URLs are missing, or options are given for a path.
    """
    if isinstance(path, Place):
        return path
    if is_url(path):
        from zoo.store.disk.remote import RemotePlace

        return RemotePlace(fspath(path), storage_options=storage_options)
    if storage_options:
        raise StoreError(
            f"Expected storage options for a URL such as s3://bucket/zoo.zarr, got them for the "
            f"path {fspath(path)!r}. Leave them out, or give the URL."
        )
    return LocalPlace(path)


def consolidated(node: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metadata that a group holds of everything below it, by key; empty when none."""
    inline = node.get(CONSOLIDATED) or {}
    return dict(inline.get("metadata") or {})
