"""Growing a population: more members planned, nothing that is stored changed."""

from dataclasses import replace
from pathlib import Path

from zoo.errors import StoreError
from zoo.layout import Ragged
from zoo.schema import CHECKSUM, MEASURES, POPULATIONS, WEIGHTS, PopulationSpec, checksum
from zoo.store.disk.arrays import block_arrays
from zoo.store.disk.claims import coordinator_claim, no_writers
from zoo.store.disk.files import read_spec
from zoo.store.disk.ledger import Ledger
from zoo.store.disk.metadata import consolidate, write_node
from zoo.store.disk.place import LocalPlace


def grow(root: Path, name: str, num_members: int) -> PopulationSpec:
    """Plan more members.

    The arrays grow first, the attributes last, each file whole or not at all: killed in between,
    the population is the one of before, and growing again carries on.

    Parameters
    ----------
    root, name
        The zoo, and which of its populations.
    num_members
        Members planned from now on.

    Raises
    ------
    StoreError
        If that is not more than now, the last block is short and committed, or somebody is writing.
    """
    place = LocalPlace(root / POPULATIONS / name)
    with coordinator_claim(root), no_writers(root, name):
        old = read_spec(place, name)
        _check(old, Ledger(root, name).committed(), num_members, root)
        spec = replace(old, num_members=num_members)
        for array in block_arrays(spec):
            node = place.node(array)
            by_block = isinstance(spec.space, Ragged) and array == WEIGHTS
            length = spec.num_blocks if by_block else num_members
            if node["shape"][0] != length:
                write_node(place.path / array, node | {"shape": [length, *node["shape"][1:]]})
        for output in place.nodes(MEASURES):
            node = place.node(f"{MEASURES}/{output}")
            shape = [num_members, *node["shape"][1:]]
            write_node(place.path / MEASURES / output, node | {"shape": shape})
        _write_attributes(place, num_members)
        consolidate(place.path)
        consolidate(root)
    return spec


def _write_attributes(place: LocalPlace, num_members: int) -> None:
    node = place.node()
    body = {key: value for key, value in node["attributes"].items() if key != CHECKSUM}
    body["num_members"] = num_members
    write_node(place.path, node | {"attributes": body | {CHECKSUM: checksum(body)}})


def _check(spec: PopulationSpec, committed: set[int], num_members: int, root: Path) -> None:
    if num_members <= spec.num_members:
        raise StoreError(
            f"Expected more than the {spec.num_members} members planned of population "
            f"{spec.name!r} in {root}, got {num_members}. Populations only grow."
        )
    last = spec.num_blocks - 1
    members = spec.members_of(last)
    if len(members) < spec.block_size and last in committed:
        raise StoreError(
            f"Expected to grow population {spec.name!r} in {root} from {spec.num_members} members, "
            f"but its last block ({members.start} to {members.stop - 1}) is short and committed, "
            f"and committed blocks never change. Write the further members to a population of "
            f"another name, such as {spec.name + '-2'!r}, and concatenate the two; a population "
            f"that is to grow is best planned as a multiple of {spec.block_size} members."
        )
