"""Places elsewhere: S3, HTTP and whatever else fsspec reaches."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from zoo.errors import StoreError
from zoo.store.disk.place import NODE, Place, consolidated

CONNECT_SECONDS = 5
READ_SECONDS = 10
ATTEMPTS = 3
PATIENCE_SECONDS = 5.0
_NO_LISTING = ("http", "https")

T = TypeVar("T")


class RemotePlace(Place):
    """A folder that fsspec reaches.

    The metadata of all arrays comes from the root's consolidated copy, in one request; a host
    that cannot list, as over HTTP, needs no listing.

    Parameters
    ----------
    url
        The zoo.
    storage_options
        What fsspec's file system takes.
    """

    def __init__(self, url: str, *, storage_options: dict[str, Any] | None = None) -> None:
        self._host = _Host(url.rstrip("/"), dict(storage_options or {}))
        self._prefix = ""

    def __str__(self) -> str:
        return self._host.url + (f"/{self._prefix}" if self._prefix else "")

    def __truediv__(self, key: str) -> "RemotePlace":
        inside = RemotePlace.__new__(RemotePlace)
        inside._host, inside._prefix = self._host, self._key(key)
        return inside

    @property
    def local(self) -> Path | None:
        """No path."""
        return None

    def read(self, key: str) -> bytes:
        """Return a whole file; a reply that breaks off is asked for again."""
        return self._host.read(self._key(key))

    def read_many(self, keys: Sequence[str], *, at_once: int = 1) -> Iterator[bytes | None]:
        """Yield whole files in order, ``at_once`` of them fetched together."""
        for start in range(0, len(keys), at_once):
            yield from self._host.read_together(
                [self._key(key) for key in keys[start : start + at_once]]
            )

    def node(self, key: str = "") -> dict[str, Any]:
        """Return the consolidated metadata of ``key``, or its own file where there is none."""
        full = self._key(key)
        if full in self._host.metadata:
            return self._host.metadata[full]
        return dict(json.loads(self._host.read(f"{full}/{NODE}".lstrip("/"))))

    def nodes(self, key: str = "") -> list[str]:
        """Return the names that the consolidated metadata holds directly inside ``key``."""
        inside = f"{self._key(key)}/".lstrip("/")
        rest = (k[len(inside) :] for k in self._host.metadata if k.startswith(inside))
        return sorted({name for name in rest if name and "/" not in name})

    def names(self, key: str = "") -> list[str]:
        """Return the names in a folder; none where the host does not list."""
        return self._host.names(self._key(key))

    def sizes(self, key: str = "") -> dict[str, int]:
        """Return every file below a folder; none where the host does not list."""
        skip = len(self._prefix) + 1 if self._prefix else 0
        found = self._host.sizes(self._key(key))
        return {name[skip:]: size for name, size in found.items()}

    def write(self, key: str, data: bytes) -> None:
        """Put a file; object stores show it whole or not at all."""
        self._host.write(self._key(key), data)

    def tails(self, sizes: dict[str, int], *, num_bytes: int) -> dict[str, bytes]:
        """Return the last bytes of files of known size."""
        keys = [self._key(key) for key in sizes]
        tails = self._host.tails(keys, list(sizes.values()), num_bytes)
        return dict(zip(sizes, tails, strict=True))

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{key}".strip("/")


class _Host:
    """One folder elsewhere; connects when first asked, anew in every process."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self.url = url
        self.options = options
        self._connected: tuple[int, Any, str] | None = None
        self._metadata: dict[str, dict[str, Any]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_connected": None}

    @property
    def metadata(self) -> dict[str, dict[str, Any]]:
        """Metadata of the root (key ``""``) and of everything below, as of the first look."""
        if self._metadata is None:
            root = dict(json.loads(self.read(NODE)))
            self._metadata = consolidated(root) | {"": root}
        return self._metadata

    def read(self, key: str) -> bytes:
        (data,) = self.read_together([key])
        if data is None:
            raise FileNotFoundError(f"{self.url}/{key}")
        return data

    def read_together(self, keys: list[str]) -> list[bytes | None]:
        """Fetch files concurrently; those that broke off again, for a few seconds."""
        got: dict[str, bytes | Exception] = {}
        started = time.monotonic()
        for attempt in range(ATTEMPTS):
            wanted = [key for key in keys if not _is_final(got.get(key))]
            got |= self._fetch(wanted)
            failed = [got[key] for key in keys if not _is_final(got[key])]
            if not failed or time.monotonic() - started > PATIENCE_SECONDS:
                break
            time.sleep(0.1 * 4**attempt)
        return [self._result(key, got[key]) for key in keys]

    def _fetch(self, keys: list[str]) -> dict[str, bytes | Exception]:
        filesystem, _ = self._connect()
        paths = {self._path(key): key for key in keys}
        try:
            found = filesystem.cat(list(paths), on_error="return")
        except Exception as error:  # noqa: BLE001 - drivers raise what they like; explained later
            return dict.fromkeys(keys, error)
        return {key: found[path] for path, key in paths.items()}

    def _result(self, key: str, got: bytes | Exception) -> bytes | None:
        if isinstance(got, FileNotFoundError):
            return None
        if isinstance(got, Exception):
            self._explain(got, key)
        return bytes(got)

    def names(self, key: str) -> list[str]:
        filesystem, _ = self._connect()
        if self._cannot_list():
            return []
        try:
            found = self._ask(key, lambda: filesystem.ls(self._path(key), detail=False))
        except (FileNotFoundError, PermissionError):
            return []  # a bucket may be read by all and listed by none
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def sizes(self, key: str) -> dict[str, int]:
        filesystem, base = self._connect()
        if self._cannot_list():
            return {}
        try:
            found = self._ask(key, lambda: filesystem.find(self._path(key), detail=True))
        except (FileNotFoundError, PermissionError):
            return {}
        return {name[len(base) :].lstrip("/"): about["size"] for name, about in found.items()}

    def write(self, key: str, data: bytes) -> None:
        filesystem, _ = self._connect()
        if self._cannot_list():
            raise StoreError(f"Expected a place that takes files, got {self.url}: HTTP only reads.")
        try:
            self._ask(key, lambda: filesystem.pipe_file(self._path(key), data))
        except PermissionError as error:
            self._explain(error, key)
        except FileNotFoundError as error:
            raise StoreError(
                f"Expected a bucket that takes {self.url}/{key}, got none ({error}). Make the "
                "bucket first, or check its name."
            ) from error

    def tails(self, keys: list[str], sizes: list[int], num_bytes: int) -> list[bytes]:
        filesystem, _ = self._connect()
        paths = [self._path(key) for key in keys]
        starts = [max(size - num_bytes, 0) for size in sizes]
        found = self._ask(
            "", lambda: filesystem.cat_ranges(paths, starts, sizes, on_error="return")
        )
        # A host that cannot give a part of a file has nothing that is known to be there.
        return [bytes(tail[-num_bytes:]) if isinstance(tail, bytes) else b"" for tail in found]

    def _ask(self, key: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # noqa: BLE001 - drivers raise what they like; explained here
            self._explain(error, key)

    def _cannot_list(self) -> bool:
        return self.url.partition("://")[0] in _NO_LISTING

    def _path(self, key: str) -> str:
        _, base = self._connect()
        return f"{base}/{key}" if key else base

    def _connect(self) -> tuple[Any, str]:
        """Return the file system of this process, and the zoo's path in it."""
        if self._connected is None or self._connected[0] != os.getpid():
            self._connected = (os.getpid(), *self._filesystem())
        return self._connected[1:]

    def _filesystem(self) -> tuple[Any, str]:
        protocol = self.url.partition("://")[0]
        try:
            from fsspec.core import url_to_fs

            filesystem, path = url_to_fs(self.url, **_with_timeouts(protocol, self.options))
        except ImportError as error:
            raise StoreError(
                f"Expected the packages that read {protocol}:// for {self.url}, got {error!r}. "
                'Install them: pip install "weight-zoo[cloud]".'
            ) from error
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"Expected a URL such as s3://bucket/zoo.zarr or https://host/zoo.zarr, and "
                f"storage options that fsspec takes, got {self.url!r}: {error}."
            ) from error
        if hasattr(filesystem, "retries"):
            filesystem.retries = 2  # s3fs waits for each; files are asked for again here
        return filesystem, path.rstrip("/")

    def _explain(self, error: Exception, key: str) -> NoReturn:
        """Raise the error of a place that did not answer as a sentence."""
        where = f"{self.url}/{key}".rstrip("/")
        about = f"{type(error).__name__}: {error}".rstrip(": ")
        if _is_refused(error):
            raise StoreError(
                f"Expected to reach {where}, got refused ({about}). Check the bucket and the "
                "credentials: storage_options={'key': ..., 'secret': ...}, the environment's "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or {'anon': True} for a public "
                "bucket."
            ) from error
        raise StoreError(
            f"Expected an answer from {where}, got none ({about}). Is the host up, the address "
            "right, the network there? Nothing was read; try again."
        ) from error


def _is_final(got: bytes | Exception | None) -> bool:
    """Whether asking again would change nothing."""
    return isinstance(got, bytes | FileNotFoundError) or _is_refused(got)


def _is_refused(got: object) -> bool:
    """Whether a host knows what was asked for, and does not give it to this caller."""
    is_named = isinstance(got, PermissionError) or "Credentials" in type(got).__name__
    return is_named or getattr(got, "status", None) in (401, 403)


def _knows_checksums() -> bool:
    """Whether the installed client of S3 checks replies by itself; our chunks carry their own."""
    from botocore.config import Config

    return "response_checksum_validation" in Config.OPTION_DEFAULTS


def _with_timeouts(protocol: str, options: dict[str, Any]) -> dict[str, Any]:
    """Add timeouts to storage options, where the caller gave none: hosts fail in seconds."""
    if protocol in ("s3", "s3a"):
        given = options.get("config_kwargs", {})
        config = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retries": {"max_attempts": 0},
        } | given
        if _knows_checksums():  # of parts of files some servers send those of the whole
            config = {"response_checksum_validation": "when_required"} | config
        return {"use_listings_cache": False} | options | {"config_kwargs": config}
    if protocol in ("http", "https"):
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        client = {"timeout": timeout} | options.get("client_kwargs", {})
        return options | {"client_kwargs": client}
    return options
