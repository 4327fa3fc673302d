"""A figure of what was measured after the fact."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from zoo.page.panel import BLUE, Panel, styled
from zoo.store import Population

_COLUMNS = 3
_SPREAD = 100


def measures(population: Population) -> Panel | None:
    """Plot how measures spread over members, one histogram each; ``None`` without measures.

    Where numbers are positive and spread over more than two decades, their decimal logarithm is
    shown.
    """
    table = population.table
    found = {
        name: values[np.isfinite(values)]
        for name in population.measures
        if name in table.columns and (values := _numbers(table[name].to_numpy())) is not None
    }
    known = {name: values for name, values in found.items() if values.size}
    if not known:
        return None
    rows = -(-len(known) // _COLUMNS)
    spacing = {"horizontal_spacing": 0.06, "vertical_spacing": 0.4 / rows}
    figure = make_subplots(rows=rows, cols=_COLUMNS, **spacing)
    for number, (name, values) in enumerate(known.items()):
        place = {"row": number // _COLUMNS + 1, "col": number % _COLUMNS + 1}
        is_log = values.min() > 0 and values.max() > _SPREAD * values.min()
        shown = np.log10(values) if is_log else values
        figure.add_trace(go.Histogram(x=shown, nbinsx=30, marker_color=BLUE), **place)
        label = name.replace("_", " ")
        figure.update_xaxes(title=f"log10 {label}" if is_log else label, **place)
        figure.update_yaxes(title="members" if number % _COLUMNS == 0 else None, **place)
    figure.update_layout(showlegend=False, bargap=0.03)
    return Panel(
        title="Measured afterwards",
        caption=f"Numbers measured of stored members at epoch {population.epochs[-1]}: "
        f"{min(map(len, known.values())):,} to {max(map(len, known.values())):,} members each; "
        "what could not be measured is not shown.",
        figure=styled(figure, height=60 + 230 * rows),
    )


def _numbers(values: np.ndarray) -> np.ndarray | None:
    """Return numbers as float64; ``None`` for text."""
    return values.astype(np.float64) if values.dtype.kind == "f" else None
