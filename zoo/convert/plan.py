"""Which populations the networks of a source make: grouped by architecture, in a fixed order."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.convert.blueprint import Blueprint, of_network, unknown
from zoo.convert.matching import Matching, MatchingError, match
from zoo.convert.source import Entry, Skipped, Source
from zoo.errors import InvalidConfigError

_LISTED = 5
_REASONS = 3


@dataclass(frozen=True, kw_only=True)
class Member:
    """An entry, what network it is, and how its tensors' names translate into that network's."""

    entry: Entry
    blueprint: Blueprint
    matching: Matching


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One population to be written.

    Parameters
    ----------
    name
        Of the population.
    blueprints
        Of the members: one, unless the population is ragged.
    epochs
        Checkpoints; every member has them.
    members
        In the order of the source.
    reason
        Why architectures are unknown, where one is.
    """

    name: str
    blueprints: tuple[Blueprint, ...]
    epochs: tuple[int, ...]
    members: tuple[Member, ...]
    reason: str = ""

    @property
    def is_ragged(self) -> bool:
        """Whether members have different architectures."""
        return len(self.blueprints) > 1


def make_plans(
    source: Source,
    entries: Sequence[Entry],
    *,
    name: str,
    blueprints: Sequence[Blueprint],
    ragged: bool = False,
) -> tuple[list[Plan], list[Skipped]]:
    """Group entries into populations.

    An entry belongs to the network that its source names, else to the first of ``blueprints``
    that its tensors match, else to a population of unknown architecture with its own names and
    shapes. Populations are ordered by size, then by their first member.

    Parameters
    ----------
    source
        Where the entries come from.
    entries
        In the order of the scan.
    name
        Name of the population; several get ``name-1``, ``name-2``, ...
    blueprints
        What entries may be that do not know their own network.
    ragged
        Make one population of all architectures instead.

    Returns
    -------
    tuple
        The plans, and entries left out: their tensors are not their network's, or they lack a
        checkpoint that most others have.
    """
    skipped: list[Skipped] = []
    groups: dict[Any, list[Member]] = {}
    everyone: list[Member] = []
    traced = _Traced(source, entries)
    for entry in entries:
        try:
            key, blueprint, matching = _home(entry, traced, blueprints)
        except MatchingError as error:
            skipped.append(Skipped(entry.name, f"its tensors are not its network's: {error}"))
            continue
        group = groups.setdefault(key, [])
        # one blueprint for all of a group, so that they are told apart by identity
        own = group[0].blueprint if group else blueprint
        everyone.append(Member(entry=entry, blueprint=own, matching=matching))
        group.append(everyone[-1])
    ordered = sorted(groups.values(), key=lambda members: -len(members))
    populations = [everyone] if ragged and everyone else ordered
    plans = []
    for number, members in enumerate(populations, 1):
        epochs = _common_epochs([member.entry for member in members])
        kept = [each for each in members if _has(each.entry, epochs)]
        skipped += [_lacks(each.entry, epochs) for each in members if not _has(each.entry, epochs)]
        present = tuple({id(each.blueprint): each.blueprint for each in kept}.values())
        plans.append(
            Plan(
                name=name if len(populations) == 1 else f"{name}-{number}",
                blueprints=present,
                epochs=epochs,
                members=tuple(kept),
                reason=next(filter(None, (_why_unknown(each, blueprints) for each in present)), ""),
            )
        )
    return plans, skipped


class _Traced:
    """Architectures of the networks that a source names, each traced once."""

    def __init__(self, source: Source, entries: Sequence[Entry]) -> None:
        self._free = set(source.network_columns)
        self._variants: dict[str, dict[str, dict[str, Any]]] = {}
        for entry in entries:
            if entry.network is not None:
                variants = self._variants.setdefault(self.key(entry.network), {})
                variants.setdefault(self._worded(entry.network), entry.network)
        self._known: dict[str, Blueprint] = {}

    def key(self, network: Mapping[str, Any]) -> str:
        fixed = {name: value for name, value in network.items() if name not in self._free}
        return json.dumps(fixed, sort_keys=True)

    def of(self, network: Mapping[str, Any]) -> Blueprint:
        key = self.key(network)
        if key not in self._known:
            first, *others = self._variants[key].values()
            self._known[key] = of_network(first, variants=others)
        return self._known[key]

    def _worded(self, network: Mapping[str, Any]) -> str:
        """Tell variants apart by words, such as activations: numbers do not change a space."""
        words = {name: value for name, value in network.items() if isinstance(value, str)}
        return json.dumps(words, sort_keys=True)


def _home(
    entry: Entry, traced: _Traced, blueprints: Sequence[Blueprint]
) -> tuple[Any, Blueprint, Matching]:
    """Find where an entry belongs: a key that its population shares, and the translation."""
    if entry.network is not None:
        own = traced.of(entry.network)
        return traced.key(entry.network), own, match(entry.shapes, own.shapes)
    for position, candidate in enumerate(blueprints):
        try:
            return position, candidate, match(entry.shapes, candidate.shapes)
        except MatchingError:
            continue
    bare = unknown(entry.shapes)
    return entry.shapes, bare, match(entry.shapes, bare.shapes)


def _why_unknown(bare: Blueprint, blueprints: Sequence[Blueprint]) -> str:
    """Say why tensors are those of none of the networks; empty where the network is known."""
    if bare.is_known:
        return ""
    reasons = []
    for each in blueprints:
        try:
            match(bare.shapes, each.shapes)
        except MatchingError as error:
            reasons.append(f"not {each.network['name']}: {error}")
    distinct = list(dict.fromkeys(reasons))
    return "; ".join(distinct[:_REASONS] + (["..."] if len(distinct) > _REASONS else []))


def _common_epochs(entries: Sequence[Entry]) -> tuple[int, ...]:
    """Choose the checkpoints that most entries have; of two such sets the larger."""
    counts = Counter(entry.epochs for entry in entries)
    having = {
        epochs: sum(n for other, n in counts.items() if set(epochs) <= set(other))
        for epochs in counts
    }
    most = max(counts.values())
    usual = [epochs for epochs, count in counts.items() if count == most]
    return max(usual, key=lambda epochs: (having[epochs], len(epochs), [-e for e in epochs]))


def _has(entry: Entry, epochs: Sequence[int]) -> bool:
    return set(epochs) <= set(entry.epochs)


def _lacks(entry: Entry, epochs: Sequence[int]) -> Skipped:
    lacking = [epoch for epoch in epochs if epoch not in entry.epochs]
    named = ", ".join(map(str, lacking[:_LISTED])) + (", ..." if len(lacking) > _LISTED else "")
    return Skipped(entry.name, f"lacks {len(lacking)} of {len(epochs)} checkpoints: epochs {named}")


def check_unique(entries: Sequence[Entry]) -> None:
    """Raise :class:`InvalidConfigError` if two entries have one name."""
    twice = [name for name, count in Counter(e.name for e in entries).items() if count > 1]
    if twice:
        raise InvalidConfigError(
            f"Expected a name of its own for every network of the source, got {twice[0]!r} twice."
        )
