"""The sink: grouping, columns, checkpoints, lineage, splits, resuming; sources made in memory."""

from dataclasses import replace

import numpy as np
import pytest

import zoo
from zoo.convert import sink
from zoo.convert.commands import describe
from zoo.convert.sink import write
from zoo.convert.source import Entry, Skipped
from zoo.errors import InvalidConfigError, StoreError, WeightSpaceMismatchError
from zoo.networks import build
from zoo.schema import ColumnSpec
from zoo.store.upkeep.check import check
from zoo.symmetry import trace

NETWORK = {"name": "mlp", "in_features": 2, "hidden": [3], "out_features": 5}
SHAPES = (
    ("layers.1.weight", (3, 2)),
    ("layers.1.bias", (3,)),
    ("layers.4.weight", (5, 3)),
    ("layers.4.bias", (5,)),
)
OTHER = (("a", (2, 3)), ("b.running_mean", (2,)), ("b.weight", (2,)))


class Memory:
    """A source whose numbers follow from the entry's position and the epoch."""

    format = "memory"
    column_specs = ()
    network_columns = ()

    def __init__(self, *found, **changes):
        self.found = found
        self.problem = {"name": "digits"}
        self.recipe = {"from": "nowhere"}
        self.loaded = []
        vars(self).update(changes)

    def scan(self):
        yield from self.found

    def load(self, entry, epoch):
        self.loaded.append((entry.name, epoch))
        return {name: self.numbers(entry.name, epoch, shape) for name, shape in entry.shapes}

    def numbers(self, name, epoch, shape):
        return np.full(shape, sum(name.encode()) + epoch / 4, np.float64)


def entry(name, **changes):
    return replace(Entry(name=name, shapes=SHAPES, network=NETWORK), **changes)


def converted(tmp_path, source, **options):
    report = write(source, tmp_path / "z.zarr", name="p", **options)
    assert check(tmp_path / "z.zarr").ok
    return report, zoo.open(tmp_path / "z.zarr")


def test_a_known_network_gets_its_traced_space_and_rebuilds(tmp_path):
    report, made = converted(tmp_path, Memory(entry("x"), entry("y")))
    population = made["p"]
    assert population.space == trace(build(NETWORK), zoo.networks.example_input(NETWORK))
    assert population.network["activation"] == "relu"  # spelled out: defaults may change
    bias = population.module(1).layers[4].bias.detach().numpy()
    np.testing.assert_array_equal(bias, np.full(5, sum(b"y"), np.float32))
    assert population.problem == {"name": "digits"}
    assert population.recipe["from"] == "nowhere"
    assert population.recipe["text"]["source"] == ["x", "y"]
    assert report.populations[0].is_known
    assert report.version == made.version


def test_unknown_architectures_are_stored_and_say_so(tmp_path):
    report, made = converted(tmp_path, Memory(entry("x", shapes=OTHER, network=None)))
    population = made["p"]
    assert [tensor.name for tensor in population.space.tensors] == [
        "a",
        "b.weight",
        "b.running_mean",
    ]
    assert population.space.num_trainable == 8
    assert population.space.groups == ()
    assert population.state_dict(0)["b.weight"].tolist() == [120.0, 120.0]
    with pytest.raises(InvalidConfigError, match=r"architecture of these networks is not known"):
        population.module(0)
    assert not report.populations[0].is_known


def test_candidates_are_matched_by_order_and_shapes(tmp_path):
    foreign = tuple((name.replace("layers", "fc"), shape) for name, shape in SHAPES)
    source = Memory(entry("x", network=None, shapes=foreign), entry("y", network=None))
    report, made = converted(tmp_path, source, networks=[NETWORK | {"hidden": [7]}, NETWORK])
    assert report.populations[0].num_translated == 1
    told = made["p"].recipe["translated"]
    assert told[0]["rule"] == "order and shapes"
    assert told[0]["members"] == 1
    assert told[0]["names"]["layers.4.bias"] == "fc.4.bias"
    assert made["p"].state_dict(0)["layers.4.bias"].tolist() == [120.0] * 5


def test_why_a_candidate_does_not_fit_is_told(tmp_path):
    source = Memory(entry("x", network=None, shapes=OTHER))
    report, _ = converted(tmp_path, source, networks=[NETWORK])
    assert report.populations[0].reason == "not mlp: expected 4 tensors, got 3"


def test_one_population_per_architecture_largest_first(tmp_path):
    wide = NETWORK | {"hidden": [4]}
    shapes = tuple((name, tuple(4 if n == 3 else n for n in shape)) for name, shape in SHAPES)
    source = Memory(
        entry("u", network=None, shapes=OTHER),
        entry("w", network=wide, shapes=shapes),
        entry("x"),
        entry("y"),
    )
    report, made = converted(tmp_path, source)
    assert [(each.name, each.num_members) for each in report.populations] == [
        ("p-1", 2),
        ("p-2", 1),
        ("p-3", 1),
    ]
    assert made["p-1"].network["hidden"] == [3]
    assert made["p-2"].network["name"] == "unknown"
    assert made["p-3"].network["hidden"] == [4]


def test_several_architectures_may_share_a_ragged_population(tmp_path):
    wide = NETWORK | {"hidden": [4]}
    shapes = tuple((name, tuple(4 if n == 3 else n for n in shape)) for name, shape in SHAPES)
    found = (
        entry("u", network=None, shapes=OTHER, parent="x"),
        entry("w", network=wide, shapes=shapes),
        entry("x"),
        entry("y", columns={"lr": 0.5}),
        *(entry(f"m{i:02}") for i in range(20)),
    )
    report, made = converted(tmp_path, Memory(*found), ragged=True)
    population = made["p"]
    assert report.num_members == population.num_members == 24
    assert len(report.populations[0].networks) == 3
    said = describe(report, tmp_path)
    assert "p: 24 members, 1 checkpoint, 3 architectures, 1 of them unknown: names and" in said
    assert population.table["architecture"].to_list() == [0, 1] + [2] * 22
    assert population.table["lineage"][0] == 2
    assert population.network_of(1)["hidden"] == [4]
    assert population.state_dict(0)["a"].tolist() == [[117.0] * 3] * 2
    assert population.module(3).layers[1].weight.detach().unique().tolist() == [121.0]
    assert population.recipe["text"]["source"][:3] == ["u", "w", "x"]
    again = Memory(*found)
    assert write(again, tmp_path / "z.zarr", name="p", ragged=True).version == report.version
    assert again.loaded == []


def test_network_columns_share_a_population_and_only_what_scales_in_all(tmp_path):
    tanh = NETWORK | {"activation": "tanh"}
    source = Memory(
        entry("x", columns={"activation": "relu"}),
        entry("y", columns={"activation": "relu"}),
        entry("z", network=tanh, columns={"activation": "tanh"}),
        network_columns=("activation",),
    )
    report, made = converted(tmp_path, source)
    assert report.num_members == 3
    assert made["p"].network_of(2)["activation"] == "tanh"
    assert len(made["p"].space.groups) == 1
    assert made["p"].space.scalings == ()  # relu scales, tanh only flips signs


def test_tensors_that_are_not_the_networks_are_skipped(tmp_path):
    report, _ = converted(
        tmp_path, Memory(entry("x"), entry("y", shapes=OTHER), Skipped("f", "no"))
    )
    assert [each.name for each in report.skipped] == ["f", "y"]
    assert "expected 4 tensors, got 3" in report.skipped[1].reason


def test_common_checkpoints_and_their_metrics(tmp_path):
    loss = {"test_loss": [3.0, 2.0, 1.0]}
    source = Memory(
        entry("short", epochs=(0, 2), metrics={"test_loss": [3.0, 2.0]}),
        entry("x", epochs=(0, 2, 5), metrics=loss),
        entry("y", epochs=(0, 2, 5)),
        entry("long", epochs=(0, 1, 2, 5), metrics={"test_loss": [9.0, 8.0, 7.0, 6.0]}),
    )
    report, made = converted(tmp_path, source)
    population = made["p"]
    assert population.epochs.tolist() == [0, 2, 5]
    np.testing.assert_array_equal(
        population.metric("test_loss"), [[3, 2, 1], [np.nan] * 3, [9, 7, 6]]
    )
    assert report.skipped == (Skipped("short", "lacks 1 of 3 checkpoints: epochs 5"),)
    assert population.weights([2], checkpoint=1)[0, 0] == sum(b"long") + 0.5


def test_columns_are_inferred_once_for_all_populations(tmp_path):
    source = Memory(
        entry("x", columns={"lr": 1e-4, "optimizer": "sgd", "seed": 7, "sha": "a", "ok": True}),
        entry("y", columns={"lr": 1e-1, "optimizer": "adam", "width": 3, "sha": "b", "ok": False}),
        entry("z", columns={"lr": 0.5, "width": 4, "sha": "c", "ok": True, "label": 2}),
        entry("u", network=None, shapes=OTHER, columns={"optimizer": "sgd", "lr": 1.0}),
    )
    _, made = converted(tmp_path, source)
    columns = {column.name: column for column in made["p-1"].columns}
    table = made["p-1"].table
    assert columns["lr"].scale == "log"
    assert columns["optimizer"].categories == ("adam", "sgd", "unknown")
    assert table["optimizer"].to_list() == ["sgd", "adam", "unknown"]
    np.testing.assert_array_equal(table["width"].to_numpy(), [np.nan, 3, 4])
    assert table["seed"].to_list() == [7, -1, -1]
    assert table["ok"].to_list() == ["True", "False", "True"]
    assert columns["label"].role == "identity"
    assert made["p-1"].recipe["text"]["sha"] == ["a", "b", "c"]
    assert [column.name for column in made["p-2"].columns[3:]] == ["lr", "optimizer"]
    assert made["p-2"].columns[-1].categories == ("adam", "sgd", "unknown")


def test_declared_columns_and_awkward_names(tmp_path):
    spec = ColumnSpec(name="lr", dtype="float64", unit="1/step", description="step size")
    source = Memory(
        entry(
            "x", columns={"lr": 1, "val acc (%)": 3, "member": 5, "acc": 2}, metrics={"acc": [1.0]}
        ),
        column_specs=(spec, replace(spec, name="absent")),
    )
    _, made = converted(tmp_path, source)
    assert made["p"].columns[3:][0] == spec
    assert [each.name for each in made["p"].columns[4:]] == [
        "val_acc",
        "source_member",
        "source_acc",
    ]
    assert made["p"].metrics == ("acc",)


def test_lineage_follows_parents_within_a_population(tmp_path):
    source = Memory(
        entry("x", parent="z"), entry("y"), entry("z", parent="y"), entry("w", parent="elsewhere")
    )
    _, made = converted(tmp_path, source)
    assert made["p"].table["lineage"].to_list() == [1, 1, 1, 3]


def test_splits_of_the_source_are_frozen_and_relatives_kept_together(tmp_path):
    parts = [{"paper": "test"}, {"paper": "train", "bad": "test"}, {"bad": "train"}]
    found = [entry(name, parts=part) for name, part in zip("xyz", parts, strict=True)]
    found[2] = replace(found[2], parent="y")
    report, made = converted(tmp_path, Memory(*found))
    split = {part: ids.tolist() for part, ids in made["p"].split("paper").items()}
    assert split == {"train": [1], "validation": [], "test": [0]}
    assert [each.name for each in report.skipped] == ["split 'bad' of 'p'"]
    assert "share a part" in report.skipped[0].reason


def test_what_float32_cannot_hold_is_a_diverged_member(tmp_path):
    class Huge(Memory):
        def numbers(self, name, epoch, shape):
            return np.full(shape, {"x": 1e300, "y": np.nan, "z": 1.5}[name])

    report, made = converted(tmp_path, Huge(*(entry(n, dtype="float64") for n in "xyz")))
    assert made["p"].table["diverged"].to_list() == [True, True, False]
    assert made["p"].recipe["source_dtypes"] == ["float64"]
    assert report.populations[0].num_diverged == 2


def test_an_interrupted_conversion_goes_on_to_the_same_version(tmp_path):
    found = [entry(f"m{i:02}", epochs=(0, 1)) for i in range(40)]
    whole = write(Memory(*found), tmp_path / "whole.zarr", name="p")

    class Stops(Memory):
        def load(self, of, epoch):
            if of.name == "m20":
                raise KeyboardInterrupt
            return super().load(of, epoch)

    target = tmp_path / "again.zarr"
    with pytest.raises(KeyboardInterrupt):
        write(Stops(*found), target, name="p")
    assert zoo.open(target)["p"].num_members == 16
    rest = Memory(*found)
    assert write(rest, target, name="p").version == whole.version
    assert {name for name, _ in rest.loaded} == {f"m{i:02}" for i in range(16, 40)}
    idle = Memory(*found)
    assert write(idle, target, name="p").version == whole.version
    assert idle.loaded == []


def test_another_source_does_not_resume(tmp_path):
    converted(tmp_path, Memory(entry("x")))
    with pytest.raises(StoreError, match="differs in recipe"):
        write(Memory(entry("y")), tmp_path / "z.zarr", name="p")


def test_a_source_that_changes_meanwhile_is_named(tmp_path):
    class Shrinks(Memory):
        def load(self, of, epoch):
            return {name: values[:1] for name, values in super().load(of, epoch).items()}

    with pytest.raises(WeightSpaceMismatchError, match="source change") as caught:
        write(Shrinks(entry("x")), tmp_path / "z.zarr", name="p")
    assert "while converting 'x', epoch 0" in caught.value.__notes__


def test_names_must_be_unique_and_nothing_is_made_of_nothing(tmp_path):
    with pytest.raises(InvalidConfigError, match="'x' twice"):
        write(Memory(entry("x"), entry("x")), tmp_path / "z.zarr", name="p")
    report = write(Memory(Skipped("f", "no")), tmp_path / "z.zarr", name="p")
    assert report == sink.ConversionReport(populations=(), skipped=(Skipped("f", "no"),))
    assert not (tmp_path / "z.zarr").exists()


def test_progress_is_told(tmp_path):
    told = []
    source = Memory(entry("x"), entry("y"))
    write(source, tmp_path / "z.zarr", name="p", progress=lambda *each: told.append(each))
    assert told == [("reading", 1, 0), ("reading", 2, 0), ("writing", 2, 2)]
