"""A zoo as a folder of safetensors files, and back to a zoo of equal dataset version.

A population ``NAME`` is ``NAME/population.json`` (what its members have in common, and its splits),
``NAME/table.parquet`` (a row per member: columns, and a list per metric) and, below folders of a
thousand members, one file per member and checkpoint, or one per member with the epoch before every
tensor's name. Each file says in its metadata what the member is; ``README.md`` is a data card.

Other people's folders of safetensors are read as state dicts are, with what their metadata says as
columns (:mod:`zoo.convert.state_dicts`), and so are these.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from zoo.convert.card import data_card
from zoo.convert.state_dicts import FileKind, StateDicts
from zoo.convert.torch_files import read_checkpoint
from zoo.errors import InvalidConfigError, StoreError
from zoo.layout import Ragged
from zoo.schema import ARCHITECTURE, MEMBER, POPULATIONS, PopulationSpec
from zoo.space import WeightSpace
from zoo.splits import NO_PART
from zoo.store import Population, PopulationWriter, Zoo, create
from zoo.store.disk.chunks import replace_file
from zoo.store.disk.frozen import split_how, split_names

if TYPE_CHECKING:
    from types import ModuleType

Per = Literal["checkpoint", "member"]

SUFFIX = ".safetensors"
POPULATION, TABLE, CARD = "population.json", "table.parquet", "README.md"

_PER = "per"
_SPLITS = "splits"
_SPACES = "weight_spaces"
_FOLDER = 1000
"""Members per folder: file systems and Git slow down with more."""

_READING = """import polars as pl
from safetensors.torch import load_file

table = pl.read_parquet("{population}/table.parquet")  # a row per network
tensors = load_file("{file}")"""


def to_safetensors(
    zoo: Zoo,
    folder: str | PathLike[str],
    *,
    per: Per = "checkpoint",
    licence: str = "unknown",
    name: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a finished zoo as safetensors files; goes on where it was interrupted.

    Needs the extra ``weight-zoo[convert]``.

    Parameters
    ----------
    zoo
        The zoo.
    folder
        Where; created when absent.
    per
        A file for every checkpoint, or one for all of a member's.
    licence, name
        Of the data card; see :func:`zoo.convert.card.data_card`.
    progress
        Called with members done and members in all.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    StoreError
        If a population is not complete, or the folder holds another one of its name.
    """
    root = Path(folder)
    if not zoo.populations:
        raise StoreError(f"Expected a population to convert in {zoo.path}, got an empty zoo.")
    total, done = sum(zoo[each].num_members for each in zoo.populations), 0
    for each in zoo.populations:
        _describe(zoo, zoo[each], root / each, per)
        for member in _write(zoo[each], root / each, per):
            if progress is not None:
                progress(done + member, total)
        done += zoo[each].num_members
    first = zoo[zoo.populations[0]]
    file = next(_files(first, root / first.name, int(first.member_ids[0]), per))
    card = data_card(
        zoo,
        name=name or root.resolve().name,
        reading=_READING.format(population=first.name, file=file.relative_to(root).as_posix()),
        licence=licence,
        tags=("safetensors",),
        configs={each: f"{each}/{TABLE}" for each in zoo.populations},
    )
    replace_file(root / CARD, card.encode())
    if progress is not None:
        progress(total, total)
    return root


def is_ours(folder: Path) -> bool:
    """Tell a folder that :func:`to_safetensors` wrote from other people's."""
    return next(folder.glob(f"*/{POPULATION}"), None) is not None


def from_safetensors(folder: str | PathLike[str], out: str | PathLike[str]) -> Zoo:
    """Make a zoo of a folder that :func:`to_safetensors` wrote; resumes what was interrupted.

    The dataset version is that of the zoo that was written.

    Raises
    ------
    StoreError
        If the folder is none of ours, or a file is missing, damaged or of another network. Convert
        it with ``--from state-dicts`` to leave such members out.
    """
    root = Path(folder)
    found = sorted(root.glob(f"*/{POPULATION}"))
    if not found:
        raise StoreError(
            f"Expected {POPULATION} in a folder of {root}, got none. Was it written by "
            "to_safetensors? Convert other folders with --from state-dicts."
        )
    zoo = create(out, exist_ok=True)
    for path in found:
        _read(zoo, path.parent, json.loads(path.read_text()))
    return zoo


def safetensors_files(path: Path, **options: Any) -> StateDicts:
    """Make the reader of anybody's safetensors files: one per network, or per network and epoch.

    Parameters
    ----------
    path
        The folder, searched recursively, or one file.
    **options
        Of :class:`zoo.convert.state_dicts.StateDicts`.
    """
    kind = FileKind(format="safetensors", suffixes=(SUFFIX,), read=read_checkpoint)
    return StateDicts(path, kind=kind, **options)


# ---- writing ------------------------------------------------------------------------------------
def _describe(zoo: Zoo, population: Population, folder: Path, per: Per) -> None:
    """Write what members have in common, once, and what is known of each."""
    if not population.is_complete:
        raise StoreError(
            f"Population {population.name!r} is not complete. Finish it, then convert the zoo."
        )
    source = zoo.path / POPULATIONS / population.name
    splits = {split: split_how(source, split) for split in split_names(source)}
    spaces = {key: json.loads(space.to_json()) for key, space in population.spaces.items()}
    beside = {_PER: per, _SPLITS: splits, _SPACES: spaces}
    text = json.dumps(population.spec.to_attributes() | beside, indent=1)
    path = folder / POPULATION
    if path.exists() and path.read_text() != text:
        raise StoreError(
            f"{folder} holds another population, or this one written otherwise. Choose another "
            "folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.encode())
    table = population.table.drop(population.metrics)
    lists = [pl.Series(name, population.metric(name).tolist()) for name in population.metrics]
    parts = [pl.Series(f"{_SPLITS}/{name}", _codes(population, name)) for name in splits]
    table = table.with_columns(each.cast(pl.List(pl.Float32)) for each in lists)
    table.with_columns(parts).write_parquet(aside := folder / f".{TABLE}.tmp")
    aside.replace(folder / TABLE)


def _write(population: Population, folder: Path, per: Per) -> Iterator[int]:
    """Write files that are not there, member by member."""
    table = population.table
    metrics = {name: population.metric(name) for name in population.metrics}
    for row, member in enumerate(population.member_ids.tolist()):
        known = _metadata(population, table.row(row, named=True), member)
        parts: dict[str, np.ndarray] = {}
        for index, file in enumerate(_files(population, folder, member, per)):
            epoch = int(population.epochs[index])
            if per == "member":
                tensors = _tensors(population, member, index)
                parts |= {f"{epoch}/{name}": values for name, values in tensors.items()}
                continue
            measured = {name: repr(float(values[row, index])) for name, values in metrics.items()}
            if not file.exists():
                tensors = _tensors(population, member, index)
                _save(tensors, file, known | measured | {"epoch": str(epoch)})
        if per == "member" and not file.exists():
            _save(parts, file, known)
        yield row


def _files(population: Population, folder: Path, member: int, per: Per) -> Iterator[Path]:
    """Yield the file of each checkpoint; names that tell readers of state dicts the epoch."""
    place = folder / f"{member // _FOLDER:04d}"
    for epoch in population.epochs.tolist():
        ending = f"-epoch-{epoch}" if per == "checkpoint" else ""
        yield place / f"member-{member:06d}{ending}{SUFFIX}"


def _tensors(population: Population, member: int, index: int) -> dict[str, np.ndarray]:
    state = population.state_dict(member, checkpoint=index)
    return {name: np.array(tensor.numpy()) for name, tensor in state.items()}


def _metadata(population: Population, row: Mapping[str, Any], member: int) -> dict[str, str]:
    columns = {column.name: str(row[column.name]) for column in population.columns}
    network = json.dumps(population.network_of(member))
    return {
        "format": "pt",
        "population": population.name,
        MEMBER: str(member),
        "network": network,
    } | columns


def _codes(population: Population, split: str) -> np.ndarray:
    codes = np.full(population.spec.num_members, NO_PART, dtype=np.int8)
    for code, members in enumerate(population.split(split).values()):
        codes[members] = code
    return codes


def _save(tensors: dict[str, np.ndarray], path: Path, metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, _package().numpy.save(tensors, metadata))


# ---- reading ------------------------------------------------------------------------------------
def _read(zoo: Zoo, folder: Path, attributes: dict[str, Any]) -> None:
    """Write the blocks of one population that are missing."""
    per, splits, raw = (attributes.pop(key) for key in (_PER, _SPLITS, _SPACES))
    spaces = {key: WeightSpace.from_json(json.dumps(space)) for key, space in raw.items()}
    spec = PopulationSpec.from_attributes(folder.name, attributes)
    table = pl.read_parquet(folder / TABLE)
    writer = _writer(zoo, spec, spaces)
    for block in sorted(set(range(spec.num_blocks)) - writer.committed):
        members = writer.members_of(block)
        rows = table.slice(members.start, len(members))
        if rows[MEMBER].to_list() != list(members):
            raise StoreError(f"Expected a row for each of {members} in {folder / TABLE}.")
        writer.write_block(
            block,
            weights=[
                _weights(spec, _space(spec, spaces, row), row, folder, per)
                for row in rows.iter_rows(named=True)
            ],
            metrics={
                name: np.array(rows[name].to_list(), dtype=np.float32) for name in spec.metrics
            },
            columns={column.name: rows[column.name].to_numpy() for column in spec.columns},
        )
    for split, how in splits.items():
        writer.freeze_split(split, table[f"{_SPLITS}/{split}"].to_numpy(), how=how)
    writer.finish()


def _writer(zoo: Zoo, spec: PopulationSpec, spaces: Mapping[str, WeightSpace]) -> PopulationWriter:
    if spec.name not in zoo:
        own = spaces.values() if isinstance(spec.space, Ragged) else ()
        return zoo.create_population(spec, spaces=own)
    writer = zoo.writer(spec.name)
    if writer.spec.to_attributes() != spec.to_attributes():
        raise StoreError(
            f"Population {spec.name!r} in {zoo.path} is another one. Choose another zoo."
        )
    return writer


def _space(
    spec: PopulationSpec, spaces: Mapping[str, WeightSpace], row: Mapping[str, Any]
) -> WeightSpace:
    """Return the weight space of the member of a row."""
    if isinstance(spec.space, Ragged):
        return spaces[spec.space.architectures[row[ARCHITECTURE]].space]
    return spec.space


def _weights(
    spec: PopulationSpec, space: WeightSpace, row: Mapping[str, Any], folder: Path, per: Per
) -> np.ndarray:
    """Read a member's weights ``[C, P]``."""
    member = row[MEMBER]
    place = folder / f"{member // _FOLDER:04d}"
    if per == "member":
        tensors = _load(place / f"member-{member:06d}{SUFFIX}")
    else:
        tensors = {
            f"{epoch}/{name}": values
            for epoch in spec.checkpoints
            for name, values in _load(place / f"member-{member:06d}-epoch-{epoch}{SUFFIX}").items()
        }
    return np.stack([_flat(space, tensors, epoch, place, member) for epoch in spec.checkpoints])


def _flat(
    space: WeightSpace, tensors: Mapping[str, np.ndarray], epoch: int, place: Path, member: int
) -> np.ndarray:
    """Lay the tensors of one epoch out as a vector ``[P]``."""
    parts = []
    for tensor in space.tensors:
        values = tensors.get(f"{epoch}/{tensor.name}")
        if values is None or values.shape != tensor.shape or values.dtype != np.float32:
            got = "none" if values is None else f"{values.shape} of {values.dtype}"
            raise StoreError(
                f"Expected {tensor.name!r} of shape {tensor.shape} and float32 at epoch {epoch} of "
                f"member {member} in {place}, got {got}."
            )
        parts.append(values.ravel())
    return np.concatenate(parts)


def _load(path: Path) -> dict[str, np.ndarray]:
    package = _package()
    try:
        tensors: dict[str, np.ndarray] = package.numpy.load_file(path)
    except (OSError, package.SafetensorError) as error:
        raise StoreError(f"{path} is missing or damaged: {error}.") from error
    return tensors


def _package() -> "ModuleType":
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise InvalidConfigError(
            "Safetensors files need the package of that name. Install it with "
            "`pip install 'weight-zoo[convert]'`."
        ) from error
    return safetensors
