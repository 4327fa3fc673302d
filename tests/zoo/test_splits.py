import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zoo
from zoo.errors import InvalidConfigError, StoreError
from zoo.splits import assign
from zoo.testing import tiny_block, tiny_population, tiny_spec

lineages = st.lists(st.integers(0, 30), min_size=1, max_size=80).map(np.array)


@given(lineages, st.integers(0, 5))
def test_relatives_share_a_part(lineage, seed):
    codes = assign(lineage, seed=seed)
    assert codes.dtype == np.int8
    assert set(codes.tolist()) <= {0, 1, 2}
    for ancestor in np.unique(lineage):
        assert len(set(codes[lineage == ancestor].tolist())) == 1
    if len(np.unique(lineage)) >= 3:
        assert set(codes.tolist()) == {0, 1, 2}


@given(lineages, st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_order_of_members_does_not_matter(lineage, seed, random):
    order = random.sample(range(len(lineage)), len(lineage))
    np.testing.assert_array_equal(
        assign(lineage[order], seed=seed), assign(lineage, seed=seed)[order]
    )


def test_shares_and_seeds():
    lineage = np.arange(1000)
    codes = assign(lineage, seed=0)
    assert np.bincount(codes).tolist() == [700, 150, 150]
    assert np.bincount(assign(lineage, seed=0, fractions=(1, 0, 0))).tolist() == [1000]
    assert np.bincount(assign(lineage, seed=0, fractions=(0.5, 0, 0.5))).tolist() == [500, 0, 500]
    assert 350 < (codes == assign(lineage, seed=1)).sum() < 650
    np.testing.assert_array_equal(codes, assign(lineage, seed=0))


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.2, 0.2), (1.2, -0.1, -0.1)])
def test_fractions_are_shares(fractions):
    with pytest.raises(InvalidConfigError, match="sum to 1"):
        assign(np.arange(9), seed=0, fractions=fractions)


def test_a_split_is_frozen(tmp_path):
    store = tiny_population(tmp_path / "z.zarr")
    writer = store.writer("tiny")
    writer.create_split("half", seed=3, fractions=(0.5, 0.25, 0.25))
    parts = zoo.open(tmp_path / "z.zarr")["tiny"].split("half")
    assert [len(ids) for ids in parts.values()] == [20, 10, 10]
    assert all(ids.dtype == np.int64 for ids in parts.values())
    writer.create_split("half", seed=3, fractions=(0.5, 0.25, 0.25))
    for changes in ({"seed": 4}, {"fractions": (0.25, 0.5, 0.25)}):
        with pytest.raises(StoreError, match="'half'.*frozen with other parts"):
            writer.create_split("half", **{"seed": 3, "fractions": (0.5, 0.25, 0.25)} | changes)
    again = zoo.open(tmp_path / "z.zarr")["tiny"].split("half")
    assert all(np.array_equal(parts[part], again[part]) for part in parts)
    with pytest.raises(InvalidConfigError, match="split name"):
        writer.create_split("a/b", seed=0)


def test_split_of_relatives_on_disk(tmp_path):
    writer = zoo.create(tmp_path / "z.zarr").create_population(tiny_spec(num_members=12))
    arrays = tiny_block(writer.spec, range(12))
    arrays["columns"]["lineage"] = [member // 4 * 4 for member in range(12)]
    writer.write_block(0, **arrays)
    writer.finish()
    parts = zoo.open(tmp_path / "z.zarr")["tiny"].split().values()
    assert sorted(ids.tolist() for ids in parts) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_unfinished_populations_are_not_split(tmp_path):
    writer = zoo.create(tmp_path / "z.zarr").create_population(tiny_spec())
    with pytest.raises(StoreError, match="all 3 blocks"):
        writer.create_split("default", seed=0)
