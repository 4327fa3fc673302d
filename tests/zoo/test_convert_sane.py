"""Token sequences as SANE saves them, made here from real modules, become networks again."""

import json
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from zoo.convert.sane import Sane, recognise
from zoo.convert.sink import write
from zoo.convert.source import Skipped
from zoo.errors import InvalidConfigError, MissingDataError
from zoo.networks import LeNetConfig, build, to_dict
from zoo.store import open as open_zoo
from zoo.store.upkeep.check import check

CONFIG = LeNetConfig(
    in_channels=2,
    image_size=6,
    out_features=4,
    channels=(3, 5),
    kernel_sizes=(3, 2),
    pools=(2, 1),
    hidden=(),
)
EPOCHS = [21, 22]
SIZE = 11  # layers have 19, 13 and 6 numbers per channel: two tokens, two, one


def tokenised(state, *, size=SIZE):
    """Cut a state dict into tokens as SANE does: a row per channel, bias last, padded."""
    tokens, masks, places, layer = [], [], [], 0
    for name, tensor in state.items():
        if "weight" not in name and "running_" not in name:
            continue
        rows = tensor.reshape(tensor.shape[0], -1)
        bias = state.get(name.replace("weight", "bias")) if "weight" in name else None
        if bias is not None:
            rows = torch.cat([rows, bias[:, None]], dim=1)
        each = -(-rows.shape[1] // size)
        padded = torch.zeros(rows.shape[0], each * size)
        padded[:, : rows.shape[1]] = rows
        mask = torch.zeros(rows.shape[0], each * size)
        mask[:, : rows.shape[1]] = 1
        places += [[layer, channel] for channel in range(rows.shape[0]) for _ in range(each)]
        tokens.append(padded.reshape(-1, size))
        masks.append(mask.reshape(-1, size))
        layer += 1
    positions = torch.tensor([[n, *place] for n, place in enumerate(places)], dtype=torch.int16)
    return torch.cat(tokens), torch.cat(masks).bool(), positions


def normalised(states, mode):
    """Normalise every layer over all networks; returns what SANE keeps of it."""
    kept = {}
    for name in [name for name in states[0] if "weight" in name]:
        both = [name, name.replace("weight", "bias")]
        joint = torch.cat([state[key].flatten() for state in states for key in both])
        if mode == "standardize":
            shift, scale = joint.mean(), joint.std()
            kept[name] = {"mean": shift.item(), "std": scale.item()}
        else:
            low, high = joint.min(), joint.max()
            shift, scale = (low + high) / 2, (high - low) / 2
            kept[name] = {"min": low.item(), "max": high.item()}
        for state in states:
            for key in both:
                state[key] = (state[key] - shift) / scale
    return kept | {"mode": mode}


def write_split(folder, split, modules, *, mode="standardize", standardize=True, views=1, copies=1):
    """Write the samples of one split, network by network, epoch by epoch, and again."""
    target = folder / f"dataset_torch.{split}"
    target.mkdir(parents=True)
    states = [
        {name: tensor.clone() for name, tensor in module.state_dict().items()} for module in modules
    ]
    kept = normalised(states, mode) if mode else {"mode": None}
    info = {
        "num_samples": len(states),
        "properties": ["test_acc", "training_iteration", "ggap"],
        "epoch_list": EPOCHS,
        "standardize": standardize,
        "windowsize": 10**6,
    }
    (folder / f"dataset_info_{split}.json").write_text(json.dumps(info))
    (folder / f"dataset_normalization_{split}.json").write_text(json.dumps(kept))
    for number in range(len(states) * copies):
        state = states[number % len(states)]
        tokens, mask, places = tokenised(state)
        if views > 1:
            tokens = torch.stack([tokens, *(torch.randn_like(tokens) for _ in range(views - 1))])
        props = torch.tensor([0.125 * number, EPOCHS[number % 2], 0.25])
        sample = {"w": tokens, "m": mask, "p": places, "props": props}
        torch.save(sample, target / f"sample_{number}.pt")


def modules_of(*seeds):
    made = []
    for seed in seeds:
        torch.manual_seed(seed)
        made.append(build(CONFIG).eval())
    return made


def convert(folder, target, reference):
    report = write(Sane(folder, reference=reference), target, name="sane")
    return report, open_zoo(target)["sane"]


def assert_same_functions(population, modules):
    inputs = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    for member, module in enumerate(modules):
        with torch.no_grad():
            torch.testing.assert_close(
                population.module(member)(inputs), module(inputs), atol=1e-6, rtol=0
            )


@pytest.mark.parametrize(
    ("mode", "standardize"), [("standardize", True), ("minmax", "minmax"), (None, False)]
)
def test_every_sample_computes_what_the_module_does(tmp_path, mode, standardize):
    folder = tmp_path / "data"
    train, test = modules_of(0, 1, 2, 3), modules_of(4, 5)
    write_split(folder, "train", train, mode=mode, standardize=standardize)
    write_split(folder, "test", test, mode=mode, standardize=standardize, views=3)
    assert recognise(folder)
    report, population = convert(folder, tmp_path / "zoo.zarr", to_dict(CONFIG))
    assert report.skipped == ()
    assert report.populations[0].is_known
    assert_same_functions(population, train + test)
    assert check(tmp_path / "zoo.zarr").ok


def test_properties_lineage_and_parts(tmp_path):
    folder = tmp_path / "data"
    write_split(folder, "train", modules_of(0, 1, 2, 3), copies=2)
    entries = list(Sane(folder, reference=to_dict(CONFIG)).scan())
    assert [entry.name for entry in entries] == [f"train/sample_{i}" for i in range(8)]
    # two networks of two epochs, each twice
    assert [entry.parent and entry.parent[-1] for entry in entries] == [
        None, "0", None, "2", "0", "0", "2", "2",
    ]  # fmt: skip
    assert [entry.parts["sane"] for entry in entries] == ["train"] * 8
    assert entries[3].columns == {"training_iteration": 22.0}
    assert entries[3].metrics == {"test_accuracy": [0.375], "ggap": [0.25]}
    _, population = convert(folder, tmp_path / "zoo.zarr", to_dict(CONFIG))
    assert population.table["lineage"].to_list() == [0, 0, 2, 2, 0, 0, 2, 2]


def test_a_state_dict_may_be_the_reference(tmp_path):
    folder, modules = tmp_path / "data", modules_of(0, 1)
    write_split(folder, "val", modules)
    torch.save(modules[0].state_dict(), tmp_path / "reference.pt")
    report, population = convert(folder, tmp_path / "zoo.zarr", str(tmp_path / "reference.pt"))
    assert not report.populations[0].is_known
    for member, module in enumerate(modules):
        stored = population.state_dict(member)
        for name, tensor in module.state_dict().items():
            torch.testing.assert_close(stored[name], tensor, atol=1e-6, rtol=0)


def test_layers_of_batch_normalisation_may_be_left_out(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3)
            self.bn1 = nn.BatchNorm2d(3)
            self.fc = nn.Linear(3, 5)

    net = Net()
    torch.save(net.state_dict(), tmp_path / "reference.pt")
    state = net.state_dict()
    floating = {name: value for name, value in state.items() if value.is_floating_point()}
    target = tmp_path / "data/dataset_torch.train"
    target.mkdir(parents=True)
    (tmp_path / "data/dataset_info_train.json").write_text('{"properties": []}')
    for number, without in enumerate((False, True)):
        part = {k: v for k, v in floating.items() if not (without and "bn" in k)}
        tokens, mask, places = tokenised(part)
        sample = {"w": tokens, "m": mask, "p": places, "props": torch.zeros(0)}
        torch.save(sample, target / f"sample_{number}.pt")
    source = Sane(tmp_path / "data", reference=tmp_path / "reference.pt")
    whole, part = source.scan()
    assert {name for name, _ in whole.shapes} == set(floating)
    assert {name for name, _ in part.shapes} == {
        "conv.weight", "conv.bias", "fc.weight", "fc.bias",
    }  # fmt: skip
    loaded = source.load(whole, 0)
    for name, tensor in floating.items():
        np.testing.assert_array_equal(loaded[name], tensor.numpy())


class _Dataset:
    """Stands for a pickled data set class."""


def test_what_cannot_be_put_together_is_refused_by_name(tmp_path):
    folder = tmp_path / "data"
    write_split(folder, "train", modules_of(*range(6)))
    torch.save({"trainset": _Dataset()}, folder / "dataset.pt")
    torch.save({"trainset": torch.ones(3)}, folder / "dataset_train.pt")
    place = folder / "dataset_torch.train"
    window = torch.load(place / "sample_1.pt", weights_only=True)
    torch.save(
        window | {"w": window["w"][2:9], "m": window["m"][2:9], "p": window["p"][2:9]},
        place / "sample_1.pt",
    )
    shuffled = torch.load(place / "sample_2.pt", weights_only=True)
    torch.save(shuffled | {"p": shuffled["p"].flip(0)}, place / "sample_2.pt")
    cut = place / "sample_3.pt"
    cut.write_bytes(cut.read_bytes()[:500])
    (place / "sample_4.pt").write_bytes(pickle.dumps({"w": 1}))
    torch.save({"w": torch.ones(2, 3)}, place / "sample_5.pt")
    report, population = convert(folder, tmp_path / "zoo.zarr", to_dict(CONFIG))
    reasons = {each.name: each.reason for each in report.skipped}
    assert "_Dataset, which is refused" in reasons["dataset.pt"]
    assert "layout SANE does not document" in reasons["dataset_train.pt"]
    assert "tokens 2 to 8, not the 20 of a whole network" in reasons["train/sample_1"]
    assert reasons["train/sample_2"] == "holds its tokens out of order or twice"
    assert reasons["train/sample_3"].startswith("is damaged")
    assert "pickle" in reasons["train/sample_4"]
    assert reasons["train/sample_5"] == "is no sample: no tensors w, p, props"
    assert population.recipe["text"]["source"] == ["train/sample_0"]


def test_normalisation_that_nobody_kept_is_refused(tmp_path):
    folder = tmp_path / "data"
    write_split(folder, "train", modules_of(0, 1), mode=None, standardize="l2_ind")
    first, _ = Sane(folder, reference=to_dict(CONFIG)).scan()
    assert first == Skipped(
        "train/sample_0", "was normalised (l2_ind) by numbers that the data set does not keep"
    )


def test_samples_need_a_reference(tmp_path):
    write_split(tmp_path / "data", "train", modules_of(0, 1))
    with pytest.raises(InvalidConfigError, match="option reference"):
        Sane(tmp_path / "data")
    with pytest.raises(MissingDataError, match="sample_0.pt"):
        Sane(tmp_path)
