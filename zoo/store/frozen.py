"""Splits on disk: written once, hashed, never changed."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from zoo.errors import DamagedChunkError, StoreError, unknown_name
from zoo.schema import MEMBER, PARTS, SPLITS, check_name
from zoo.splits import digest
from zoo.store.arrays import create_array, read_layout, sync_directory, sync_tree
from zoo.store.chunks import TEMPORARY, decode, fault, is_temporary


def split_names(population: Path) -> list[str]:
    """Return the names of a population's splits."""
    folder = population / SPLITS
    found = folder.glob("*/zarr.json")
    return sorted(path.parent.name for path in found if not is_temporary(path.parent))


def write_split(
    population: Path,
    name: str,
    codes: np.ndarray,
    *,
    seed: int,
    fractions: Sequence[float],
    by: str,
) -> None:
    """Freeze a split; writing the same one again does nothing.

    Raises
    ------
    StoreError
        If the name holds another split.
    """
    check_name("split", name)
    attributes = {
        "seed": seed,
        "fractions": list(fractions),
        "by": by,
        "sha256": digest(codes),
        "flag_values": list(range(len(PARTS))),
        "flag_meanings": " ".join(PARTS),
    }
    target = population / SPLITS / name
    if not target.exists():
        _publish(target, codes, attributes)
    if split_attributes(population, name) != attributes:
        raise StoreError(
            f"Split {name!r} of {population} is frozen with other parts "
            f"({split_attributes(population, name)}). Results were reported on it; give the new "
            "split another name."
        )


def read_split(population: Path, name: str) -> np.ndarray:
    """Return the codes of a split, ``[members planned]`` int8.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    DamagedChunkError
        If its numbers are not those that were frozen.
    """
    if name not in split_names(population):
        raise unknown_name("split", name, split_names(population))
    reason = split_fault(population, name)
    if reason is not None:
        raise DamagedChunkError(
            f"Split {name!r} of {population} is damaged: {reason}. Restore the folder "
            f"{population / SPLITS / name} from a backup."
        )
    return _codes(population, name)


def split_fault(population: Path, name: str) -> str | None:
    """Say what is wrong with a split; ``None`` when nothing is."""
    layout = read_layout(population, f"{SPLITS}/{name}")
    path = population / layout.key((0,))
    if not path.exists():
        return "its chunk is missing"
    reason = fault(np.fromfile(path, dtype=np.uint8), None) if layout.is_plain else None
    if reason is not None:
        return reason
    if digest(_codes(population, name)) != split_attributes(population, name).get("sha256"):
        return "its SHA-256 is not the one it was frozen with"
    return None


def split_attributes(population: Path, name: str) -> dict[str, Any]:
    """Return what a split says about itself: seed, fractions, by, sha256."""
    text = (population / SPLITS / name / "zarr.json").read_text()
    return dict(json.loads(text)["attributes"])


def _codes(population: Path, name: str) -> np.ndarray:
    layout = read_layout(population, f"{SPLITS}/{name}")
    if not layout.is_plain:
        return np.asarray(zarr.open_array(population / layout.name, mode="r")[:])
    return decode(layout, np.fromfile(population / layout.key((0,)), dtype=np.uint8))


def _publish(target: Path, codes: np.ndarray, attributes: dict[str, Any]) -> None:
    """Write the array aside and move it into place whole."""
    aside = f".{target.name}.{os.getpid()}{TEMPORARY}"
    group = zarr.open_group(target.parent, mode="r+", use_consolidated=False)
    array = create_array(
        group,
        aside,
        shape=codes.shape,
        chunks=codes.shape,
        dtype="int8",
        dimensions=(MEMBER,),
        attributes=attributes,
    )
    array[:] = codes.astype(np.int8)
    sync_tree(target.parent / aside)
    try:
        (target.parent / aside).rename(target)
    except OSError:
        # Somebody froze it meanwhile; the caller compares.
        shutil.rmtree(target.parent / aside)
    sync_directory(target.parent)
