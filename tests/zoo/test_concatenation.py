"""Populations read as one: the same answers as each gives alone, and refusals by name."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

import zoo
from zoo.errors import InvalidConfigError, UnknownNameError, WeightSpaceMismatchError
from zoo.networks import build, example_input
from zoo.schema import ColumnSpec
from zoo.symmetry import trace
from zoo.testing import (
    TINY_COLUMNS,
    TINY_NETWORK,
    ragged_population,
    tiny_block,
    tiny_population,
    tiny_spec,
)

WIDTH = ColumnSpec(name="width", dtype="int64")
RATE, SCALE, ACTIVATION, *REST = TINY_COLUMNS
OTHER_COLUMNS = (SCALE, replace(ACTIVATION, categories=("silu", "relu")), WIDTH, *REST)


def other_block(spec, members):
    """Twelve members whose families are 0-1, 2-3 ..., of a population with its own columns."""
    plain = tiny_spec(num_members=12, metrics=spec.metrics)
    arrays = tiny_block(plain, members, seed=1)
    del arrays["columns"]["learning_rate"]
    arrays["columns"]["activation"] = ["silu" if member % 2 else "relu" for member in members]
    arrays["columns"]["lineage"] = [member // 2 * 2 for member in members]
    arrays["columns"]["width"] = [10 * member for member in members]
    return arrays


@pytest.fixture(scope="module")
def zoos(tmp_path_factory):
    """One zoo with a population of 40, and another with one of 12 that knows other things."""
    root = tmp_path_factory.mktemp("concat")
    first = tiny_population(root / "first.zarr", diverged=(7,))
    second = zoo.create(root / "second.zarr")
    spec = tiny_spec(
        name="other",
        num_members=12,
        columns=OTHER_COLUMNS,
        metrics=("test_loss", "norm", "test_accuracy"),
    )
    writer = second.create_population(spec)
    writer.write_block(0, **other_block(spec, range(12)))
    writer.finish(seed=5)
    return zoo.open(first.path), zoo.open(second.path)


@pytest.fixture(scope="module")
def parts(zoos):
    """The populations: all of the second, and a shuffled selection of the first."""
    return zoos[1]["other"], zoos[0]["tiny"].select([30, 2, 11, 7, 25])


@pytest.fixture(scope="module")
def both(parts):
    return zoo.concat(parts)


def test_members_stand_one_after_the_other(both, parts):
    assert isinstance(both, zoo.Members)
    assert both.name == "other+tiny"
    assert len(both) == both.num_members == 17
    assert both.member_ids.tolist() == list(range(17))
    assert both.epochs.tolist() == [0, 2, 5]
    assert both.space == parts[0].space
    assert both.is_complete
    for checkpoint in (0, 1, -1):
        wanted = np.concatenate([part.weights(checkpoint=checkpoint) for part in parts])
        np.testing.assert_array_equal(both.weights(checkpoint=checkpoint), wanted)


def test_columns_join_by_name(both, parts):
    table = both.table
    names = ["init_scale", "activation", "width", "seed", "lineage", "diverged", "learning_rate"]
    assert [column.name for column in both.columns] == names
    assert both.metrics == ("test_loss", "test_accuracy")
    origin = ["member", "population", "member_in_population"]
    assert table.columns == [*origin, *names, "test_loss", "test_accuracy"]
    assert table["population"].to_list() == ["other"] * 12 + ["tiny"] * 5
    assert table["member_in_population"].to_list() == [*range(12), 30, 2, 11, 7, 25]
    assert table["width"].to_list() == [*range(0, 120, 10), *[None] * 5]
    rates = parts[1].table["learning_rate"].to_list()
    assert table["learning_rate"].to_list() == [*[None] * 12, *rates]
    assert table["seed"].to_list() == [*range(1000, 1012), 1030, 1002, 1011, 1007, 1025]
    kinds = {column.name: column for column in both.columns}
    assert kinds["activation"].categories == ("silu", "relu", "tanh", "gelu")
    assert kinds["init_scale"] == SCALE
    # Datasets offer hyper-parameters of every member; these are not known of all.
    assert kinds["learning_rate"] == replace(RATE, role="identity")
    assert kinds["width"].role == "identity"
    assert table["activation"].to_list()[10:15] == ["relu", "silu", "relu", "gelu", "gelu"]
    for name in both.metrics:
        wanted = np.concatenate([part.metric(name) for part in parts])
        np.testing.assert_array_equal(both.metric(name), wanted)
        np.testing.assert_array_equal(table[name], wanted[:, -1])
    with pytest.raises(UnknownNameError, match="'norm'. Known: test_loss, test_accuracy"):
        both.metric("norm")


def test_families_stay_within_their_population(both):
    assert both.table["lineage"].to_list() == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, *range(12, 17)]


def test_rows_come_in_any_order_by_any_reader(both, parts):
    members, checkpoints = np.array([16, 0, 12, 12, 3, 15]), np.array([0, 2, 1, 2, 0, 1])
    wanted = np.stack(
        [
            part.weights([own], checkpoint=checkpoint)[0]
            for part, own, checkpoint in zip(
                [parts[i] for i in (1, 0, 1, 1, 0, 1)],
                [25, 0, 30, 30, 3, 7],
                checkpoints,
                strict=True,
            )
        ]
    )
    np.testing.assert_array_equal(both.gather(members, checkpoints), wanted)
    for io in ("ram", "pread", "mmap"):
        reader = deepcopy(both.reader(io))
        np.testing.assert_array_equal(reader.gather(members, checkpoints), wanted)
        assert reader.gather(members[:0], checkpoints[:0]).shape == (0, 47)
        assert not reader.wants_blocks
        assert both.reader(io) is both.where("seed > 1003").reader(io)


def test_blocks_of_populations_differ(both):
    everyone = np.repeat(np.arange(17), 3), np.tile(np.arange(3), 17)
    numbers = both.reader("pread").blocks(*everyone).reshape(17, 3)
    assert len(np.unique(numbers[:12])) == 3
    assert (numbers[:12] == numbers[0]).all()
    # Members 30 and 25 lie in the second block of sixteen; 2, 11 and 7 in the first.
    assert (numbers[[12, 16]] == numbers[12]).all()
    assert (numbers[[13, 14, 15]] == numbers[13]).all()
    assert len(np.unique(numbers)) == 9


def test_views_keep_positions(both, parts):
    view = both.where("population == 'tiny' and not diverged").checkpoints([0, 5])
    assert view.member_ids.tolist() == [12, 13, 14, 16]
    assert view.epochs.tolist() == [0, 5]
    wanted = parts[1].weights([30, 2, 11, 25], checkpoint=0)
    np.testing.assert_array_equal(view.weights(checkpoint=0), wanted)
    np.testing.assert_array_equal(
        view.metric("test_loss"), both.metric("test_loss")[[12, 13, 14, 16]][:, [0, 2]]
    )
    chosen = view.select([16, 12]).checkpoints("first")
    assert chosen.table["member_in_population"].to_list() == [25, 30]
    np.testing.assert_array_equal(chosen.weights(), wanted[[3, 0]])
    with pytest.raises(UnknownNameError, match="Unknown member '15'. Known: 4 members from 12"):
        view.weights([15])
    with pytest.raises(UnknownNameError, match="Unknown epoch '2'. Known: 0, 5"):
        view.checkpoints(2)
    assert view.version == both.version


def test_null_columns_in_conditions(both):
    assert both.where("width >= 100").member_ids.tolist() == [10, 11]
    assert both.where("width is null").member_ids.tolist() == list(range(12, 17))


def test_parts_are_those_of_each_own_split(both, parts, zoos):
    split = both.split()
    own = [part.split() for part in parts]
    for part, ids in split.items():
        assert ids.dtype == np.int64
        assert ids.tolist() == sorted(ids.tolist())
        table = both.select(ids).table
        for label, population in zip(("other", "tiny"), own, strict=True):
            mine = table.filter(pl.col("population") == label)["member_in_population"]
            assert sorted(mine.to_list()) == population[part].tolist()
    assert sum(map(len, split.values())) == 17
    lineage = both.table["lineage"].to_numpy()
    families = [set(lineage[ids].tolist()) for ids in split.values()]
    assert sum(map(len, families)) == len(set().union(*families)) == 11
    view = both.where("population == 'tiny'").split()
    assert {part: [i for i in ids.tolist() if i >= 12] for part, ids in split.items()} == {
        part: ids.tolist() for part, ids in view.items()
    }
    with pytest.raises(UnknownNameError, match="Unknown split 'mine'"):
        both.split("mine")


def test_networks_are_the_members_own(both, parts):
    inputs = torch.linspace(-2, 2, 12).reshape(3, 4)
    for position, part, own in ((14, 1, 11), (1, 0, 1)):
        assert both.network_of(position) == parts[part].network_of(own)
        ours, theirs = both.module(position, checkpoint=1), parts[part].module(own, checkpoint=1)
        assert torch.equal(ours(inputs), theirs(inputs))
        state = both.state_dict(position, checkpoint=0)
        assert torch.equal(
            both.space.flatten(state), torch.from_numpy(parts[part].weights([own], checkpoint=0)[0])
        )
    assert both.network_of(1)["activation"] == "silu"


def test_pieces_put_together_are_the_whole(zoos):
    whole = zoos[0]["tiny"]
    pieces = [whole.select(np.arange(start, start + 8)) for start in range(0, 40, 8)]
    again = zoo.concat(pieces)
    same = [name for name in whole.table.columns if name != "member"]
    assert again.table.select("member_in_population", *same).equals(
        whole.table.rename({"member": "member_in_population"})
    )
    np.testing.assert_array_equal(again.weights(checkpoint=1), whole.weights(checkpoint=1))
    assert {p: i.tolist() for p, i in again.split().items()} == {
        p: i.tolist() for p, i in whole.split().items()
    }
    assert again.columns == whole.columns
    assert again.space is whole.space


def test_views_contribute_their_checkpoints(parts):
    late = zoo.concat([part.checkpoints([2, 5]) for part in parts])
    assert late.epochs.tolist() == [2, 5]
    wanted = np.concatenate([part.weights(checkpoint=1) for part in parts])
    np.testing.assert_array_equal(late.weights(checkpoint=0), wanted)
    np.testing.assert_array_equal(late.checkpoints("first").weights(), wanted)


def test_versions_follow_members_and_numbers(both, parts, zoos):
    first, second = parts
    assert len(both.version) == 16
    assert zoo.concat(parts).version == both.version
    others = [
        [second, first],
        [first, second.select([2, 30, 11, 7, 25])],
        [first, second.select([30, 2, 11, 7])],
        [part.checkpoints([2, 5]) for part in parts],
    ]
    assert len({both.version, *(zoo.concat(each).version for each in others)}) == 5


def test_zoos_tell_equal_names_apart(tmp_path, zoos):
    tiny_population(tmp_path / "third.zarr", seed=3, num_members=2)
    third = zoo.open(tmp_path / "third.zarr")["tiny"]
    both = zoo.concat([zoos[0]["tiny"].select([5]), third, zoos[1]["other"].select([4])])
    labels = [f"{zoos[0].path}:tiny", *[f"{tmp_path / 'third.zarr'}:tiny"] * 2, "other"]
    assert both.table["population"].to_list() == labels


def test_xarray_decodes_and_reads(both):
    dataset = both.to_xarray()
    assert dict(dataset.sizes) == {"member": 17, "checkpoint": 3, "parameter": 47}
    assert dataset["population"].values.tolist() == ["other"] * 12 + ["tiny"] * 5
    assert np.isnan(dataset["width"].values).sum() == 5
    got = dataset["weights"].isel(member=[16, 0], checkpoint=[1]).values
    np.testing.assert_array_equal(got[:, 0], both.weights([16, 0], checkpoint=1))


def test_features_are_what_all_members_have(both):
    dataset = zoo.ZooDataset(both, target="test_accuracy")
    kinds = [f"activation={name}" for name in ("silu", "relu", "tanh", "gelu")]
    assert dataset.hyperparameter_names == ("init_scale", *kinds)
    batch = dataset[np.arange(len(dataset))]
    assert batch.member.tolist() == [i for i in range(17) if i != 15]
    assert torch.isfinite(batch.hyperparameters).all()
    assert batch.hyperparameters[[0, 1, 12, 14], 1:].argmax(dim=1).tolist() == [1, 0, 1, 3]


def test_a_model_trains_on_several_populations(zoos, tmp_path):
    tiny_population(tmp_path / "third.zarr", seed=3, num_members=20)
    both = zoo.concat([zoos[0]["tiny"], zoo.open(tmp_path / "third.zarr")["tiny"]])
    module = zoo.ZooDataModule(both, target="test_accuracy", batch_size=8)
    members = torch.cat([batch.member for batch in module.train_dataloader()])
    assert sorted(members.tolist()) == [i for i in both.split()["train"].tolist() if i != 7]
    for batch in module.test_dataloader():
        wanted = torch.from_numpy(both.weights(batch.member.numpy()))
        assert torch.equal(batch.weights, wanted)


def test_architectures_of_a_ragged_population_join_others(zoos, tmp_path):
    ragged_population(tmp_path / "ragged.zarr")
    ragged = zoo.open(tmp_path / "ragged.zarr")["ragged"]
    with pytest.raises(WeightSpaceMismatchError, match="got 3 architectures"):
        zoo.concat([ragged, zoos[1]["other"]])
    same = ragged.by_architecture()[0]
    both = zoo.concat([same, zoos[1]["other"]])
    wanted = np.concatenate([same.weights(), zoos[1]["other"].weights()])
    np.testing.assert_array_equal(both.weights(), wanted)
    assert both.module(1).layers[1].out_features == 3


# ---- refusals -----------------------------------------------------------------------------------
def test_other_spaces_are_refused_by_name(tmp_path, zoos):
    network = TINY_NETWORK | {"hidden": [3, 2]}
    space = trace(build(network), example_input(network))
    tiny_population(tmp_path / "z.zarr", network=network, space=space, num_members=3)
    narrow = zoo.open(tmp_path / "z.zarr")["tiny"]
    with pytest.raises(
        WeightSpaceMismatchError,
        match=r"in 'other' and \w+ in 'tiny': 'layers.4.weight' of shape \(5, 3\), and .*\(2, 3\)",
    ):
        zoo.concat([zoos[1]["other"], narrow])


def test_other_checkpoints_are_refused_by_name(parts):
    with pytest.raises(
        InvalidConfigError, match=r"epochs \[0, 2, 5\] in 'other' and \[5\] in 'tiny'"
    ):
        zoo.concat([parts[0], parts[1].checkpoints("last")])


def test_members_come_once(zoos, tmp_path):
    tiny = zoos[0]["tiny"]
    with pytest.raises(InvalidConfigError, match="got 2 members of population 'tiny'.* as 5"):
        zoo.concat([tiny.select([5, 6, 7]), tiny.select([8, 7, 5])])
    copy = tiny_population(tmp_path / "copy.zarr", diverged=(7,))
    with pytest.raises(InvalidConfigError, match="got 40 members"):
        zoo.concat([tiny, zoo.open(copy.path)["tiny"]])
    with pytest.raises(InvalidConfigError, match="at least one population"):
        zoo.concat([])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (replace(SCALE, dtype="int64"), "'init_scale' .* dtype 'float64' before and 'int64' in"),
        (replace(SCALE, unit="metre"), "'init_scale' .* unit '' before and 'metre' in 'strange'"),
        (replace(WIDTH, name="member_in_population"), "no column 'member_in_population'"),
    ],
)
def test_columns_mean_one_thing(tmp_path, zoos, column, message):
    columns = (*(c for c in TINY_COLUMNS if c.name != column.name), column)
    spec = tiny_spec(name="strange", num_members=2, columns=columns)
    writer = zoo.create(tmp_path / "z.zarr").create_population(spec)
    arrays = tiny_block(tiny_spec(num_members=2), range(2))
    arrays["columns"][column.name] = [1, 2]
    writer.write_block(0, **arrays)
    with pytest.raises(InvalidConfigError, match=message):
        zoo.concat([zoos[0]["tiny"], zoo.open(tmp_path / "z.zarr")["strange"]])
