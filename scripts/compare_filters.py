"""Set the convolution filters of two zoos side by side, layer by layer: a table and a page.

After CNN Filter DB (Gavrikov and Keuper, CVPR 2022): shares of variance that principal components
explain, variance entropy, sparse filters, and the shift between the two distributions, which is a
symmetric Kullback-Leibler divergence in nats. The shift between two halves of the first zoo is what
chance alone makes of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from jsonargparse import auto_cli
from plotly.subplots import make_subplots

import zoo
from zoo.errors import InvalidConfigError
from zoo.layout import Ragged
from zoo.measures import filters
from zoo.page.panel import QUALITATIVE, styled
from zoo.store import Population

_HEADER = ("layer", "zoo", "filters", "sparse", "entropy", "over random", "first of components")
_BINS = 70


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two populations: its title, and the weights of members that did not diverge."""

    title: str
    population: Population
    vectors: np.ndarray


def main(
    first: Path,
    second: Path,
    *,
    first_population: str | None = None,
    second_population: str | None = None,
    checkpoints: tuple[int, int] = (-1, -1),
    out: Path = Path("filters.html"),
) -> None:
    """Print the table and write the page.

    Parameters
    ----------
    first, second
        The zoos; the same one twice compares two of its populations.
    first_population, second_population
        Populations; may be left out of a zoo with one.
    checkpoints
        Position of the checkpoint in the first and in the second zoo.
    out
        Page to write, self-contained.
    """
    sides = (
        _side(first, first_population, checkpoints[0]),
        _side(second, second_population, checkpoints[1]),
    )
    names = _common(sides)
    rows = [row for name in names for row in _rows(sides, name)]
    widths = [max(len(row[column]) for row in (_HEADER, *rows)) for column in range(len(_HEADER))]
    for row in (_HEADER, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    print(f"\n{'layer':24}  shift  within the first zoo")
    for name in names:
        print(f"{name:24}  {_shift(sides, name):5.2f}  {_chance(sides[0], name):5.2f}")
    out.parent.mkdir(parents=True, exist_ok=True)
    _figure(sides, names).write_html(out, include_plotlyjs=True)
    print(f"\npage  {out}")


def _side(path: Path, population: str | None, checkpoint: int) -> Side:
    opened = zoo.open(path)
    if population is None and len(opened.populations) > 1:
        raise InvalidConfigError(
            f"Zoo {path} holds {', '.join(opened.populations)}: name one of them."
        )
    chosen = opened[population or opened.populations[0]]
    if isinstance(chosen.spec.space, Ragged):
        raise InvalidConfigError(
            f"Members of population {chosen.name!r} of {path} differ in architecture, so their "
            "layers do not correspond."
        )
    vectors = chosen.weights(checkpoint=checkpoint)
    vectors = vectors[np.isfinite(vectors).all(-1)]
    if not len(vectors):
        raise InvalidConfigError(
            f"Expected members that did not diverge in population {chosen.name!r} of {path}, got "
            f"none of {chosen.num_members}. Is it finished?"
        )
    title = f"{path.stem}/{chosen.name}, epoch {chosen.epochs[checkpoint]}"
    return Side(title, chosen, vectors)


def _common(sides: tuple[Side, Side]) -> list[str]:
    """Name the tensors of filters that both have, with kernels of one size."""
    sizes = [
        {
            name: filters.filters(side.population.space, side.vectors[:1], name).shape[-1]
            for name in filters.kernel_tensors(side.population.space)
        }
        for side in sides
    ]
    names = [name for name, size in sizes[0].items() if sizes[1].get(name) == size]
    if not names:
        raise InvalidConfigError(
            f"Expected convolutions of one name and kernel size in both zoos, got "
            f"{sizes[0]} and {sizes[1]}."
        )
    return names


def _rows(sides: tuple[Side, Side], name: str) -> Iterator[tuple[str, ...]]:
    for side in sides:
        quality = filters.quality(side.population.space, side.vectors)[name]
        pooled = _pooled(side, name)
        shares = filters.principal_components(filters.scaled(pooled))[0]
        yield (
            name,
            side.title,
            f"{len(pooled):,}",
            f"{np.nanmean(quality.sparsity):.1%}",
            f"{np.nanmean(quality.entropy):.3f}",
            f"{np.nanmean(quality.randomness):.2f}",
            " ".join(f"{share:.0%}" for share in shares[:4]),
        )


def _figure(sides: tuple[Side, Side], names: list[str]) -> go.Figure:
    """Draw variance explained, and how coefficients of the first component are distributed."""
    figure = make_subplots(
        rows=len(names),
        cols=2,
        subplot_titles=[title for name in names for title in (name, f"{name}: first component")],
        vertical_spacing=0.35 / (len(names) + 1),
    )
    for row, name in enumerate(names, start=1):
        sets = [filters.scaled(_pooled(side, name)) for side in sides]
        _, components, mean = filters.principal_components(np.concatenate(sets))
        for side, own, colour in zip(sides, sets, QUALITATIVE, strict=False):
            shares = filters.principal_components(own)[0].cumsum()
            style = {"name": side.title, "legendgroup": side.title, "marker_color": colour}
            figure.add_scatter(
                x=np.arange(1, len(shares) + 1), y=shares, row=row, col=1,
                mode="lines+markers", showlegend=row == 1, **style,
            )  # fmt: skip
            density, edges = np.histogram((own - mean) @ components[0], _BINS, density=True)
            figure.add_scatter(
                x=(edges[1:] + edges[:-1]) / 2, y=density, row=row, col=2, fill="tozeroy",
                mode="lines", line_shape="hvh", showlegend=False, **style,
            )  # fmt: skip
        figure.update_yaxes(title="variance explained", rangemode="tozero", row=row, col=1)
        figure.update_yaxes(title="density", row=row, col=2)
        figure.update_xaxes(title="principal components", row=row, col=1)
        figure.update_xaxes(
            title=f"coefficient; shift of all components {_shift(sides, name):.2f} nats",
            row=row,
            col=2,
        )
    figure = styled(figure, height=90 + 330 * len(names))
    return figure.update_layout(margin={"t": 80}, legend={"y": 1.06})


def _shift(sides: tuple[Side, Side], name: str) -> float:
    return filters.shift(*(_pooled(side, name) for side in sides), num_bins=_BINS)


def _chance(side: Side, name: str) -> float:
    """Shift between members at even and at odd places."""
    halves = [
        filters.pooled(side.population.space, side.vectors[start::2], name) for start in (0, 1)
    ]
    return filters.shift(*halves, num_bins=_BINS) if len(halves[1]) else float("nan")


def _pooled(side: Side, name: str) -> np.ndarray:
    return filters.pooled(side.population.space, side.vectors, name)


if __name__ == "__main__":
    auto_cli(main, as_positional=True)
