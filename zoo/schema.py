"""Every name on disk, and what a population declares about itself; ``FORMAT.md`` is the prose.

A :class:`PopulationSpec` is what the first writer states before any network is trained; it becomes
the attributes of the population's Zarr group and is read back equal.
"""

import json
import re
from dataclasses import asdict, dataclass
from math import log2
from typing import Any, Literal, Self

from zoo.errors import InvalidConfigError, unknown_name
from zoo.space import WeightSpace

FORMAT = "weight-zoo"
FORMAT_VERSION = "1"
FORMAT_KEY = "format"
VERSION_KEY = "format_version"

POPULATIONS = "populations"
LEDGER = "_ledger"
TABLE = "table.parquet"
WEIGHTS = "weights"
MEMBER = "member"
CHECKPOINT = "checkpoint"
PARAMETER = "parameter"
METRICS = "metrics"
COLUMNS = "columns"
SPLITS = "splits"
CHUNKS = "c"
POPULATION = "population"

SEED = "seed"
LINEAGE = "lineage"
DIVERGED = "diverged"
REQUIRED_COLUMNS = (SEED, LINEAGE, DIVERGED)
PARTS = ("train", "validation", "test")
DEFAULT_SPLIT = "default"

CHUNK_BYTES = 4 * 2**20
MIN_BLOCK, MAX_BLOCK = 16, 4096
BLOCKS_WANTED = 8

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

ColumnDtype = Literal["float64", "int64", "category", "bool"]
ColumnRole = Literal["hyperparameter", "result", "identity"]
ColumnScale = Literal["linear", "log", "categorical"]


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
        Weight space of every member.
    network
        What ``zoo.networks.build`` takes, JSON.
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
        Members per block; 0 takes :func:`default_block_size`.

    Raises
    ------
    InvalidConfigError
        If names clash, a required column is absent, or a field is no JSON.
    """

    name: str
    space: WeightSpace
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

    def __post_init__(self) -> None:
        check_name("population", self.name)
        self._check_table()
        self._check_shape()
        for field in ("network", "problem", "recipe", "environment"):
            _check_json(field, getattr(self, field))
        if self.block_size == 0:
            size = default_block_size(self.num_members, self.space.num_parameters)
            object.__setattr__(self, "block_size", size)

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
        plain = {
            field: value for field, value in vars(self).items() if field not in ("name", "space")
        }
        plain["columns"] = [asdict(column) for column in self.columns]
        plain["space"] = json.loads(self.space.to_json())
        plain["space_fingerprint"] = self.space.fingerprint
        return dict(json.loads(json.dumps(plain)))

    @classmethod
    def from_attributes(cls, name: str, attributes: dict[str, Any]) -> Self:
        """Restore a spec from the attributes of its group.

        Raises
        ------
        InvalidConfigError
            If the weight space is not the one that was written.
        """
        raw = {key: value for key, value in attributes.items() if key != "space_fingerprint"}
        raw["space"] = WeightSpace.from_json(json.dumps(raw["space"]))
        raw["columns"] = tuple(
            ColumnSpec(**{**column, "categories": tuple(column["categories"])})
            for column in raw["columns"]
        )
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
        absent = [name for name in (*REQUIRED_COLUMNS, *self.network_columns) if name not in names]
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


def default_block_size(num_members: int, num_parameters: int, *, itemsize: int = 4) -> int:
    """Return the members per block: chunks of about 4 MiB, yet at least eight blocks to share out.

    A power of two in 16 ... 4096.

    >>> default_block_size(10_000, 5_018), default_block_size(512, 5_018)
    (256, 64)
    """
    ideal = 2 ** round(log2(CHUNK_BYTES / (itemsize * max(num_parameters, 1))))
    shared = 2 ** int(log2(max(num_members / BLOCKS_WANTED, 1)))
    return int(min(max(ideal, MIN_BLOCK), MAX_BLOCK, max(MIN_BLOCK, shared)))


def check_name(kind: str, name: str) -> None:
    """Raise :class:`InvalidConfigError` unless ``name`` can be a file name everywhere."""
    if not _NAME.fullmatch(name):
        raise InvalidConfigError(
            f"Expected a {kind} name of letters, digits, '.', '_' and '-' that starts with a "
            f"letter or digit, got {name!r}."
        )


def _check_json(field: str, value: object) -> None:
    try:
        same = json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError) as error:
        raise InvalidConfigError(
            f"Expected {field} to be plain JSON without NaN or infinity: {error}."
        ) from error
    if not same:
        raise InvalidConfigError(
            f"Expected {field} to be plain JSON that reads back equal (lists, not tuples; string "
            f"keys), got {value!r}."
        )
