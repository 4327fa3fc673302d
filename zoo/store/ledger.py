"""The ledger: one small file per committed block, which alone decides whether its cells exist."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c

from zoo.errors import DamagedChunkError, StoreError
from zoo.schema import LEDGER
from zoo.store.arrays import sync_directory
from zoo.store.chunks import ChunkRecord, write_temporary


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """What one committed block wrote.

    Parameters
    ----------
    population, block
        Whose block it is, and its number.
    start, stop
        Members ``start`` up to, not including, ``stop``.
    chunks
        Per chunk path below the population, its size and checksum.
    """

    population: str
    block: int
    start: int
    stop: int
    chunks: dict[str, ChunkRecord]

    def to_json(self) -> str:
        """Serialise with a checksum of its own; equal entries give equal bytes."""
        body: dict[str, Any] = {
            "block": self.block,
            "chunks": {
                key: [record.num_bytes, f"{record.crc32c:08x}"]
                for key, record in sorted(self.chunks.items())
            },
            "members": [self.start, self.stop],
            "population": self.population,
        }
        return json.dumps(body | {"crc32c": _checksum(body)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "LedgerEntry":
        """Restore an entry; raises ``ValueError`` when it was altered."""
        body = json.loads(text)
        if body.pop("crc32c") != _checksum(body):
            raise ValueError("its checksum does not fit its text")
        return cls(
            population=body["population"],
            block=body["block"],
            start=body["members"][0],
            stop=body["members"][1],
            chunks={
                key: ChunkRecord(size, int(crc, 16)) for key, (size, crc) in body["chunks"].items()
            },
        )


@dataclass
class Ledger:
    """The committed blocks of one population.

    Parameters
    ----------
    root
        The zoo.
    population
        Name of the population.
    """

    root: Path
    population: str
    _entries: dict[int, LedgerEntry] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> Path:
        """Where the entries lie."""
        return self.root / LEDGER / self.population

    def path(self, block: int) -> Path:
        """Return where a block's entry lies."""
        return self.folder / f"{block:06d}.json"

    def committed(self) -> set[int]:
        """Return the numbers of the blocks committed by now."""
        if not self.folder.is_dir():
            return set()
        return {int(entry.stem) for entry in self.folder.glob("[0-9]*.json")}

    def entry(self, block: int) -> LedgerEntry:
        """Return a committed block's entry.

        Raises
        ------
        StoreError
            If the block is not committed.
        DamagedChunkError
            If its entry cannot be trusted.
        """
        if block not in self._entries:
            self._entries[block] = self._read(block)
        return self._entries[block]

    def publish(self, entry: LedgerEntry) -> None:
        """Commit a block whose chunk files are in place.

        Raises
        ------
        StoreError
            If the block was committed meanwhile with other bytes.
        """
        path = self.path(entry.block)
        temporary = write_temporary(path, entry.to_json().encode())
        try:
            os.link(temporary, path)
        except FileExistsError:
            self.refuse_other(entry)
        finally:
            temporary.unlink()
        sync_directory(path.parent)

    def refuse_other(self, entry: LedgerEntry) -> None:
        """Raise :class:`StoreError` unless the committed block equals ``entry``."""
        if self.entry(entry.block) != entry:
            raise StoreError(
                f"Block {entry.block} (members {entry.start} to {entry.stop - 1}) of population "
                f"{self.population!r} in {self.root} is already committed with other numbers. "
                "Committed blocks never change; write a new population instead."
            )

    def _read(self, block: int) -> LedgerEntry:
        path = self.path(block)
        try:
            entry = LedgerEntry.from_json(path.read_text())
        except FileNotFoundError as error:
            raise StoreError(
                f"Block {block} of population {self.population!r} in {self.root} is not committed: "
                f"its members were never finished. Resume the run that makes the population."
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedChunkError(
                f"Ledger entry {path} of population {self.population!r} is damaged ({error}): "
                f"nothing of block {block} can be trusted. Run `zoo check {self.root}`."
            ) from error
        if (entry.population, entry.block) != (self.population, block):
            raise DamagedChunkError(
                f"Ledger entry {path} speaks of block {entry.block} of population "
                f"{entry.population!r}: it was moved. Run `zoo check {self.root}`."
            )
        return entry


def _checksum(body: dict[str, Any]) -> str:
    text = json.dumps(body, separators=(",", ":"), sort_keys=True)
    return f"{google_crc32c.value(text.encode()):08x}"
