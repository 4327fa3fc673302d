"""Populations that begin from stored ones: fine-tuned, widened, pruned."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import zoo
from data_gen.ancestors import open_ancestors
from data_gen.distributions import Choice, Constant, Grid, LogUniform
from data_gen.engines import LoopEngine, NativeEngine, StackedEngine
from data_gen.engines.native import NoKernelError, obstacle_of
from data_gen.plan import space_of
from data_gen.recipe import Recipe
from data_gen.runner import Run, carry_out, prepare
from data_gen.starts import Prune, Start, Widen
from data_gen.streams import Purpose, stream
from data_gen.testing import MLP, small_digits, tiny_recipe
from data_gen.transforms import check_function, check_wider, prune, widen
from zoo.errors import InvalidConfigError, MissingDataError, StoreError, WeightSpaceMismatchError
from zoo.networks import (
    CNNConfig,
    LeNetConfig,
    MLPConfig,
    ResNetConfig,
    build,
    to_dict,
)

SOURCE = tiny_recipe(
    name="source",
    hyperparameters={
        "learning_rate": LogUniform(1e-3, 1e-2),
        "activation": Choice(("relu", "tanh")),
        "dropout": Choice((0.0, 0.3)),
    },
    num_members=9,
    epochs=1,
    checkpoints=(0, 1),
)


def _generate(recipe, out):
    run = Run(recipe=recipe, out=out, workers=1)
    carry_out(run, *prepare(run))
    return zoo.open(out)[recipe.name]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Nine members that differ in activation and dropout."""
    return _generate(SOURCE, tmp_path_factory.mktemp("source") / "zoo")


def _from(source, **changes):
    about = {"zoo": source.location, "population": "source"}
    start = {
        key: changes.pop(key) for key in ("where", "checkpoint", "transform") if key in changes
    }
    settings = {"name": "derived", "hyperparameters": {"learning_rate": Constant(1e-3)}} | changes
    return replace(SOURCE, start=Start(**about, **start), **settings)


def test_members_begin_from_stored_ones_in_turn(source, tmp_path):
    recipe = _from(source, num_members=20, checkpoint=0)
    derived = _generate(recipe, tmp_path / "zoo")
    parents = np.arange(20) % 9
    assert derived.table["parent"].to_list() == parents.tolist()
    assert derived.table["lineage"].to_list() == parents.tolist()
    first = source.weights(parents, checkpoint=0)
    np.testing.assert_array_equal(derived.weights(checkpoint=0), first)
    assert (derived.weights() != first).any(axis=1).all()
    for name in ("activation", "dropout"):
        values = source.table[name].to_list()
        assert derived.table[name].to_list() == [values[parent] for parent in parents]
    assert derived.network_of(5)["activation"] == source.network_of(5)["activation"]
    np.testing.assert_allclose(
        derived.metric("test_loss")[:, 0], source.metric("test_loss")[parents, 0], rtol=1e-6
    )


def test_a_condition_chooses_and_a_grid_goes_through_all_places_first(source, tmp_path):
    chosen = source.where("activation == 'tanh'").member_ids
    recipe = _from(
        source,
        where="activation == 'tanh'",
        hyperparameters={"learning_rate": Grid((1e-3, 1e-4)), "activation": Choice(("relu",))},
        num_members=6,
    )
    derived = _generate(recipe, tmp_path / "zoo")
    assert derived.table["parent"].to_list() == np.repeat(chosen, 2)[:6].tolist()
    assert derived.table["activation"].to_list() == ["tanh"] * 6, "the function is the parent's"


def test_identity_is_what_the_zoo_holds_and_not_where_it_lies(source, tmp_path):
    recipe = _from(source)
    moved = replace(recipe, start=replace(recipe.start, zoo="elsewhere"))
    assert recipe.sha256 == moved.sha256
    assert recipe.sha256 != replace(recipe, start=replace(recipe.start, checkpoint=0)).sha256
    assert Recipe.from_json(recipe.to_json()) == recipe
    out = tmp_path / "zoo"
    derived = _generate(replace(recipe, num_members=3), out)
    assert derived.recipe["start_version"] == source.version
    assert derived.recipe["start_space"] == source.space.fingerprint
    other = _generate(replace(SOURCE, seed=1), tmp_path / "other")
    changed = replace(recipe, num_members=3, start=replace(recipe.start, zoo=other.location))
    with pytest.raises(StoreError, match="start_version was"):
        prepare(Run(recipe=changed, out=out, workers=1))


@pytest.mark.parametrize("engine", [LoopEngine(), StackedEngine(), NativeEngine()], ids=str)
def test_engines_begin_with_the_vectors_they_are_given(engine):
    recipe, problem, ids = tiny_recipe(epochs=1, checkpoints=(0, 1)), small_digits(), np.arange(12)
    space, rng = space_of(recipe), np.random.default_rng(0)
    start = np.empty(12, dtype=object)
    for member in ids:
        start[member] = rng.normal(0, 0.1, space.num_parameters).astype(np.float32)
    drawn = recipe.draw(ids) | {"start": start}
    result = engine.train(recipe, problem, space, ids, drawn)
    np.testing.assert_array_equal(result.weights[:, 0], np.stack(list(start)))
    part = np.array([7])
    own = {name: values[part] for name, values in drawn.items()}
    alone = engine.train(recipe, problem, space, part, own)
    np.testing.assert_array_equal(alone.weights[0], result.weights[7])


# ---- widening -----------------------------------------------------------------------------------
WIDER = {
    "mlp": (MLPConfig, {"in_features": 5, "out_features": 3}, {"hidden": (4, 3)}, (7, 11)),
    "mlp-norm": (
        MLPConfig,
        {"in_features": 5, "out_features": 3, "batch_norm": True},
        {"hidden": (4, 3)},
        (7, 11),
    ),
    "cnn-flat": (
        CNNConfig,
        {"in_channels": 2, "image_size": 9, "out_features": 3, "head": "flatten", "stride": 1},
        {"channels": (3, 2)},
        (5, 7),
    ),
    "cnn-norm": (
        CNNConfig,
        {"in_channels": 2, "image_size": 9, "out_features": 3, "batch_norm": True, "stride": 1},
        {"channels": (3, 2)},
        (5, 7),
    ),
    "lenet": (
        LeNetConfig,
        {"in_channels": 1, "image_size": 20, "out_features": 3, "hidden": (5, 4)},
        {"channels": (3, 2)},
        (5, 7),
    ),
    "resnet": (
        ResNetConfig,
        {"image_size": 8, "depth": 8, "shortcut": "projection"},
        {"width": 3},
        5,
    ),
}


def _weights(network, space):
    module = build(network)
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.rand(tensor.shape, generator=generator) + 0.5
        if "var" in name
        else torch.randn(tensor.shape, generator=generator)
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point()
    }
    module.load_state_dict(state, strict=False)
    return module, space.flatten(state).numpy()


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "resnet" else n for n in WIDER]
)
def test_widening_keeps_the_function_and_breaks_the_symmetry(name, even):
    kind, fixed, narrow, wide = WIDER[name]
    old, new = kind(**fixed, **narrow), kind(**fixed, **dict.fromkeys(narrow, wide))
    before, after = (zoo.trace(each.build(), each.example_input(2)) for each in (old, new))
    module, vector = _weights(old, before)
    check_wider(before, after)
    widened = widen(before, after, vector, rng=np.random.default_rng(0), even=even)
    check_function(copy.deepcopy(module), to_dict(new), after, widened, of="a test")
    # A unit and its copy are read by equal shares or not.
    first = before.groups[0]
    touch = next(
        touch
        for touch in after.group(first.name).touches
        if after.tensor(touch.tensor).axes[touch.dim].role == "in"
    )
    tensor = after.unflatten(torch.from_numpy(widened))[touch.tensor].movedim(touch.dim, 0)
    places = touch.index.array()
    assert torch.allclose(tensor[places[0]], tensor[places[first.size]]) == even
    damaged, offset = widened.copy(), after.offsets[touch.tensor]
    damaged[offset : offset + after.tensor(touch.tensor).numel] *= 1.5
    with pytest.raises(WeightSpaceMismatchError, match="outputs changed"):
        check_function(module, to_dict(new), after, damaged, of="a test")


def test_a_wide_population_begins_with_the_functions_of_the_narrow_one(source, tmp_path):
    recipe = _from(source, network=replace(MLP, hidden=(11, 7)), transform=Widen(), num_members=10)
    wide = _generate(recipe, tmp_path / "zoo")
    parents = wide.table["parent"].to_numpy()
    np.testing.assert_allclose(
        wide.metric("test_loss")[:, 0], source.metric("test_loss")[parents, -1], rtol=1e-5
    )
    own = open_ancestors(recipe)
    rng = stream(int(recipe.seeds(np.array([4]))[0]), Purpose.START)
    alone = widen(source.space, own.space, source.weights([4])[0], rng=rng)
    np.testing.assert_array_equal(wide.weights([4], checkpoint=0)[0], alone)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (replace(MLP, hidden=(11, 7, 5)), "Widening keeps the depth"),
        (replace(MLP, hidden=(4, 7)), "at least 5 units"),
        (replace(MLP, hidden=(11, 7), out_features=12), "Keep inputs, outputs and kernels"),
    ],
)
def test_networks_that_are_not_wider_are_refused(source, network, words):
    with pytest.raises(WeightSpaceMismatchError, match=words):
        open_ancestors(_from(source, network=network, transform=Widen()))


# ---- pruning ------------------------------------------------------------------------------------
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_pruning_takes_the_smallest_weights(scope):
    space, rng = space_of(tiny_recipe(hyperparameters={})), np.random.default_rng(0)
    vector = rng.normal(size=space.num_parameters).astype(np.float32)
    stays = prune(space, vector, fraction=0.6, scope=scope)
    kept = space.unflatten(torch.from_numpy(stays))
    values = space.unflatten(torch.from_numpy(np.abs(vector)))
    weights = [tensor.name for tensor in space.tensors if tensor.role == "weight"]
    assert all(kept[t.name].all() for t in space.tensors if t.name not in weights)
    parts = [[name] for name in weights] if scope == "layer" else [weights]
    for names in parts:
        mask = torch.cat([kept[name].flatten() for name in names])
        size = torch.cat([values[name].flatten() for name in names])
        assert int((~mask).sum()) == round(0.6 * len(mask))
        assert size[~mask].max() <= size[mask].min()


@pytest.mark.parametrize("frozen", [True, False])
def test_pruned_weights_stay_0_where_they_are_frozen(source, tmp_path, frozen):
    transform = Prune(fraction=0.5, frozen=frozen)
    derived = _generate(_from(source, transform=transform), tmp_path / "zoo")
    first, last = derived.weights(checkpoint=0), derived.weights()
    weights = sum(t.numel for t in derived.space.tensors if t.role == "weight")
    assert ((first == 0).sum(axis=1) == round(0.5 * weights)).all()
    assert (last[first == 0] == 0).all() == frozen
    assert (last != first).any(axis=1).all()
    twice = Start(
        zoo=derived.location,
        population="derived",
        transform=Prune(fraction=0.8),
    )
    further = _generate(replace(_from(source, name="further"), start=twice), tmp_path / "zoo")
    zeros = further.weights(checkpoint=0) == 0
    assert (zeros.sum(axis=1) == round(0.8 * weights)).all()
    assert zeros[last == 0].all()


def test_engines_agree_on_masks():
    rules = {"optimizer": Choice(("sgd", "nesterov", "adam", "adamw", "rmsprop"))}
    recipe = tiny_recipe(
        hyperparameters=tiny_recipe().hyperparameters | rules, epochs=1, checkpoints=(0, 1)
    )
    problem, ids, space = small_digits(), np.arange(12), space_of(recipe)
    rng = np.random.default_rng(0)
    start, mask = np.empty(12, dtype=object), np.empty(12, dtype=object)
    for member in ids:
        mask[member] = rng.random(space.num_parameters) < 0.5
        drawn = rng.normal(0, 0.1, space.num_parameters).astype(np.float32)
        start[member] = np.where(mask[member], drawn, np.float32(0))
    drawn = recipe.draw(ids) | {"start": start, "mask": mask}
    kept = np.stack(list(mask))
    loop, stacked = (
        engine.train(recipe, problem, space, ids, drawn)
        for engine in (LoopEngine(), StackedEngine())
    )
    for result in (loop, stacked):
        assert (result.weights[:, -1][~kept] == 0).all()
        assert (result.weights[:, -1][kept] != result.weights[:, 0][kept]).mean() > 0.5
    gaps = np.abs(loop.weights - stacked.weights).max(axis=(1, 2))
    assert np.median(gaps) < 1e-6
    part = np.array([3])
    own = {name: values[part] for name, values in drawn.items()}
    alone = StackedEngine().train(recipe, problem, space, part, own)
    np.testing.assert_array_equal(alone.weights[0], stacked.weights[3])
    with pytest.raises(NoKernelError, match="keep pruned weights at 0"):
        NativeEngine().train(recipe, problem, space, ids, drawn)


def test_auto_takes_another_engine_for_frozen_zeros(source):
    assert "keep pruned" in obstacle_of(_from(source, transform=Prune(fraction=0.5)), device="cpu")
    assert "keep pruned" not in obstacle_of(_from(source), device="cpu")


# ---- refusals -----------------------------------------------------------------------------------
def test_what_cannot_be_begun_from_is_named_before_training(source, tmp_path):
    recipe = _from(source)
    cases = [
        (replace(recipe.start, zoo=str(tmp_path / "none")), StoreError, "Expected a zoo at"),
        (replace(recipe.start, zoo=""), MissingDataError, "--start ZOO"),
        (replace(recipe.start, population="sauce"), KeyError, "Known: source"),
        (replace(recipe.start, checkpoint=2), KeyError, "checkpoint"),
        (replace(recipe.start, where="test_loss < 0"), InvalidConfigError, "No finite member"),
    ]
    for start, error, words in cases:
        with pytest.raises(error, match=words):
            prepare(Run(recipe=replace(recipe, start=start), out=tmp_path / "zoo", workers=1))
    other = replace(recipe, network=replace(MLP, hidden=(5, 4)))
    with pytest.raises(WeightSpaceMismatchError, match="Give the recipe their network"):
        prepare(Run(recipe=other, out=tmp_path / "zoo", workers=1))
    assert not (tmp_path / "zoo").exists()


def test_an_unfinished_population_is_no_start(tmp_path):
    prepare(Run(recipe=SOURCE, out=tmp_path / "zoo", workers=1))
    start = Start(zoo=str(tmp_path / "zoo"), population="source")
    with pytest.raises(StoreError, match="not finished"):
        open_ancestors(replace(SOURCE, name="derived", start=start))


def test_transforms_are_checked():
    with pytest.raises(InvalidConfigError, match=r"fraction in \[0, 1\)"):
        Prune(fraction=1.0)
    with pytest.raises(KeyError, match="Known: widen, prune"):
        Start.from_json({"zoo": "z", "population": "p", "transform": {"name": "grow"}})
