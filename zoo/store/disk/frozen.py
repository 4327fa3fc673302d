"""Splits on disk: written once, hashed, never changed."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from zoo.errors import DamagedChunkError, StoreError, unknown_name
from zoo.schema import MEMBER, PARTS, SPLITS, check_name
from zoo.splits import digest
from zoo.store.disk.arrays import create_array, read_layout, sync_directory, sync_tree
from zoo.store.disk.chunks import TEMPORARY, decode, fault
from zoo.store.disk.place import Place, place_of

_FLAGS = {"flag_values": list(range(len(PARTS))), "flag_meanings": " ".join(PARTS)}


def split_names(population: Path | Place) -> list[str]:
    """Return the names of a population's splits."""
    return place_of(population).nodes(SPLITS)


def write_split(
    population: Path,
    name: str,
    codes: np.ndarray,
    *,
    how: Mapping[str, Any],
) -> None:
    """Freeze a split and how it was made; writing the same one again does nothing.

    Raises
    ------
    StoreError
        If the name holds another split.
    """
    check_name("split", name)
    attributes = {**how, "sha256": digest(codes), **_FLAGS}
    target = population / SPLITS / name
    if not target.exists():
        _publish(target, codes, attributes)
    if split_attributes(population, name) != attributes:
        raise StoreError(
            f"Split {name!r} of {population} is frozen with other parts "
            f"({split_attributes(population, name)}). Results were reported on it; give the new "
            "split another name."
        )


def read_split(population: Path | Place, name: str) -> np.ndarray:
    """Return the codes of a split, int8, one per member planned when it was frozen.

    Members that a population grew by later are in no part.

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
            f"{population}/{SPLITS}/{name} from a backup."
        )
    return _codes(population, name)


def split_fault(population: Path | Place, name: str) -> str | None:
    """Say what is wrong with a split; ``None`` when nothing is."""
    try:
        layout = read_layout(population, f"{SPLITS}/{name}")
        data = place_of(population).read(layout.key((0,)))
    except FileNotFoundError:
        return "its chunk is missing"
    except StoreError as error:
        return str(error)
    file = np.frombuffer(data, dtype=np.uint8)
    reason = fault(file, None)
    if reason is None and (not layout.is_plain or len(file) != layout.chunk_bytes):
        reason = "its metadata describes another array than its bytes"
    if reason is not None:
        return reason
    if digest(_codes(population, name)) != split_attributes(population, name).get("sha256"):
        return "its SHA-256 is not the one it was frozen with"
    return None


def split_attributes(population: Path | Place, name: str) -> dict[str, Any]:
    """Return what a split says about itself: how it was made, and its sha256."""
    return dict(place_of(population).node(f"{SPLITS}/{name}")["attributes"])


def split_how(population: Path | Place, name: str) -> dict[str, Any]:
    """Return how a split was made, as :func:`write_split` takes it."""
    attributes = split_attributes(population, name)
    return {key: value for key, value in attributes.items() if key not in ("sha256", *_FLAGS)}


def _codes(population: Path | Place, name: str) -> np.ndarray:
    layout = read_layout(population, f"{SPLITS}/{name}")
    data = place_of(population).read(layout.key((0,)))
    return decode(layout, np.frombuffer(data, dtype=np.uint8))


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
