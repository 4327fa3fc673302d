"""Fields that configurations gained later: stored networks and hashes of recipes stay."""

from collections.abc import Iterator
from dataclasses import Field, field, fields
from typing import Any

_ADDED = "added"


def added(default: Any) -> Any:
    """Declare a field that older stored configurations lack.

    It is written only where it differs from its default, which must therefore never change.
    """
    return field(default=default, metadata={_ADDED: True})


def written(config: Any) -> Iterator[Field[Any]]:
    """Yield the fields of a configuration that are written."""
    for each in fields(config):
        if not (each.metadata.get(_ADDED) and getattr(config, each.name) == each.default):
            yield each
