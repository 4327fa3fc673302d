"""Views: checkpoints, conditions, selections, tables and xarray, alone and one after the other."""

import shutil
import subprocess
import sys
from copy import deepcopy

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zoo
from zoo.errors import DamagedChunkError, InvalidConfigError, UnknownNameError
from zoo.testing import tiny_block, tiny_population, tiny_spec

EPOCHS = (0, 2, 5)
P = 47


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("queries") / "zoo.zarr"
    tiny_population(path, diverged=(7, 33))
    return path


@pytest.fixture(scope="module")
def population(path):
    return zoo.open(path)["tiny"]


@pytest.fixture(scope="module")
def written():
    return tiny_block(tiny_spec(), range(40), diverged=(7, 33))


# ---- checkpoints --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("which", "kept"),
    [
        ("first", [0]),
        ("last", [2]),
        ("all", [0, 1, 2]),
        ([2], [1]),
        (5, [2]),
        ([5, 0], [0, 2]),
        (np.array([2, 0, 2]), [0, 1]),
    ],
)
def test_a_view_holds_the_chosen_checkpoints(population, written, which, kept):
    view = population.checkpoints(which)
    assert view.epochs.tolist() == [EPOCHS[i] for i in kept]
    assert view.num_members == 40
    loss = written["metrics"]["test_loss"][:, kept]
    np.testing.assert_array_equal(view.metric("test_loss"), loss)
    np.testing.assert_array_equal(view.table["test_loss"], loss[:, -1])
    for index in range(-len(kept), len(kept)):
        wanted = written["weights"][:, kept][:, index]
        np.testing.assert_array_equal(view.weights(checkpoint=index), wanted)
    with pytest.raises(UnknownNameError, match=f"index '{len(kept)}'. Known: 0 to {len(kept) - 1}"):
        view.weights([0], checkpoint=len(kept))


def test_readers_count_the_checkpoints_of_their_view(population, written):
    view = population.checkpoints([2, 5])
    members, index = np.array([39, 0, 17, 17]), np.array([1, 0, 1, 0])
    wanted = written["weights"][members, index + 1]
    np.testing.assert_array_equal(view.gather(members, index), wanted)
    for io in ("ram", "pread", "mmap"):
        reader = deepcopy(view.reader(io))
        np.testing.assert_array_equal(reader.gather(members, index), wanted)
        whole = population.reader(io)
        assert reader.blocks(members, index).tolist() == whole.blocks(members, index + 1).tolist()
        assert not reader.wants_blocks


def test_networks_are_those_of_the_view(population, written):
    first = population.checkpoints("first")
    vector = population.space.flatten(first.state_dict(4))
    np.testing.assert_array_equal(vector, written["weights"][4, 0])
    rebuilt = population.space.flatten(first.module(4).state_dict())
    np.testing.assert_array_equal(rebuilt.numpy(), written["weights"][4, 0])
    middle = population.checkpoints([0, 2]).module(4, checkpoint=-1)
    by_index = population.module(4, checkpoint=1)
    inputs = torch.linspace(-2, 2, 12).reshape(3, 4)
    assert torch.equal(middle(inputs), by_index(inputs))


def test_unknown_epochs_list_what_exists(population):
    with pytest.raises(UnknownNameError, match="Unknown epoch '3'. Known: 0, 2, 5"):
        population.checkpoints([0, 3])
    with pytest.raises(UnknownNameError, match="Unknown epoch '-1'"):
        population.checkpoints(-1)
    with pytest.raises(UnknownNameError, match="Unknown epoch '2'. Known: 0, 5"):
        population.checkpoints([0, 5]).checkpoints([2])
    with pytest.raises(UnknownNameError, match="'final'. Known: first, last, all, epochs"):
        population.checkpoints("final")
    with pytest.raises(InvalidConfigError, match="at least one epoch"):
        population.checkpoints([])


def test_choices_are_within_the_view(population):
    view = population.checkpoints([0, 2])
    assert view.checkpoints("last").epochs.tolist() == [2]
    assert view.checkpoints("all").epochs.tolist() == [0, 2]
    assert population.epochs.tolist() == [0, 2, 5]


# ---- conditions ---------------------------------------------------------------------------------
def test_conditions_see_the_last_checkpoint_of_the_view(population, written):
    accuracy = written["metrics"]["test_accuracy"]
    for index, which in ((0, "first"), (2, "last")):
        kept = population.checkpoints(which).where("test_accuracy > 0.6").member_ids
        assert kept.tolist() == np.flatnonzero(accuracy[:, index] > 0.6).tolist()
    first, last = (population.checkpoints(w).where("test_accuracy > 0.6") for w in EPOCHS[::2])
    assert 0 < len(last) < len(first) < 40


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("activation == 'tanh'", lambda i: i % 3 == 1),
        ("activation != 'tanh' and not diverged", lambda i: i % 3 != 1 and i not in (7, 33)),
        ("activation in ('relu', 'elu')", lambda i: i % 3 == 0),
        ("activation like 're%'", lambda i: i % 3 == 0),
        ("activation == 'elu'", lambda i: False),
        ("diverged", lambda i: i in (7, 33)),
        ("member between 3 and 5 or seed = 1039", lambda i: i in (3, 4, 5, 39)),
        ("not (test_accuracy > 2)", lambda i: i not in (7, 33)),
    ],
)
def test_conditions_on_every_kind_of_column(population, sql, wanted):
    assert population.where(sql).member_ids.tolist() == [i for i in range(40) if wanted(i)]


def test_views_compose_in_any_order(population, written):
    ids = [30, 2, 11, 8, 21]
    view = population.select(ids).checkpoints([2, 5]).where("member != 8").checkpoints("first")
    other = population.checkpoints(2).where("member != 8").select([30, 2, 11, 21])
    for each in (view, other):
        assert each.member_ids.tolist() == [30, 2, 11, 21]
        assert each.epochs.tolist() == [2]
        np.testing.assert_array_equal(each.weights(), written["weights"][[30, 2, 11, 21], 1])
        assert each.table["test_loss"].to_list() == [
            written["metrics"]["test_loss"][i, 1] for i in (30, 2, 11, 21)
        ]
        assert each.version == population.version
        with pytest.raises(UnknownNameError, match="Unknown member '8'"):
            each.weights([8])
    assert population.reader("ram") is population.where("seed > 1003").reader("ram")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(data=st.data())
def test_views_equal_a_table_cut_by_hand(population, written, data):
    ids, kept = list(range(40)), [0, 1, 2]
    view = population
    for _ in range(data.draw(st.integers(1, 4), label="steps")):
        step = data.draw(st.sampled_from(["where", "select", "checkpoints"]), label="step")
        if step == "where":
            bound = data.draw(st.integers(-1, 40), label="bound")
            view, ids = view.where(f"member <= {bound}"), [i for i in ids if i <= bound]
        elif step == "select" and ids:
            ids = data.draw(st.lists(st.sampled_from(ids), unique=True), label="ids")
            view = view.select(ids)
        elif step == "checkpoints":
            kept = sorted(
                data.draw(st.sets(st.sampled_from(kept), min_size=1), label="checkpoints")
            )
            view = view.checkpoints([EPOCHS[i] for i in kept])
    assert view.member_ids.tolist() == view.table["member"].to_list() == ids
    np.testing.assert_array_equal(view.weights(), written["weights"][ids, kept[-1]])
    loss = written["metrics"]["train_loss"][np.ix_(ids, kept)]
    np.testing.assert_array_equal(view.metric("train_loss"), loss)
    np.testing.assert_array_equal(view.table["train_loss"], loss[:, -1])
    split = population.split()
    parts = {part: sorted(set(members) & set(ids)) for part, members in split.items()}
    assert {part: members.tolist() for part, members in view.split().items()} == parts


def test_selections_tell_views_apart(population):
    views = [
        population,
        population.select([3, 2]),
        population.select([2, 3]),
        population.checkpoints("last"),
        population.checkpoints("last").select([2, 3]),
        population.select([0, 2, 5]).checkpoints([2]),
        population.select([2, 5]).checkpoints([0]),
    ]
    assert len({view.selection for view in views}) == 7
    assert population.where("member in (2, 3)").selection == views[2].selection
    assert len(population.selection) == 16


def test_what_callers_do_to_a_table_stays_with_them(population):
    table, loss = population.table, population.metric("test_loss")
    table.drop_in_place("activation")
    table.insert_column(0, pl.Series("test_loss_", np.zeros(40)))
    loss[:] = 0
    assert population.where("activation == 'relu'").num_members == 14
    assert population.table.columns[0] == "member"
    assert (population.metric("test_loss")[:, 0] > 0).all()


# ---- xarray -------------------------------------------------------------------------------------
def test_xarray_names_everything(population, written):
    dataset = population.to_xarray()
    assert dict(dataset.sizes) == {"member": 40, "checkpoint": 3, "parameter": P}
    assert set(dataset.data_vars) == {"weights", *population.metrics}
    columns = {column.name for column in population.columns}
    assert set(dataset.coords) == {"member", "checkpoint", *columns}
    assert dataset["activation"].values.tolist() == written["columns"]["activation"]
    assert dataset["learning_rate"].attrs["units"] == "1/step"
    assert dataset["diverged"].values.nonzero()[0].tolist() == [7, 33]
    assert dataset.attrs["version"] == population.version
    np.testing.assert_array_equal(dataset["test_loss"], written["metrics"]["test_loss"])
    np.testing.assert_array_equal(dataset["weights"].values, written["weights"])
    relu = dataset.sel(checkpoint=2).where(dataset["activation"] == "relu", drop=True)
    np.testing.assert_array_equal(relu["weights"], written["weights"][::3, 1])


@pytest.mark.parametrize(
    "key",
    [
        (3, slice(None), slice(None)),
        (slice(2, 30, 7), 1, slice(5, 9)),
        (np.array([30, 2]), slice(None), np.array([3, 1, 3])),
        (4, 2, np.array([5, 0])),
        (np.array([5]), np.array([2, 0]), 7),
        (slice(None, None, -1), -1, slice(None, None, -5)),
        (slice(3, 3), slice(None), slice(None)),
    ],
)
def test_xarray_reads_what_is_asked_for(population, written, key):
    got = population.to_xarray()["weights"].isel(
        dict(zip(("member", "checkpoint", "parameter"), key, strict=True))
    )
    wanted = written["weights"]
    for axis, part in reversed(list(enumerate(key))):
        wanted = wanted[(slice(None),) * axis + (part,)]
    np.testing.assert_array_equal(got.values, wanted)


def test_xarray_of_a_view(population, written):
    dataset = population.select([30, 2, 11]).checkpoints([5, 0]).to_xarray()
    assert dataset["member"].values.tolist() == [30, 2, 11]
    assert dataset["checkpoint"].values.tolist() == [0, 5]
    assert dataset["seed"].values.tolist() == [1030, 1002, 1011]
    wanted = written["weights"][[30, 2, 11]][:, [0, 2]]
    np.testing.assert_array_equal(dataset["weights"], wanted)
    np.testing.assert_array_equal(dataset["weights"].sel(checkpoint=5, member=2), wanted[1, 1])


def test_xarray_reads_late_and_verifies(path, tmp_path, written):
    copy = shutil.copytree(path, tmp_path / "copy.zarr")
    (copy / "populations/tiny/weights/c/1/2/0").unlink()
    weights = zoo.open(copy)["tiny"].to_xarray()["weights"]
    np.testing.assert_array_equal(weights.sel(checkpoint=2), written["weights"][:, 1])
    with pytest.raises(DamagedChunkError, match="members 16 to 31"):
        _ = weights.sel(checkpoint=5).values


def test_without_xarray_the_error_names_the_extra(population, monkeypatch):
    monkeypatch.delitem(sys.modules, "zoo.store.labelled", raising=False)
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(InvalidConfigError, match=r'pip install "weight-zoo\[xarray\]"'):
        population.to_xarray()


# ---- what a query costs -------------------------------------------------------------------------
def test_queries_leave_torch_alone(path):
    code = (
        "import sys, zoo\n"
        f"population = zoo.open({str(path)!r})['tiny']\n"
        "view = population.where(\"activation == 'relu'\").checkpoints('last')\n"
        "assert view.gather(view.member_ids, [0] * 14).shape == (14, 47)\n"
        "assert len(population.table) == len(zoo.concat([population]).table) == 40\n"
        "assert len(population.split()['train']) == 28 and population.version\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
