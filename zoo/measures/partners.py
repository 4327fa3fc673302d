"""Whom a member is compared with, where a measure is of pairs."""

from collections.abc import Hashable, Iterator

import numpy as np

from zoo.errors import UnknownNameError
from zoo.schema import DIVERGED, LINEAGE, SEED
from zoo.store import Population

SAME = "same hyper-parameters, other seed"
OTHERS = "random others of the same part of the split and another lineage"
_SIGNAL = "signal"


def choose_partners(
    population: Population, groups: np.ndarray, *, count: int, seed: int
) -> tuple[np.ndarray, str]:
    """Choose partners of every member, the same in every process and in every order.

    Where at least half of the members have a sibling (same hyper-parameters, another seed),
    partners are siblings. Otherwise they are chosen among those of the same part of the default
    split, so that nothing of a test member reaches a training member, and of another lineage.
    Partners compute the same kind of function, fit the same signal, and did not diverge.

    Parameters
    ----------
    population
        All of its members; complete, so that the choice does not depend on what is done so far.
    groups
        Per member a number, equal for members of one network ``[members]``.
    count
        Partners of each.
    seed
        Of the order in which they are taken.

    Returns
    -------
    np.ndarray
        Ids ``[members, count]``, int64; -1 where there are fewer.
    str
        The rule that was used.
    """
    table = population.table
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x5A]))
    order = rng.permutation(len(table))
    fit = ~table[DIVERGED].to_numpy()
    seeds, lineage = table[SEED].to_numpy(), table[LINEAGE].to_numpy()
    pools = _pools(_sibling_keys(population, groups), order[fit[order]])
    siblings = _chosen(pools, seeds, count, len(table))
    if (siblings[fit, 0] >= 0).sum() * 2 >= fit.sum() > 0:
        return siblings, SAME
    pools = _pools(_part_keys(population, groups), order[fit[order]])
    return _chosen(pools, lineage, count, len(table)), OTHERS


def _pools(keys: list[Hashable], order: np.ndarray) -> dict[Hashable, list[int]]:
    """Sort members into pools, each in the order given."""
    pools: dict[Hashable, list[int]] = {}
    for member in order.tolist():
        pools.setdefault(keys[member], []).append(member)
    return pools


def _chosen(
    pools: dict[Hashable, list[int]], unlike: np.ndarray, count: int, num_members: int
) -> np.ndarray:
    """Give each member those that come after it in its pool and differ from it in ``unlike``."""
    found = np.full((num_members, count), -1, dtype=np.int64)
    for pool in pools.values():
        for place, member in enumerate(pool):
            partners = list(_after(pool, place, unlike, count))
            found[member, : len(partners)] = partners
    return found


def _after(pool: list[int], place: int, unlike: np.ndarray, count: int) -> Iterator[int]:
    taken = 0
    for step in range(1, len(pool)):
        other = pool[(place + step) % len(pool)]
        if taken == count:
            return
        if unlike[other] != unlike[pool[place]]:
            taken += 1
            yield other


def _sibling_keys(population: Population, groups: np.ndarray) -> list[Hashable]:
    names = [column.name for column in population.columns if column.role == "hyperparameter"]
    return _keys(population, names, groups)


def _part_keys(population: Population, groups: np.ndarray) -> list[Hashable]:
    part = np.full(len(population), -1)
    try:
        for code, members in enumerate(population.split().values()):
            part[members] = code
    except UnknownNameError:
        pass  # no split yet: one part
    return _keys(population, [], groups, part)


def _keys(population: Population, names: list[str], *numbers: np.ndarray) -> list[Hashable]:
    """Return per member its values of columns, which signal it fits if any, and numbers."""
    table = population.table
    columns = [*names, *([_SIGNAL] if _SIGNAL in table.columns else [])]
    lists = [table[name].to_list() for name in columns] + [each.tolist() for each in numbers]
    return list(zip(*lists, strict=True))
