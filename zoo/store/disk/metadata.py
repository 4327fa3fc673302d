"""Zarr's metadata files as the store writes them: whole, durable, and gathered at the top."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.store.disk.chunks import replace_file
from zoo.store.disk.place import CONSOLIDATED, NODE, Place, place_of


def group_node(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a Zarr v3 group."""
    return {"attributes": attributes, "zarr_format": 3, "node_type": "group"}


def nodes_below(place: Place, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every group and array below a group with its own metadata, without consolidation."""
    for name in place.nodes(key):
        child = f"{key}/{name}".lstrip("/")
        node = place.node(child)
        yield child, {part: value for part, value in node.items() if part != CONSOLIDATED}
        if node.get("node_type") == "group":
            yield from nodes_below(place, child)


def with_consolidated(node: dict[str, Any], below: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a group's metadata with a copy of everything below it, as zarr-python writes it."""
    inline = {
        key: _inline(below[key]) for key in sorted(below, key=lambda key: (key.count("/"), key))
    }
    kept = {part: value for part, value in node.items() if part not in (CONSOLIDATED, "node_type")}
    return {**kept, CONSOLIDATED: _as_inline(inline), "node_type": "group"}


def consolidate(group: Path) -> None:
    """Gather the metadata below a group into it, so that it opens in one read; durable.

    Leaves the file alone when it says so already.
    """
    place = place_of(group)
    node = place.node()
    gathered = with_consolidated(node, dict(nodes_below(place)))
    if gathered != node:
        write_node(group, gathered)


def write_node(path: Path, node: dict[str, Any]) -> None:
    """Write a group's or an array's metadata, all of it or nothing."""
    replace_file(path / NODE, node_bytes(node))


def node_bytes(node: dict[str, Any]) -> bytes:
    """Return metadata as the bytes of a ``zarr.json``."""
    return json.dumps(node, indent=2).encode()


def _inline(node: dict[str, Any]) -> dict[str, Any]:
    """Return a node as it stands in consolidated metadata; groups there hold an empty copy."""
    return with_consolidated(node, {}) if node["node_type"] == "group" else node


def _as_inline(below: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "inline", "must_understand": False, "metadata": below}
