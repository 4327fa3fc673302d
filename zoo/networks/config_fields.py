"""How configurations are written; fields that they gained later, so that stored ones stay."""

from collections.abc import Iterator
from dataclasses import Field, field, fields, is_dataclass
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


def plain(config: Any) -> dict[str, Any]:
    """Turn a configuration into plain values with its name, and configurations within it too."""
    values = {each.name: getattr(config, each.name) for each in written(config)}
    return {"name": config.name} | {key: _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return plain(value)
    return list(value) if isinstance(value, tuple) else value
