"""The data card of a published zoo: :mod:`zoo.cards`, and what the Hub reads on top of it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.cards import limits_section, overview, population_card
from zoo.store import Zoo

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
        overview(populations),
        f"## Reading it\n\n```python\n{reading.strip()}\n```",
        *map(population_card, populations),
        limits_section(populations, limits),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(values: Mapping[str, Any]) -> str:
    # JSON is YAML, one key a line
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(["---", *lines, "---"])
