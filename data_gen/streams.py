"""Where every random number of a member comes from: counter-based streams of its own.

A stream is numpy's Philox generator [1]_ whose 128-bit key is the member's seed and whose 256-bit
counter starts at ``(0, step, purpose, 0)``. Streams of one member differ in the two middle words
and would have to draw 2**64 blocks to meet; streams of two members differ in their key. Nothing
depends on the population, on the slot that a member has in an engine, on threads, or on which other
streams were used before.

References
----------
.. [1] Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from enum import IntEnum

import numpy as np

SEED_LIMIT = 2**63
"""Seeds are smaller than this, so that they fit an int64 column."""


class Purpose(IntEnum):
    """What a stream is for; the numbers are part of every population's identity."""

    SEED = 0
    HYPERPARAMETERS = 1
    INIT = 2
    SUBSET = 3
    ORDER = 4
    DROPOUT = 5
    LABELS = 6
    ARCHITECTURE = 7
    START = 8


def stream(seed: int, purpose: Purpose, step: int = 0) -> np.random.Generator:
    """Open one stream of a member.

    Parameters
    ----------
    seed
        The member's seed, in [0, 2**63).
    purpose
        What the numbers are for.
    step
        Epoch, or whatever else tells streams of one purpose apart; in [0, 2**64).
    """
    return np.random.Generator(np.random.Philox(key=[seed, 0], counter=[0, step, int(purpose), 0]))


def member_seed(recipe_seed: int, member_id: int) -> int:
    """Derive a member's seed, in [0, 2**63), from its recipe's seed and its id alone.

    >>> member_seed(0, 3) == member_seed(0, 3), member_seed(0, 3) == member_seed(1, 3)
    (True, False)
    """
    counter = [0, 0, int(Purpose.SEED), 0]
    generator = np.random.Generator(
        np.random.Philox(key=[recipe_seed, member_id + 1], counter=counter)
    )
    return int(generator.integers(SEED_LIMIT))
