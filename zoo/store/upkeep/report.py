"""What checking a zoo finds, for people and for :mod:`zoo.store.upkeep.repair`."""

from dataclasses import dataclass
from pathlib import Path

NO_BLOCK = -1


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One chunk file, or ledger entry, that cannot be trusted.

    Parameters
    ----------
    population, array, chunk
        Where it is; ``chunk`` is the path below the population. The array of a ledger entry is
        called ``ledger``.
    block
        Whose chunk it is; -1 for the weight spaces of a ragged population.
    members, epochs
        Whose values it holds; no epochs for values that are recorded once.
    reason
        What is wrong.
    """

    population: str
    array: str
    chunk: str
    block: int
    members: tuple[int, ...]
    epochs: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        epochs = f", epochs {', '.join(map(str, self.epochs))}" if self.epochs else ""
        members = f"members {self.members[0]} to {self.members[-1]}" if self.members else "members"
        return f"{self.population}/{self.chunk}: {self.reason} ({members}{epochs})"


@dataclass(frozen=True, kw_only=True)
class PopulationReport:
    """What was found in one population.

    Parameters
    ----------
    name
        Its name.
    epochs
        Its checkpoints.
    blocks_committed, blocks_planned
        How far it is.
    missing_members
        Ids of the members whose blocks are not committed.
    num_bytes
        Bytes of chunk files that were read and checked.
    damaged
        Chunks and ledger entries that cannot be trusted.
    orphans
        Files no ledger entry speaks of, left by a killed writer; harmless.
    splits
        Splits that are not what was frozen, each with the reason.
    not_finite
        ``(member, epoch)`` of weights with NaN or infinity, of members not marked as diverged.
    faults
        What is wrong with its metadata, its checkpoint axis or a ledger as a whole.
    measures
        Chunks and ledger entries of measures that cannot be trusted; to be measured again.
    """

    name: str
    epochs: tuple[int, ...]
    blocks_committed: int
    blocks_planned: int
    missing_members: tuple[int, ...]
    num_bytes: int
    damaged: tuple[Damage, ...]
    orphans: tuple[Path, ...]
    splits: tuple[tuple[str, str], ...]
    not_finite: tuple[tuple[int, int], ...]
    faults: tuple[str, ...] = ()
    measures: tuple[Damage, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything committed can be trusted."""
        bad = (self.damaged, self.splits, self.not_finite, self.faults, self.measures)
        return not any(bad)

    @property
    def lost_cells(self) -> tuple[tuple[int, int], ...]:
        """Every ``(member, epoch)`` of which something committed cannot be trusted, ascending."""
        cells = {
            (member, epoch)
            for damage in self.damaged
            for member in damage.members
            for epoch in damage.epochs or self.epochs
        }
        return tuple(sorted(cells))


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What was found in a zoo.

    Parameters
    ----------
    path
        The zoo: its path or URL.
    populations
        One report each.
    unreadable
        Populations whose attributes cannot be read, each with the reason.
    faults
        What is wrong with the metadata of the zoo itself.
    orphans
        What killed writers left beside the populations; harmless.
    is_table_stale
        Whether ``table.parquet`` is there and differs from the arrays; it is derived.
    """

    path: str
    populations: tuple[PopulationReport, ...]
    unreadable: tuple[tuple[str, str], ...] = ()
    faults: tuple[str, ...] = ()
    orphans: tuple[Path, ...] = ()
    is_table_stale: bool = False

    @property
    def ok(self) -> bool:
        """Whether everything committed can be trusted; missing blocks and orphans are no damage."""
        sound = all(population.ok for population in self.populations)
        return sound and not (self.unreadable or self.faults)

    @property
    def damaged(self) -> tuple[Damage, ...]:
        """Damaged chunks of all populations, those of measures included."""
        return tuple(
            damage
            for population in self.populations
            for damage in (*population.damaged, *population.measures)
        )

    @property
    def num_bytes(self) -> int:
        """Bytes checked."""
        return sum(population.num_bytes for population in self.populations)


def cells_text(cells: tuple[tuple[int, int], ...]) -> list[str]:
    """Describe cells for people, losing none.

    >>> cells_text(((3, 0), (3, 5), (4, 0), (4, 5), (9, 5)))
    ['members 3 to 4 at epochs 0, 5', 'member 9 at epoch 5']
    """
    epochs_of: dict[int, list[int]] = {}
    for member, epoch in cells:
        epochs_of.setdefault(member, []).append(epoch)
    runs: list[tuple[int, int, list[int]]] = []
    for member, epochs in epochs_of.items():
        if runs and runs[-1][1] == member - 1 and runs[-1][2] == epochs:
            runs[-1] = (runs[-1][0], member, epochs)
        else:
            runs.append((member, member, epochs))
    return [_run_text(first, last, epochs) for first, last, epochs in runs]


def _run_text(first: int, last: int, epochs: list[int]) -> str:
    members = f"member {first}" if first == last else f"members {first} to {last}"
    named = ", ".join(map(str, epochs))
    return f"{members} at epoch{'s' if len(epochs) > 1 else ''} {named}"
