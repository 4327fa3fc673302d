"""What killed writers leave: temporary files, and chunk files without an entry in the ledger."""

from collections.abc import Collection, Iterator
from pathlib import Path

from zoo.schema import CHUNKS, LEDGER, POPULATIONS, TABLE
from zoo.store.disk.chunks import is_temporary
from zoo.store.disk.claims import is_claim


def temporaries(root: Path, population: str) -> list[Path]:
    """Return the temporary files and folders of a population, claims of the living left out."""
    path, ledger = root / POPULATIONS / population, root / LEDGER
    beside = [
        *root.glob(f".{TABLE}.*"),
        *root.glob(".zarr.json.*"),
        *path.parent.glob(f".{population}.*"),
        *ledger.glob(f".{population}.jsonl.*"),
    ]
    inside = [*path.rglob(".*"), *(ledger / population).rglob(".*")]
    return sorted(p for p in (*beside, *inside) if is_temporary(p) and not is_claim(p))


def orphans(population: Path, arrays: Collection[str], known: Collection[str]) -> Iterator[Path]:
    """Yield the chunk files of some arrays that no ledger entry lists.

    Parameters
    ----------
    population
        Its folder.
    arrays
        Names of the arrays that blocks write.
    known
        Paths below the population that the ledger lists.
    """
    for array in arrays:
        for path in (population / array / CHUNKS).rglob("*"):
            key = path.relative_to(population).as_posix()
            if path.is_file() and key not in known and not is_temporary(path):
                yield path
