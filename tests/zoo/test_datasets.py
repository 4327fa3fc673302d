import copy
import logging
import pickle

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.connectors import data_connector
from torch import nn
from torch.utils.data import DataLoader

import zoo
from zoo.datasets import encode_columns
from zoo.errors import InvalidConfigError, UnknownNameError
from zoo.sampling import IndexBatchSampler
from zoo.schema import ColumnSpec
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
    dtypes = [part.dtype for part in batch]
    assert dtypes == [torch.float32, torch.float32, torch.float32, torch.int64]


def test_one_member_has_no_batch_axis(population):
    dataset = zoo.ZooDataset(population, target="test_accuracy")
    single, batch = dataset[-1], dataset[np.array([-1])]
    assert [part.ndim for part in single] == [1, 1, 0, 0]
    assert all(torch.equal(one, many[0]) for one, many in zip(single, batch, strict=True))
    collated = next(iter(DataLoader(dataset, batch_size=3)))
    assert [list(part.shape) for part in collated] == [[3, 47], [3, 5], [3], [3]]
    with pytest.raises(IndexError, match="0 to 37"):
        dataset[38]


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


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes(population, method):
    dataset = zoo.ZooDataset(population, target="test_accuracy", io="pread")
    wanted = dataset[np.arange(38)]
    sampler = IndexBatchSampler(38, 20, shuffle=False, seed=0)
    loader = DataLoader(
        dataset, batch_size=None, sampler=sampler, num_workers=1, multiprocessing_context=method
    )
    batches = list(loader)
    assert torch.equal(torch.cat([batch.weights for batch in batches]), wanted.weights)


# ---- sampler ------------------------------------------------------------------------------------
def test_sampler_covers_every_item_once():
    sampler = IndexBatchSampler(23, 5, shuffle=True, seed=2)
    batches = list(sampler)
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    assert len(sampler) == 5
    assert sorted(np.concatenate(batches).tolist()) == list(range(23))
    assert all(batch.dtype == np.int64 for batch in batches)
    short = IndexBatchSampler(23, 5, shuffle=True, seed=2, drop_last=True)
    assert [batch.tolist() for batch in short] == [batch.tolist() for batch in batches[:4]]
    assert len(short) == 4


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = IndexBatchSampler(50, 7, shuffle=True, seed=seed)
        list(sampler)
        sampler.set_epoch(epoch)
        np.random.default_rng().random()
        return np.concatenate(list(sampler)).tolist()

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    with pytest.raises(InvalidConfigError, match="batch size"):
        IndexBatchSampler(5, 0, shuffle=False, seed=0)


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


def trainer(tmp_path):
    return lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
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
