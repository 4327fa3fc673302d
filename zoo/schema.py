"""Every name on disk, and what a population declares about itself; ``FORMAT.md`` is the prose.

A :class:`PopulationSpec` is what the first writer states before any network is trained; it becomes
the attributes of the population's Zarr group and is read back equal.
"""

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

import google_crc32c

from zoo.errors import InvalidConfigError, WeightSpaceMismatchError, unknown_name
from zoo.layout import TIERS, Architecture, Ragged, Source, Storage, check_json, default_block_size
from zoo.space import WeightSpace

FORMAT = "weight-zoo"
FORMAT_VERSION = "1"
FORMAT_KEY = "format"
VERSION_KEY = "format_version"
CHECKSUM = "crc32c"

POPULATIONS = "populations"
LEDGER = "_ledger"
ASIDE = "_aside"
TABLE = "table.parquet"
WEIGHTS = "weights"
MEMBER = "member"
CHECKPOINT = "checkpoint"
PARAMETER = "parameter"
BLOCK = "block"
VALUE = "value"
OFFSET = "offset"
ARCHITECTURE = "architecture"
ARCHITECTURES = "architectures"
SPACES = "spaces"
METRICS = "metrics"
COLUMNS = "columns"
SPLITS = "splits"
MEASURES = "measures"
CHUNKS = "c"
POPULATION = "population"

SEED = "seed"
LINEAGE = "lineage"
DIVERGED = "diverged"
REQUIRED_COLUMNS = (SEED, LINEAGE, DIVERGED)
PARTS = ("train", "validation", "test")
DEFAULT_SPLIT = "default"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

ColumnDtype = Literal["float64", "int64", "category", "bool"]
ColumnRole = Literal["hyperparameter", "result", "identity"]
ColumnScale = Literal["linear", "log", "categorical"]


def located(network: dict[str, Any], location: str) -> dict[str, Any]:
    """Find the file of weights that a network of a zoo names, relative to the zoo's folder."""
    weights = network.get("weights")
    if not weights or "://" in location:
        return network
    return network | {"weights": str(Path(location) / weights)}


def side_file(network: dict[str, Any]) -> str | None:
    """Return the path, relative to the zoo's folder, of a file that a network needs beside it."""
    weights = network.get("weights")
    return weights if weights and not Path(weights).is_absolute() else None


@dataclass(frozen=True, kw_only=True)
class ColumnSpec:
    """One value per member: a hyper-parameter, a result, or who the member is.

    Parameters
    ----------
    name
        Name on disk and in the table.
    dtype
        ``category`` is stored as int8 codes into ``categories``, ``bool`` as int8 0 and 1.
    categories
        The values of a category column, at most 127.
    role
        Hyper-parameters are what the member was made with and what datasets offer as features.
    scale
        How the values spread; a ``log`` column is positive, and models see its decimal logarithm.
    unit
        Unit of the values, empty for plain numbers.
    description
        A sentence for people.

    Raises
    ------
    InvalidConfigError
        If the name cannot be a file name, or categories do not fit the dtype.
    """

    name: str
    dtype: ColumnDtype
    categories: tuple[str, ...] = ()
    role: ColumnRole = "hyperparameter"
    scale: ColumnScale = "linear"
    unit: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        check_name("column", self.name)
        if (self.dtype == "category") != bool(self.categories):
            raise InvalidConfigError(
                f"Expected categories for a category column and none for others, got "
                f"{self.categories} in column {self.name!r} of dtype {self.dtype!r}."
            )
        if len(self.categories) > 127 or len(set(self.categories)) != len(self.categories):
            raise InvalidConfigError(
                f"Expected at most 127 distinct categories in column {self.name!r}, "
                f"got {len(self.categories)}: {', '.join(self.categories[:5])}, ..."
            )


@dataclass(frozen=True, kw_only=True)
class PopulationSpec:
    """What a population is, fixed before its first block is written.

    Parameters
    ----------
    name
        Name of its group; letters, digits, dot, dash and underscore.
    space
        Weight space of every member; or the rows of a ragged population.
    network
        What ``zoo.networks.build`` takes, JSON; fields that all architectures share when ragged.
    network_columns
        Columns whose value overrides the field of the same name in ``network``, member by member.
    problem
        What ``zoo.problems.load`` takes, JSON.
    recipe
        The recipe that makes the population, JSON.
    environment
        Engine, versions, processor; no part of the dataset version.
    num_members
        Members planned.
    checkpoints
        Epochs at which weights are recorded, ascending.
    metrics
        Names of the values recorded at every checkpoint.
    columns
        One value per member each; ``seed``, ``lineage`` and ``diverged`` are among them.
    block_size
        Members per block; 0 takes :func:`default_block_size`, or that of the ragged rows.
    storage
        How weights lie on disk; the hot tier by default.
    sources
        What it was repacked from, the original first; empty when it is an original.

    Raises
    ------
    InvalidConfigError
        If names clash, a required column is absent, or a field is no JSON.
    """

    name: str
    space: WeightSpace | Ragged
    network: dict[str, Any]
    network_columns: tuple[str, ...]
    problem: dict[str, Any]
    recipe: dict[str, Any]
    environment: dict[str, str]
    num_members: int
    checkpoints: tuple[int, ...]
    metrics: tuple[str, ...]
    columns: tuple[ColumnSpec, ...]
    block_size: int = 0
    storage: Storage = TIERS["hot"]
    sources: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        check_name("population", self.name)
        self._check_table()
        self._check_shape()
        for field in ("network", "problem", "recipe", "environment"):
            check_json(field, getattr(self, field))
        if self.block_size == 0:
            object.__setattr__(self, "block_size", self._default_block_size())

    @property
    def weight_space(self) -> WeightSpace:
        """Weight space of every member.

        Raises
        ------
        WeightSpaceMismatchError
            If members have different ones.
        """
        if isinstance(self.space, Ragged):
            raise WeightSpaceMismatchError(
                f"Expected one weight space for all members of population {self.name!r}, got "
                f"{len(self.space.architectures)} architectures. Take its parts from "
                "`population.by_architecture()`, or `population.vectors(...)` for mixed members."
            )
        return self.space

    @property
    def row_length(self) -> int:
        """Numbers in a row of the array ``weights``: of a member, or of a block when ragged."""
        if isinstance(self.space, Ragged):
            return self.space.row_length
        return self.space.num_parameters

    @property
    def num_blocks(self) -> int:
        """Blocks of ``block_size`` members; the last one may be short."""
        return -(-self.num_members // self.block_size)

    def members_of(self, block: int) -> range:
        """Return the member ids of a block."""
        if not 0 <= block < self.num_blocks:
            raise unknown_name("block", block, [f"0 to {self.num_blocks - 1}"])
        start = block * self.block_size
        return range(start, min(start + self.block_size, self.num_members))

    def column(self, name: str) -> ColumnSpec:
        """Return the column called ``name``."""
        for column in self.columns:
            if column.name == name:
                return column
        raise unknown_name("column", name, (column.name for column in self.columns))

    def to_attributes(self) -> dict[str, Any]:
        """Return the attributes of the population's group, plain JSON."""
        apart = ("name", "space", "storage", "sources")
        plain = {field: value for field, value in vars(self).items() if field not in apart}
        plain["columns"] = [asdict(column) for column in self.columns]
        if isinstance(self.space, Ragged):
            plain[ARCHITECTURES] = [asdict(each) for each in self.space.architectures]
            plain["row_length"] = self.space.row_length
        else:
            plain["space"] = json.loads(self.space.to_json())
        plain["space_fingerprint"] = self.space.fingerprint
        if self.storage != TIERS["hot"]:
            plain["storage"] = asdict(self.storage)
        if self.sources:
            plain["sources"] = [asdict(source) for source in self.sources]
        plain = dict(json.loads(json.dumps(plain)))
        return plain | {CHECKSUM: checksum(plain)}

    @classmethod
    def from_attributes(cls, name: str, attributes: dict[str, Any]) -> Self:
        """Restore a spec from the attributes of its group; those it does not know are ignored.

        Raises
        ------
        InvalidConfigError
            If the attributes, or the weight space, are not what was written.
        """
        body = {key: value for key, value in attributes.items() if key != CHECKSUM}
        if attributes.get(CHECKSUM) != checksum(body):
            raise InvalidConfigError(
                f"Expected attributes of checksum {attributes.get(CHECKSUM)} in population "
                f"{name!r}, got {checksum(body)}: they were altered."
            )
        known = {field.name for field in fields(cls)} - {"name"}
        raw = {key: value for key, value in attributes.items() if key in known}
        raw["space"] = _space_from(attributes)
        raw["columns"] = tuple(
            ColumnSpec(**{**column, "categories": tuple(column["categories"])})
            for column in raw["columns"]
        )
        raw["storage"] = Storage(**attributes.get("storage", {}))
        raw["sources"] = tuple(Source(**each) for each in attributes.get("sources", ()))
        for field in ("network_columns", "checkpoints", "metrics"):
            raw[field] = tuple(raw[field])
        spec = cls(name=name, **raw)
        if spec.space.fingerprint != attributes["space_fingerprint"]:
            raise InvalidConfigError(
                f"Expected weight space {attributes['space_fingerprint']} in population {name!r}, "
                f"got {spec.space.fingerprint}: its description was altered."
            )
        return spec

    def _check_table(self) -> None:
        for metric in self.metrics:
            check_name("metric", metric)
        columns = [column.name for column in self.columns]
        names = [MEMBER, POPULATION, *columns, *self.metrics]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidConfigError(
                f"Expected distinct names of columns and metrics in population {self.name!r}, "
                f"got {', '.join(twice)} twice ({MEMBER!r} and {POPULATION!r} are taken)."
            )
        required = [*REQUIRED_COLUMNS, *self.network_columns]
        required += [ARCHITECTURE] if isinstance(self.space, Ragged) else []
        absent = [name for name in required if name not in names]
        if absent:
            raise InvalidConfigError(
                f"Expected columns {', '.join(absent)} in population {self.name!r}, "
                f"got: {', '.join(columns)}."
            )

    def _check_shape(self) -> None:
        ascending = list(self.checkpoints) == sorted(set(self.checkpoints))
        if self.num_members < 1 or self.block_size < 0 or not self.checkpoints or not ascending:
            raise InvalidConfigError(
                f"Expected at least one member and ascending checkpoints in population "
                f"{self.name!r}, got {self.num_members} members, blocks of {self.block_size} and "
                f"checkpoints {self.checkpoints}."
            )
        if isinstance(self.space, Ragged) and self.block_size not in (0, self.space.block_size):
            raise InvalidConfigError(
                f"Expected blocks of {self.space.block_size} members in population {self.name!r}, "
                f"as its rows were planned, got {self.block_size}. Plan the rows again."
            )

    def _default_block_size(self) -> int:
        if isinstance(self.space, Ragged):
            return self.space.block_size
        itemsize = self.storage.itemsize
        return default_block_size(self.num_members, self.row_length, itemsize=itemsize)


def checksum(body: dict[str, Any]) -> str:
    """Return the CRC32C of JSON with sorted keys and no blanks, eight hexadecimal digits.

    >>> checksum({"b": 1, "a": [2]}) == checksum({"a": [2], "b": 1})
    True
    """
    text = json.dumps(body, separators=(",", ":"), sort_keys=True)
    return f"{google_crc32c.value(text.encode()):08x}"


def check_name(kind: str, name: str) -> None:
    """Raise :class:`InvalidConfigError` unless ``name`` can be a file name everywhere."""
    if not _NAME.fullmatch(name):
        raise InvalidConfigError(
            f"Expected a {kind} name of letters, digits, '.', '_' and '-' that starts with a "
            f"letter or digit, got {name!r}."
        )


def _space_from(attributes: dict[str, Any]) -> WeightSpace | Ragged:
    if ARCHITECTURES not in attributes:
        return WeightSpace.from_json(json.dumps(attributes["space"]))
    return Ragged(
        architectures=tuple(Architecture(**each) for each in attributes[ARCHITECTURES]),
        block_size=attributes["block_size"],
        row_length=attributes["row_length"],
    )


ARCHITECTURE_COLUMN = ColumnSpec(
    name=ARCHITECTURE,
    dtype="int64",
    role="identity",
    description="position in the population's list of architectures",
)
