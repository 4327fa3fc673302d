import copy
import logging
import pickle

import lightning
import numpy as np
import polars as pl
import pytest
import torch
from lightning.pytorch.trainer.connectors import data_connector
from torch import nn
from torch.utils.data import DataLoader

import zoo
from zoo.datasets import encode_columns
from zoo.errors import InvalidConfigError, UnknownNameError
from zoo.layout import TIERS
from zoo.sampling import BlockShuffleSampler, IndexBatchSampler
from zoo.schema import ColumnSpec
from zoo.store.concatenation import concat
from zoo.store.reading import sources
from zoo.testing import TINY_COLUMNS, tiny_block, tiny_population, tiny_spec

SOUND = [member for member in range(40) if member not in (7, 33)]


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "zoo.zarr"
    tiny_population(path, diverged=(7, 33))
    return zoo.open(path)["tiny"]


@pytest.fixture(scope="module")
def written():
    return tiny_block(tiny_spec(), range(40), diverged=(7, 33))


# ---- dataset ------------------------------------------------------------------------------------
@pytest.mark.parametrize("io", ["auto", "ram", "pread", "mmap"])
def test_a_batch_is_what_was_stored(population, written, io):
    dataset = zoo.ZooDataset(population, target="test_accuracy", checkpoint=1, io=io)
    batch = dataset[np.array([36, 0, 8])]
    ids = [38, 0, 9]
    assert isinstance(batch, zoo.WeightBatch)
    assert batch.member.tolist() == ids
    assert torch.equal(batch.weights, torch.from_numpy(written["weights"][ids, 1]))
    assert torch.equal(batch.target, torch.from_numpy(written["metrics"]["test_accuracy"][ids, 1]))
    assert batch.epoch.tolist() == [2, 2, 2]
    dtypes = [part.dtype for part in batch]
    assert dtypes == [torch.float32, torch.float32, torch.float32, torch.int64, torch.int64]


def test_one_member_has_no_batch_axis(population):
    dataset = zoo.ZooDataset(population, target="test_accuracy")
    single, batch = dataset[-1], dataset[np.array([-1])]
    assert [part.ndim for part in single] == [1, 1, 0, 0, 0]
    assert all(torch.equal(one, many[0]) for one, many in zip(single, batch, strict=True))
    collated = next(iter(DataLoader(dataset, batch_size=3)))
    assert [list(part.shape) for part in collated] == [[3, 47], [3, 5], [3], [3], [3]]
    with pytest.raises(IndexError, match="0 to 37"):
        dataset[38]


@pytest.mark.parametrize("io", ["ram", "pread", "mmap"])
@pytest.mark.parametrize(
    "ids", [range(40), range(39, -1, -1), [9, 8, 10, 11, 12, 13, 9, 14], [*range(20, 32), 0, 1]]
)
def test_many_rows_of_a_chunk(population, written, io, ids):
    ids = np.array(ids)
    got = population.reader(io).gather(ids, np.ones_like(ids))
    np.testing.assert_array_equal(got, written["weights"][ids, 1])


def test_files_are_read_where_the_page_cache_cannot_be_asked(population, written, monkeypatch):
    monkeypatch.setattr(sources, "_NOWAIT", 1 << 30)  # no system knows this flag
    pairs = np.array([30, 2, 17]), np.array([0, 2, 1])
    got = population.reader("pread").gather(*pairs)
    np.testing.assert_array_equal(got, written["weights"][pairs])


@pytest.mark.parametrize("indices", [[3, 0], np.array([3, 0])])
def test_a_plain_loader_asks_for_many_at_once(population, monkeypatch, indices):
    dataset = zoo.ZooDataset(population, target="test_accuracy")
    batch, samples = dataset[indices], dataset.__getitems__(indices)
    assert [type(sample) for sample in samples] == [zoo.WeightBatch] * 2
    for row, sample in enumerate(samples):
        assert all(torch.equal(one, many[row]) for one, many in zip(sample, batch, strict=True))
    gathered = []
    gather = dataset._reader.gather
    monkeypatch.setattr(
        dataset._reader, "gather", lambda ids, at: gathered.append(ids.tolist()) or gather(ids, at)
    )
    first = next(iter(DataLoader(dataset, batch_size=3)))
    assert gathered == [first.member.tolist()] == [[0, 1, 2]]


# ---- several checkpoints ------------------------------------------------------------------------
def test_every_checkpoint_is_an_item(population, written):
    dataset = zoo.ZooDataset(population.select([9, 7, 2]), target="test_loss", checkpoint="all")
    batch = dataset[np.array([5, 0, 4, 1])]  # member 7 diverged: none of its checkpoints is there
    assert len(dataset) == 6
    assert (batch.member.tolist(), batch.epoch.tolist()) == ([2, 9, 2, 9], [5, 0, 2, 2])
    pairs = ([2, 9, 2, 9], [2, 0, 1, 1])
    assert torch.equal(batch.weights, torch.from_numpy(written["weights"][pairs]))
    assert torch.equal(batch.target, torch.from_numpy(written["metrics"]["test_loss"][pairs]))
    last = zoo.ZooDataset(population.select([9, 7, 2]), target="test_loss")[np.array([0, 1])]
    assert torch.equal(batch.hyperparameters, last.hyperparameters[[1, 0, 1, 0]])


def test_a_column_is_the_target_at_every_checkpoint(population, written):
    dataset = zoo.ZooDataset(population.select([5, 3]), target="init_scale", checkpoint="all")
    scales = np.array(written["columns"]["init_scale"], dtype=np.float32)[[5, 5, 5, 3, 3, 3]]
    np.testing.assert_array_equal(dataset.targets, scales)


def test_checkpoints_of_a_view(population, written):
    view = population.checkpoints([0, 5])
    dataset = zoo.ZooDataset(view.select([4, 8]), target="test_loss", checkpoint="all")
    batch = dataset[np.arange(4)]
    assert batch.epoch.tolist() == [0, 5, 0, 5]
    assert torch.equal(
        batch.weights, torch.from_numpy(written["weights"][[4, 4, 8, 8], [0, 2, 0, 2]])
    )
    with pytest.raises(UnknownNameError, match="checkpoint index '2'. Known: 0 to 1, or -2"):
        zoo.ZooDataset(view, target="test_loss", checkpoint=2)
    with pytest.raises(UnknownNameError, match="checkpoint index 'last'.*, all"):
        zoo.ZooDataset(view, target="test_loss", checkpoint="last")


def test_a_concatenation_is_a_dataset_too(population, written, tmp_path):
    tiny_population(tmp_path / "other.zarr", seed=3, num_members=20)
    other = zoo.open(tmp_path / "other.zarr")["tiny"]
    both = concat([population.where("member >= 30"), other])
    dataset = zoo.ZooDataset(both, target="test_accuracy", checkpoint="all")
    assert len(dataset) == 3 * (9 + 20)
    batch = dataset[np.array([86, 0, 27])]
    assert batch.member.tolist() == [29, 0, 10]
    wanted = [
        other.weights([19])[0],
        written["weights"][30, 0],
        other.weights([0], checkpoint=0)[0],
    ]
    assert torch.equal(batch.weights, torch.from_numpy(np.stack(wanted)))
    assert len(np.unique(dataset.blocks)) == 3 * (2 + 2)


def test_a_missing_hyperparameter_is_nan_or_no_category():
    columns = tuple(column for column in TINY_COLUMNS if column.role == "hyperparameter")
    table = pl.DataFrame(
        {
            "learning_rate": [0.01, None],
            "init_scale": [None, 2.0],
            "activation": [None, "tanh"],
        }
    )
    features, _ = encode_columns(table, columns)
    np.testing.assert_array_equal(features, [[-2, np.nan, 0, 0, 0], [np.nan, 2, 0, 1, 0]])


# ---- the rest -----------------------------------------------------------------------------------
def test_diverged_members_are_left_out_and_counted(population, caplog):
    with caplog.at_level(logging.INFO, logger="zoo"):
        dataset = zoo.ZooDataset(population, target="init_scale")
    assert dataset.member_ids.tolist() == SOUND
    assert caplog.messages == ["2 of 40 members of tiny diverged and are left out"]
    assert len(zoo.ZooDataset(population, target="test_loss", checkpoint=0)) == 38
    assert torch.isfinite(dataset[np.arange(38)].weights).all()


def test_hyperparameters_are_encoded(population, written):
    dataset = zoo.ZooDataset(population.select([2, 1]), target="test_loss")
    names = ("activation=relu", "activation=tanh", "activation=gelu")
    assert dataset.hyperparameter_names == ("learning_rate", "init_scale", *names)
    assert dataset.num_hyperparameters == 5
    columns = written["columns"]
    wanted = [
        [np.log10(columns["learning_rate"][2]), columns["init_scale"][2], 0, 0, 1],
        [np.log10(columns["learning_rate"][1]), columns["init_scale"][1], 0, 1, 0],
    ]
    got = dataset[np.arange(2)].hyperparameters
    assert torch.equal(got, torch.tensor(wanted, dtype=torch.float32))


def test_targets(population, written):
    for target in ("learning_rate", "seed"):
        dataset = zoo.ZooDataset(population, target=target)
        wanted = np.array(written["columns"][target], dtype=np.float32)[SOUND]
        np.testing.assert_array_equal(dataset.targets, wanted)
    for target in ("activation", "accuracy"):
        with pytest.raises(UnknownNameError, match=f"'{target}'. Known: train_loss.*learning_rate"):
            zoo.ZooDataset(population, target=target)
    with pytest.raises(UnknownNameError, match="checkpoint index '3'. Known: 0 to 2"):
        zoo.ZooDataset(population, target="test_loss", checkpoint=3)


def test_no_hyperparameters(population):
    columns = tuple(column for column in TINY_COLUMNS if column.role != "hyperparameter")
    features, names = encode_columns(population.table, columns)
    assert (features.shape, names) == ((40, 0), ())
    wrong = (ColumnSpec(name="lineage", dtype="int64", scale="log"),)
    with pytest.raises(InvalidConfigError, match="positive values in column 'lineage'"):
        encode_columns(population.table, wrong)


@pytest.mark.parametrize("io", ["ram", "pread", "mmap"])
def test_a_dataset_travels_without_its_files(population, io):
    dataset = zoo.ZooDataset(population, target="test_accuracy", io=io)
    wanted = dataset[np.arange(38)]
    assert len(pickle.dumps(dataset)) < 100_000
    got = copy.deepcopy(dataset)[np.arange(38)]
    assert all(torch.equal(one, other) for one, other in zip(got, wanted, strict=True))


# ---- data module --------------------------------------------------------------------------------
class Probe(lightning.LightningModule):
    """Predicts the target by a line and remembers which members it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(47, 1)
        self.seen: dict[str, list[list[int]]] = {"train": [], "validation": [], "test": []}

    def _loss(self, batch, part):
        self.seen[part].append(batch.member.tolist())
        loss = nn.functional.mse_loss(self.line(batch.weights)[:, 0], batch.target)
        self.log(f"{part}_loss", loss, on_epoch=True)
        return loss

    def training_step(self, batch, index):
        return self._loss(batch, "train")

    def validation_step(self, batch, index):
        self._loss(batch, "validation")

    def test_step(self, batch, index):
        self._loss(batch, "test")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def trainer(tmp_path, **options):
    return lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        **options,
    )


def flat(batches):
    return [member for batch in batches for member in batch]


# Lightning 2.6 on torch 2.13 uses a class that torch is about to rename.
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")
def test_lightning_trains_on_it_without_a_warning(population, tmp_path, monkeypatch):
    # On a machine of many cores Lightning would advise workers.
    monkeypatch.setattr(data_connector, "suggested_max_num_workers", lambda devices: 8)
    split = {part: [i for i in ids if i in SOUND] for part, ids in population.split().items()}
    data = zoo.ZooDataModule(population, target="test_accuracy", batch_size=10)
    assert data.num_hyperparameters == 5
    probe, run = Probe(), trainer(tmp_path)
    run.fit(probe, data)
    run.test(probe, data, verbose=False)
    steps = len(probe.seen["train"]) // 2
    epochs = [flat(probe.seen["train"][:steps]), flat(probe.seen["train"][steps:])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == split["train"]
    assert epochs[0] != epochs[1]
    assert flat(probe.seen["validation"]) == split["validation"] * 2
    assert flat(probe.seen["test"]) == split["test"]


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")
def test_overfitting_sees_the_same_batches(population, tmp_path):
    data = zoo.ZooDataModule(population, target="test_accuracy", batch_size=5)
    probe, run = Probe(), trainer(tmp_path, overfit_batches=2)
    run.fit(probe, data)
    wanted = [data.train.member_ids[:5].tolist(), data.train.member_ids[5:10].tolist()]
    assert probe.seen["train"] == wanted * 2


def test_the_store_decides_how_to_shuffle(population, tmp_path):
    tiny_population(tmp_path / "archive.zarr", storage=TIERS["archive"])
    archive = zoo.open(tmp_path / "archive.zarr")["tiny"]

    def sampler(members, **options):
        data = zoo.ZooDataModule(members, target="test_accuracy", **options)
        assert type(data.test_dataloader().batch_sampler) is IndexBatchSampler
        return type(data.train_dataloader().batch_sampler)

    assert sampler(archive, io="pread") is BlockShuffleSampler
    assert sampler(archive, io="ram") is sampler(population, io="pread") is IndexBatchSampler
    assert sampler(population, shuffle="blocks") is BlockShuffleSampler
    assert sampler(archive, io="pread", shuffle="rows") is IndexBatchSampler
    with pytest.raises(UnknownNameError, match="shuffle 'none'. Known: auto, rows, blocks"):
        sampler(population, shuffle="none")


def test_reading_ahead_where_there_is_something_to_wait_for(population, tmp_path):
    tiny_population(tmp_path / "archive.zarr", storage=TIERS["archive"])
    archive = zoo.open(tmp_path / "archive.zarr")["tiny"]

    def depth(members, **options):
        data = zoo.ZooDataModule(members, target="test_accuracy", io="pread", **options)
        return data.train_dataloader().prefetch

    assert depth(archive) == 2
    assert depth(population) == (2 if torch.cuda.is_available() else 0)
    assert depth(archive, prefetch=0) == 0
    assert depth(population, prefetch=3) == 3


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")
def test_reloading_loaders_changes_no_order(population, tmp_path):
    seen = []
    for options in ({}, {"reload_dataloaders_every_n_epochs": 1}):
        data = zoo.ZooDataModule(population, target="test_accuracy", batch_size=10, prefetch=2)
        probe = Probe()
        trainer(tmp_path, **options).fit(probe, data)
        seen.append(probe.seen)
    assert seen[0] == seen[1]


def test_the_seed_decides_the_batches(population):
    def first(seed):
        data = zoo.ZooDataModule(population, target="test_accuracy", batch_size=8, seed=seed)
        return next(iter(data.train_dataloader())).member.tolist()

    assert first(0) == first(0)
    assert first(0) != first(1)


def test_a_selection_keeps_its_parts(population):
    view = population.where("activation == 'relu'")
    data = zoo.ZooDataModule(view, target="test_accuracy")
    ids = [set(part.member_ids.tolist()) for part in (data.train, data.validation, data.test)]
    assert set.union(*ids) == set(view.member_ids.tolist()) - {33}
    assert ids[0] <= set(population.split()["train"].tolist())
    with pytest.raises(UnknownNameError, match="Unknown split 'other'"):
        zoo.ZooDataModule(population, target="test_accuracy", split="other")
    none = population.select(population.split()["test"])
    with pytest.raises(InvalidConfigError, match="part 'train'"):
        zoo.ZooDataModule(none, target="test_accuracy")
