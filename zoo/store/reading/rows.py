"""Reading weights row by row: what a reader offers, and one of fewer checkpoints."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Rows(Protocol):
    """Reads weights row by row, as fast as its files allow; may be pickled to other processes."""

    def gather(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        """Read ``[n, P]`` float32: pairs of member id and checkpoint index, ``[n]``, in range."""

    @property
    def wants_blocks(self) -> bool:
        """Whether a row costs its whole block, so that blocks had better be read one by one."""

    def blocks(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        """Return a number for the block that holds each row, ``[n]`` int64."""


@dataclass(frozen=True)
class RowsOfCheckpoints:
    """Rows at some checkpoints, which ``kept`` lists as indices into the reader's."""

    reader: Rows
    kept: np.ndarray

    def gather(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        """Read pairs; checkpoints count among the kept ones."""
        return self.reader.gather(members, self.kept[checkpoints])

    @property
    def wants_blocks(self) -> bool:
        """Whether a row costs its whole block."""
        return self.reader.wants_blocks

    def blocks(self, members: np.ndarray, checkpoints: np.ndarray) -> np.ndarray:
        """Return the number of the block of each pair."""
        return self.reader.blocks(members, self.kept[checkpoints])
