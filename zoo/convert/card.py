"""The data card of a published zoo: what is in it, how it was made, what to know before use."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from zoo.networks import UNKNOWN
from zoo.schema import DIVERGED, ColumnSpec
from zoo.store import Population, Zoo

TAGS = ("weight-space-learning", "model-zoo", "neural-network-weights")

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


def data_card(
    zoo: Zoo,
    *,
    name: str,
    reading: str,
    licence: str,
    tags: Sequence[str] = (),
    configs: Mapping[str, str] | None = None,
    limits: Sequence[str] = (),
) -> str:
    """Write the card as Markdown with YAML front matter, as the Hugging Face Hub reads it.

    Parameters
    ----------
    zoo
        The zoo.
    name
        Title.
    reading
        Python that opens the published files.
    licence
        Identifier of the Hub, such as ``cc-by-4.0``.
    tags
        Added to :data:`TAGS`.
    configs
        Name to a table that the Hub shows.
    limits
        Sentences to add to what is known to limit the data.
    """
    populations = [zoo[each] for each in zoo.populations]
    members = sum(population.num_members for population in populations)
    front: dict[str, Any] = {
        "license": licence,
        "pretty_name": name,
        "size_categories": [next((text for top, text in _SIZES if members < top), "n>1B")],
        "tags": [*TAGS, *tags],
    }
    if configs:
        front["configs"] = [
            {"config_name": key, "data_files": path} for key, path in configs.items()
        ]
    sections = [
        _front_matter(front),
        f"# {name}\n\n{members:,} trained networks in {len(populations)} population(s), dataset "
        f"version `{zoo.version}`.",
        _overview(populations),
        f"## Reading it\n\n```python\n{reading.strip()}\n```",
        *(_population(population) for population in populations),
        "## Known limits\n\n" + _bullets([*_limits(populations), *limits]),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(values: Mapping[str, Any]) -> str:
    # JSON is YAML, one key a line
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def _overview(populations: Sequence[Population]) -> str:
    rows = (
        (
            population.name,
            f"{population.num_members:,}",
            f"{len(population.epochs)}",
            _span([space.num_parameters for space in population.spaces.values()]),
            population.network.get("name", "several"),
            f"`{population.version}`",
        )
        for population in populations
    )
    header = ("population", "members", "checkpoints", "numbers per network", "network", "version")
    return _table(header, rows)


def _population(population: Population) -> str:
    epochs = ", ".join(map(str, population.epochs.tolist()))
    parts = [
        f"## Population `{population.name}`",
        f"{_spaces(population)} Checkpoints at epochs {epochs}. Metrics at each: "
        f"{', '.join(population.metrics) or 'none'}.",
        _table(
            ("column", "type", "role", "values", "description"),
            (_column(column, population.table) for column in population.columns),
        ),
        "### How it was made",
        "```json\n" + json.dumps(_making(population), indent=1, sort_keys=True) + "\n```",
    ]
    return "\n\n".join(parts)


def _spaces(population: Population) -> str:
    spaces = population.spaces
    if len(spaces) > 1:
        return f"{len(spaces)} weight spaces, one per architecture."
    ((fingerprint, space),) = spaces.items()
    return (
        f"Weight space `{fingerprint}`: {len(space.tensors)} tensors, {len(space.groups)} groups "
        "of interchangeable neurons."
    )


def _making(population: Population) -> dict[str, Any]:
    return {
        "environment": population.environment,
        "network": population.network,
        "problem": population.problem,
        "recipe": population.recipe,
    }


def _column(column: ColumnSpec, table: pl.DataFrame) -> tuple[str, ...]:
    unit = f" [{column.unit}]" if column.unit else ""
    return (
        f"`{column.name}`{unit}",
        column.dtype,
        column.role,
        _values(column, table[column.name]),
        column.description,
    )


def _values(column: ColumnSpec, values: pl.Series) -> str:
    if column.dtype == "category":
        return ", ".join(column.categories)
    if column.dtype == "bool":
        return f"{int(values.sum())} of {len(values)}"
    known = values.to_numpy()
    known = known[np.isfinite(known)]
    if not known.size:
        return "none known"
    low, high = known.min(), known.max()
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _limits(populations: Sequence[Population]) -> Iterator[str]:
    for population in populations:
        where = f"Population `{population.name}`"
        if not population.is_complete:
            planned = population.spec.num_members
            yield f"{where} is incomplete: {population.num_members:,} of {planned:,} members."
        if diverged := int(population.table[DIVERGED].sum()):
            yield (
                f"{where} holds {diverged:,} members that diverged; their weights may be NaN or "
                f"infinite. The column `{DIVERGED}` marks them."
            )
        if population.network.get("name") == UNKNOWN["name"]:
            yield (
                f"{where} knows the names and shapes of its tensors only: no symmetry was derived, "
                "and members cannot be rebuilt as modules."
            )
        if population.spec.storage.dtype != "float32":
            yield f"{where}: weights were rounded to {population.spec.storage.dtype}."
        spaces = population.spaces.values()
        if operations := sorted({each.op for space in spaces for each in space.unsupported}):
            yield (
                f"{where}: no rule for {', '.join(operations)}, so the neurons they touch stay in "
                "place."
            )
    yield "Measured by its makers; nothing was trained again for publication."


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(each) for each in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
