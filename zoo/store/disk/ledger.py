"""The ledger: one entry per committed block, which alone decides whether its cells exist.

A writer commits a block by one small file; the coordinator gathers such files into one, a line per
block. Readers take the union.
"""

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import DamagedChunkError, StoreError
from zoo.schema import CHECKSUM, LEDGER, checksum
from zoo.store.disk.arrays import sync_directory
from zoo.store.disk.chunks import ChunkRecord, replace_file, write_temporary
from zoo.store.disk.gathered import Gathered
from zoo.store.disk.place import Place, place_of

_ENTRY = re.compile(r"(\d{6,})\.json")


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
    of
        Of a measure's block: the checksum of the entry of the block whose weights were measured.
    """

    population: str
    block: int
    start: int
    stop: int
    chunks: dict[str, ChunkRecord]
    of: str = ""

    @property
    def crc32c(self) -> str:
        """Checksum of the entry, eight hexadecimal digits."""
        return str(self._body()[CHECKSUM])

    def to_json(self) -> str:
        """Serialise with a checksum of its own; equal entries give equal bytes."""
        return json.dumps(self._body(), indent=1, sort_keys=True) + "\n"

    def to_line(self) -> str:
        """Serialise as one line; the same content and checksum as :meth:`to_json`."""
        return json.dumps(self._body(), separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> "LedgerEntry":
        """Restore an entry; raises ``ValueError`` when it was altered."""
        body = json.loads(text)
        if body.pop(CHECKSUM) != checksum(body):
            raise ValueError("its checksum does not fit its text")
        return cls._of(body)

    @classmethod
    def from_sound_line(cls, line: bytes) -> "LedgerEntry":
        """Restore an entry from a line whose checksum was found to fit."""
        return cls._of(json.loads(line))

    @classmethod
    def _of(cls, body: dict[str, Any]) -> "LedgerEntry":
        return cls(
            population=body["population"],
            block=body["block"],
            start=body["members"][0],
            stop=body["members"][1],
            chunks={
                key: ChunkRecord(size, int(crc, 16)) for key, (size, crc) in body["chunks"].items()
            },
            of=body.get("of", ""),
        )

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "block": self.block,
            "chunks": {
                key: [record.num_bytes, f"{record.crc32c:08x}"]
                for key, record in sorted(self.chunks.items())
            },
            "members": [self.start, self.stop],
            "population": self.population,
            **({"of": self.of} if self.of else {}),
        }
        return body | {CHECKSUM: checksum(body)}


class Ledger:
    """The committed blocks of one population.

    Parameters
    ----------
    root
        The zoo.
    population
        Name of the population; of a measure ``<population>/measures/<measure>``.
    """

    def __init__(self, root: Path | Place, population: str) -> None:
        self.place = place_of(root) / LEDGER
        self.root = str(root)
        self.population = population
        self._entries: dict[int, LedgerEntry] = {}
        self._single: set[int] = set()
        self._gathered = Gathered.none()
        self._signature: object = None

    @property
    def folder(self) -> Path:
        """Where single entries lie, in a local zoo."""
        assert self.place.local is not None, "remote zoos are only read"
        return self.place.local / self.population

    @property
    def gathered_path(self) -> Path:
        """Where gathered entries lie, in a local zoo."""
        assert self.place.local is not None, "remote zoos are only read"
        return self.place.local / f"{self.population}.jsonl"

    def path(self, block: int) -> Path:
        """Return where a block's single entry lies, in a local zoo."""
        return self.folder / f"{block:06d}.json"

    def committed(self) -> set[int]:
        """Return the numbers of the blocks committed by now."""
        # Single entries first: one that is gathered meanwhile is then found among the gathered.
        names = self.place.names(self.population)
        self._single = {int(found[1]) for name in names if (found := _ENTRY.fullmatch(name))}
        self._read_gathered()
        return self._single | self._gathered.blocks

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

    def copies(self, block: int) -> dict[str, "LedgerEntry | Exception"]:
        """Return where a block's entry stands, and what stands there: an entry, or a reason."""
        found: dict[str, LedgerEntry | Exception] = {}
        if block in self._single:
            key = f"{self.population}/{block:06d}.json"
            try:
                found[key] = self._own(LedgerEntry.from_json(self.place.read(key)), block)
            except FileNotFoundError:
                self.committed()  # gathered since we looked
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                found[key] = error
        if block in self._gathered.blocks:
            key = f"{self.population}.jsonl"
            try:
                line = self._gathered.line(block)
                found[key] = self._own(LedgerEntry.from_sound_line(line), block)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                found[key] = error
        return found

    def gathered_faults(self) -> list[str]:
        """Say what is wrong with the gathered ledger as a whole, beside its blocks' lines."""
        return list(self._gathered.faults)

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
            self.committed()
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

    def compact(self) -> None:
        """Gather all entries into one file, durably, then remove the single ones.

        Raises
        ------
        DamagedChunkError
            If an entry cannot be trusted.
        """
        entries = [self.entry(block) for block in sorted(self.committed())]
        if self._single or self._gathered.faults:
            self.replace({entry.block: entry.to_line() for entry in entries})

    def replace(self, lines: dict[int, str]) -> None:
        """Put lines by block in the place of all entries."""
        if lines:
            replace_file(self.gathered_path, Gathered.to_bytes(self.population, lines))
        else:
            self.gathered_path.unlink(missing_ok=True)
        for block in self._single:
            self.path(block).unlink(missing_ok=True)
        if self.folder.is_dir():
            sync_directory(self.folder)
            with suppress(OSError):  # somebody is at work in it
                self.folder.rmdir()
        self._entries.clear()
        self.committed()

    def _read_gathered(self) -> None:
        """Read the gathered entries unless the file is the one read before."""
        local = self.place.local
        try:
            if local is not None:
                status = (local / f"{self.population}.jsonl").stat()
                signature: object = (status.st_ino, status.st_mtime_ns, status.st_size)
            else:
                signature = "remote"
            if signature != self._signature:
                data = self.place.read(f"{self.population}.jsonl")
                self._gathered = Gathered.from_bytes(self.population, data)
                self._signature = signature
        except FileNotFoundError:
            self._gathered, self._signature = Gathered.none(), None

    def _read(self, block: int) -> LedgerEntry:
        copies = self.copies(block)
        if not copies:
            self.committed()
            copies = self.copies(block)
        if not copies:
            raise StoreError(
                f"Block {block} of population {self.population!r} in {self.root} is not committed: "
                f"its members were never finished. Resume the run that makes the population."
            )
        for key, entry in copies.items():
            if isinstance(entry, Exception):
                raise self._damaged(key, block, str(entry)) from entry
        first, *others = (entry for entry in copies.values() if isinstance(entry, LedgerEntry))
        if any(other != first for other in others):
            raise self._damaged(" and ".join(copies), block, "they differ")
        return first

    def _own(self, entry: LedgerEntry, block: int) -> LedgerEntry:
        if (entry.population, entry.block) != (self.population, block):
            raise ValueError(
                f"it was moved: it speaks of block {entry.block} of {entry.population!r}"
            )
        return entry

    def _damaged(self, key: str, block: int, reason: str) -> DamagedChunkError:
        return DamagedChunkError(
            f"Ledger entry {self.place}/{key} of population {self.population!r} is damaged "
            f"({reason}): nothing of block {block} can be trusted. Run `zoo check {self.root}`."
        )
