"""The Small CNN Zoo's three files, written here by hand, become a population."""

import csv
import gzip
import io
import json
from pathlib import Path

import channels_last_networks as reference
import numpy as np
import pytest
import torch

from zoo.convert.channels_last import keras_kernel
from zoo.convert.sink import write
from zoo.convert.small_cnn_zoo import SmallCNNZoo, recognise
from zoo.convert.source import Skipped
from zoo.errors import InvalidConfigError, MissingDataError
from zoo.store import open as open_zoo
from zoo.store.upkeep.check import check

STEPS = (0, 1, 2, 86)
WIDTHS = (2, 3, 5)
OUT = 4
ACTIVATIONS = {"relu": lambda maps: np.maximum(maps, 0), "tanh": np.tanh}
CONFIG = {
    "b_init": "zero",
    "dataset": "cifar10",
    "dnn_architecture": "cnn",
    "epochs": 86,
    "epochs_between_checkpoints": 20,
    "num_layers": 3,
    "num_units": 3,
    "random_seed": 42,
}


def layout():
    """Yield TensorFlow's variables in the order of the rows: by layer, bias first."""
    widths = (1, *WIDTHS)
    for number, (fan_in, fan_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        layer = "conv2d" if number == 0 else f"conv2d_{number}"
        yield f"sequential/{layer}/bias:0", (fan_out,)
        yield f"sequential/{layer}/kernel:0", (3, 3, fan_in, fan_out)
    yield "sequential/dense/bias:0", (OUT,)
    yield "sequential/dense/kernel:0", (WIDTHS[-1], OUT)


def hyper_parameters(model):
    return CONFIG | {
        "activation": ("relu", "tanh")[model % 2],
        "dropout": 0.1 * model,
        "init_std": 0.05,
        "l2reg": 0.0 if model == 0 else 1e-4,
        "learning_rate": 10.0 ** -(1 + model),
        "optimizer": ("sgd", "adam", "rmsprop")[model % 3],
        "train_fraction": 0.25,
        "w_init": "he_normal",
    }


def write_zoo(folder, *, models=5, drop=(), compress=False):
    """Write the three files; rows of different networks are mixed, as after a shuffle."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    size = sum(int(np.prod(shape)) for _, shape in layout())
    pairs = [(model, step) for step in STEPS[::-1] for model in range(models)]
    pairs = [pair for pair in pairs if pair not in drop]
    weights = rng.normal(scale=0.5, size=(len(pairs), size)).astype(np.float32)
    np.save(folder / "weights.npy", weights)
    rows = [
        {f"config.{key}": value for key, value in hyper_parameters(model).items()}
        | {
            "modeldir": f"gs://zoo/cifar10/{model}",
            "step": step,
            "laststep": step == STEPS[-1],
            "test_accuracy": 0.1 * model + 0.001 * step,
            "test_loss": 2.0 - 0.01 * step,
            "train_accuracy": 0.2 * model,
            "train_loss": 1.5,
        }
        for model, step in pairs
    ]
    _csv(folder / ("metrics.csv.gz" if compress else "metrics.csv"), rows, compress=compress)
    places, start = [], 0
    for name, shape in layout():
        stop = start + int(np.prod(shape))
        places.append(
            {
                "varname": name,
                "start_idx": start,
                "end_idx": stop,
                "size": stop - start,
                "shape": str(shape),
            }
        )
        start = stop
    _csv(folder / "layout.csv", places)
    return {pair: row for pair, row in zip(pairs, weights, strict=True)}


def _csv(path, rows, *, compress=False):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    plain = text.getvalue().encode()
    path.write_bytes(gzip.compress(plain) if compress else plain)


def variables(row):
    """Cut a row into TensorFlow's variables."""
    found, start = {}, 0
    for name, shape in layout():
        stop = start + int(np.prod(shape))
        found[name.removeprefix("sequential/")] = row[start:stop].reshape(shape)
        start = stop
    return found


def outputs(row, activation, images):
    """Run TensorFlow's network of a row."""
    values, maps = variables(row), images
    for layer in ("conv2d", "conv2d_1", "conv2d_2"):
        kernel, bias = values[f"{layer}/kernel:0"], values[f"{layer}/bias:0"]
        maps = ACTIVATIONS[activation](reference.conv2d(maps, kernel, bias, stride=2))
    return reference.dense(
        reference.average(maps), values["dense/kernel:0"], values["dense/bias:0"]
    )


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Convert five networks: the rows written, and the population."""
    folder = tmp_path_factory.mktemp("small")
    rows = write_zoo(folder / "cifar10", compress=True)
    report = write(SmallCNNZoo(folder / "cifar10"), folder / "zoo.zarr", name="small")
    assert report.skipped == ()
    return rows, open_zoo(folder / "zoo.zarr")["small"]


def test_every_network_computes_what_tensorflows_does(converted):
    rows, population = converted
    assert population.epochs.tolist() == list(STEPS)
    assert [group.size for group in population.space.groups] == list(WIDTHS)
    images = reference.images(3, 32, 32, 1)
    for member in range(5):
        for index, step in enumerate(STEPS):
            module = population.module(member, checkpoint=index).double()
            with torch.no_grad():
                ours = module(torch.from_numpy(reference.channels_first(images))).numpy()
            activation = hyper_parameters(member)["activation"]
            np.testing.assert_allclose(
                ours, outputs(rows[member, step], activation, images), atol=1e-6
            )


def test_weights_go_back_to_the_same_rows(converted):
    rows, population = converted
    names = [f"layers.{3 * layer}" for layer in range(3)] + ["head"]
    for (member, step), row in rows.items():
        state = population.state_dict(member, checkpoint=STEPS.index(step))
        parts = []
        for name in names:  # bias first, HWIO
            parts += [state[f"{name}.bias"].numpy(), keras_kernel(state[f"{name}.weight"].numpy())]
        np.testing.assert_array_equal(np.concatenate([part.ravel() for part in parts]), row)


def test_columns_and_metrics_are_those_of_the_table(converted):
    _, population = converted
    table = population.table
    assert table["activation"].to_list() == ["relu", "tanh", "relu", "tanh", "relu"]
    assert table["learning_rate"].to_list() == [10.0 ** -(1 + model) for model in range(5)]
    assert table["seed"].to_list() == [42] * 5
    assert table["optimizer"].to_list() == ["sgd", "adam", "rmsprop", "sgd", "adam"]
    specs = {spec.name: spec for spec in population.columns}
    assert specs["learning_rate"].scale == "log"
    assert specs["l2reg"].scale == "linear"  # one network has none
    assert population.spec.network_columns == ("activation", "dropout")
    wanted = [[0.1 * model + 0.001 * step for step in STEPS] for model in range(5)]
    np.testing.assert_array_equal(population.metric("test_accuracy"), np.float32(wanted))
    assert population.problem["dataset"] == "cifar10"
    assert population.recipe["text"]["source"][3] == "gs://zoo/cifar10/3"


def test_final_checkpoints_alone(tmp_path):
    write_zoo(tmp_path / "zoo", drop=[(2, 1), (3, 86)])
    entries = list(SmallCNNZoo(tmp_path / "zoo", final=True).scan())
    assert [entry.epochs for entry in entries] == [(86,), (86,), (86,), (86,), (2,)]


def test_networks_without_a_checkpoint_or_beyond_the_end_are_listed(tmp_path):
    rows = write_zoo(tmp_path / "zoo", drop=[(2, 1)])
    path = tmp_path / "zoo" / "weights.npy"
    path.write_bytes(path.read_bytes()[:-10])  # the last row: network 4, epoch 0
    report = write(SmallCNNZoo(tmp_path / "zoo"), tmp_path / "zoo.zarr", name="small")
    assert report.skipped == (
        Skipped(
            "gs://zoo/cifar10/4", f"weights.npy ends after {len(rows) - 1} rows, before epoch 0"
        ),
        Skipped("gs://zoo/cifar10/2", "lacks 1 of 4 checkpoints: epochs 1"),
    )
    population = open_zoo(tmp_path / "zoo.zarr")["small"]
    assert population.recipe["text"]["source"] == [f"gs://zoo/cifar10/{i}" for i in (0, 1, 3)]
    assert check(tmp_path / "zoo.zarr").ok


def test_weights_that_are_not_finite_mark_the_network_as_diverged(tmp_path):
    write_zoo(tmp_path / "zoo")
    weights = np.load(tmp_path / "zoo" / "weights.npy")
    weights[1, 7] = np.nan  # network 1, the last epoch
    np.save(tmp_path / "zoo" / "weights.npy", weights)
    write(SmallCNNZoo(tmp_path / "zoo"), tmp_path / "zoo.zarr", name="small")
    population = open_zoo(tmp_path / "zoo.zarr")["small"]
    assert population.table["diverged"].to_list() == [False, True, False, False, False]
    assert check(tmp_path / "zoo.zarr").ok


def test_a_pickle_in_place_of_numbers_is_refused(tmp_path):
    write_zoo(tmp_path / "zoo")
    np.save(tmp_path / "zoo" / "weights.npy", np.array([[Path("x")]]))
    with pytest.raises(InvalidConfigError, match=r"weights\.npy.*\(a pickle: refused\)"):
        write(SmallCNNZoo(tmp_path / "zoo"), tmp_path / "zoo.zarr", name="small")


def test_another_layout_is_refused_by_name(tmp_path):
    write_zoo(tmp_path / "zoo")
    path = tmp_path / "zoo" / "layout.csv"
    path.write_text(path.read_text().replace("sequential/dense/bias:0", "sequential/lstm/bias:0"))
    with pytest.raises(InvalidConfigError, match="sequential/lstm/bias:0"):
        list(SmallCNNZoo(tmp_path / "zoo").scan())


def test_a_folder_is_recognised_by_its_files(tmp_path):
    write_zoo(tmp_path / "zoo")
    assert recognise(tmp_path / "zoo")
    assert not recognise(tmp_path)
    with pytest.raises(MissingDataError, match="layout.csv"):
        SmallCNNZoo(tmp_path)


def test_conversion_resumes_to_the_same_version(tmp_path):
    write_zoo(tmp_path / "zoo", models=40)
    whole = write(SmallCNNZoo(tmp_path / "zoo"), tmp_path / "whole.zarr", name="small")
    calls = 0

    def stop(doing, *_):
        nonlocal calls
        calls += doing == "writing"
        if calls == 2:
            raise KeyboardInterrupt

    half = tmp_path / "half.zarr"
    with pytest.raises(KeyboardInterrupt):
        write(SmallCNNZoo(tmp_path / "zoo"), half, name="small", progress=stop)
    assert 0 < open_zoo(half)["small"].num_members < 40
    first = half / "populations/small/weights/c/0/0/0"
    before = first.stat().st_mtime_ns
    again = write(SmallCNNZoo(tmp_path / "zoo"), half, name="small")
    assert again.version == whole.version
    assert first.stat().st_mtime_ns == before
    assert check(half).ok


def test_recipe_is_plain_json(tmp_path):
    write_zoo(tmp_path / "zoo")
    source = SmallCNNZoo(tmp_path / "zoo")
    assert json.loads(json.dumps(source.recipe)) == source.recipe
