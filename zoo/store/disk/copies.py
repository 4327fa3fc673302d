"""The copies of Zarr's metadata: every array's own, its population's, and the root's.

Three copies make altered metadata show, and tell which of them to trust.
"""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from zoo.errors import StoreError
from zoo.layout import Ragged
from zoo.schema import (
    CHECKPOINT,
    COLUMNS,
    FORMAT,
    FORMAT_KEY,
    FORMAT_VERSION,
    MEASURES,
    MEMBER,
    METRICS,
    OFFSET,
    POPULATIONS,
    SPLITS,
    VERSION_KEY,
    WEIGHTS,
    PopulationSpec,
)
from zoo.store.disk.files import read_spec
from zoo.store.disk.metadata import group_node
from zoo.store.disk.place import CONSOLIDATED, NODE, Place, consolidated

Node = dict[str, Any]
_OURS = (WEIGHTS, OFFSET, MEMBER, CHECKPOINT, METRICS, COLUMNS, SPLITS, MEASURES)


def metadata_faults(root: Place) -> Iterator[str]:
    """Say where the metadata of a zoo is damaged, or its copies differ."""
    if root.local is None:
        return  # elsewhere, the root's copy is what is read
    top = node_or_none(root, "")
    expected = {FORMAT_KEY: FORMAT, VERSION_KEY: FORMAT_VERSION}
    if top is None or top["attributes"] != expected:
        yield f"{NODE}: its attributes are not {expected}"
    yield from _differences(root, "", consolidated(top or {}))
    for name in root.nodes(POPULATIONS):
        key = f"{POPULATIONS}/{name}"
        node = node_or_none(root, key)
        if node is not None:
            yield from _differences(root, key, consolidated(node))
            yield from _misfits(root / key, name)


def _differences(root: Place, group: str, copies: dict[str, Node]) -> Iterator[str]:
    """Compare every file below a group with the group's copy of it."""
    where = f"{group}/{NODE}".lstrip("/")
    place = root / group if group else root
    there = set(keys_below(place))
    for key in filter(partial(is_ours, group), sorted(there | copies.keys())):
        node = node_or_none(place, key) if key in there else None
        if key not in there:
            yield f"{where} describes {key}, which is missing"
        elif node is None:
            yield f"{key}/{NODE} below {group or 'the root'} is no metadata of Zarr"
        elif key not in copies:
            yield f"{where} does not describe {key} yet"
        elif plain(node) != plain(copies[key]):
            yield f"{key}/{NODE} below {group or 'the root'} differs from its copy in {where}"


def _misfits(population: Place, name: str) -> Iterator[str]:
    """Compare the metadata of arrays with the population's attributes."""
    try:
        spec = read_spec(population, name)
    except StoreError:
        return  # said by whoever reads the population
    for array, wanted in expected_arrays(spec).items():
        node = node_or_none(population, array)
        if node is None or not fits(node, wanted):
            shape, chunks, dtype = wanted
            yield f"{name}/{array}: not an array of shape {shape}, chunks {chunks} and {dtype}"


def is_ours(group: str, key: str) -> bool:
    """Whether the format names a node ``key`` below a group, the root or a population."""
    parts = f"{group}/{key}".strip("/").split("/")
    return parts[0] == POPULATIONS and (len(parts) < 3 or parts[2] in _OURS)


def keys_below(place: Place, key: str = "") -> Iterator[str]:
    """Yield every group and array below one, whether or not its metadata can be read."""
    for name in place.nodes(key):
        child = f"{key}/{name}".lstrip("/")
        yield child
        node = node_or_none(place, child)
        if node is None or node["node_type"] == "group":
            yield from keys_below(place, child)


def node_or_none(place: Place, key: str) -> Node | None:
    """Return metadata, or ``None`` where it cannot be read as such."""
    try:
        node = place.node(key)
        sound = node["zarr_format"] == 3 and node["node_type"] in ("array", "group")
        return node if sound and isinstance(node["attributes"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def plain(node: Node) -> str:
    """Return metadata without consolidation, as text to compare."""
    return json.dumps({k: v for k, v in node.items() if k != CONSOLIDATED}, sort_keys=True)


def expected_arrays(spec: PopulationSpec) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Return per array its shape, chunks and dtype, as the attributes have them."""
    members, size, epochs = spec.num_members, spec.block_size, len(spec.checkpoints)
    rows = (spec.num_blocks, 1) if isinstance(spec.space, Ragged) else (members, size)
    found: dict[str, Any] = {
        WEIGHTS: ((rows[0], epochs, spec.row_length), (rows[1], 1, spec.row_length), "float"),
        CHECKPOINT: ((epochs,), (epochs,), "int64"),
        MEMBER: ((members,), (size,), "int64"),
    }
    if isinstance(spec.space, Ragged):
        found[OFFSET] = found[MEMBER]
    for metric in spec.metrics:
        found[f"{METRICS}/{metric}"] = ((members, epochs), (size, epochs), "float32")
    for column in spec.columns:
        dtype = "int8" if column.dtype in ("category", "bool") else column.dtype
        found[f"{COLUMNS}/{column.name}"] = ((members,), (size,), dtype)
    return found


def fits(node: Node, wanted: tuple[Any, ...]) -> bool:
    """Whether an array's metadata is what the attributes ask for; it may have grown further."""
    shape, chunks, dtype = wanted
    try:
        found = tuple(node["shape"])
        same = (
            found[0] >= shape[0]
            and found[1:] == shape[1:]
            and tuple(node["chunk_grid"]["configuration"]["chunk_shape"]) == chunks
        )
        return same and str(node["data_type"]).startswith(dtype)
    except (KeyError, TypeError, IndexError):
        return False


def best_copy(
    own: Node | None, copies: list[Node | None], wanted: tuple[Any, ...] | None
) -> Node | None:
    """Choose among the copies of an array's or group's metadata; ``None`` when none can be trusted.

    Parameters
    ----------
    own
        What its own file says, if it can be read.
    copies
        What its population and the root say.
    wanted
        What the attributes ask of an array; ``None`` for groups and splits.
    """
    sound = [c for c in [own, *copies] if c is not None and (wanted is None or fits(c, wanted))]
    texts = [plain(node) for node in sound]
    for node, text in zip(sound, texts, strict=True):
        if texts.count(text) >= 2:
            return node
    if sound:
        return sound[0]
    return group_node({}) if wanted is None and own is None and not any(copies) else None
