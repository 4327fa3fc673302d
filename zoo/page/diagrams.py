"""Diagrams over two axes of a grid: load, temperature, and the phase that members are in."""

import numpy as np
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from zoo.page.panel import QUALITATIVE, Panel, styled
from zoo.store import Population

PHASE = "phase"
_SEQUENTIAL = "Viridis"
_LOADS = ("width", "channels", "hidden", "depth", "coefficient")
_TEMPERATURES = ("batch_size", "learning_rate", "temperature", "dropout", "weight_decay")
"""Names that are taken for the two axes, in this order."""
_QUANTITIES = {
    "train_loss": "train loss",
    "test_accuracy": "test accuracy",
    "relative_error": "relative error",
    "hessian_trace": "log10 Hessian trace",
    "hessian_top_eigenvalue": "log10 top eigenvalue",
    "connectivity": "mode connectivity",
    "cka": "CKA similarity",
}
_COLUMNS = 3


def phase_diagrams(population: Population) -> list[Panel]:
    """Show measures, and phases where they were told, over load and temperature.

    Populations that are no grid over both have none.
    """
    table = population.table
    axes = [_first(table, names) for names in (_LOADS, _TEMPERATURES)]
    if None in axes:
        return []
    load, temperature = map(str, axes)
    shown = [name for name in _QUANTITIES if _is_known(table, name)]
    phased = PHASE in table.columns and table[PHASE].drop_nulls().len() > 0
    figure = _maps(table, load, temperature, shown, phased=phased)
    seeds = table.group_by(load, temperature).len()["len"]
    counts = sorted(set(map(int, seeds.to_list())))
    number = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    return [
        Panel(
            title="Phase diagram" if phased else "Load and temperature",
            caption=f"Mean over {number} members of each place of the grid at the last checkpoint. "
            f"Load is {load.replace('_', ' ')}, temperature {temperature.replace('_', ' ')}."
            + (" The phase is the most frequent one." if phased else ""),
            figure=figure,
        )
    ]


def _maps(
    table: pl.DataFrame, load: str, temperature: str, shown: list[str], *, phased: bool
) -> go.Figure:
    titles = [_QUANTITIES[name] for name in shown] + (["phase"] if phased else [])
    rows = -(-len(titles) // _COLUMNS)
    figure = make_subplots(
        rows=rows,
        cols=_COLUMNS,
        subplot_titles=titles,
        horizontal_spacing=0.13,
        vertical_spacing=0.3 / rows,
    )
    width, height = (1 - 0.13 * (_COLUMNS - 1)) / _COLUMNS, 1 / rows
    for number, title in enumerate(titles):
        row, column = divmod(number, _COLUMNS)
        bar = {
            "len": 0.7 * height,
            "thickness": 10,
            "x": (column + 1) * width + column * 0.13 + 0.005,
            "y": 1 - (row + 0.5) * height,
        }
        is_phase = phased and number == len(titles) - 1
        trace = (
            _phase_map(table, load, temperature, bar)
            if is_phase
            else _mean_map(table, load, temperature, shown[number], title, bar)
        )
        figure.add_trace(trace, row=row + 1, col=column + 1)
        figure.update_xaxes(title=temperature.replace("_", " "), row=row + 1, col=column + 1)
        figure.update_yaxes(title=load.replace("_", " "), row=row + 1, col=column + 1)
    figure = styled(figure, height=90 + 320 * rows)
    figure.update_layout(margin={"t": 50})
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category")
    return figure


def _mean_map(
    table: pl.DataFrame, load: str, temperature: str, name: str, title: str, bar: dict[str, float]
) -> go.Heatmap:
    value = pl.col(name)
    value = value.clip(lower_bound=1e-12).log10() if title.startswith("log10") else value
    kept = table.filter(pl.col(name).is_finite())
    means = kept.group_by(load, temperature).agg(value.mean().alias("value"))
    return _heatmap(means, load, temperature, colorscale=_SEQUENTIAL, colorbar=bar)


def _phase_map(
    table: pl.DataFrame, load: str, temperature: str, bar: dict[str, float]
) -> go.Heatmap:
    kept = table.filter(pl.col(PHASE).is_not_null())
    names = sorted(kept[PHASE].unique().to_list())
    most = (
        kept.group_by(load, temperature)
        .agg(pl.col(PHASE).sort().mode().first().alias("phase"))
        .with_columns(
            value=pl.col("phase").replace_strict(
                names, list(range(len(names))), return_dtype=pl.Float64
            )
        )
    )
    steps = max(len(names), 1)
    scale = [
        (edge / steps, QUALITATIVE[place % len(QUALITATIVE)])
        for place in range(steps)
        for edge in (place, place + 1)
    ]
    ticks = {"tickvals": list(range(len(names))), "ticktext": names}
    return _heatmap(
        most,
        load,
        temperature,
        colorscale=scale,
        zmin=-0.5,
        zmax=steps - 0.5,
        colorbar=bar | ticks,
    )


def _heatmap(cells: pl.DataFrame, load: str, temperature: str, **look: object) -> go.Heatmap:
    rows, columns = (sorted(cells[name].unique().to_list()) for name in (load, temperature))
    grid = np.full((len(rows), len(columns)), np.nan)
    for y, x, value in cells.select(load, temperature, "value").iter_rows():
        grid[rows.index(y), columns.index(x)] = value
    return go.Heatmap(
        z=grid,
        x=[f"{value:g}" for value in columns],
        y=[f"{value:g}" for value in rows],
        **look,
    )


def _first(table: pl.DataFrame, names: tuple[str, ...]) -> str | None:
    """Return the first column that takes a few values of numbers."""
    for name in names:
        if name in table.columns and table[name].dtype.is_numeric():
            few = 2 <= table[name].n_unique() <= min(40, max(2, table.height // 2))
            if few:
                return name
    return None


def _is_known(table: pl.DataFrame, name: str) -> bool:
    return name in table.columns and bool(table[name].is_finite().any())
