"""How the numbers of a population lie on disk: tiers, blocks, and ragged rows."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from typing import Any, Literal, Self

import numpy as np

from zoo.errors import InvalidConfigError

CHUNK_BYTES = 4 * 2**20
MIN_BLOCK, MAX_BLOCK = 16, 4096
BLOCKS_WANTED = 8

WeightDtype = Literal["float32", "float16"]
Compressor = Literal["blosc-lz4-bitshuffle"]
Tier = Literal["hot", "compact", "archive"]


@dataclass(frozen=True, kw_only=True)
class Storage:
    """How weights lie in their chunk files.

    Parameters
    ----------
    dtype
        ``float16`` halves the files and rounds: hashes are never made of it again.
    compressor
        Between the numbers and their checksum; none leaves rows that are read without decoding.
    """

    dtype: WeightDtype = "float32"
    compressor: Compressor | None = None

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return np.dtype(self.dtype).itemsize

    @property
    def tier(self) -> str:
        """Name among :data:`TIERS`, or what it is."""
        named = [name for name, storage in TIERS.items() if storage == self]
        return named[0] if named else f"{self.dtype}, {self.compressor}"


TIERS: dict[Tier, Storage] = {
    "hot": Storage(),
    "compact": Storage(dtype="float16"),
    "archive": Storage(compressor="blosc-lz4-bitshuffle"),
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A population that another one was repacked from.

    Parameters
    ----------
    version
        Its version.
    dtype
        Of its weights: what the numbers had been rounded to by then.
    """

    version: str
    dtype: WeightDtype


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One of the networks in a ragged population.

    Parameters
    ----------
    network
        Fields that it adds to the population's ``network``, JSON.
    space
        Fingerprint of its weight space.
    num_parameters
        Length of its flat vector.
    """

    network: dict[str, Any]
    space: str
    num_parameters: int


@dataclass(frozen=True, kw_only=True)
class Ragged:
    """Members of different architectures, block by block in rows of one length.

    A row of ``weights`` holds the flat vectors of a block's members, one after the other, and NaN
    after the last.

    Parameters
    ----------
    architectures
        All that occur; a member's value in the column ``architecture`` is a position here.
    block_size
        Members per block.
    row_length
        Numbers in a row: what the largest block needs.
    """

    architectures: tuple[Architecture, ...]
    block_size: int
    row_length: int

    def __post_init__(self) -> None:
        if not self.architectures or self.block_size < 1 or self.row_length < 1:
            raise InvalidConfigError(
                f"Expected architectures, and at least one member per block and number per row, "
                f"got {len(self.architectures)} architectures, blocks of {self.block_size} and "
                f"rows of {self.row_length}."
            )
        for each in self.architectures:
            check_json("network", each.network)

    @classmethod
    def plan(
        cls,
        architectures: Sequence[Architecture],
        of_member: Sequence[int] | np.ndarray,
        *,
        block_size: int = 0,
        storage: Storage = TIERS["hot"],
    ) -> Self:
        """Find the block size and the length of a row.

        Parameters
        ----------
        architectures
            All that occur.
        of_member
            Per member, the position of its architecture. Rows are as long as the largest block
            needs; members in :func:`balanced_order` leave the least NaN.
        block_size
            Members per block; 0 takes :func:`default_block_size` of the mean network.
        storage
            Tier of the population.

        Raises
        ------
        InvalidConfigError
            If a member names no architecture.
        """
        index = np.asarray(of_member, dtype=np.int64)
        if len(index) == 0 or index.min() < 0 or index.max() >= len(architectures):
            raise InvalidConfigError(
                f"Expected for each member one of {len(architectures)} architectures by position, "
                f"got {sorted(set(index.tolist()))[:5]} ... for {len(index)} members."
            )
        sizes = np.array([each.num_parameters for each in architectures])[index]
        mean, itemsize = int(sizes.mean()), storage.itemsize
        size = block_size or default_block_size(len(index), mean, itemsize=itemsize)
        longest = np.add.reduceat(sizes, np.arange(0, len(sizes), size)).max()
        return cls(architectures=tuple(architectures), block_size=size, row_length=int(longest))

    @property
    def sizes(self) -> np.ndarray:
        """Per architecture, the length of its flat vector; int64."""
        return np.array([each.num_parameters for each in self.architectures], dtype=np.int64)

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of the architectures' weight spaces, in their order."""
        text = "\n".join(each.space for each in self.architectures)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def balanced_order(sizes: Sequence[int] | np.ndarray, block_size: int) -> np.ndarray:
    """Return an order of networks in which all blocks hold about as many numbers.

    The largest come first and are dealt out to the blocks back and forth.

    Parameters
    ----------
    sizes
        Length of each network's flat vector, ``[n]``.
    block_size
        Members per block.

    Returns
    -------
    np.ndarray
        Positions in ``sizes``, ``[n]`` int64: the network to become member 0, 1, ...

    Examples
    --------
    >>> balanced_order([1, 2, 9, 3, 8, 1], block_size=2).tolist()
    [2, 5, 4, 0, 3, 1]
    """
    largest_first = np.argsort(-np.asarray(sizes), kind="stable")
    num_blocks = -(-len(largest_first) // block_size)
    in_last = len(largest_first) - (num_blocks - 1) * block_size
    turns = []
    for turn in range(block_size if num_blocks else 0):
        blocks = np.arange(num_blocks if turn < in_last else num_blocks - 1)
        turns.append(blocks[::-1] if turn % 2 else blocks)
    block_of = np.concatenate(turns) if turns else np.zeros(0, dtype=np.int64)
    return np.asarray(largest_first[np.argsort(block_of, kind="stable")])


def default_block_size(num_members: int, num_parameters: int, *, itemsize: int = 4) -> int:
    """Return the members per block: chunks of about 4 MiB, yet at least eight blocks to share out.

    A power of two in 16 ... 4096.

    >>> default_block_size(10_000, 5_018), default_block_size(512, 5_018)
    (256, 64)
    """
    ideal = 2 ** round(log2(CHUNK_BYTES / (itemsize * max(num_parameters, 1))))
    shared = 2 ** int(log2(max(num_members / BLOCKS_WANTED, 1)))
    return int(min(max(ideal, MIN_BLOCK), MAX_BLOCK, max(MIN_BLOCK, shared)))


def check_json(field: str, value: object) -> None:
    """Raise :class:`InvalidConfigError` unless a value is JSON that reads back equal."""
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
