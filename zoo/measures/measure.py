"""What a measure is: a function from some members to numbers, with what it needs and gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np

from zoo.errors import InvalidConfigError, unknown_name
from zoo.measured import Output
from zoo.measures.networks import Networks, Samples

Needs = Literal["weights", "samples", "shared", "classes", "stored"]
"""What a measure looks at: weights alone; samples of the problem too; those of a problem whose
targets all members share; of one with classes; or only what is stored of members already."""
Values = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """Some members of a population at one checkpoint, for a measure to look at.

    Parameters
    ----------
    members
        Their ids ``[n]``.
    epoch
        Epoch of the checkpoint.
    seeds
        For each a source of random numbers ``[n]``, of its own and of the checkpoint.
    networks
        The members; ``None`` where a measure looks at what is stored.
    train, test
        Samples, where the measure needs them; ``test`` is ``None`` where the problem has none.
    partners
        Other members to compare with, one for each: NaN weights where there is none.
    known
        What is stored of the members: metrics and measures by name, ``[n]`` each.
    """

    members: np.ndarray
    epoch: int
    seeds: np.ndarray
    networks: Networks | None = field(default=None, repr=False)
    train: Samples | None = None
    test: Samples | None = None
    partners: tuple[Networks, ...] = ()
    known: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def own(self) -> Networks:
        """The members, for a measure that looks at them."""
        assert self.networks is not None, "a measure of what is stored looks at no network"
        return self.networks

    @property
    def samples(self) -> Samples:
        """The training samples, for a measure that needs samples."""
        assert self.train is not None, "a measure of weights looks at no samples"
        return self.train


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One thing that can be measured of members after the fact.

    Parameters
    ----------
    name
        Name in commands and on disk.
    description
        A sentence for people.
    code
        Version of the code that defines the numbers; raised whenever they change.
    outputs
        What it gives. The width of masks and partners is that of one sample and one partner here.
    settings
        Its default settings, a frozen dataclass.
    function
        From a batch and settings to an array per output, its first axis ``[n]``.
    needs
        What it looks at.
    after
        Names of metrics and measures that must be stored first; ``a|b`` takes the first that is.
    prepare
        Completes the settings by what ``after`` names, of all members that are measured ``[n]``.
    """

    name: str
    description: str
    outputs: tuple[Output, ...]
    settings: Any
    function: Callable[[Batch, Any], Values]
    code: int = 1
    needs: Needs = "samples"
    after: tuple[str, ...] = ()
    prepare: Callable[[Mapping[str, np.ndarray], Any], Any] | None = None

    @property
    def has_partners(self) -> bool:
        """Whether each member is compared with others."""
        return any(output.kind == "partners" for output in self.outputs)

    def configured(self, changes: Mapping[str, Any]) -> Any:
        """Return the settings with some of them changed.

        Raises
        ------
        UnknownNameError
            If there is no such setting.
        InvalidConfigError
            If a value is none that the settings take.
        """
        known = [each.name for each in fields(self.settings)]
        for name in changes:
            if name not in known:
                raise unknown_name(f"setting of measure {self.name!r}", name, known)
        try:
            return replace(self.settings, **changes)
        except (TypeError, ValueError) as error:
            raise InvalidConfigError(f"Settings of measure {self.name!r}: {error}") from error

    def sized(self, settings: Any, *, train: int, test: int) -> tuple[Output, ...]:
        """Return the outputs for numbers of samples: a bit of a mask for each."""
        bits = {"train": train, "test": test}
        return tuple(
            replace(output, width=settings.num_partners)
            if output.kind == "partners"
            else replace(output, width=max(-(-bits[output.name.rpartition("_")[2]] // 8), 1))
            if output.kind == "mask"
            else output
            for output in self.outputs
        )
