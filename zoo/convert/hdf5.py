"""A zoo as one HDF5 file, for exchange; a round trip gives an equal dataset version.

The file mirrors the zoo: ``populations/NAME`` with datasets ``weights``, ``metrics/*``,
``columns/*`` and ``splits/*``, dimension scales ``member`` and ``checkpoint``, Fletcher-32
checksums, and the population's description as JSON in the dataset ``spec``.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from zoo.errors import StoreError
from zoo.measured import MEASURE, MeasureSpec
from zoo.schema import (
    CHECKPOINT,
    COLUMNS,
    FORMAT,
    FORMAT_KEY,
    FORMAT_VERSION,
    MEASURES,
    MEMBER,
    METRICS,
    PARAMETER,
    PARTS,
    POPULATIONS,
    SPLITS,
    VERSION_KEY,
    WEIGHTS,
    PopulationSpec,
)
from zoo.splits import NO_PART
from zoo.store import Population, PopulationWriter, Zoo, create
from zoo.store.disk.frozen import split_how, split_names
from zoo.store.measuring import create_measure

_SPEC = "spec"


def to_hdf5(zoo: Zoo, path: Path) -> Path:
    """Write a finished zoo as one HDF5 file, block by block.

    Raises
    ------
    StoreError
        If the file exists, or a population is not complete.
    """
    if path.exists():
        raise StoreError(f"{path} exists already. Remove it first, or choose another name.")
    partial = path.with_name(f".{path.name}.partial")
    with h5py.File(partial, "w") as file:
        file.attrs.update({FORMAT_KEY: FORMAT, VERSION_KEY: FORMAT_VERSION})
        for name in zoo.populations:
            _write(file.create_group(f"{POPULATIONS}/{name}"), zoo[name], zoo.path)
    partial.replace(path)
    return path


def is_ours(path: Path) -> bool:
    """Tell a file that :func:`to_hdf5` wrote from other people's HDF5 files."""
    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs.get(FORMAT_KEY) == FORMAT)
    except OSError:
        return False


def from_hdf5(path: Path, out: Path) -> Zoo:
    """Make a zoo of a file that :func:`to_hdf5` wrote; goes on where it was interrupted.

    Raises
    ------
    StoreError
        If the file is none of ours or cannot be read.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StoreError(f"Expected an HDF5 file at {path}: {error}.") from error
    with file:
        if file.attrs.get(FORMAT_KEY) != FORMAT or file.attrs.get(VERSION_KEY) != FORMAT_VERSION:
            raise StoreError(
                f"Expected an HDF5 file with attributes {FORMAT_KEY}={FORMAT!r} and "
                f"{VERSION_KEY}={FORMAT_VERSION!r}, got {dict(file.attrs)} in {path}."
            )
        zoo = create(out, exist_ok=True)
        for name, group in file[POPULATIONS].items():
            _read(zoo, name, group)
    return zoo


def _write(group: h5py.Group, population: Population, root: Path) -> None:
    if not population.is_complete:
        raise StoreError(
            f"Population {population.name!r} is not complete. Finish it, then convert the zoo."
        )
    spec = population.spec
    # a dataset: HDF5 attributes end at 64 KiB, names of converted members do not
    text = json.dumps(spec.to_attributes())
    group.create_dataset(_SPEC, data=text, dtype=h5py.string_dtype())
    shape = (spec.num_members, len(spec.checkpoints), spec.weight_space.num_parameters)
    chunks = (min(spec.block_size, spec.num_members), 1, shape[2])
    weights = group.create_dataset(WEIGHTS, shape, "<f4", chunks=chunks, fletcher32=True)
    for block in range(spec.num_blocks):
        members = np.array(spec.members_of(block))
        for checkpoint in range(shape[1]):
            values = population.weights(members, checkpoint=checkpoint)
            weights[members[0] : members[-1] + 1, checkpoint] = values
    for name in spec.metrics:
        group.create_dataset(f"{METRICS}/{name}", data=population.metric(name), fletcher32=True)
    table = population.table
    for column in spec.columns:
        values = table[column.name].to_numpy()
        is_text = column.dtype == "category"
        group.create_dataset(
            f"{COLUMNS}/{column.name}",
            data=values.astype(object) if is_text else values,
            dtype=h5py.string_dtype() if is_text else None,
        )
    folder = root / POPULATIONS / population.name
    for name in split_names(folder):
        part = group.create_group(f"{SPLITS}/{name}")
        part.attrs["how"] = json.dumps(split_how(folder, name))
        for key, ids in population.split(name).items():
            part.create_dataset(key, data=ids)
    _write_measures(group, population)
    _scale(group, MEMBER, np.arange(shape[0]), 0)
    _scale(group, CHECKPOINT, np.array(spec.checkpoints), 1)
    weights.dims[2].label = PARAMETER


def _write_measures(group: h5py.Group, population: Population) -> None:
    """Write every measure, with what it says of itself and which blocks were measured."""
    for name, measured in population._files.measures.items():
        part = group.create_group(f"{MEASURES}/{name}")
        for output in measured.spec.outputs:
            part.create_dataset(output.name, data=measured.array(output.name), fletcher32=True)
            part[output.name].attrs[MEASURE] = json.dumps(measured.spec.attributes(output))
        part.attrs["blocks"] = np.array(measured.committed, dtype=np.int64)


def _read_measures(writer: PopulationWriter, group: h5py.Group) -> None:
    for part in group.get(MEASURES, {}).values():
        attributes = next(iter(part.values())).attrs[MEASURE]
        spec = MeasureSpec.from_attributes(json.loads(attributes))
        measuring = create_measure(writer.root, writer.name, spec)
        for block in sorted(set(part.attrs["blocks"].tolist()) - measuring.committed):
            members = writer.members_of(block)
            rows = slice(members.start, members.stop)
            measuring.write_block(
                block, {each.name: part[each.name][rows] for each in spec.outputs}
            )
        measuring.finish()


def _scale(group: h5py.Group, name: str, values: np.ndarray, axis: int) -> None:
    """Name an axis of the weights and metrics, with its coordinates."""
    scale = group.create_dataset(name, data=values)
    scale.make_scale(name)
    for dataset in (group[WEIGHTS], *group[METRICS].values()):
        dataset.dims[axis].attach_scale(scale)
        dataset.dims[axis].label = name


def _read(zoo: Zoo, name: str, group: h5py.Group) -> None:
    text = group[_SPEC].asstr()[()] if _SPEC in group else group.attrs[_SPEC]
    attributes: dict[str, Any] = json.loads(text)
    spec = PopulationSpec.from_attributes(name, attributes)
    writer = zoo.writer(name) if name in zoo else zoo.create_population(spec)
    for block in sorted(set(range(spec.num_blocks)) - writer.committed):
        members = spec.members_of(block)
        rows = slice(members.start, members.stop)
        writer.write_block(
            block,
            weights=group[WEIGHTS][rows],
            metrics={metric: group[METRICS][metric][rows] for metric in spec.metrics},
            columns={
                column.name: _column(group[COLUMNS][column.name], rows) for column in spec.columns
            },
        )
    for split, part in group.get(SPLITS, {}).items():
        codes = np.full(spec.num_members, NO_PART, dtype=np.int8)
        for code, key in enumerate(PARTS):
            codes[part[key][:]] = code
        writer.freeze_split(split, codes, how=json.loads(part.attrs["how"]))
    _read_measures(writer, group)
    writer.finish()


def _column(dataset: h5py.Dataset, rows: slice) -> np.ndarray:
    is_text = h5py.check_string_dtype(dataset.dtype) is not None
    values: np.ndarray = dataset.asstr()[rows] if is_text else dataset[rows]
    return values
