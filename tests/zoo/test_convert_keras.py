"""Keras's three kinds of weight file, written here with h5py after its specification."""

import io
import json
import os
import zipfile

import channels_last_networks as reference
import h5py
import numpy as np
import pytest
import torch
from torch import nn

from zoo.convert.keras import keras_weights, read_keras, recognise
from zoo.convert.sink import write
from zoo.convert.source import Skipped
from zoo.convert.torch_files import UnreadableFileError
from zoo.networks import LeNetConfig, to_dict
from zoo.store import open as open_zoo
from zoo.store.upkeep.check import check

NETWORK = to_dict(
    LeNetConfig(
        in_channels=2,
        image_size=6,
        out_features=4,
        channels=(3, 5),
        kernel_sizes=(3, 2),
        pools=(),
        hidden=(7,),
    )
)
MAPS = {"dense": [3, 3]}  # 6 - 2 - 1
SHAPES = {
    "conv2d": {"kernel": (3, 3, 2, 3), "bias": (3,)},
    "conv2d_1": {"kernel": (2, 2, 3, 5), "bias": (5,)},
    "dense": {"kernel": (3 * 3 * 5, 7), "bias": (7,)},
    "dense_1": {"kernel": (7, 4), "bias": (4,)},
}


def weights(seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {
        layer: {name: np.float32(rng.normal(size=shape)) for name, shape in variables.items()}
        for layer, variables in shapes.items()
    }


def legacy(path, layers, *, scope="", suffix=":0", root="", chunked=False):
    """Write HDF5 as Keras 1 and 2 do, and Keras 3 for ``.h5``: names in attributes."""
    with h5py.File(path, "w") as file:
        group = file.create_group(root) if root else file
        names = np.array([name.encode() for name in ("flatten", *layers)])
        if chunked:
            group.attrs["layer_names0"], group.attrs["layer_names1"] = names[:2], names[2:]
        else:
            group.attrs["layer_names"] = names
        group.create_group("flatten").attrs["weight_names"] = np.array([])
        for layer, variables in sorted(layers.items()):
            inside = group.create_group(layer)
            written = [f"{scope}{layer}/{name}{suffix}".encode() for name in variables]
            inside.attrs["weight_names"] = written
            for name, values in zip(written, variables.values(), strict=True):
                inside.create_dataset(name.decode(), data=values)
    return path


def numbered(target, layers):
    """Write HDF5 as Keras 3 does for ``.weights.h5``: numbered variables, no order of layers."""
    with h5py.File(target, "w") as file:
        file.create_group("optimizer/vars").create_dataset("0", data=np.int64(3))
        file.create_group("vars")
        file.create_group("layers/flatten/vars")
        for layer, variables in layers.items():
            group = file.create_group(f"layers/{layer}/vars")
            for number, values in enumerate(variables.values()):
                group[str(number)] = values
    return target


def archive(path, layers, classes):
    """Write a ``.keras`` archive."""
    held = io.BytesIO()
    numbered(held, layers)
    described = [{"class_name": name, "config": {"name": f"mine_{name}"}} for name in classes]
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", json.dumps({"config": {"layers": described}}))
        file.writestr("model.weights.h5", held.getvalue())
    return path


def outputs(layers, images):
    """Run Keras's network."""
    maps = images
    for layer in ("conv2d", "conv2d_1"):
        maps = np.maximum(reference.conv2d(maps, layers[layer]["kernel"], layers[layer]["bias"]), 0)
    hidden = reference.dense(reference.flatten(maps), *layers["dense"].values())
    return reference.dense(np.maximum(hidden, 0), *layers["dense_1"].values())


def convert(path, target, **options):
    source = keras_weights(path, flattened=MAPS, **options)
    report = write(source, target, name="keras", networks=[NETWORK])
    return report, open_zoo(target)["keras"]


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"scope": "sequential/", "suffix": ""},
        {"root": "model_weights"},
        {"chunked": True},
        "weights.h5",
        "keras",
    ],
    ids=["keras 2", "keras 3 .h5", "whole model", "long lists", "weights.h5", "archive"],
)
def test_every_network_computes_what_keras_does(tmp_path, layout):
    folder = tmp_path / "models"
    folder.mkdir()
    models = [weights(seed) for seed in range(3)]
    for seed, layers in enumerate(models):
        if layout == "weights.h5":
            path = numbered(folder / f"{seed}.weights.h5", layers)
        elif layout == "keras":
            classes = ["Conv2D", "Conv2D", "Flatten", "Dense", "Dense"]
            path = archive(folder / f"{seed}.keras", layers, classes)
        else:
            path = legacy(folder / f"{seed}.h5", layers, **layout)
        assert recognise(path)
    report, population = convert(folder, tmp_path / "zoo.zarr")
    assert report.skipped == ()
    assert report.populations[0].is_known
    images = reference.images(3, 6, 6, 2)
    for member, layers in enumerate(models):
        module = population.module(member).double()
        with torch.no_grad():
            ours = module(torch.from_numpy(reference.channels_first(images))).numpy()
        np.testing.assert_allclose(ours, outputs(layers, images), atol=1e-6)
    assert check(tmp_path / "zoo.zarr").ok


def test_batch_normalisation_is_torchs_with_kerass_epsilon(tmp_path):
    shapes = {
        "conv2d": {"kernel": (3, 3, 2, 5)},
        "batch_normalization": dict.fromkeys(
            ("gamma", "beta", "moving_mean", "moving_variance"), (5,)
        ),
        "dense": {"kernel": (5, 3), "bias": (3,)},
    }
    layers = weights(0, shapes)
    norm = layers["batch_normalization"]
    norm["moving_variance"] = norm["moving_variance"] ** 2
    module = nn.Sequential(
        nn.Conv2d(2, 5, 3, bias=False),
        nn.BatchNorm2d(5, eps=1e-3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    ).eval()
    path = archive(
        tmp_path / "model.keras",
        layers,
        ["Conv2D", "BatchNormalization", "GlobalAveragePooling2D", "Dense"],
    )
    tensors = read_keras(path).tensors
    assert list(tensors)[1:5] == [
        f"batch_normalization.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")
    ]
    ours = [name for name in module.state_dict() if "num_batches" not in name]
    state = dict(zip(ours, map(torch.from_numpy, tensors.values()), strict=True))
    module.load_state_dict(state, strict=False)
    images = reference.images(2, 6, 6, 2)
    maps = reference.conv2d(images, layers["conv2d"]["kernel"])
    maps = reference.batch_norm(maps, *norm.values(), epsilon=1e-3)
    wanted = reference.dense(reference.average(maps), *layers["dense"].values())
    with torch.no_grad():
        got = module.double()(torch.from_numpy(reference.channels_first(images))).numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_keras_3_files_take_the_order_that_is_given(tmp_path):
    path = numbered(tmp_path / "x.weights.h5", weights(0))
    names = ["dense_1", "conv2d", "conv2d_1", "dense"]
    found = list(read_keras(path, flattened={"dense": (3, 3)}, layers=names).tensors)
    assert found == [f"{name}.{leaf}" for name in names for leaf in ("weight", "bias")]
    with pytest.raises(UnreadableFileError, match="has no layer 'conv2d_9'"):
        read_keras(path, layers=["conv2d_9"])


def test_damaged_and_foreign_files_are_listed(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    for seed in range(3):
        legacy(folder / f"good-{seed}.h5", weights(seed))
    cut = legacy(folder / "cut.h5", weights(7))
    os.truncate(cut, cut.stat().st_size // 2)
    (folder / "text.h5").write_text("no HDF5 at all")
    lstm = {"lstm": {"kernel": (3, 8), "recurrent_kernel": (2, 8), "bias": (8,)}}
    legacy(folder / "lstm.h5", weights(0, lstm))
    numbered(folder / "lstm.weights.h5", weights(0, lstm))
    with zipfile.ZipFile(folder / "npz.keras", "w") as file:
        file.writestr("config.json", "{}")
        file.writestr("model.weights.npz", b"")
    report, population = convert(folder, tmp_path / "zoo.zarr")
    reasons = {each.name: each.reason for each in report.skipped}
    assert set(reasons) == {"cut.h5", "text.h5", "lstm.h5", "lstm.weights.h5", "npz.keras"}
    assert "damaged" in reasons["cut.h5"]
    assert reasons["lstm.h5"] == ("has no layer 'dense' to be read as flattened; it has lstm")
    (lone,) = keras_weights(folder / "lstm.h5").scan()
    assert lone.reason == (
        "layer 'lstm' has a variable 'recurrent_kernel', whose layout is not known here"
    )
    assert reasons["lstm.weights.h5"] == (
        "layer 'lstm' has 3 variables, whose meaning is not known here"
    )
    assert population.recipe["text"]["source"] == [f"good-{seed}.h5" for seed in range(3)]


def test_flattened_maps_need_their_size(tmp_path):
    path = legacy(tmp_path / "x.h5", weights(0))
    (skipped,) = keras_weights(path).scan()
    assert skipped == Skipped(
        "x.h5",
        "layer 'dense' reads feature maps of 5 planes, flattened to 45 numbers; give their height "
        'and width in the option flattened, such as {"dense": [4, 4]}',
    )
    with pytest.raises(UnreadableFileError, match="layer 'dense': .*no multiple of 4"):
        read_keras(path, flattened={"dense": (2, 2)})
    with pytest.raises(UnreadableFileError, match="has no layer 'fc'"):
        read_keras(path, flattened={"fc": (3, 3)})


def test_kernels_of_three_axes_are_those_of_conv1d(tmp_path):
    shapes = {"conv1d": {"kernel": (3, 2, 5)}}
    path = legacy(tmp_path / "x.h5", weights(0, shapes))
    kernel = weights(0, shapes)["conv1d"]["kernel"]
    found = read_keras(path).tensors["conv1d.weight"]
    np.testing.assert_array_equal(found, kernel.transpose(2, 1, 0))
    path = legacy(tmp_path / "y.h5", weights(0, {"query": {"kernel": (3, 2, 5)}}))
    with pytest.raises(UnreadableFileError, match="'query' has a kernel of three axes"):
        read_keras(path)


def test_epochs_and_columns_come_from_names_and_the_index(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    for seed in range(2):
        for epoch in (1, 4):
            legacy(folder / f"m{seed}-epoch{epoch}.h5", weights(10 * seed + epoch))
    (folder / "index.csv").write_text(
        "file,learning_rate,test_accuracy\n"
        + "".join(f"m{s}-epoch{e}.h5,0.{s + 1},0.{s}{e}\n" for s in range(2) for e in (1, 4))
    )
    _, population = convert(folder, tmp_path / "zoo.zarr")
    assert population.epochs.tolist() == [1, 4]
    assert population.table["learning_rate"].to_list() == [0.1, 0.2]
    np.testing.assert_array_equal(
        population.metric("test_accuracy"), np.float32([[0.01, 0.04], [0.11, 0.14]])
    )


def test_other_hdf5_is_not_recognised(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["weights"] = np.ones(3)
    assert not recognise(tmp_path / "x.h5")
    assert not recognise(tmp_path)
    (skipped,) = keras_weights(tmp_path / "x.h5").scan()
    assert skipped.reason == "is no Keras file: neither layer_names nor layers in it"
