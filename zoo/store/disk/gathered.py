"""The gathered ledger: a line that names its blocks, then one line per block."""

import json
from dataclasses import dataclass
from typing import Any

import google_crc32c

from zoo.schema import CHECKSUM, checksum

_START = b'{"block":'
_SUM = b'"crc32c":"'


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Entries of many blocks, read at once; a damaged line harms its own block alone.

    Parameters
    ----------
    blocks
        Blocks that the first line names, and those of sound lines.
    lines
        Sound lines by block.
    faults
        What is wrong with the file as a whole.
    """

    blocks: frozenset[int]
    lines: dict[int, bytes]
    faults: tuple[str, ...]

    @classmethod
    def none(cls) -> "Gathered":
        """Return what a population without the file has."""
        return cls(blocks=frozenset(), lines={}, faults=())

    @classmethod
    def from_bytes(cls, population: str, data: bytes) -> "Gathered":
        """Read a file; whatever cannot be trusted is left out and said."""
        head, *rest = data.split(_START)
        lines = dict(found for piece in rest if (found := _sound(_START + piece)) is not None)
        try:
            named = _blocks_named(population, head)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            fault = f"its first line, which names its blocks, is damaged ({error})"
            return cls(blocks=frozenset(lines), lines=lines, faults=(fault,))
        faults = [f"its first line does not name block {b}" for b in sorted(lines.keys() - named)]
        tidy = [_head(population, named), *(lines[block] for block in sorted(lines))]
        if named == lines.keys() and data != b"\n".join([*tidy, b""]):
            faults.append("bytes between its lines were altered")
        return cls(blocks=named | lines.keys(), lines=lines, faults=tuple(faults))

    @staticmethod
    def to_bytes(population: str, lines: dict[int, str]) -> bytes:
        """Lay lines out, ascending."""
        ordered = [lines[block].encode() for block in sorted(lines)]
        return b"\n".join([_head(population, frozenset(lines)), *ordered, b""])

    def line(self, block: int) -> bytes:
        """Return a block's line; raises ``ValueError`` when it cannot be trusted."""
        if block not in self.lines:
            raise ValueError("its line does not fit its checksum, or is gone")
        return self.lines[block]


def _sound(piece: bytes) -> tuple[int, bytes] | None:
    """Return the block and the line at the beginning of a piece, if its checksum fits."""
    at = piece.find(_SUM)
    after, end = at + len(_SUM) + 10, piece.find(b"}", at) + 1
    crc, number = piece[after - 10 : after], piece[len(_START) : piece.find(b",")]
    body = piece[:at] + piece[after:end]
    if at < 0 or end == 0 or crc != f'{google_crc32c.value(body):08x}",'.encode():
        return None
    return int(number), piece[:end]


def _head(population: str, blocks: frozenset[int]) -> bytes:
    body = {"blocks": _ranges(sorted(blocks)), "population": population}
    body |= {CHECKSUM: checksum(body)}
    return json.dumps(body, separators=(",", ":"), sort_keys=True).encode()


def _blocks_named(population: str, head: bytes) -> frozenset[int]:
    body: dict[str, Any] = json.loads(head)
    if body.pop(CHECKSUM) != checksum(body):
        raise ValueError("its checksum does not fit its text")
    if body["population"] != population:
        raise ValueError(f"it was moved: it speaks of {body['population']!r}")
    return frozenset(block for start, stop in body["blocks"] for block in range(start, stop))


def _ranges(blocks: list[int]) -> list[list[int]]:
    """Return ascending numbers as ranges ``[first, one past the last]``.

    >>> _ranges([0, 1, 2, 7])
    [[0, 3], [7, 8]]
    """
    ranges: list[list[int]] = []
    for block in blocks:
        if ranges and ranges[-1][1] == block:
            ranges[-1][1] = block + 1
        else:
            ranges.append([block, block + 1])
    return ranges
