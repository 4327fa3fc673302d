"""Folders of state dicts as people leave them: wrapped, nested, old, damaged, hostile."""

import csv
import json

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo.cli import main
from zoo.convert.sink import write
from zoo.convert.source import Entry, Skipped
from zoo.convert.state_dicts import StateDicts, recognise
from zoo.convert.torch_files import UnreadableFileError, read_checkpoint
from zoo.errors import InvalidConfigError, MissingDataError
from zoo.store.upkeep.check import check

NETWORK = {"name": "mlp", "in_features": 2, "hidden": [3], "out_features": 5}


def state(seed=0, dtype=torch.float32):
    """State of a network that its author numbered otherwise than we do."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"0.weight": (3, 2), "0.bias": (3,), "2.weight": (5, 3), "2.bias": (5,)}
    return {name: torch.randn(s, generator=generator).to(dtype) for name, s in shapes.items()}


def save(path, content, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path, **options)
    return path


def scanned(folder, **options):
    found = list(StateDicts(folder, **options).scan())
    entries = {each.name: each for each in found if isinstance(each, Entry)}
    return entries, {each.name: each.reason for each in found if isinstance(each, Skipped)}


def assert_same(tensors, wanted):
    assert list(tensors) == list(wanted)
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(tensors[name], tensor.float().numpy())


@pytest.mark.parametrize(
    "content",
    [
        state(),
        {"state_dict": state(), "optimizer": {"state": {0: {"exp_avg": torch.ones(7)}}}},
        {"epoch": 7, "model": {"state_dict": state()}},
        {"module." + name: tensor for name, tensor in state().items()},
        {"net": {"_orig_mod.module." + name: tensor for name, tensor in state().items()}},
        {"theirs": state(), "mean": 0.5},
        state() | {"num_batches_tracked": torch.tensor(5), "steps": 9, "name": "x"},
    ],
    ids=["plain", "lightning", "nested", "parallel", "compiled", "own-key", "floats-beside"],
)
def test_state_dicts_are_found_wherever_they_are(content, tmp_path):
    assert_same(read_checkpoint(save(tmp_path / "a.pt", content)).tensors, state())


def test_old_format_and_other_precisions(tmp_path):
    save(tmp_path / "old.th", state(1), _use_new_zipfile_serialization=False)
    assert_same(read_checkpoint(tmp_path / "old.th").tensors, state(1))
    half = read_checkpoint(save(tmp_path / "half.pt", state(1, torch.bfloat16)))
    assert_same(half.tensors, state(1, torch.bfloat16))
    assert half.dtype == "bfloat16"
    mixed = state(1) | {"2.bias": torch.ones(5, dtype=torch.float64)}
    assert read_checkpoint(save(tmp_path / "mixed.pt", mixed)).dtype == "float32+float64"


def test_safetensors_are_read(tmp_path):
    from safetensors.torch import save_file

    save_file(state(2), tmp_path / "a.safetensors")
    assert dict(read_checkpoint(tmp_path / "a.safetensors").tensors).keys() == state(2).keys()
    (tmp_path / "b.safetensors").write_bytes(b"no")
    with pytest.raises(UnreadableFileError, match="damaged"):
        read_checkpoint(tmp_path / "b.safetensors")


class Network(nn.Linear):
    pass


def damaged(folder):
    """Make one file of every kind that cannot be read."""
    whole = save(folder / "good.pt", state()).read_bytes()
    (folder / "empty.pt").write_bytes(b"")
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    old = save(folder / "old.pth", state(), _use_new_zipfile_serialization=False).read_bytes()
    (folder / "old-cut.pth").write_bytes(old[: len(old) * 3 // 4])
    (folder / "text.bin").write_text("not weights")
    save(folder / "module.pt", Network(2, 3))
    save(folder / "list.pt", [torch.ones(2)])
    save(folder / "two.pt", {"generator": state(), "discriminator": state()})
    save(folder / "integers.pt", {"a": torch.ones(2, dtype=torch.int64)})
    save(folder / "complex.pt", {"a": torch.ones(2, dtype=torch.complex64)})


def test_what_cannot_be_read_is_named_with_its_reason(tmp_path):
    damaged(tmp_path)
    entries, skipped = scanned(tmp_path)
    assert sorted(entries) == ["good.pt", "old.pth"]
    wanted = {
        "empty.pt": "is empty",
        "cut.pt": "damaged",
        "old-cut.pth": "damaged",
        "text.bin": "torch",
        "module.pt": "Network, which is refused",
        "list.pt": "holds list, not a state dict",
        "two.pt": "several state dicts (generator, discriminator)",
        "integers.pt": "no floating-point tensors",
        "complex.pt": "'a' is complex",
    }
    assert set(skipped) == set(wanted)
    for name, reason in wanted.items():
        assert reason in skipped[name]


def test_a_module_is_refused_without_running_its_code(tmp_path):
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(ran), "w"))

    save(tmp_path / "evil.pt", {"state_dict": state(), "extra": Evil()})
    _, skipped = scanned(tmp_path)
    assert "which is refused" in skipped["evil.pt"]
    assert not ran.exists()


def test_files_of_one_network_at_several_epochs(tmp_path):
    for epoch in (10, 2, 30):
        save(
            tmp_path / f"a/net_epoch{epoch}.pt",
            {"state_dict": state(epoch), "test_loss": epoch / 4},
        )
    save(tmp_path / "b/only_epoch5.pt", state(5))
    (tmp_path / "a/net_epoch4.pt").write_bytes(b"")
    entries, skipped = scanned(tmp_path)
    assert list(entries) == ["a/net", "b/only_epoch5.pt"]
    assert entries["a/net"].epochs == (2, 10, 30)
    assert entries["a/net"].metrics == {"test_loss": [0.5, 2.5, 7.5]}
    assert entries["b/only_epoch5.pt"].epochs == (0,)
    assert list(skipped) == ["a/net_epoch4.pt"]
    report = write(StateDicts(tmp_path), tmp_path / "z.zarr", name="p", networks=[NETWORK])
    assert "lacks 3 of 3 checkpoints: epochs 2, 10, 30" in {e.reason for e in report.skipped}
    stored = zoo.open(tmp_path / "z.zarr")["p"].state_dict(0, checkpoint=1)
    np.testing.assert_array_equal(stored["layers.4.bias"].numpy(), state(10)["2.bias"].numpy())


def test_index_gives_columns_and_metrics(tmp_path):
    for seed in (3, 5):
        save(tmp_path / f"sub/{seed}.pt", state(seed))
    rows = [
        {"weights": "sub/3.pt", "lr": "0.1", "acc": "0.5", "note": "a b", "junk": "x"},
        {"weights": "/home/someone/sub/5.pt", "lr": "1e-3", "acc": "0.75", "note": "", "junk": "y"},
        {"weights": "sub/7.pt", "lr": "1", "acc": "1", "note": "", "junk": "z"},
    ]
    with (tmp_path / "index.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    entries, skipped = scanned(tmp_path, rename={"acc": "test_accuracy"}, drop=["junk"])
    assert entries["sub/3.pt"].columns == {"lr": 0.1, "note": "a b"}
    assert entries["sub/5.pt"].columns == {"lr": 0.001}
    assert entries["sub/5.pt"].metrics == {"test_accuracy": [0.75]}
    assert "there is no such file" in skipped["sub/7.pt"]


def test_an_index_that_names_no_file_is_refused(tmp_path):
    save(tmp_path / "a.pt", state())
    (tmp_path / "index.csv").write_text("name,lr\nelsewhere.pt,1\n")
    with pytest.raises(InvalidConfigError, match="names files beside it"):
        scanned(tmp_path)


def test_json_splits_give_parts_and_labels(tmp_path):
    for number in range(4):
        save(
            tmp_path / f"inrs/mnist_png_training_{number}_7/checkpoints/model_final.pth",
            state(number),
        )
    paths = [f"/theirs/inrs/mnist_png_training_{n}_7/checkpoints/model_final.pth" for n in range(5)]
    splits = {
        "train": {"path": paths[:2], "label": ["7", "2"]},
        "val": {"path": paths[2:3], "label": ["1"]},
        "test": {"path": paths[3:], "label": ["0", "4"]},
    }
    (tmp_path / "mnist_splits.json").write_text(json.dumps(splits))
    (tmp_path / "settings.json").write_text('{"lr": 1}')
    report = write(StateDicts(tmp_path), tmp_path / "z.zarr", name="inrs", networks=[NETWORK])
    made = zoo.open(tmp_path / "z.zarr")["inrs"]
    split = {part: ids.tolist() for part, ids in made.split("mnist_splits").items()}
    assert split == {"train": [0, 1], "validation": [2], "test": [3]}
    assert made.table["label"].to_list() == [7, 2, 1, 0]
    assert [each.name for each in report.skipped] == [paths[4]]


def test_repeated_weights_share_a_lineage(tmp_path):
    save(tmp_path / "a.pt", state(1))
    save(tmp_path / "b.pt", {"module." + k: v for k, v in state(1).items()})
    save(tmp_path / "c.pt", state(2))
    write(StateDicts(tmp_path), tmp_path / "z.zarr", name="p")
    assert zoo.open(tmp_path / "z.zarr")["p"].table["lineage"].to_list() == [0, 0, 2]


def test_hidden_files_are_left_alone_and_single_files_will_do(tmp_path):
    save(tmp_path / ".cache/a.pt", state())
    save(tmp_path / "b.pt", state())
    assert list(scanned(tmp_path)[0]) == ["b.pt"]
    assert list(scanned(tmp_path / "b.pt")[0]) == ["b.pt"]
    assert recognise(tmp_path)
    assert not recognise(tmp_path / ".cache" / "nothing")
    with pytest.raises(MissingDataError, match="nowhere"):
        StateDicts(tmp_path / "nowhere")


# ---- the command ------------------------------------------------------------------------------
def test_command_converts_lists_and_resumes(tmp_path, capsys):
    folder, out = tmp_path / "nets", str(tmp_path / "z.zarr")
    damaged(folder)
    words = ["convert", str(folder), out, "--from", "state-dicts", "--network", json.dumps(NETWORK)]
    assert main(words) == 0
    text = capsys.readouterr().out
    version = zoo.open(out).version
    assert "nets: 2 members, 1 checkpoint, network mlp, 2 with other names" in text
    assert f"dataset version {version}" in text
    assert "skipped 9:" in text
    assert "  empty.pt: is empty" in text
    assert check(out).ok
    assert main(words) == 0
    assert zoo.open(out).version == version


def test_command_recognises_and_takes_a_factory(tmp_path, capsys, monkeypatch):
    save(tmp_path / "nets/a.pt", state())
    (tmp_path / "their_networks.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 5))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["convert", str(tmp_path / "nets"), str(tmp_path / "z.zarr"), "--name", "theirs"]
    assert main([*words, "--factory", "their_networks:make", "--input-shape", "[2, 2]"]) == 0
    assert "theirs: 1 member, 1 checkpoint, network factory" in capsys.readouterr().out
    made = zoo.open(tmp_path / "z.zarr")["theirs"]
    assert made.space.groups[0].size == 3
    with pytest.raises(InvalidConfigError, match="made by their_networks:make, outside"):
        made.module(0)


def test_command_says_when_nothing_came_of_it(tmp_path, capsys):
    (tmp_path / "a.pt").write_bytes(b"")
    assert main(["convert", str(tmp_path), str(tmp_path / "z.zarr")]) == 1
    assert "nothing could be converted\nskipped 1:\n  a.pt: is empty" in capsys.readouterr().out
    for words, complaint in (
        ((str(tmp_path / "none"),), "Cannot tell the format"),
        ((str(tmp_path), "--from", "floppy"), "Unknown format to convert from 'floppy'"),
        ((str(tmp_path), "--network", "{"), "Expected --network as JSON"),
        ((str(tmp_path), "--network", "7"), "Expected --network as a JSON dict or list"),
        ((str(tmp_path), "--options", '{"colour": 1}'), "does not take colour"),
        ((str(tmp_path), "--network", '{"name": "mpl"}'), "Unknown network 'mpl'"),
    ):
        assert main(["convert", words[0], str(tmp_path / "y.zarr"), *words[1:]]) == 2
        assert complaint in capsys.readouterr().err


def test_command_reads_json_from_files(tmp_path, capsys):
    save(tmp_path / "nets/a.pt", state())
    (tmp_path / "network.json").write_text(json.dumps([NETWORK | {"hidden": [8]}, NETWORK]))
    words = ["convert", str(tmp_path / "nets"), str(tmp_path / "z.zarr")]
    problem = json.dumps({"name": "digits"})
    assert main([*words, "--network", f"@{tmp_path}/network.json", "--problem", problem]) == 0
    assert zoo.open(tmp_path / "z.zarr")["nets"].problem == {"name": "digits"}
    capsys.readouterr()


# ---- real collections -------------------------------------------------------------------------
def test_lenets_in_the_wild(shared_data, tmp_path):
    """Twenty-seven people's networks: every trap of the collection, and one accuracy."""
    folder = shared_data("zoos") / "cifar-lenet-wild"
    lenet = {"name": "lenet", "in_channels": 3, "image_size": 32, "out_features": 10}
    source = StateDicts(folder, rename={"acc_jpeg_test2500_norm0.5": "test_accuracy"})
    report = write(source, tmp_path / "z.zarr", name="wild", networks=[lenet])
    assert [each.num_members for each in report.populations] == [24, 1, 1, 1]
    assert report.skipped == ()
    made = zoo.open(tmp_path / "z.zarr")["wild-1"]
    assert [group.size for group in made.space.groups] == [6, 16, 120, 84]
    assert len(made.recipe["translated"]) == 2  # one author wrapped every layer


def test_recorded_accuracies_from_the_store(shared_data, tmp_path):
    """The robust LeNets on 2,000 test images each, read back from the zoo."""
    from zoo.problems import load

    robust = {
        "name": "lenet", "in_channels": 1, "image_size": 28, "out_features": 10,
        "channels": [16, 32], "kernel_sizes": [4, 4], "strides": [2, 2], "paddings": [1, 1],
        "pools": [1, 1], "hidden": [100],
    }  # fmt: skip
    source = StateDicts(shared_data("zoos") / "robust-lenet")
    write(source, tmp_path / "z.zarr", name="robust", networks=[robust])
    made = zoo.open(tmp_path / "z.zarr")["robust"]
    assert made.recipe["text"]["source"] == ["fashion_mnist.pth", "mnist.pth"]
    for member, (name, accuracy) in enumerate((("fashion-mnist", 0.7875), ("mnist", 0.9745))):
        problem = load({"name": "idx", "mean": 0.0, "std": 1.0}, data=shared_data(name))
        inputs, targets = problem.test_inputs[:2000], problem.test_targets[:2000]
        with torch.no_grad():
            correct = made.module(member)(inputs).argmax(1) == targets
        assert round(correct.double().mean().item(), 4) == accuracy


def test_residual_networks_on_their_training_images(shared_data, tmp_path):
    """ResNet-20 with option A shortcuts, saved on CUDA in torch's old format."""
    from zoo.problems import load

    source = StateDicts(shared_data("zoos") / "cifar-resnet" / "resnet20-12fca82f.th")
    write(source, tmp_path / "z.zarr", name="p", networks=[{"name": "resnet", "depth": 20}])
    made = zoo.open(tmp_path / "z.zarr")["p"]
    assert made.table["best_prec1"][0] == pytest.approx(91.78)
    statistics = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    problem = load({"name": "cifar10", "num_test": 1} | statistics, data=shared_data("cifar10"))
    with torch.no_grad():
        correct = (
            made.module(0)(problem.train_inputs[:1000]).argmax(1) == problem.train_targets[:1000]
        )
    assert int(correct.sum()) == 999
