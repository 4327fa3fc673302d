"""LMDB environments as G.pt writes them, made here from real modules, become a population."""

import json
import os
import pickle

import lmdb
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from zoo.convert.gpt import GptCheckpoints, recognise
from zoo.convert.sink import write
from zoo.convert.source import Skipped
from zoo.errors import MissingDataError
from zoo.networks import MLPConfig, to_dict
from zoo.store import open as open_zoo
from zoo.store.upkeep.check import check

SAVES = 3


class ConvNet(nn.Module):
    """G.pt's network for CIFAR-10."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=3, stride=1, padding=1, bias=False)
        self.fc = nn.Linear(32, 10)

    def forward(self, inputs):
        maps = functional.relu(self.conv2(functional.relu(self.conv1(inputs))))
        return self.fc(maps.mean(dim=(2, 3)))


class MLP(nn.Module):
    """G.pt's network for MNIST."""

    def __init__(self, inputs=784, hidden=10, outputs=10):
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, inputs):
        return self.fc2(functional.relu(self.fc1(inputs.flatten(1))))


def steps(run):
    """Return the steps of a run's checkpoints; other ones for every run."""
    return [(0, 0), (1, 7 + run), (24, 117)][:SAVES]


def write_runs(folder, runs, make, *, fused=False):
    """Write one environment; returns the modules by run and number."""
    folder.mkdir(parents=True)
    modules, described = {}, {}
    environment = lmdb.open(str(folder), map_size=2**24)
    with environment.begin(write=True) as transaction:
        for run in runs:
            checkpoints = {}
            for number, (epoch, iteration) in enumerate(steps(run)):
                torch.manual_seed(100 * run + number)
                modules[run, number] = module = make().eval()
                key = f"{run}/ep{epoch:03d}_it{iteration:05d}.pt"
                state = [each.numpy().ravel() for each in module.state_dict().values()]
                transaction.put(key.encode(), np.concatenate(state).astype("<f4").tobytes())
                sizes = np.array([len(each) for each in state], "<f4")
                transaction.put(f"{key}_arch".encode(), sizes.tobytes())
                checkpoints[key] = {
                    "avg_train_loss": 2.0 - number,
                    "avg_test_loss": 2.5 - 0.1 * run - number,
                    "avg_test_err": 90.0 - 10 * number,
                }
            described[str(run)] = {
                "checkpoints": checkpoints,
                "metadata": {"avg_test_loss": [2.5, 1.5], "optimal_test_loss": 0.1 * run},
            }
    environment.close()
    (folder / "lock.mdb").unlink()
    text = json.dumps(described if fused else described[str(runs[0])], indent=2, sort_keys=True)
    (folder / "runs.json").write_text(text)
    return modules


def put(folder, key, value):
    with (
        lmdb.open(str(folder), map_size=2**24) as environment,
        environment.begin(write=True) as transaction,
    ):
        if value is None:
            transaction.delete(key.encode())
        else:
            transaction.put(key.encode(), value)


@pytest.mark.parametrize(
    ("make", "shape", "size"), [(ConvNet, (3, 32, 32), 5370), (MLP, (1, 28, 28), 7960)]
)
def test_every_checkpoint_computes_what_the_module_does(tmp_path, make, shape, size):
    modules = {}
    modules |= write_runs(tmp_path / "data/1_2", [1, 2], make, fused=True)
    modules |= write_runs(tmp_path / "data/3", [3], make)
    assert recognise(tmp_path / "data")
    report = write(GptCheckpoints(tmp_path / "data"), tmp_path / "zoo.zarr", name="gpt")
    assert report.skipped == ()
    population = open_zoo(tmp_path / "zoo.zarr")["gpt"]
    assert population.space.num_parameters == size
    assert population.recipe["text"]["source"] == ["1", "2", "3"]
    inputs = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    for (run, number), module in modules.items():
        rebuilt = population.module(run - 1, checkpoint=number)
        with torch.no_grad():
            torch.testing.assert_close(rebuilt(inputs), module(inputs), atol=1e-6, rtol=0)
    assert check(tmp_path / "zoo.zarr").ok


def test_metrics_say_which_steps_were_kept(tmp_path):
    write_runs(tmp_path / "data/4_5", [4, 5], lambda: MLP(3, 2, 5), fused=True)
    network = to_dict(MLPConfig(in_features=3, hidden=(2,), out_features=5))
    write(GptCheckpoints(tmp_path / "data", network=network), tmp_path / "zoo.zarr", name="gpt")
    population = open_zoo(tmp_path / "zoo.zarr")["gpt"]
    assert population.network["name"] == "mlp"
    assert population.epochs.tolist() == [0, 1, 2]
    assert population.metric("epoch").tolist() == [[0, 1, 24]] * 2
    assert population.metric("iteration").tolist() == [[0, 11, 117], [0, 12, 117]]
    wanted = [[2.5 - 0.1 * run - number for number in range(3)] for run in (4, 5)]
    np.testing.assert_array_equal(population.metric("test_loss"), np.float32(wanted))
    assert population.metric("test_err").tolist() == [[90, 80, 70]] * 2
    assert population.table["optimal_test_loss"].to_list() == [0.4, 0.5]


def test_other_networks_keep_the_sizes_of_their_tensors(tmp_path):
    write_runs(tmp_path / "data/1", [1], lambda: MLP(3, 2, 5))
    report = write(GptCheckpoints(tmp_path / "data/1"), tmp_path / "zoo.zarr", name="gpt")
    assert not report.populations[0].is_known
    tensors = open_zoo(tmp_path / "zoo.zarr")["gpt"].space.tensors
    assert [tensor.shape for tensor in tensors] == [(6,), (2,), (10,), (5,)]


class _Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_damaged_runs_are_listed_and_the_rest_converted(tmp_path):
    folder, harmed = tmp_path / "data", tmp_path / "harmed"
    modules = {}
    for run in range(1, 12):
        modules |= write_runs(folder / str(run), [run], lambda: MLP(3, 2, 5))
    put(folder / "2", "2/ep001_it00009.pt", None)
    put(folder / "3", "3/ep001_it00010.pt", pickle.dumps(_Malicious(harmed)))
    put(folder / "4", "4/ep001_it00011.pt", b"short")
    cut = folder / "5/data.mdb"
    os.truncate(cut, cut.stat().st_size - 4096)
    (folder / "6/runs.json").write_text('{"checkpoints": ')
    put(folder / "7", "7/ep000_it00000.pt_arch", np.array([5.0, 2.5], "<f4").tobytes())
    report = write(GptCheckpoints(folder), tmp_path / "zoo.zarr", name="gpt")
    assert not harmed.exists()
    reasons = {each.name: each.reason for each in report.skipped}
    assert reasons["2/ep001_it00009.pt"] == (
        "runs.json names it, but the database has no '2/ep001_it00009.pt'"
    )
    assert reasons["2"] == "lacks 1 of 3 checkpoints: epochs 1"
    assert reasons["3/ep001_it00010.pt"] == "is a pickle, not plain numbers: refused"
    assert reasons["4/ep001_it00011.pt"] == "holds 5 bytes, not 23 numbers of float32"
    assert reasons["5"].startswith("data.mdb is cut off")
    assert reasons["6"].startswith("runs.json is absent or damaged")
    assert reasons["7/ep000_it00000.pt"] == "has no list of the sizes of its tensors"
    population = open_zoo(tmp_path / "zoo.zarr")["gpt"]
    assert population.recipe["text"]["source"] == ["1", "10", "11", "8", "9"]
    stored = population.state_dict(0, checkpoint=2)["tensor_0"]
    assert torch.equal(stored, modules[1, 2].fc1.weight.detach().ravel())
    assert check(tmp_path / "zoo.zarr").ok


def test_a_file_that_is_no_database_is_named(tmp_path):
    write_runs(tmp_path / "data/1", [1], lambda: MLP(3, 2, 5))
    (tmp_path / "data/1/data.mdb").write_bytes(bytes(8192))
    (skipped,) = GptCheckpoints(tmp_path / "data").scan()
    assert isinstance(skipped, Skipped)
    assert skipped.reason.startswith("data.mdb is damaged")


def test_conversion_resumes_to_the_same_version(tmp_path):
    write_runs(tmp_path / "data/all", list(range(1, 21)), lambda: MLP(3, 2, 5), fused=True)
    whole = write(GptCheckpoints(tmp_path / "data"), tmp_path / "whole.zarr", name="gpt")
    calls = 0

    def stop(doing, *_):
        nonlocal calls
        calls += doing == "writing"
        if calls == 1:
            raise KeyboardInterrupt

    half = tmp_path / "half.zarr"
    with pytest.raises(KeyboardInterrupt):
        write(GptCheckpoints(tmp_path / "data"), half, name="gpt", progress=stop)
    assert open_zoo(half)["gpt"].num_members == 16
    again = write(GptCheckpoints(tmp_path / "data"), half, name="gpt")
    assert again.version == whole.version


def test_a_folder_without_a_database_is_refused(tmp_path):
    with pytest.raises(MissingDataError, match="LMDB"):
        GptCheckpoints(tmp_path)
