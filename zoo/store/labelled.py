"""Members as one xarray data set; needs ``pip install "weight-zoo[xarray]"``."""

from typing import Any

import numpy as np
import polars as pl
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from zoo.schema import CHECKPOINT, MEMBER, PARAMETER, WEIGHTS, ColumnSpec
from zoo.store.members import Members


def to_xarray(members: Members) -> xarray.Dataset:
    """Give every number of a view its name.

    Parameters
    ----------
    members
        A population, a concatenation, or a view of one.

    Returns
    -------
    xarray.Dataset
        Dimensions ``member`` (ids), ``checkpoint`` (epochs) and ``parameter``. Variables:
        ``weights``, read and verified when their values are asked for, every metric, and every
        number measured at checkpoints. Coordinates along ``member``: every column and what was
        measured once, categories as text. Masks and partners are left to ``measured``.
    """
    table = members.table.drop(members.curves)
    known = {column.name: column for column in members.columns}
    columns = {
        name: (MEMBER, _values(table[name]), _attributes(known.get(name))) for name in table.columns
    }
    metrics = {name: ((MEMBER, CHECKPOINT), members.metric(name)) for name in members.curves}
    weights = indexing.LazilyIndexedArray(_LazyWeights(members))
    return xarray.Dataset(
        {WEIGHTS: ((MEMBER, CHECKPOINT, PARAMETER), weights), **metrics},
        coords={**columns, CHECKPOINT: (CHECKPOINT, members.epochs, {"units": "epochs"})},
        attrs={
            "population": members.name,
            "version": members.version,
            "space_fingerprint": members.space.fingerprint,
        },
    )


class _LazyWeights(BackendArray):
    """Weights ``[members, C, P]`` of which xarray reads what it is asked for."""

    def __init__(self, members: Members) -> None:
        self.ids = members.member_ids
        self.reader = members.reader("pread")
        self.shape = (len(members), len(members.epochs), members.space.num_parameters)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, Any, Any]) -> np.ndarray:
        """Read an outer product of rows, checkpoints and parameters; an integer drops its axis."""
        rows, checkpoints, parameters = key
        ids = np.atleast_1d(self.ids[rows])
        index = np.atleast_1d(np.arange(self.shape[1])[checkpoints])
        pairs = self.reader.gather(np.repeat(ids, len(index)), np.tile(index, len(ids)))
        block = pairs.reshape(len(ids), len(index), self.shape[2])[..., parameters]
        axes = (isinstance(axis, int | np.integer) for axis in (rows, checkpoints))
        return np.asarray(block[tuple(0 if dropped else slice(None) for dropped in axes)])


def _values(column: pl.Series) -> np.ndarray:
    values = column.to_numpy()
    return values.astype(str) if column.dtype == pl.String and not column.null_count() else values


def _attributes(column: ColumnSpec | None) -> dict[str, str]:
    if column is None:
        return {}
    named = {"units": column.unit, "long_name": column.description}
    return {"role": column.role, "scale": column.scale} | {k: v for k, v in named.items() if v}
