"""Conditions on members, written in SQL: what ``where`` and splits by region share."""

import numpy as np
import polars as pl

from zoo.errors import InvalidConfigError

_ROW = "__row"


def rows_where(table: pl.DataFrame, sql: str, *, of: str) -> np.ndarray:
    """Find the rows for which an SQL expression holds; a comparison with NaN does not.

    Parameters
    ----------
    table
        One row per member.
    sql
        Such as ``"learning_rate > 0.01 and activation == 'relu'"``.
    of
        Whose members they are, for the error.

    Returns
    -------
    np.ndarray
        Positions in the table, ascending, int64.

    Raises
    ------
    InvalidConfigError
        If the expression is no condition on the table's columns.

    Examples
    --------
    >>> table = pl.DataFrame({"width": [2, 3, 5], "loss": [0.5, float("nan"), 0.25]})
    >>> rows_where(table, "width < 5 and loss < 1", of="population 'small'").tolist()
    [0]
    """
    rows = table.lazy().with_columns(pl.selectors.float().fill_nan(None)).with_row_index(_ROW)
    try:
        kept = rows.filter(pl.sql_expr(sql)).select(_ROW).collect()
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise InvalidConfigError(
            f"Expected an SQL condition on the members of {of}, got {sql!r}: {reason}. "
            f"Columns: {', '.join(table.columns)}."
        ) from error
    return kept[_ROW].to_numpy().astype(np.int64)
