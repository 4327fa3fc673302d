"""A panel: a figure with a title and a caption; and the look that all figures share."""

from dataclasses import dataclass

import plotly.graph_objects as go

INK, GRID, BLUE, BAND = "#1f2937", "#e5e7eb", "#2563eb", "rgba(37, 99, 235, 0.15)"
INNER_BAND = "rgba(37, 99, 235, 0.25)"
QUALITATIVE = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#0891b2")
ACCURACY_COLOURS = "Viridis"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One figure of the page.

    Parameters
    ----------
    title
        Headline.
    caption
        What is shown, of how many members, in which units.
    figure
        A plotly figure.
    """

    title: str
    caption: str
    figure: go.Figure


def styled(figure: go.Figure, *, height: int = 420) -> go.Figure:
    """Apply the common look; returns the figure."""
    figure.update_layout(
        height=height,
        margin={"l": 70, "r": 30, "t": 30, "b": 60},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "automargin": True}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure
