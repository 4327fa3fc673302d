"""Figures of one population: how good its members are, how they got there, what made them so."""

import numpy as np
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from zoo.layout import Ragged
from zoo.page.diagrams import phase_diagrams
from zoo.page.measures import measures
from zoo.page.panel import ACCURACY_COLOURS, BAND, BLUE, INNER_BAND, QUALITATIVE, Panel, styled
from zoo.page.score import Score, score_of
from zoo.schema import DIVERGED, ColumnSpec
from zoo.store import Population

_MAX_CURVES = 40
_MAX_PCA_MEMBERS = 2_000
_GRID_COLUMNS = 2
_FEW_VALUES = 6


def panels(population: Population) -> list[Panel]:
    """Make every figure that the population's metrics allow."""
    if population.num_members == 0:
        return []
    score, measured = score_of(population), measures(population)
    after = [measured] if measured else []
    if score is None or not np.isfinite(population.metric(score.name)).any():
        return after
    made = [histogram(population, score), learning_curves(population, score)]
    made += phase_diagrams(population)
    made += [
        panel for panel in (hyperparameters(population, score), pca(population, score)) if panel
    ]
    return made + after


def histogram(population: Population, score: Score) -> Panel:
    """Distribution of the last checkpoint's score."""
    table = population.table
    values = table[score.name].drop_nans().drop_nulls()
    diverged = int(table[DIVERGED].sum())
    figure = go.Figure(go.Histogram(x=values, nbinsx=40, marker_color=BLUE))
    figure.update_layout(bargap=0.03)
    figure.update_xaxes(title=score.axis)
    figure.update_yaxes(title="members")
    return Panel(
        title=score.title,
        caption=f"{score.title} at epoch {population.epochs[-1]} of {len(values):,} members; "
        f"median {np.median(values):.3f}. {diverged:,} diverged members are not shown.",
        figure=styled(figure),
    )


def learning_curves(population: Population, score: Score) -> Panel:
    """Plot the score over epochs: median, quantile bands and single members."""
    curves = population.metric(score.name)
    curves = curves[~np.isnan(curves).all(axis=1)]
    epochs = population.epochs
    low, quarter, middle, three, high = np.nanquantile(
        curves, (0.05, 0.25, 0.5, 0.75, 0.95), axis=0
    )
    figure = go.Figure()
    shown = np.linspace(0, len(curves) - 1, min(_MAX_CURVES, len(curves))).astype(int)
    for number, member in enumerate(shown):
        figure.add_scatter(
            x=epochs, y=curves[member], mode="lines", name="single members", hoverinfo="skip",
            line={"width": 0.7, "color": "rgba(107, 114, 128, 0.35)"},
            legendgroup="members", showlegend=number == 0,
        )  # fmt: skip
    bands = (("5 to 95 %", low, high, BAND), ("25 to 75 %", quarter, three, INNER_BAND))
    for name, lower, upper, colour in bands:
        figure.add_scatter(
            x=np.concatenate([epochs, epochs[::-1]]), y=np.concatenate([upper, lower[::-1]]),
            mode="lines", fill="toself", fillcolor=colour, line={"width": 0}, name=name,
            hoverinfo="skip",
        )  # fmt: skip
    figure.add_scatter(
        x=epochs, y=middle, mode="lines+markers", name="median", line={"color": BLUE, "width": 3}
    )
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title=score.axis)
    return Panel(
        title="Learning curves",
        caption=f"{score.title} at the {len(epochs)} stored checkpoints: median and quantile bands "
        f"over {len(curves):,} members, with {len(shown)} single members behind.",
        figure=styled(figure),
    )


def hyperparameters(population: Population, score: Score) -> Panel | None:
    """Plot the final score against each hyper-parameter that varies."""
    table = population.table.filter(pl.col(score.name).is_not_nan())
    varied = [
        column
        for column in population.columns
        if column.role == "hyperparameter" and table[column.name].n_unique() > 1
    ]
    if not varied:
        return None
    rows = -(-len(varied) // _GRID_COLUMNS)
    figure = make_subplots(
        rows=rows,
        cols=_GRID_COLUMNS,
        shared_yaxes=True,
        horizontal_spacing=0.05,
        vertical_spacing=0.3 / rows,
    )
    for number, column in enumerate(varied):
        place = {"row": number // _GRID_COLUMNS + 1, "col": number % _GRID_COLUMNS + 1}
        figure.add_trace(_against(table, column, score.name), **place)
        figure.update_xaxes(**_axis(table, column), **place)
    figure.update_layout(showlegend=False)
    for row in range(1, rows + 1):
        figure.update_yaxes(title=score.text, row=row, col=1)
    return Panel(
        title=f"Hyper-parameters against {score.text}",
        caption=f"Each dot is one of {table.height:,} members at its last checkpoint; boxes show "
        f"quartiles where the hyper-parameter is a choice. {score.meaning}",
        figure=styled(figure, height=60 + 290 * rows),
    )


def _is_choice(table: pl.DataFrame, column: ColumnSpec) -> bool:
    return column.scale == "categorical" or table[column.name].n_unique() <= _FEW_VALUES


def _axis(table: pl.DataFrame, column: ColumnSpec) -> dict[str, object]:
    """Describe the horizontal axis of a hyper-parameter."""
    unit = f" ({column.unit})" if column.unit else ""
    title = {"text": column.name.replace("_", " ") + unit, "standoff": 8}
    if _is_choice(table, column):
        return {"title": title, "type": "category", "tickangle": 0}
    values = table[column.name].to_numpy()
    if column.scale != "log":
        return {"title": title}
    if values.max() > 100 * values.min():
        return {"title": title, "type": "log", "dtick": 1, "exponentformat": "power"}
    ticks = [digit * 10.0**power for power in range(-9, 9) for digit in (1, 2, 5)]
    return {"title": title, "type": "log", "tickvals": ticks, "ticktext": [f"{t:g}" for t in ticks]}


def _against(table: pl.DataFrame, column: ColumnSpec, score: str) -> go.Scattergl | go.Box:
    values, scores = table[column.name], table[score]
    if _is_choice(table, column):
        order = table.sort(column.name)
        names = order[column.name].cast(pl.String).str.replace_all("_", "<br>")
        return go.Box(
            x=names, y=order[score], marker_color=BLUE, boxpoints=False, line={"width": 1.5}
        )
    return go.Scattergl(
        x=values, y=scores, mode="markers", marker={"size": 4, "opacity": 0.5, "color": BLUE}
    )


def pca(population: Population, score: Score) -> Panel | None:
    """First two principal components of the final weights, coloured by score."""
    table = population.table.filter(pl.col(score.name).is_not_nan() & ~pl.col(DIVERGED))
    if table.height < 3 or isinstance(population.spec.space, Ragged):
        return None
    table = table.gather_every(-(-table.height // _MAX_PCA_MEMBERS))
    weights = population.weights(table["member"].to_numpy()).astype(np.float64)
    centred = weights - weights.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred @ centred.T, hermitian=True)
    share = singular / singular.sum()
    scores = left[:, :2] * np.sqrt(singular[:2])
    figure = go.Figure(
        go.Scattergl(
            x=scores[:, 0], y=scores[:, 1], mode="markers",
            marker={
                "size": 6, "color": table[score.name], "colorscale": ACCURACY_COLOURS,
                "colorbar": {"title": {"text": score.text.replace(" ", "<br>")}},
            },
            text=[f"member {member}" for member in table["member"]],
        )
    )  # fmt: skip
    frame = [_frame(scores[:, axis]) for axis in (0, 1)]
    low, high = np.array(frame).T
    outside = int(((scores < low) | (scores > high)).any(axis=1).sum())
    figure.update_xaxes(
        title=f"first principal component ({share[0]:.1%} of variance)", range=frame[0]
    )
    figure.update_yaxes(
        title=f"second principal component ({share[1]:.1%} of variance)", range=frame[1]
    )
    return Panel(
        title="Weight space",
        caption=f"Principal components of the final weights of {table.height:,} members, as "
        "stored (no alignment of neurons), in units of the weights; "
        f"{population.space.num_parameters:,} numbers each. {outside} members lie outside the "
        "frame (double click shows all).",
        figure=styled(figure, height=480),
    )


def _frame(scores: np.ndarray) -> tuple[float, float]:
    """Range of an axis that shows all but the outermost members."""
    low, high = np.quantile(scores, (0.01, 0.99))
    margin = 0.15 * (high - low)
    return float(low - margin), float(high + margin)


def predictions(table: pl.DataFrame) -> Panel:
    """Predicted against true values on the test part, one panel per model.

    Parameters
    ----------
    table
        Columns ``model``, ``seed``, ``split``, ``target``, ``prediction``.
    """
    test = table.filter(pl.col("split") == "test")
    models = test["model"].unique(maintain_order=True).to_list()
    figure = make_subplots(
        rows=1, cols=len(models), subplot_titles=models, shared_yaxes=True, shared_xaxes=True,
        horizontal_spacing=0.04,
    )  # fmt: skip
    both = np.concatenate([test["target"].to_numpy(), test["prediction"].to_numpy()])
    ends = [float(both.min()), float(both.max())]
    for number, model in enumerate(models, start=1):
        part = test.filter(pl.col("model") == model)
        figure.add_scatter(x=ends, y=ends, mode="lines", line={"color": "#9ca3af", "dash": "dot"},
                           row=1, col=number, showlegend=False, hoverinfo="skip")  # fmt: skip
        for colour, (seed,) in zip(
            QUALITATIVE, part.select("seed").unique().sort("seed").iter_rows(), strict=False
        ):
            one = part.filter(pl.col("seed") == seed)
            figure.add_scatter(
                x=one["target"], y=one["prediction"], mode="markers", name=f"seed {seed}",
                marker={"size": 5, "opacity": 0.6, "color": colour},
                legendgroup=str(seed), showlegend=number == 1, row=1, col=number,
            )  # fmt: skip
        figure.update_xaxes(title="true (fraction)", row=1, col=number)
    figure.update_yaxes(title="predicted (fraction)", row=1, col=1)
    figure = styled(figure, height=460)
    figure.update_layout(legend={"y": 1.1}, margin={"t": 80})
    members = test["member"].n_unique()
    return Panel(
        title="Predicted against true test accuracy",
        caption=f"{members:,} members that no model was trained on or selected by, one colour per "
        "training seed; a perfect prediction lies on the dotted line.",
        figure=figure,
    )
