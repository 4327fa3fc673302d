"""Results of several calls of an engine, put together for the store."""

from dataclasses import dataclass, field

import numpy as np

from data_gen.engines import BlockResult


@dataclass(kw_only=True)
class Results:
    """What training gave ``n`` members, whatever their architectures; see :class:`BlockResult`.

    Parameters
    ----------
    vectors
        Per member ``[C, P]``, its own ``P``.
    metrics
        Per metric ``[n, C]``.
    diverged, diverged_epoch, architecture
        ``[n]``.
    """

    vectors: list[np.ndarray] = field(repr=False)
    metrics: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    diverged: np.ndarray
    diverged_epoch: np.ndarray
    architecture: np.ndarray

    @classmethod
    def empty(cls, num_members: int) -> "Results":
        """Make room for members."""
        return cls(
            vectors=[np.zeros((0, 0), dtype=np.float32)] * num_members,
            diverged=np.zeros(num_members, dtype=bool),
            diverged_epoch=np.full(num_members, -1, dtype=np.int64),
            architecture=np.zeros(num_members, dtype=np.int64),
        )

    def place(self, result: BlockResult, positions: np.ndarray, architecture: int = 0) -> None:
        """Put the result of one call at its members' positions."""
        for row, position in enumerate(positions.tolist()):
            self.vectors[position] = result.weights[row]
        for name, values in result.metrics.items():
            shape = (len(self.vectors), *values.shape[1:])
            self.metrics.setdefault(name, np.full(shape, np.nan, dtype=values.dtype))
            self.metrics[name][positions] = values
        self.diverged[positions] = result.diverged
        self.diverged_epoch[positions] = result.diverged_epoch
        self.architecture[positions] = architecture

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """What the table says of it, ``[n]`` each."""
        return {
            "diverged": self.diverged,
            "diverged_epoch": self.diverged_epoch,
            "architecture": self.architecture,
        }

    def weights(self, rows: slice, *, ragged: bool) -> np.ndarray | list[np.ndarray]:
        """Return the vectors of some members, as a block takes them."""
        return self.vectors[rows] if ragged else np.stack(self.vectors[rows])
