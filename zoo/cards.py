"""Data cards: what a zoo holds, how it was made, from which data, and what to know before use.

All of it is derived from what is stored; what is not stored is said to be not stated.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from zoo.networks import UNKNOWN
from zoo.schema import DIVERGED, ColumnSpec
from zoo.store import Population, Zoo

NOT_STATED = "not stated"
Rows = list[tuple[str, str]]
_DISTRIBUTION = "distribution"
_VERSIONS = ("weight-zoo", "python", "torch", "numpy", "numba", "jax")


def zoo_card(zoo: Zoo, populations: Sequence[str] = ()) -> str:
    """Write a zoo's data card as Markdown.

    Parameters
    ----------
    zoo
        The zoo.
    populations
        Which to describe; all by default.
    """
    chosen = [zoo[name] for name in populations or zoo.populations]
    members = sum(population.num_members for population in chosen)
    parts = [
        f"# {zoo.name}\n\n{members:,} trained networks in {len(chosen)} population(s), dataset "
        f"version `{zoo.version}`.",
        overview(chosen),
        *map(population_card, chosen),
        limits_section(chosen),
    ]
    return "\n\n".join(parts) + "\n"


def population_card(population: Population) -> str:
    """Describe one population as a section of Markdown."""
    parts = [
        f"## Population `{population.name}`",
        *(
            f"### {title}\n\n" + bullets(f"**{label}**: {text}" for label, text in rows)
            for title, rows in facts(population).items()
        ),
        "### Columns",
        table(
            ("column", "type", "role", "values", "description"),
            (_column(column, population.table) for column in population.columns),
        ),
        "### Full description",
        "```json\n" + json.dumps(_making(population), indent=1, sort_keys=True) + "\n```",
    ]
    return "\n\n".join(parts)


def facts(population: Population) -> dict[str, Rows]:
    """Return what is stored about a population, per title as rows of label and text."""
    return {
        "What it is": _what(population),
        "How it was made": _how(population),
        "Data": _data(population),
        "Cost": _cost(population),
        "Measured afterwards": list(_measures(population)) or [("measures", "none")],
        "Known limits": [("limits", text) for text in limits([population])]
        or [("limits", "none known")],
        "Citation": [("cite", _citation(population))],
    }


def overview(populations: Sequence[Population]) -> str:
    """List populations in a table."""
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
    return table(header, rows)


def limits_section(populations: Sequence[Population], more: Sequence[str] = ()) -> str:
    """Say what is known to limit the data, as a section of Markdown."""
    closing = "Measured by its makers; nothing was trained again for publication."
    found = [
        f"Population `{population.name}`: {text}"
        for population in populations
        for text in limits([population])
    ]
    return "## Known limits\n\n" + bullets([*found, closing, *more])


def limits(populations: Sequence[Population]) -> Iterator[str]:
    """Yield what is known to limit the data, in sentences."""
    for population in populations:
        spec = population.spec
        if not population.is_complete:
            yield f"it is incomplete: {population.num_members:,} of {spec.num_members:,} members."
        if diverged := int(population.table[DIVERGED].sum()):
            yield (
                f"it holds {diverged:,} members that diverged; their weights may be NaN or "
                f"infinite. The column `{DIVERGED}` marks them."
            )
        if population.network.get("name") == UNKNOWN["name"]:
            yield (
                "names and shapes of its tensors are all that is known: no symmetry was derived, "
                "and members cannot be rebuilt as modules."
            )
        if spec.storage.dtype != "float32":
            yield f"weights were rounded to {spec.storage.dtype}."
        spaces = population.spaces.values()
        if operations := sorted({each.op for space in spaces for each in space.unsupported}):
            yield f"no rule for {', '.join(operations)}: the neurons they touch stay in place."
        if departures := population.recipe.get("departures"):
            yield f"departures from the source: {departures}"


def _what(population: Population) -> Rows:
    spaces, epochs = population.spaces, ", ".join(map(str, population.epochs.tolist()))
    planned = "" if population.is_complete else f" of {population.spec.num_members:,} planned"
    rows = [
        ("networks", _pairs(population.network)),
        ("members", f"{population.num_members:,}{planned}"),
        ("checkpoints", f"{len(population.epochs)}, at epochs {epochs}"),
        ("metrics at each", ", ".join(population.metrics) or "none"),
    ]
    if len(spaces) != 1:
        return [*rows, ("weight spaces", f"{len(spaces)}, one per architecture")]
    ((fingerprint, space),) = spaces.items()
    about = (
        f"`{fingerprint}`: {space.num_parameters:,} numbers, {len(space.tensors)} tensors, "
        f"{len(space.groups)} groups of interchangeable neurons"
    )
    return [*rows, ("weight space", about)]


def _how(population: Population) -> Rows:
    recipe, environment = population.recipe, population.environment
    rows = [("recipe", str(recipe.get("name", NOT_STATED)))]
    rows += [("description", recipe["description"])] if recipe.get("description") else []
    varied = [column for column in population.columns if column.role == "hyperparameter"]
    drawn: Mapping[str, Any] = recipe.get("hyperparameters") or {}
    for column in varied:
        values = _values(column, population.table[column.name])
        unit = f" {column.unit}" if column.unit else ""
        rule = f"; drawn as {_drawn(drawn[column.name])}" if column.name in drawn else ""
        rows.append((column.name, f"{values}{unit}{rule}"))
    engine = environment.get("engine", NOT_STATED)
    where = environment.get("device") or environment.get("processor")
    rows.append(("engine", engine + (f", on {where}" if where else "")))
    versions = [f"{name} {environment[name]}" for name in _VERSIONS if name in environment]
    rows.append(("versions", ", ".join(versions) or NOT_STATED))
    seed = str(recipe["seed"]) if "seed" in recipe else NOT_STATED
    rows.append(("seed of the recipe", f"{seed}; members' own in the column `seed`"))
    return rows


def _data(population: Population) -> Rows:
    problem, recipe = population.problem, population.recipe
    licences = (recipe.get("problem_licence"), recipe.get("licence"), problem.get("licence"))
    licence = next((each for each in licences if each), NOT_STATED)
    source = recipe.get("problem_source") or problem.get("source") or NOT_STATED
    return [
        ("data set", str(recipe.get("problem_name") or problem.get("name") or NOT_STATED)),
        ("problem", _pairs(problem) or NOT_STATED),
        ("hash", str(recipe.get("problem_sha256") or NOT_STATED)),
        ("licence", str(licence)),
        ("whose", str(source)),
    ]


def _cost(population: Population) -> Rows:
    """Say what training took, as far as it was recorded."""
    if population.recipe.get("name") == "convert" or "epochs" not in population.recipe:
        trained = NOT_STATED
    else:
        trained = f"{population.num_members * int(population.recipe['epochs']):,}"
    cost = population.cost
    return [
        ("member-epochs", trained),
        ("training took", "not recorded" if cost is None else str(cost)),
    ]


def _measures(population: Population) -> Iterator[tuple[str, str]]:
    done: set[str] = set()
    for name in population.measures:
        spec = population.measure_of(name)
        if spec.name in done:
            continue
        done.add(spec.name)
        shown = [each.name for each in spec.outputs if each.kind in ("number", "member")]
        counts = [int(np.isfinite(_last(population, each)).sum()) for each in shown]
        count = f", {max(counts):,} members" if counts else ""
        samples = {k: v for k, v in spec.samples.items() if k not in ("problem", "problem_sha256")}
        how = _pairs({**spec.settings, **samples})
        where = f", where {spec.where}" if spec.where else ""
        epochs = ", ".join(map(str, spec.checkpoints))
        yield (
            spec.name,
            f"{', '.join(each.name for each in spec.outputs)}{count} at epochs {epochs}{where}; "
            f"version {spec.code}{f'; {how}' if how else ''}",
        )


def _last(population: Population, name: str) -> np.ndarray:
    values = population.measured(name)
    return (
        np.nanmax(np.where(np.isnan(values), -np.inf, values), axis=1)
        if values.ndim == 2
        else values
    )


def _citation(population: Population) -> str:
    recipe = population.recipe
    found = [str(recipe[key]) for key in ("source", "paper", "citation") if recipe.get(key)]
    return ", ".join(found) or NOT_STATED


def _making(population: Population) -> dict[str, Any]:
    return {
        "environment": population.environment,
        "network": population.network,
        "problem": population.problem,
        "recipe": population.recipe,
    }


def _drawn(rule: object) -> str:
    """Say how a hyper-parameter was drawn, on one line."""
    if not isinstance(rule, Mapping):
        return str(rule)
    rest = {key: value for key, value in rule.items() if key != _DISTRIBUTION}
    kind = str(rule.get(_DISTRIBUTION, "")).replace("_", "-")
    return f"{kind}, {_pairs(rest)}".strip(", ")


def _column(column: ColumnSpec, members: pl.DataFrame) -> tuple[str, ...]:
    unit = f" [{column.unit}]" if column.unit else ""
    return (
        f"`{column.name}`{unit}",
        column.dtype,
        column.role,
        _values(column, members[column.name]),
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
    if not values:
        return "none"
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _pairs(mapping: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_short(value)}" for key, value in mapping.items())


def _short(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def bullets(sentences: Iterable[str]) -> str:
    """Return a list in Markdown."""
    return "\n".join(f"- {' '.join(sentence.split())}" for sentence in sentences)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(each) for each in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
