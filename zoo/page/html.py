"""Assembling the page: everything inline, so that it opens without a network."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import polars as pl
from plotly.offline import get_plotlyjs

from zoo.cards import facts as card_facts
from zoo.layout import Ragged
from zoo.page import figures
from zoo.page.panel import Panel
from zoo.schema import PopulationSpec
from zoo.store import Population, Zoo

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2937; margin: 0; background: #f9fafb; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px; }
h1 { font-size: 28px; margin: 0 0 4px; }
h2 { font-size: 22px; margin: 40px 0 8px; }
h3 { font-size: 17px; margin: 0 0 8px; }
section { background: white; border: 1px solid #e5e7eb; border-radius: 8px; }
section { padding: 20px; margin: 16px 0; }
p.caption { color: #4b5563; font-size: 14px; margin: 8px 0 0; }
table { border-collapse: collapse; font-size: 14px; width: 100%; }
td, th { text-align: left; padding: 4px 12px 4px 0; vertical-align: top; }
td, th { border-bottom: 1px solid #f3f4f6; }
section h3 + table { margin-bottom: 16px; }
summary { font-weight: 600; cursor: pointer; }
th, td:first-child { font-weight: 600; white-space: nowrap; }
"""


def write_page(
    zoo: Zoo,
    out: Path,
    *,
    predictions: Sequence[Path] = (),
    results: pl.DataFrame | None = None,
) -> Path:
    """Write a zoo's page.

    Parameters
    ----------
    out
        File to write; replaced if it exists.
    predictions
        Parquet files with columns ``member``, ``split``, ``target``, ``prediction``, ``model``,
        ``seed``, as ``zoo train`` writes them.
    results
        A table to print under the predictions.

    Returns
    -------
    Path
        ``out``.
    """
    sections = [_population(zoo[name]) for name in zoo.populations]
    if predictions:
        table = pl.concat([pl.read_parquet(path) for path in predictions], how="vertical_relaxed")
        sections.append("<h2>Reading the weights</h2>" + _panel(figures.predictions(table)))
    if results is not None:
        rows = _table(results.columns, results.iter_rows())
        sections.append(
            f"<section><h3>Results</h3>{rows}<p class='caption'>On the test part: mean over seeds, "
            "with the smallest and the largest in brackets.</p></section>"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render(zoo.name, f"dataset version {zoo.version}", sections))
    return out


def render(title: str, subtitle: str, sections: Iterable[str]) -> str:
    """Put sections of HTML into a page that carries its own style and scripts."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body><main>"
        f"<h1>{escape(title)}</h1><p class='caption'>{escape(subtitle)}</p>"
        f"{''.join(sections)}</main></body></html>\n"
    )


def _population(population: Population) -> str:
    facts = _table((), facts_of(population))
    drawn = "".join(_panel(panel) for panel in figures.panels(population))
    card = "".join(
        f"<h3>{escape(title)}</h3>{_table((), rows)}"
        for title, rows in card_facts(population).items()
    )
    return (
        f"<h2>{escape(population.name)}</h2><section>{facts}</section>{drawn}"
        f"<section><details><summary>Data card</summary>{card}</details></section>"
    )


def facts_of(population: Population) -> list[tuple[str, str]]:
    """Describe a population in rows of label and text."""
    checkpoints = ", ".join(map(str, population.epochs))
    return [
        ("members", f"{population.num_members:,}" + ("" if population.is_complete else " so far")),
        ("checkpoints", f"{len(population.epochs)} (epochs {checkpoints})"),
        *_space_facts(population),
        ("stored", _storage_fact(population.spec)),
        ("metrics", ", ".join(population.metrics)),
        *([("measures", ", ".join(population.measures))] if population.measures else []),
        ("columns", ", ".join(column.name for column in population.columns)),
        ("network", _pairs(population.network)),
        ("problem", _pairs(population.problem)),
        ("made by", _pairs(population.environment)),
        ("version", population.version),
    ]


def _space_facts(population: Population) -> list[tuple[str, str]]:
    space = population.spec.space
    if isinstance(space, Ragged):
        distinct = len({architecture.space for architecture in space.architectures})
        count, low, high = len(space.architectures), space.sizes.min(), space.sizes.max()
        return [
            ("architectures", f"{count:,} of {distinct:,} weight spaces"),
            ("numbers per checkpoint", f"{low:,} to {high:,}"),
        ]
    groups = ", ".join(f"{group.name} ({group.size})" for group in space.groups)
    return [
        ("numbers per checkpoint", f"{space.num_parameters:,}"),
        ("neuron groups", groups or "none"),
    ]


def _storage_fact(spec: PopulationSpec) -> str:
    text = f"{spec.storage.tier} tier, blocks of {spec.block_size} members"
    if not spec.sources:
        return text
    return f"{text}; repacked from {', '.join(f'{s.version} ({s.dtype})' for s in spec.sources)}"


def _pairs(mapping: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in mapping.items())


def _panel(panel: Panel) -> str:
    drawing = panel.figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        config={"responsive": True, "displaylogo": False, "displayModeBar": "hover"},
    )
    return (
        f"<section><h3>{escape(panel.title)}</h3>{drawing}"
        f"<p class='caption'>{escape(panel.caption)}</p></section>"
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"
