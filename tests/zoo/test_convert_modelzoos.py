"""Ray Tune trials as ModelZoos has them, written here from real modules, become a population."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from zoo.convert.modelzoos import ModelZoos, recognise
from zoo.convert.sink import write
from zoo.convert.source import Skipped
from zoo.errors import MissingDataError
from zoo.store import open as open_zoo
from zoo.store.upkeep.check import check

EPOCHS = 3
NONLINEARITIES = {"tanh": nn.Tanh, "gelu": nn.GELU, "leakyrelu": nn.LeakyReLU}


class Net(nn.Module):
    """The small or the large network, as ModelZoos lists its layers."""

    def __init__(self, kind, channels, nlin, dropout):
        super().__init__()
        large = kind == "CNN3"
        act, drop = NONLINEARITIES[nlin], [nn.Dropout(dropout)] if large or dropout > 0 else []
        pool, (a, b, c), (i, j, k) = (
            nn.MaxPool2d(2, 2),
            (16, 32, 15) if large else (8, 6, 4),
            (3, 3, 3) if large else (5, 5, 2),
        )
        self.module_list = nn.ModuleList(
            [nn.Conv2d(channels, a, i), pool, act(), *drop]
            + [nn.Conv2d(a, b, j), pool, act(), *drop]
            + ([nn.Conv2d(b, c, k), pool, act(), *drop] if large else [nn.Conv2d(b, c, k), act()])
            + [nn.Flatten(), nn.Linear(60 if large else 36, 20), act(), *drop, nn.Linear(20, 10)]
        )

    def forward(self, inputs):
        for layer in self.module_list:
            inputs = layer(inputs)
        return inputs


def config(trial, *, kind="CNN"):
    return {
        "model::type": kind,
        "model::channels_in": 3 if kind == "CNN3" else 1,
        "model::o_dim": 4,  # the zoos record this, and the network ignores it
        "model::nlin": list(NONLINEARITIES)[trial % 3],
        "model::dropout": (0.0, 0.5)[trial % 2],
        "model::init_type": "kaiming_uniform",
        "optim::optimizer": ("adam", "sgd")[trial % 2],
        "optim::lr": 10.0 ** -(trial + 1),
        "optim::wd": 0.0,
        "optim::momentum": 0.9,
        "seed": 100 + trial,
        "training::batchsize": 10,
        "training::epochs_train": EPOCHS,
        "training::checkpoint_dir": None,
        "dataset::dump": "/home/somebody/zoos/dataset.pt",
        "cuda": False,
    }


def write_trial(folder, trial, *, kind="CNN", epochs=EPOCHS, name="checkpoint_{:06d}"):
    """Write what the trainable and Ray's loggers leave behind; returns the modules by epoch."""
    folder.mkdir(parents=True)
    settings = config(trial, kind=kind)
    (folder / "params.json").write_text(json.dumps(settings, indent=2, sort_keys=True))
    (folder / "params.pkl").write_bytes(b"never opened")
    modules, lines = {}, []
    for epoch in range(epochs + 1):
        torch.manual_seed(1000 * trial + epoch)
        net = Net(kind, settings["model::channels_in"], *nlin_and_dropout(settings))
        place = folder / name.format(epoch)
        place.mkdir()
        torch.save(net.state_dict(), place / "checkpoints")
        torch.save({"state": {}}, place / "optimizer")
        (place / ".tune_metadata").write_bytes(b"never opened")
        modules[epoch] = net.eval()
        lines.append(result(trial, epoch) | {"config": settings})
    (folder / "result.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return modules


def nlin_and_dropout(settings):
    return settings["model::nlin"], settings["model::dropout"]


def result(trial, epoch):
    measured = epoch > 0  # before training the trainable reports -999
    return {
        "train_loss": 2.0 - 0.1 * epoch if measured else -999,
        "train_acc": 0.1 * trial + 0.01 * epoch if measured else -999,
        "test_loss": 1.9 - 0.1 * epoch,
        "test_acc": 0.1 * trial + 0.02 * epoch,
        "done": epoch == EPOCHS,
        "training_iteration": epoch,
        "experiment_id": "0a1b",
        "time_total_s": 3.5,
    }


def convert(folder, target, **options):
    report = write(ModelZoos(folder, **options), target, name="modelzoo")
    return report, open_zoo(target)


def assert_same_function(population, member, epoch, module, shape):
    inputs = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    index = population.epochs.tolist().index(epoch)
    rebuilt = population.module(member, checkpoint=index)
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(inputs), module(inputs), atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Six trials of the small network in two experiments: modules, report, zoo."""
    folder = tmp_path_factory.mktemp("modelzoos")
    modules = {
        trial: write_trial(folder / f"MNIST/tune_{trial % 2}/NN_tune_trainable_{trial}", trial)
        for trial in range(6)
    }
    return modules, *convert(folder / "MNIST", folder / "zoo.zarr")


def test_every_checkpoint_computes_what_the_module_does(small):
    modules, report, zoo = small
    assert report.skipped == ()
    population = zoo["modelzoo"]
    names = population.recipe["text"]["source"]
    assert names == [f"tune_{t % 2}/NN_tune_trainable_{t}" for t in (0, 2, 4, 1, 3, 5)]
    assert population.space.num_parameters == 2464  # CNN-s on one channel
    for member, name in enumerate(names):
        for epoch in range(EPOCHS + 1):
            trial = int(name[-1])
            assert_same_function(population, member, epoch, modules[trial][epoch], (1, 28, 28))
    assert check(zoo.path).ok


def test_weights_go_back_to_the_same_state_dicts(small):
    modules, _, zoo = small
    population = zoo["modelzoo"]
    for member, trial in enumerate((0, 2, 4, 1, 3, 5)):
        for epoch, module in modules[trial].items():
            stored = population.state_dict(member, checkpoint=epoch)
            for ours, theirs in zip(stored.values(), module.state_dict().values(), strict=True):
                torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


def test_columns_and_metrics(small):
    *_, zoo = small
    population, order = zoo["modelzoo"], (0, 2, 4, 1, 3, 5)
    table = population.table
    wanted = ["tanh", "leaky_relu", "gelu", "gelu", "tanh", "leaky_relu"]
    assert table["activation"].to_list() == wanted
    assert table["dropout"].to_list() == [0.0, 0.0, 0.0, 0.5, 0.5, 0.5]
    assert table["optimizer"].to_list() == ["adam"] * 3 + ["sgd"] * 3
    assert table["learning_rate"].to_list() == [10.0 ** -(trial + 1) for trial in order]
    assert table["seed"].to_list() == [100 + trial for trial in order]
    assert "dataset_dump" not in table.columns
    specs = {spec.name: spec for spec in population.columns}
    assert (specs["learning_rate"].scale, specs["activation"].scale) == ("log", "categorical")
    assert population.metrics == ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    test = [[0.1 * trial + 0.02 * epoch for epoch in range(EPOCHS + 1)] for trial in order]
    np.testing.assert_array_equal(population.metric("test_accuracy"), np.float32(test))
    assert np.isnan(population.metric("train_accuracy")[:, 0]).all()
    assert not np.isnan(population.metric("train_accuracy")[:, 1:]).any()


def test_large_networks_and_older_names_of_checkpoints(tmp_path):
    folder = tmp_path / "zoo"
    modules = [
        write_trial(folder / f"trial_{trial}", trial, kind="CNN3", epochs=1, name="checkpoint_{}")
        for trial in range(2)
    ]
    _, zoo = convert(folder, tmp_path / "zoo.zarr")
    population = zoo["modelzoo"]
    assert population.space.num_parameters == 10853  # CNN-l on three channels
    for trial in range(2):
        assert_same_function(population, trial, 1, modules[trial][1], (3, 32, 32))


class _Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_damaged_trials_are_listed_and_the_rest_converted(tmp_path):
    folder = tmp_path / "zoo"
    for trial in range(9):
        write_trial(folder / f"trial_{trial}", trial, epochs=1 if trial == 1 else EPOCHS)
    (folder / "trial_2/checkpoint_000002/checkpoints").unlink()
    cut = folder / "trial_3/checkpoint_000001/checkpoints"
    cut.write_bytes(cut.read_bytes()[:1000])
    (folder / "trial_4/result.json").write_text("")
    harmed = tmp_path / "harmed"
    harmful = {"module_list.0.weight": _Malicious(harmed)}
    torch.save(harmful, folder / "trial_5/checkpoint_000000/checkpoints")
    (folder / "trial_5/checkpoint_000001/checkpoints").write_bytes(pickle.dumps(harmful))
    (folder / "trial_6/params.json").write_text("{")
    path = folder / "trial_7/result.json"
    path.write_text(path.read_text()[:-40])
    shutil.rmtree(folder / "trial_8")
    (folder / "trial_8").mkdir()
    (folder / "trial_8/params.json").write_text(json.dumps(config(8)))
    report, zoo = convert(folder, tmp_path / "zoo.zarr")
    assert not harmed.exists()
    reasons = {each.name: each.reason for each in report.skipped}
    assert reasons["trial_1"] == "lacks 2 of 4 checkpoints: epochs 2, 3"
    assert reasons["trial_2/checkpoint_000002"] == "holds no file 'checkpoints'"
    assert reasons["trial_2"] == "lacks 1 of 4 checkpoints: epochs 2"
    assert reasons["trial_3/checkpoint_000001"].startswith("is damaged")
    assert "result.json and progress.csv are absent or empty" in reasons["trial_4"]
    assert "mkdir, which is refused" in reasons["trial_5/checkpoint_000000"]
    assert "pickle" in reasons["trial_5/checkpoint_000001"]
    assert "refused" in reasons["trial_5/checkpoint_000001"]
    assert reasons["trial_7/result.json"] == "line 4 is cut off or no result: left out"
    assert "result.json and progress.csv are absent" in reasons["trial_8"]
    population = zoo["modelzoo"]
    kept = ["trial_0", "trial_6", "trial_7"]  # 6: every line of results repeats the configuration
    assert population.recipe["text"]["source"] == kept
    assert np.isnan(population.metric("test_accuracy")[2]).tolist() == [False, False, False, True]
    assert population.table["seed"].to_list() == [100, 106, 107]
    assert check(tmp_path / "zoo.zarr").ok


def test_trials_that_stopped_early_are_kept_for_chosen_epochs(tmp_path):
    folder = tmp_path / "zoo"
    modules = [
        write_trial(folder / f"trial_{trial}", trial, epochs=epochs)
        for trial, epochs in enumerate((EPOCHS, 1))
    ]
    report, zoo = convert(folder, tmp_path / "zoo.zarr", epochs=[1])
    population = zoo["modelzoo"]
    assert (report.skipped, population.epochs.tolist()) == ((), [1])
    assert_same_function(population, 1, 1, modules[1][1], (1, 28, 28))


def test_progress_csv_stands_in_for_results(tmp_path):
    write_trial(tmp_path / "zoo/trial_0", 0)
    folder = tmp_path / "zoo/trial_0"
    (folder / "result.json").unlink()
    rows = [result(0, epoch) for epoch in range(EPOCHS + 1)]
    lines = [",".join(rows[0])] + [",".join(map(str, row.values())) for row in rows]
    (folder / "progress.csv").write_text("\n".join(lines))
    entry = next(iter(ModelZoos(tmp_path / "zoo").scan()))
    assert entry.metrics["test_accuracy"] == [0.02 * epoch for epoch in range(EPOCHS + 1)]


def test_weights_that_are_not_finite_mark_the_network_as_diverged(tmp_path):
    modules = write_trial(tmp_path / "zoo/trial_0", 0)
    write_trial(tmp_path / "zoo/trial_1", 3)
    state = modules[2].state_dict()
    state["module_list.0.bias"][1] = torch.nan
    torch.save(state, tmp_path / "zoo/trial_0/checkpoint_000002/checkpoints")
    _, zoo = convert(tmp_path / "zoo", tmp_path / "zoo.zarr")
    assert zoo["modelzoo"].table["diverged"].to_list() == [True, False]
    assert check(tmp_path / "zoo.zarr").ok


def test_other_model_types_keep_their_names_and_shapes(tmp_path):
    folder = tmp_path / "zoo/trial_0"
    write_trial(folder, 0, epochs=0)
    settings = config(0) | {"model::type": "Resnet18"}
    (folder / "params.json").write_text(json.dumps(settings))
    torch.save({"fc.weight": torch.ones(2, 3)}, folder / "checkpoint_000000/checkpoints")
    report, zoo = convert(tmp_path / "zoo", tmp_path / "zoo.zarr")
    assert not report.populations[0].is_known
    assert [tensor.name for tensor in zoo["modelzoo"].space.tensors] == ["fc.weight"]


def test_conversion_resumes_to_the_same_version(tmp_path):
    for trial in range(20):
        write_trial(tmp_path / f"zoo/trial_{trial:02d}", 3 * trial, epochs=0)
    whole, _ = convert(tmp_path / "zoo", tmp_path / "whole.zarr")
    calls = 0

    def stop(doing, *_):
        nonlocal calls
        calls += doing == "writing"
        if calls == 1:
            raise KeyboardInterrupt

    half = tmp_path / "half.zarr"
    with pytest.raises(KeyboardInterrupt):
        write(ModelZoos(tmp_path / "zoo"), half, name="modelzoo", progress=stop)
    assert open_zoo(half)["modelzoo"].num_members == 16
    again, _ = convert(tmp_path / "zoo", half)
    assert again.version == whole.version


def test_trials_are_recognised(tmp_path):
    write_trial(tmp_path / "zoo/MNIST/trial_0", 0, epochs=0)
    assert recognise(tmp_path / "zoo")
    assert recognise(tmp_path / "zoo/MNIST/trial_0")
    (tmp_path / "empty").mkdir()
    assert not recognise(tmp_path / "empty")
    with pytest.raises(MissingDataError, match="Ray Tune trials"):
        ModelZoos(tmp_path / "empty")
    (entry,) = ModelZoos(tmp_path / "zoo/MNIST/trial_0").scan()
    assert entry.name == "trial_0"
    assert not isinstance(entry, Skipped)
