import hashlib
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zoo
from zoo.cli import main
from zoo.convert import from_hdf5, to_hdf5
from zoo.errors import InvalidConfigError, StoreError, UnknownNameError
from zoo.grouping import assign, join
from zoo.splits import SplitRule, adopt
from zoo.store.disk.frozen import split_names
from zoo.store.upkeep.check import check
from zoo.testing import ragged_population, tiny_block, tiny_population, tiny_spec

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


# ---- by columns and regions ---------------------------------------------------------------------
def members(count=60, *, family=1):
    """Widths 2, 3, 5 by member; rates 0.00, 0.01, ...; families of consecutive members."""
    ids = np.arange(count)
    return pl.DataFrame(
        {
            "member": ids,
            "width": np.array([2, 3, 5])[ids % 3],
            "kind": np.array(["a", "b", "c", "d"])[ids // 2 % 4],
            "rate": ids / 100,
            "lineage": ids // family * family,
        }
    )


def codes_of(table, **rule):
    return SplitRule(**rule).codes(table, of="population 'made'")


@given(st.data())
def test_nobody_meets_relatives_or_equals_across_parts(data):
    count = data.draw(st.integers(1, 16), label="members")
    ints = st.lists(st.integers(0, 5), min_size=count, max_size=count)
    table = pl.DataFrame(
        {name: data.draw(ints, label=name) for name in ("lineage", "width", "depth")},
        schema={"lineage": pl.Int64, "width": pl.Int64, "depth": pl.Int64},
    )
    by = data.draw(st.sampled_from([("width",), ("width", "depth")]))
    seed = data.draw(st.integers(0, 3), label="seed")
    groups = join(table["lineage"].to_numpy(), [table[name].to_numpy() for name in by])
    assert groups.tolist() == slow_groups(table, by)
    try:
        codes = codes_of(table, by=by, seed=seed)
    except InvalidConfigError:
        assert len(set(groups.tolist())) < 3
        return
    assert set(codes.tolist()) == {0, 1, 2}
    for columns in (["lineage"], list(by)):
        keys = table.select(columns).rows()
        for key in set(keys):
            assert len({code for code, other in zip(codes, keys, strict=True) if other == key}) == 1


def slow_groups(table, by):
    """Spread the smallest lineage among relatives and equals until nothing changes."""
    label, keys = table["lineage"].to_list(), table.select(by).rows()
    lineage, before = table["lineage"].to_list(), None
    while before != label:
        before = list(label)
        for i in range(len(label)):
            label[i] = min(
                label[j]
                for j in range(len(label))
                if lineage[i] == lineage[j] or keys[i] == keys[j]
            )
    return label


def test_by_column_gives_a_part_to_each_value():
    table = members()
    codes = codes_of(table, by=("width",))
    parts = {width: set(codes[table["width"].to_numpy() == width]) for width in (2, 3, 5)}
    assert sorted(part.pop() for part in parts.values()) == [0, 1, 2]
    half = codes_of(table, by=("kind",), fractions=(0.5, 0, 0.5))
    assert np.bincount(half, minlength=3).tolist() == [30, 0, 30]
    both = codes_of(table, by=("width", "kind"))
    assert np.bincount(both).tolist() == [41, 9, 10]
    seeds = {tuple(codes_of(table, by=("kind",), seed=seed)) for seed in range(6)}
    assert len(seeds) > 1


def test_families_join_values():
    with pytest.raises(InvalidConfigError, match="none for validation, test.*leave 1 groups"):
        codes_of(members(family=2), by=("width",))
    codes = codes_of(members(family=2), by=("kind",), fractions=(0.5, 0, 0.5))
    assert (codes[::2] == codes[1::2]).all()


def test_by_member_is_by_family():
    table = members(family=4)
    for seed in range(3):
        for by in (("member",), ("lineage", "width"), ("member", "width")):
            alone = codes_of(table, by=by, seed=seed)
            np.testing.assert_array_equal(alone, codes_of(table, seed=seed))


def test_regions_fill_their_parts():
    table = members()
    codes = codes_of(table, test="rate >= 0.4 and width == 5", fractions=(0.5, 0.5, 0))
    inside = (table["rate"].to_numpy() >= 0.4) & (table["width"].to_numpy() == 5)
    np.testing.assert_array_equal(codes == 2, inside)
    assert np.bincount(codes).tolist() == [26, 27, 7]
    codes = codes_of(table, test="rate >= 0.5", validation="rate >= 0.4")
    assert codes.tolist() == [0] * 40 + [1] * 10 + [2] * 10
    codes = codes_of(table, validation="rate < 0.1", fractions=(0.6, 0.2, 0.2))
    assert codes[:10].tolist() == [1] * 10
    assert np.bincount(codes[10:], minlength=3).tolist() == [37, 0, 13]


def test_relatives_of_a_region_are_left_out():
    codes = codes_of(members(family=4), test="rate >= 0.5", validation="rate < 0.02")
    assert codes[50:].tolist() == [2] * 10
    assert codes[48:50].tolist() == [-1, -1]
    assert codes[:4].tolist() == [1, 1, -1, -1]
    assert codes[4:48].tolist() == [0] * 44
    # Relatives of the test region are in no part, even where the other region would take them.
    codes = codes_of(members(family=4), test="member == 1", validation="member in (0, 9)")
    assert codes[:12].tolist() == [-1, 2, -1, -1, 0, 0, 0, 0, -1, 1, -1, -1]


def test_regions_and_columns_together():
    table = members()
    codes = codes_of(table, by=("kind",), test="rate >= 0.4", fractions=(0.5, 0.5, 0))
    assert (codes[40:] == 2).all()
    kinds = table["kind"].to_numpy()[:40]
    assert all(len(set(codes[:40][kinds == kind])) == 1 for kind in "abcd")
    assert np.bincount(codes).tolist() == [20, 20, 20]


def test_rules_are_checked():
    table = members()
    with pytest.raises(UnknownNameError, match="column 'widht'. Known: member, width"):
        codes_of(table, by=("widht",))
    with pytest.raises(InvalidConfigError, match="of population 'made'.*takes none"):
        codes_of(table, test="rate > 7")
    with pytest.raises(InvalidConfigError, match="takes all"):
        codes_of(table, test="rate >= 0")
    with pytest.raises(InvalidConfigError, match="'rate > 0.2'.*takes none"):
        codes_of(table, test="rate > 0.2", validation="rate > 0.2")
    with pytest.raises(InvalidConfigError, match="SQL condition.*Columns: member, width"):
        codes_of(table, test="ratee > 0.2")
    with pytest.raises(InvalidConfigError, match="at least one column"):
        SplitRule(by=())
    with pytest.raises(InvalidConfigError, match="sum to 1"):
        SplitRule(fractions=(0.5, 0.4, 0.2))


@given(lineages, st.integers(0, 5), st.sampled_from([(0.98, 0.01, 0.01), (0.0, 0.01, 0.99)]))
def test_no_part_of_positive_share_stays_empty(lineage, seed, fractions):
    codes = assign(lineage, seed=seed, fractions=fractions)
    if len(np.unique(lineage)) >= 3:
        assert set(codes.tolist()) == {code for code in range(3) if fractions[code] > 0}


# ---- explicit lists -----------------------------------------------------------------------------
def test_lists_are_taken_over():
    codes = adopt(
        {"test": [5, 0], "train": np.array([2, 3]), "validation": []}, np.arange(6), of="x"
    )
    assert codes.dtype == np.int8
    assert codes.tolist() == [2, -1, 0, 0, -1, 2]


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ({"tset": [0]}, UnknownNameError, "part 'tset'. Known: train, validation, test"),
        ({"test": [6]}, UnknownNameError, "member of x '6'. Known: 0 to 5"),
        ({"test": [-1]}, UnknownNameError, "'-1'"),
        ({"test": [1, 1]}, InvalidConfigError, "1 of them again, such as member 1 in 'test'"),
        ({"train": [4, 1], "test": [1]}, InvalidConfigError, "such as member 1 in 'test'"),
        ({"train": [0.5]}, InvalidConfigError, "as integers, got float64"),
        ({"train": [2], "test": [3]}, InvalidConfigError, "of member 2 in train and test"),
    ],
)
def test_lists_are_checked(parts, error, message):
    with pytest.raises(error, match=message):
        adopt(parts, np.array([0, 1, 2, 2, 4, 5]), of="x")


# ---- on disk ------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tiny_population(tmp_path_factory.mktemp("splits") / "z.zarr")


def attributes(store, name):
    text = (store.path / "populations/tiny/splits" / name / "zarr.json").read_text()
    return json.loads(text)["attributes"]


def test_a_split_says_how_it_was_made(finished):
    writer = finished.writer("tiny")
    before = finished["tiny"].version
    writer.create_split("regions", seed=1, by="activation", test="learning_rate > 0.01")
    parts = zoo.open(finished.path)["tiny"].split("regions")
    table = finished["tiny"].table
    assert (
        parts["test"].tolist() == table.filter(pl.col("learning_rate") > 0.01)["member"].to_list()
    )
    assert sum(map(len, parts.values())) == 40
    how = attributes(finished, "regions")
    digest = how.pop("sha256")
    assert how == {
        "by": "activation",
        "seed": 1,
        "fractions": [0.7, 0.15, 0.15],
        "test": "learning_rate > 0.01",
        "flag_values": [0, 1, 2],
        "flag_meanings": "train validation test",
    }
    codes = np.full(40, -1, dtype=np.int8)
    for code, ids in enumerate(parts.values()):
        codes[ids] = code
    assert hashlib.sha256(codes.tobytes()).hexdigest() == digest
    writer.create_split("regions", seed=1, by="activation", test="learning_rate > 0.01")
    for changes in ({"test": "learning_rate > 0.02"}, {"by": "seed"}, {"test": None}):
        rule = {"seed": 1, "by": "activation", "test": "learning_rate > 0.01"} | changes
        with pytest.raises(StoreError, match="frozen with other parts"):
            writer.create_split("regions", **rule)
    writer.create_split("two", seed=0, by=["activation", "seed"])
    assert attributes(finished, "two")["by"] == "activation,seed"
    assert set(attributes(finished, "default")) == {
        "seed",
        "fractions",
        "by",
        "sha256",
        "flag_values",
        "flag_meanings",
    }
    assert finished["tiny"].version == before


def test_an_architecture_is_in_one_part(tmp_path):
    store = ragged_population(tmp_path / "z.zarr")
    store.writer("ragged").create_split("architectures", seed=0, by="architecture")
    ragged = zoo.open(tmp_path / "z.zarr")["ragged"]
    parts = [set(ids.tolist()) for ids in ragged.split("architectures").values()]
    by_hand = [set(view.member_ids.tolist()) for view in ragged.by_architecture().values()]
    assert sorted(map(sorted, parts)) == sorted(map(sorted, by_hand))


def test_adopted_splits_leave_members_out(finished):
    lists = {"train": [30, 2], "test": [11]}
    finished.writer("tiny").adopt_split("lists", lists, source="splits.json")
    parts = zoo.open(finished.path)["tiny"].split("lists")
    assert {part: ids.tolist() for part, ids in parts.items()} == {
        "train": [2, 30],
        "validation": [],
        "test": [11],
    }
    how = attributes(finished, "lists")
    assert (how["by"], how["source"]) == ("list", "splits.json")
    assert check(finished.path).ok


def test_frozen_codes_are_checked(finished):
    writer = finished.writer("tiny")
    for codes in (np.zeros(39, dtype=np.int8), np.full(40, 3, dtype=np.int8)):
        with pytest.raises(InvalidConfigError, match="a code from -1 to 2 for each of 40 members"):
            writer.freeze_split("bad", codes, how={})
    assert "bad" not in split_names(finished.path / "populations/tiny")


def test_splits_survive_exchange(finished, tmp_path):
    finished.writer("tiny").create_split("held-out", seed=0, test="member >= 30")
    again = from_hdf5(to_hdf5(finished, tmp_path / "z.h5"), tmp_path / "again.zarr")
    for name in ("default", "held-out"):
        ours, theirs = (store["tiny"].split(name) for store in (finished, again))
        assert all(np.array_equal(ours[part], theirs[part]) for part in ours)
        assert attributes(again, name) == attributes(finished, name)


def test_the_verb_prints_the_parts(tmp_path, capsys):
    path = str(tiny_population(tmp_path / "z.zarr").path)
    words = ["--test", "member > 29", "--fractions", "[0.8,0.2,0]", "--seed", "3"]
    assert main(["split", path, "late", *words]) == 0
    text = capsys.readouterr().out
    assert "split 'late' of population 'tiny'" in text
    assert [line.split()[:2] for line in text.splitlines()[1:]] == [
        ["train", "24"],
        ["validation", "6"],
        ["test", "10"],
    ]
    assert main(["split", path, "kinds", "--population", "tiny", "--by", "activation"]) == 0
    assert main(["split", path, "both", "--by", "[activation,seed]"]) == 0
    capsys.readouterr()
    assert main(["split", path, "late", *words[:-1], "4"]) == 2
    assert "frozen with other parts" in capsys.readouterr().err
    assert main(["split", path, "new", "--by", "colour"]) == 2
    assert "Unknown column 'colour'" in capsys.readouterr().err
    tiny_population(path, name="second", num_members=3)
    assert main(["split", path, "new"]) == 2
    assert "Expected --population, one of: second, tiny" in capsys.readouterr().err


def test_the_verb_counts_those_left_out(tmp_path, capsys):
    writer = zoo.create(tmp_path / "z.zarr").create_population(tiny_spec(num_members=12))
    arrays = tiny_block(writer.spec, range(12))
    arrays["columns"]["lineage"] = [member // 3 * 3 for member in range(12)]
    writer.write_block(0, **arrays)
    writer.finish()
    assert main(["split", str(tmp_path / "z.zarr"), "late", "--test", "member > 10"]) == 0
    assert "no part              2 members" in capsys.readouterr().out
