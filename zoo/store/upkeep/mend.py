"""Putting back what was altered and is known from elsewhere: metadata, and the checkpoint axis."""

from functools import partial
from typing import Any

import numpy as np

from zoo.errors import InvalidConfigError, StoreError
from zoo.schema import (
    CHECKPOINT,
    FORMAT,
    FORMAT_KEY,
    FORMAT_VERSION,
    POPULATIONS,
    VERSION_KEY,
    PopulationSpec,
)
from zoo.store.disk.arrays import read_layout
from zoo.store.disk.chunks import encode, replace_file
from zoo.store.disk.copies import (
    best_copy,
    expected_arrays,
    is_ours,
    keys_below,
    node_or_none,
    plain,
)
from zoo.store.disk.files import PopulationFiles, read_spec
from zoo.store.disk.metadata import consolidate, group_node, write_node
from zoo.store.disk.place import CONSOLIDATED, NODE, LocalPlace, consolidated

Node = dict[str, Any]


def mend_root(root: LocalPlace) -> list[str]:
    """Write the root's own metadata again if it is no metadata at all, and populations are there.

    It says nothing that is not known; a version that is not ours is left alone.
    """
    if node_or_none(root, "") is not None or not root.nodes(POPULATIONS):
        return []
    for name in root.nodes(POPULATIONS):
        read_spec(root / f"{POPULATIONS}/{name}", name)
    write_node(root.path, group_node({FORMAT_KEY: FORMAT, VERSION_KEY: FORMAT_VERSION}))
    consolidate(root.path)
    return [f"{NODE}: the root"]


def mend_metadata(root: LocalPlace, name: str) -> list[str]:
    """Put back a population's metadata from whichever copies can be trusted; says which files."""
    place = root / f"{POPULATIONS}/{name}"
    copies = _copies_below(root, f"{POPULATIONS}/{name}")
    mended = _mend_attributes(place, name, copies.get(""))
    try:
        wanted = expected_arrays(read_spec(place, name))
    except StoreError:
        return mended  # said by whoever reads the population
    inline = consolidated(place.node())
    known = {key for key in (*inline, *copies) if key and (place.path / key).is_dir()}
    ours = partial(is_ours, f"{POPULATIONS}/{name}")
    for key in filter(ours, sorted({*keys_below(place), *wanted, *known})):
        own = node_or_none(place, key)
        best = best_copy(own, [inline.get(key), copies.get(key)], wanted.get(key))
        if best is not None and (own is None or plain(best) != plain(own)):
            write_node(place.path / key, _alone(best))
            mended.append(f"{name}/{key}/{NODE}")
    return mended + mend_consolidated(place, name)


def mend_consolidated(group: LocalPlace, called: str) -> list[str]:
    """Consolidate a group's metadata again; says so if that changed it."""
    before = group.read(NODE)
    consolidate(group.path)
    if group.read(NODE) == before:
        return []
    return [f"{called}/{NODE}: the copy of what is below".lstrip("/")]


def mend_axis(files: PopulationFiles) -> list[str]:
    """Write the checkpoint axis again if it is not what the attributes say."""
    try:
        files.check_axis()
    except StoreError:
        layout = read_layout(files.place, CHECKPOINT)
        data, _ = encode(layout, np.array(files.spec.checkpoints, dtype=np.int64))
        replace_file(files.path / layout.key((0,)), data)
        return [f"{files.name}/{CHECKPOINT}: the axis"]
    return []


def _mend_attributes(place: LocalPlace, name: str, copy: Node | None) -> list[str]:
    """Put back the group's own metadata, where only the root's copy carries a true checksum."""
    try:
        read_spec(place, name)
        return []
    except StoreError:
        pass
    try:
        PopulationSpec.from_attributes(name, (copy or {})["attributes"])
    except (InvalidConfigError, KeyError, TypeError, ValueError):
        return []
    assert copy is not None
    place.path.mkdir(parents=True, exist_ok=True)
    write_node(place.path, _alone(copy))
    return [f"{name}/{NODE}: its attributes"]


def _copies_below(root: LocalPlace, key: str) -> dict[str, Node]:
    """Return the root's copies of a group and everything below it, by key below the group."""
    every = consolidated(node_or_none(root, "") or {})
    below = {k[len(key) + 1 :]: node for k, node in every.items() if k.startswith(f"{key}/")}
    return below | ({"": every[key]} if key in every else {})


def _alone(node: Node) -> Node:
    return {part: value for part, value in node.items() if part != CONSOLIDATED}
