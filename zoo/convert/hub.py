"""A zoo as a data set of the Hugging Face Hub: the zoo as it is, a data card, Git LFS rules."""

from collections.abc import Callable, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.convert.card import data_card
from zoo.errors import InvalidConfigError, MissingDataError, StoreError
from zoo.schema import CHUNKS, POPULATIONS, TABLE
from zoo.store import Zoo
from zoo.store import open as open_zoo
from zoo.store.disk.chunks import TEMPORARY, replace_file
from zoo.store.upkeep.publish import num_chunk_bytes, publish

if TYPE_CHECKING:
    from types import ModuleType

STORE = "zoo.zarr"
CARD = "README.md"
ATTRIBUTES = ".gitattributes"

_LFS = "filter=lfs diff=lfs merge=lfs -text"
_RULES = f"{STORE}/**/{CHUNKS}/** {_LFS}\n*.parquet {_LFS}\n"
_READING = """import zoo

store = zoo.open("{store}")  # after huggingface_hub.snapshot_download, or git clone
population = store["{population}"]
population.table  # one row per network
population.weights([0])  # [1, numbers per network] float32"""
_LOOKED_AT = 100
_MAX_FILES = 100_000
"""Files in one repository beyond which the Hub advises against, in its own documentation."""


def export(
    zoo: Zoo,
    folder: str | PathLike[str],
    *,
    licence: str = "unknown",
    name: str = "",
    tags: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Lay a zoo out as a data set repository: ``zoo.zarr``, ``README.md``, ``.gitattributes``.

    Files are copied as they are and verified, so archives stay archives, and the dataset version
    stays. A second call copies what is missing and writes the card anew.

    Parameters
    ----------
    zoo
        The zoo.
    folder
        Where; created when absent.
    licence
        Identifier of the Hub, such as ``cc-by-4.0``.
    name
        Title of the card; the folder's name by default.
    tags
        Added to the card's.
    progress
        Called with bytes done and bytes in all.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    StoreError
        If the folder holds another zoo, or the zoo has no population, or an unfinished one.
    """
    target = Path(folder)
    if not zoo.populations:
        raise StoreError(f"Expected a population to publish in {zoo.path}, got an empty zoo.")
    total, done = num_chunk_bytes(zoo), 0

    def copied(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        if progress is not None:
            progress(done, total)

    publish(zoo.path, target / STORE, progress=copied)
    there = open_zoo(target / STORE)
    card = data_card(
        there,
        name=name or target.resolve().name,
        reading=_READING.format(store=STORE, population=there.populations[0]),
        licence=licence,
        tags=("zarr", *tags),
        configs={"members": f"{STORE}/{TABLE}"} if (target / STORE / TABLE).exists() else None,
        limits=_limits(sum(path.is_file() for path in (target / STORE).rglob("*"))),
    )
    replace_file(target / CARD, card.encode())
    replace_file(target / ATTRIBUTES, _RULES.encode())
    return target


def open(folder: str | PathLike[str]) -> Zoo:
    """Open a folder that :func:`export` wrote or that was downloaded from the Hub.

    Raises
    ------
    MissingDataError
        If the folder holds no zoo, or Git LFS pointers in place of data.
    """
    root = Path(folder) / STORE
    if not root.is_dir():
        raise MissingDataError(
            f"Expected a zoo at {root}, got none. Download the whole data set, with "
            "huggingface_hub.snapshot_download(repo_id, repo_type='dataset')."
        )
    chunks = islice(root.glob(f"{POPULATIONS}/*/**/{CHUNKS}/**/0"), _LOOKED_AT)
    pointer = next((file for file in chunks if file.is_file() and _is_pointer(file)), None)
    if pointer is not None:
        raise MissingDataError(
            f"Expected data in {pointer}, got a Git LFS pointer. Fetch the data by `git lfs pull`."
        )
    return open_zoo(root)


def upload(
    folder: str | PathLike[str], repo_id: str, *, private: bool = False, message: str = ""
) -> str:
    """Upload a folder that :func:`export` wrote; resumes what was interrupted.

    Needs the extra ``weight-zoo[hub]`` and a login (``hf auth login``).

    Parameters
    ----------
    folder
        The folder.
    repo_id
        ``owner/name`` of the data set; created when absent.
    private
        Whether a new repository is private.
    message
        Commit message.

    Returns
    -------
    str
        Address of the data set.

    Raises
    ------
    InvalidConfigError
        If the repository is not named ``owner/name``, or the extra is not installed.
    MissingDataError
        If the folder was not made by :func:`export`.
    """
    owner, _, name = repo_id.partition("/")
    if not owner or not name or "/" in name:
        raise InvalidConfigError(f"Expected a repository as owner/name, got {repo_id!r}.")
    opened = open(folder)
    if not (Path(folder) / CARD).exists():
        raise MissingDataError(f"Expected a data card at {Path(folder) / CARD}. Export first.")
    api: Any = _hub().HfApi()
    api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    done = api.upload_folder(
        repo_id=repo_id,
        repo_type="dataset",
        folder_path=str(folder),
        commit_message=message or f"Dataset version {opened.version}",
        ignore_patterns=[f"**/.*{TEMPORARY}"],
    )
    return str(getattr(done, "repo_url", f"https://huggingface.co/datasets/{repo_id}"))


def _hub() -> "ModuleType":
    try:
        import huggingface_hub
    except ImportError as error:
        raise InvalidConfigError(
            "Uploading needs huggingface_hub. Install it with `pip install 'weight-zoo[hub]'`."
        ) from error
    return huggingface_hub


def _is_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(42).startswith(b"version https://git-lfs.github.com/spec/")


def _limits(num_files: int) -> list[str]:
    if num_files <= _MAX_FILES:
        return []
    return [
        f"{num_files:,} files, more than the {_MAX_FILES:,} the Hub advises for one repository; an "
        "archive with larger blocks has fewer."
    ]
