"""What was measured of a population after the fact, and how: written beside every number of it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from zoo.errors import InvalidConfigError
from zoo.layout import check_json
from zoo.schema import CHECKPOINT, CHECKSUM, MEMBER, PopulationSpec, check_name, checksum

Kind = Literal["number", "member", "category", "mask", "partners"]
"""``number``: float32 per member and checkpoint. ``member``: float64, ``category``: int8 code, per
member. ``mask``: ``width`` bytes of bits per member and checkpoint. ``partners``: ``width`` ids of
other members, int64, per member."""

MEASURE = "measure"
_DTYPES = {
    "number": "float32",
    "member": "float64",
    "category": "int8",
    "mask": "uint8",
    "partners": "int64",
}


@dataclass(frozen=True, kw_only=True)
class Output:
    """One array of a measure.

    Parameters
    ----------
    name
        Name on disk, in tables and in conditions.
    kind
        What is in it, see :data:`Kind`.
    unit, description
        For people.
    categories
        Names of the codes of a category.
    width
        Last axis of a mask, in bytes, or of partners.
    """

    name: str
    kind: Kind = "number"
    unit: str = ""
    description: str = ""
    categories: tuple[str, ...] = ()
    width: int = 0

    def __post_init__(self) -> None:
        check_name("measure", self.name)
        if (self.kind in ("mask", "partners")) != (self.width > 0):
            raise InvalidConfigError(
                f"Expected a width exactly of masks and partners, got {self.width} for "
                f"{self.kind} {self.name!r}."
            )

    @property
    def dtype(self) -> str:
        """Name of its number type."""
        return _DTYPES[self.kind]

    @property
    def has_checkpoints(self) -> bool:
        """Whether its second axis is the checkpoint."""
        return self.kind in ("number", "mask")

    @property
    def is_column(self) -> bool:
        """Whether it is one value per member, as a column is."""
        return self.kind in ("member", "category")

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of its axes."""
        middle = (CHECKPOINT,) if self.has_checkpoints else ()
        return (MEMBER, *middle, *((f"{self.name}_{self.kind}",) if self.width else ()))

    def shape(self, spec: PopulationSpec, num_members: int) -> tuple[int, ...]:
        """Return its shape for some members of a population."""
        middle = (len(spec.checkpoints),) if self.has_checkpoints else ()
        return (num_members, *middle, *((self.width,) if self.width else ()))

    def chunks(self, spec: PopulationSpec) -> tuple[int, ...]:
        """Return the shape of its chunks: all of a block, or a checkpoint of its masks."""
        size = self.shape(spec, spec.block_size)
        return (size[0], 1, size[2]) if self.kind == "mask" else size


@dataclass(frozen=True, kw_only=True)
class MeasureSpec:
    """A measure as it is stored: which one, of what, on which samples.

    Parameters
    ----------
    name
        Name it is stored under: that of the measure, and a suffix where one was given.
    measure, code
        Name of the measure, and the version of the code that defines it.
    settings
        The measure's own settings.
    samples
        What it was measured on: problem, its hash, number of samples, seed. Empty where a measure
        looks at weights alone.
    checkpoints
        Epochs at which members were measured.
    where
        Condition that kept the members which were measured; empty for all.
    outputs
        Its arrays.

    Raises
    ------
    InvalidConfigError
        If a field is no JSON, or a name can be no file.
    """

    name: str
    measure: str
    code: int
    settings: dict[str, Any]
    samples: dict[str, Any]
    checkpoints: tuple[int, ...]
    where: str = ""
    outputs: tuple[Output, ...]

    def __post_init__(self) -> None:
        check_name("measure", self.name)
        check_json("settings", self.settings)
        check_json("samples", self.samples)

    def output(self, name: str) -> Output:
        """Return one of its outputs, which exists."""
        return next(output for output in self.outputs if output.name == name)

    @property
    def how(self) -> tuple[str, int, str]:
        """What two measures must agree in for their numbers to be compared."""
        samples = {key: self.samples[key] for key in ("samples", "seed") if key in self.samples}
        return self.measure, self.code, json.dumps([self.settings, samples], sort_keys=True)

    def attributes(self, output: Output) -> dict[str, Any]:
        """Return the attributes of one of its arrays, plain JSON, after the CF conventions."""
        found: dict[str, Any] = {}
        if output.unit:
            found["units"] = output.unit
        if output.description:
            found["long_name"] = output.description
        if output.categories:
            found["flag_values"] = list(range(len(output.categories)))
            found["flag_meanings"] = " ".join("_".join(c.split()) for c in output.categories)
            found["categories"] = list(output.categories)
        plain = dict(json.loads(json.dumps(asdict(self))))
        return found | {MEASURE: plain | {CHECKSUM: checksum(plain)}}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """Restore what :meth:`attributes` wrote.

        Raises
        ------
        ValueError
            If it was altered.
        """
        raw = dict(attributes[MEASURE])
        if raw.pop(CHECKSUM) != checksum(raw):
            raise ValueError("its checksum does not fit its attributes")
        outputs = tuple(
            Output(**{**each, "categories": tuple(each["categories"])})
            for each in raw.pop("outputs")
        )
        return cls(**{**raw, "checkpoints": tuple(raw["checkpoints"])}, outputs=outputs)

    def differences(self, other: "MeasureSpec") -> str:
        """Say in which settings another measure of this name differs, for people."""
        pairs = [*_flat(self), *(key for key in _flat(other) if key not in _flat(self))]
        one, two = _flat(self), _flat(other)
        return "; ".join(
            f"{key} {one.get(key, 'none')} is stored, {two.get(key, 'none')} was asked for"
            for key in pairs
            if one.get(key) != two.get(key)
        )

    def with_suffix(self, suffix: str) -> "MeasureSpec":
        """Return it under other names, of the measure and of every output."""
        outputs = tuple(replace(each, name=each.name + suffix) for each in self.outputs)
        return replace(self, name=self.name + suffix, outputs=outputs)


def _flat(spec: MeasureSpec) -> dict[str, Any]:
    """Return every setting by the name people know."""
    return {
        "measure": spec.measure,
        "version of its code": spec.code,
        **spec.settings,
        **spec.samples,
        "checkpoints": list(spec.checkpoints),
        "members where": spec.where or "all",
        "outputs": ", ".join(f"{o.name} ({o.kind}{o.width or ''})" for o in spec.outputs),
    }
