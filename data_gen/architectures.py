"""Architectures: which network fields differ between the members of a recipe, and how.

A recipe has one network configuration; architectures replace some of its fields, member by member.
Members of a different architecture may have a different weight space: the population is ragged.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import product
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from zoo.errors import InvalidConfigError, unknown_name
from zoo.schema import ColumnSpec

NetworkFields = dict[str, Any]
"""Fields of a network configuration that an architecture replaces; plain JSON."""


class Architectures(Protocol):
    """How a recipe spreads architectures over members."""

    @property
    def name(self) -> str:
        """Name in :data:`ARCHITECTURES`."""

    @property
    def num_places(self) -> int:
        """Architectures that are enumerated, as one more axis of the grid; 0 if they are drawn."""

    @property
    def columns(self) -> tuple[ColumnSpec, ...]:
        """What the population's table says of a member's architecture."""

    def at(self, place: int) -> NetworkFields:
        """Return an architecture that is enumerated."""

    def sample(self, rng: np.random.Generator) -> NetworkFields:
        """Draw one member's architecture."""

    def describe(self, network: NetworkFields) -> dict[str, float | int | str]:
        """Return a member's values in :attr:`columns`."""


@dataclass(frozen=True, kw_only=True)
class FieldGrid:
    """Architectures that a recipe lists; members enumerate them, as the last axis of its grid.

    Parameters
    ----------
    networks
        Per architecture the fields that it replaces, the same ones in each. Fields that are a
        number or a name everywhere become columns of the population, as do lists of one number
        several times, such as the widths of layers that are equally wide.

    Examples
    --------
    >>> widths = FieldGrid.product(width=(2, 4), depth=(20,))
    >>> widths.at(1)
    {'width': 4, 'depth': 20}
    """

    name: ClassVar[str] = "field_grid"
    networks: tuple[NetworkFields, ...]

    def __post_init__(self) -> None:
        plain = tuple(_plain(each) for each in self.networks)
        object.__setattr__(self, "networks", plain)
        texts = [json.dumps(each, sort_keys=True) for each in plain]
        if not plain or len(set(texts)) != len(texts):
            raise InvalidConfigError(
                f"Expected at least one architecture in a grid, and none twice, got {plain}."
            )
        if not plain[0] or any(each.keys() != plain[0].keys() for each in plain):
            raise InvalidConfigError(
                f"Expected all architectures of a grid to replace the same fields, got "
                f"{sorted({', '.join(each) for each in plain})}."
            )

    @classmethod
    def product(cls, **values: Iterable[Any]) -> Self:
        """Take every value of each field with every value of the others, the last one fastest."""
        combined = product(*(tuple(each) for each in values.values()))
        return cls(networks=tuple(dict(zip(values, each, strict=True)) for each in combined))

    @property
    def num_places(self) -> int:
        """Architectures in the grid."""
        return len(self.networks)

    @property
    def columns(self) -> tuple[ColumnSpec, ...]:
        """One per field that is a number, several times the same number, or a name everywhere."""
        found = []
        for name in self.networks[0]:
            values = [_single(each[name]) for each in self.networks]
            spec = _column(name, values)
            found += [] if spec is None else [spec]
        return tuple(found)

    def at(self, place: int) -> NetworkFields:
        """Return an architecture of the grid."""
        return dict(self.networks[place])

    def sample(self, rng: np.random.Generator) -> NetworkFields:
        """Draw an architecture of the grid; recipes enumerate them instead."""
        return self.at(int(rng.integers(len(self.networks))))

    def describe(self, network: NetworkFields) -> dict[str, float | int | str]:
        """Return the fields that are columns."""
        return {column.name: _single(network[column.name]) for column in self.columns}


@dataclass(frozen=True, kw_only=True)
class WildConvolutions:
    """Networks of the CNN Wild Park [1]_ (App. C.2), drawn layer by layer.

    Every number is drawn evenly: how many layers, and per layer its channels, kernel size,
    activation, and what it adds to its output: nothing, or that of any layer at least two before.

    Parameters
    ----------
    num_layers
        Fewest and most convolutions.
    channels, kernel_sizes, activations
        What a layer may have.

    References
    ----------
    .. [1] Kofinas et al., "Graph Neural Networks for Learning Equivariant Representations of
       Neural Networks", ICLR 2024.
    """

    name: ClassVar[str] = "wild_convolutions"
    num_layers: tuple[int, int] = (2, 5)
    channels: tuple[int, ...] = (4, 8, 16, 32)
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    activations: tuple[str, ...] = ("relu", "gelu", "tanh", "sigmoid", "leaky_relu")

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, tuple(getattr(self, each.name)))
        fewest, *_, most = self.num_layers
        choices = (self.channels, self.kernel_sizes, self.activations)
        if len(self.num_layers) != 2 or not 1 <= fewest <= most or not all(choices):
            raise InvalidConfigError(
                f"Expected a fewest and a most number of layers, from 1 up, and something to "
                f"choose for each layer, got {self}."
            )

    @property
    def num_places(self) -> int:
        """Architectures are drawn: 0."""
        return 0

    @property
    def columns(self) -> tuple[ColumnSpec, ...]:
        """``num_layers`` alone."""
        return (
            ColumnSpec(name="num_layers", dtype="int64", description="convolutions of the network"),
        )

    def at(self, place: int) -> NetworkFields:
        """Refuse: nothing is enumerated."""
        raise InvalidConfigError(f"Wild architectures are drawn, there is no number {place}.")

    def sample(self, rng: np.random.Generator) -> NetworkFields:
        """Draw fields ``channels``, ``kernel_sizes``, ``activations`` and ``residuals``."""
        count = int(rng.integers(self.num_layers[0], self.num_layers[1], endpoint=True))
        channels, kernel_sizes, activations = (
            [choices[int(place)] for place in rng.integers(len(choices), size=count)]
            for choices in (self.channels, self.kernel_sizes, self.activations)
        )
        # Of layer k the sources are -1 (none) and 0 ... k - 2: one of max(k, 1) values.
        residuals = [int(rng.integers(max(layer, 1))) - 1 for layer in range(count)]
        return {
            "channels": channels,
            "kernel_sizes": kernel_sizes,
            "activations": activations,
            "residuals": residuals,
        }

    def describe(self, network: NetworkFields) -> dict[str, float | int | str]:
        """Count the layers."""
        return {"num_layers": len(network["channels"])}


ARCHITECTURES: dict[str, type[Any]] = {kind.name: kind for kind in (FieldGrid, WildConvolutions)}


def to_json(architectures: Any) -> dict[str, Any]:
    """Turn architectures into plain values; :func:`from_json` turns them back."""
    values = {item.name: getattr(architectures, item.name) for item in fields(architectures)}
    return {"architectures": architectures.name} | _plain(values)


def from_json(raw: Mapping[str, Any]) -> Architectures:
    """Restore architectures."""
    kind = raw.get("architectures")
    if kind not in ARCHITECTURES:
        raise unknown_name("kind of architectures", kind, ARCHITECTURES)
    values = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in raw.items()
        if key != "architectures"
    }
    restored: Architectures = ARCHITECTURES[kind](**values)
    return restored


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn tuples into lists, as JSON has them."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(values)))
    return plain


def _single(value: Any) -> Any:
    """Return the entry of a list that holds one value several times; anything else as it is."""
    return value[0] if isinstance(value, list) and value == value[:1] * len(value) != [] else value


def _column(name: str, values: list[Any]) -> ColumnSpec | None:
    about = f"field {name!r} of the network"
    if all(isinstance(value, str) for value in values):
        names = tuple(dict.fromkeys(values))
        return ColumnSpec(
            name=name, dtype="category", categories=names, scale="categorical", description=about
        )
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return None
    positive = min(values) > 0
    whole = all(isinstance(value, int) for value in values)
    return ColumnSpec(
        name=name,
        dtype="int64" if whole else "float64",
        scale="log" if positive and whole else "linear",
        description=about,
    )
