"""Orders of items, and batches read ahead of time."""

import contextlib
import threading
import traceback

import lightning
import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo.errors import InvalidConfigError
from zoo.layout import TIERS
from zoo.loading import WeightLoader, read_ahead
from zoo.sampling import BUFFER_BLOCKS, BlockShuffleSampler, IndexBatchSampler
from zoo.store.disk.files import PopulationFiles
from zoo.testing import tiny_population


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "zoo.zarr"
    tiny_population(path)
    return zoo.open(path)["tiny"]


@pytest.fixture(scope="module")
def dataset(population):
    return zoo.ZooDataset(population, target="test_accuracy", io="pread")


def rows(num_items, batch_size, **options):
    return IndexBatchSampler(num_items, batch_size, **({"shuffle": True, "seed": 2} | options))


def blocks(num_items, batch_size, **options):
    """Blocks of seven items, whose numbers say nothing about their order."""
    numbers = 1000 - np.arange(num_items) // 7 * 3
    return BlockShuffleSampler(numbers, batch_size, **({"seed": 2, "buffer_blocks": 2} | options))


SAMPLERS = pytest.mark.parametrize("make", [rows, blocks])


# ---- orders -------------------------------------------------------------------------------------
@SAMPLERS
def test_every_item_comes_once(make):
    batches = list(make(23, 5))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    assert sorted(np.concatenate(batches).tolist()) == list(range(23))
    assert all(batch.dtype == np.int64 for batch in batches)
    short = make(23, 5, drop_last=True)
    assert [batch.tolist() for batch in short] == [batch.tolist() for batch in batches[:4]]
    assert len(short) == 4
    assert list(make(0, 5)) == []


@SAMPLERS
def test_order_depends_on_seed_and_epoch_alone(make):
    def order(seed, epoch):
        sampler = make(50, 7, seed=seed)
        list(sampler)
        sampler.set_epoch(epoch)
        np.random.default_rng().random()
        return np.concatenate(list(sampler)).tolist()

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_impossible_samplers_are_refused():
    with pytest.raises(InvalidConfigError, match="batch size of at least 1, got 0"):
        rows(5, 0)
    with pytest.raises(InvalidConfigError, match="rank from 0 to 1, got 2"):
        rows(5, 1, rank=2, num_ranks=2)
    with pytest.raises(InvalidConfigError, match="buffer of 1 block or more, got 0"):
        blocks(5, 1, buffer_blocks=0)


@SAMPLERS
@pytest.mark.parametrize("num_items", [2, 3, 20, 23, 24, 25, 40, 41])
@pytest.mark.parametrize("num_ranks", [2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_ranks_share_an_epoch(make, num_items, num_ranks, batch_size):
    samplers = [
        make(num_items, batch_size, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)
    ]
    batches = [list(sampler) for sampler in samplers]
    assert {len(sampler) for sampler in samplers} == {len(each) for each in batches}
    assert len({len(each) for each in batches}) == 1
    assert all(1 <= len(batch) <= batch_size for each in batches for batch in each)
    shares = [np.concatenate(each).tolist() for each in batches]
    items = sum(shares, [])
    assert set(items) == set(range(num_items))
    repeated = len(items) - num_items
    uneven = num_items < num_ranks or (batch_size == 1 and num_items % num_ranks)
    assert repeated == (-num_items % num_ranks if uneven else 0)
    full = [list(make(num_items, batch_size, rank=r, num_ranks=num_ranks, drop_last=True)) for r in
            range(num_ranks)]  # fmt: skip
    assert {len(batch) for each in full for batch in each} <= {batch_size}
    assert {len(each) for each in full} == {num_items // num_ranks // batch_size}


def test_ranks_take_consecutive_parts_of_one_order():
    whole = np.concatenate(list(rows(23, 4)))
    shares = [np.concatenate(list(rows(23, 4, rank=r, num_ranks=3))) for r in range(3)]
    np.testing.assert_array_equal(np.concatenate(shares), whole)
    assert [len(share) for share in shares] == [7, 8, 8]
    sizes = [[len(b) for b in rows(9, 4, rank=r, num_ranks=2)] for r in range(2)]
    assert sizes == [[3, 1], [4, 1]]  # as many batches, though four items would fill one


def test_starting_in_the_middle():
    sampler = rows(23, 5)
    wanted = [batch.tolist() for batch in sampler][3:]
    assert [batch.tolist() for batch in sampler.batches(start=3)] == wanted
    assert list(sampler.batches(start=5)) == []


# ---- orders by block ----------------------------------------------------------------------------
def test_blocks_of_one_buffer_are_left_before_the_next_are_touched():
    sampler = blocks(7 * 9, 4, buffer_blocks=4)
    order = np.concatenate(list(sampler)) // 7
    seen = [order[np.sort(np.unique(order, return_index=True)[1])].tolist()]
    last = {block: int(np.flatnonzero(order == block)[-1]) for block in range(9)}
    buffers = [set(order[start : start + 21].tolist()) for start in (0, 21, 42)]
    assert [len(buffer) for buffer in buffers] == [3, 3, 3]  # nine blocks, at most four at a time
    assert set.union(*buffers) == set(range(9))
    assert all(last[block] < 21 for block in buffers[0])
    sampler.set_epoch(1)
    again = np.concatenate(list(sampler)) // 7
    seen.append(again[np.sort(np.unique(again, return_index=True)[1])].tolist())
    assert seen[0] != seen[1]


def test_ranks_share_at_most_one_block_with_the_next():
    shares = [
        {int(i) // 7 for batch in blocks(7 * 12, 5, rank=r, num_ranks=3) for i in batch}
        for r in range(3)
    ]
    assert [len(share) for share in shares] == [4, 4, 4]
    assert len(set.union(*shares)) == 12


def test_blocks_are_mixed_well():
    """Batches are as varied as chance allows: block by block, and position by position."""
    size, count, batch_size, epochs = 32, 64, 64, 40
    sampler = BlockShuffleSampler(np.arange(size * count) // size, batch_size, seed=0)
    first_of, variety, places = [], [], np.zeros((count, count // BUFFER_BLOCKS))
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        order = np.concatenate(list(sampler))
        for batch in order.reshape(-1, batch_size):
            variety.append(len(np.unique(batch // size)))
        first_of.append(int(order[0]))
        buffer = np.arange(len(order)) // (size * BUFFER_BLOCKS)
        for block in range(count):
            places[block, buffer[np.flatnonzero(order // size == block)[0]]] += 1
    # 64 draws from sixteen blocks touch 15.7 of them in the mean when mixed uniformly.
    assert np.mean(variety) == pytest.approx(16 * (1 - (15 / 16) ** 64), abs=0.15)
    assert len(set(first_of)) > 0.9 * epochs
    # Each block falls into each of the four quarters of an epoch about equally often.
    expected = epochs / places.shape[1]
    statistic = float(((places - expected) ** 2 / expected).sum())
    degrees = count * (places.shape[1] - 1)
    assert abs(statistic - degrees) < 5 * np.sqrt(2 * degrees)


def test_neighbours_in_a_block_are_far_apart_in_the_epoch():
    sampler = BlockShuffleSampler(np.arange(512) // 32, 16, seed=0)
    place = np.empty(512)
    place[np.concatenate(list(sampler))] = np.arange(512)
    assert abs(np.corrcoef(place[:-1], place[1:])[0, 1]) < 0.15


def test_each_chunk_is_decoded_once_per_epoch(tmp_path, monkeypatch):
    """Two buffers of blocks fit the reader's cache, so straddling batches read nothing again."""
    few = {"storage": TIERS["archive"], "num_members": 16 * 14, "metrics": ("test_accuracy",)}
    tiny_population(tmp_path / "zoo.zarr", **few)
    archive = zoo.open(tmp_path / "zoo.zarr")["tiny"]
    data = zoo.ZooDataset(archive, target="test_accuracy", checkpoint="all", io="pread")
    decoded = []
    chunks = PopulationFiles.chunks
    monkeypatch.setattr(PopulationFiles, "chunks", lambda *of: decoded.extend(of[2]) or chunks(*of))
    loader = WeightLoader(data, BlockShuffleSampler(data.blocks, 50, seed=0), prefetch=2)
    members = np.concatenate([batch.member for batch in loader])
    assert len(members) == len(data) == 16 * 14 * 3
    assert len(decoded) == len(set(decoded)) == 14 * 3
    decoded.clear()
    for _ in WeightLoader(data, IndexBatchSampler(len(data), 50, shuffle=True, seed=0)):
        pass
    assert len(decoded) > 2 * 14 * 3  # what the order by blocks is for


# ---- reading ahead ------------------------------------------------------------------------------
def test_reading_ahead_keeps_the_order_and_the_bound():
    started, consumed = [], []

    def read(key):
        started.append(key)
        assert threading.current_thread().name.startswith("zoo-read-ahead")
        return key * 10

    for value in read_ahead(read, range(9), depth=3):
        consumed.append(value)
        assert len(started) <= len(consumed) + 3
    assert consumed == [key * 10 for key in range(9)]
    assert started == list(range(9))


def test_an_error_comes_where_its_batch_would_have_with_the_threads_traceback():
    def read_badly(key):
        if key == 2:
            raise InvalidConfigError("Expected nothing.")
        return key

    stream = read_ahead(read_badly, range(5), depth=4)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(InvalidConfigError, match="Expected nothing") as caught:
        next(stream)
    assert "read_badly" in "".join(traceback.format_tb(caught.tb))
    assert not reading_threads()


def test_a_consumer_may_stop_early():
    read, entered, leave = [], threading.Event(), threading.Event()

    def slowly(key):
        read.append(key)
        if key == 1:
            entered.set()
            assert leave.wait(10)
        return key

    stream = read_ahead(slowly, iter(range(10**9)), depth=5)
    assert next(stream) == 0
    assert entered.wait(10)
    threading.Timer(0.05, leave.set).start()
    stream.close()
    assert read == [0, 1]  # what had not begun was given up
    assert not reading_threads()


def reading_threads():
    return [t for t in threading.enumerate() if t.name.startswith("zoo-read-ahead")]


# ---- loader -------------------------------------------------------------------------------------
@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_a_loader_reads_what_its_sampler_names(dataset, prefetch):
    sampler = rows(40, 12)
    loader = WeightLoader(dataset, sampler, prefetch=prefetch)
    wanted = [dataset[index] for index in sampler]
    assert len(loader) == 4
    for _ in range(2):
        for got, want in zip(loader, wanted, strict=True):
            assert all(torch.equal(one, other) for one, other in zip(got, want, strict=True))
    assert not reading_threads()
    with pytest.raises(InvalidConfigError, match="prefetch=-1"):
        WeightLoader(dataset, sampler, prefetch=-1)


def test_damage_is_reported_through_the_thread(tmp_path):
    tiny_population(tmp_path / "zoo.zarr")
    chunk = tmp_path / "zoo.zarr/populations/tiny/weights/c/1/2/0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    data = zoo.ZooDataset(zoo.open(tmp_path / "zoo.zarr")["tiny"], target="seed", io="pread")
    loader = iter(WeightLoader(data, rows(40, 8, shuffle=False), prefetch=2))
    assert [next(loader).member[0].item() for _ in range(2)] == [0, 8]
    with pytest.raises(zoo.errors.DamagedChunkError, match="weights/c/1/2/0"):
        next(loader)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs CUDA")
def test_batches_are_page_locked(dataset):
    for batch in WeightLoader(dataset, rows(40, 12), prefetch=2, pin_memory=True):
        assert all(part.is_pinned() for part in batch)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes(dataset, method):
    dataset[np.arange(40)]  # the parent has files open, which a child must not use
    sampler = rows(40, 15)
    loader = WeightLoader(dataset, sampler, num_workers=1, start_method=method)
    for epoch in range(2):  # workers outlive an epoch
        sampler.set_epoch(epoch)
        wanted = [dataset[index] for index in sampler]
        for got, want in zip(loader, wanted, strict=True):
            assert all(torch.equal(one, other) for one, other in zip(got, want, strict=True))
    next(iter(loader))
    assert next(iter(loader)).member.tolist() == wanted[0].member.tolist()  # after an early stop


def test_workers_take_turns_with_blocks_of_their_own(dataset):
    sampler = blocks(40, 6)
    in_order = [sorted(batch.tolist()) for batch in sampler]
    assert len(in_order) == 7
    loader = WeightLoader(dataset, sampler, num_workers=2)
    got = [sorted(batch.member.tolist()) for batch in loader]
    assert got[0::2] == in_order[:4]  # the first worker's
    assert got[1::2] == in_order[4:]
    by_rows = WeightLoader(dataset, rows(40, 6), num_workers=2)
    assert [b.member.tolist() for b in by_rows] == [b.tolist() for b in rows(40, 6)]


# ---- going on in the middle of an epoch ---------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"prefetch": 3}, {"num_workers": 1}])
def test_a_loader_goes_on_where_it_was(dataset, options):
    def members(loader, epoch, stop=None):
        loader.batch_sampler.set_epoch(epoch)
        return [batch.member.tolist() for batch, _ in zip(loader, range(stop or 99), strict=False)]

    loader = WeightLoader(dataset, rows(40, 6), **options)
    whole = [members(loader, epoch) for epoch in (1, 2)]
    loader.batch_sampler.set_epoch(1)
    stream = iter(loader)
    assert [next(stream).member.tolist() for _ in range(3)] == whole[0][:3]
    state = loader.state_dict()
    assert state == {"epoch": 1, "batch": 3}
    resumed = WeightLoader(dataset, rows(40, 6), **options)
    resumed.load_state_dict(state)
    assert members(resumed, 1) == whole[0][3:]
    assert members(resumed, 1) == whole[0]  # only once
    resumed.load_state_dict(state)
    assert members(resumed, 2) == whole[1]  # another epoch starts at its beginning


class Recorder(lightning.LightningModule):
    """Notes which members it saw, saves after every batch, and may be interrupted in one."""

    def __init__(self, path, interrupted_at=None):
        super().__init__()
        self.line = nn.Linear(47, 1)
        self.seen, self.path, self.interrupted_at = [], path, interrupted_at

    def training_step(self, batch, index):
        self.seen.append(batch.member.tolist())
        if len(self.seen) == self.interrupted_at:
            raise InterruptedError
        return self.line(batch.weights).square().mean()

    def on_train_batch_end(self, *_):
        self.trainer.save_checkpoint(self.path)

    def validation_step(self, batch, index):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


# Lightning 2.6 on torch 2.13 uses a class that torch is about to rename.
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")
@pytest.mark.parametrize("extra", [1, 4])
def test_lightning_resumes_in_the_middle_of_an_epoch(population, tmp_path, extra):
    path = tmp_path / "last.ckpt"

    def run(interrupted_at=None, ckpt_path=None):
        module = Recorder(path, interrupted_at)
        trainer = lightning.Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        data = zoo.ZooDataModule(population, target="test_accuracy", batch_size=4, prefetch=2)
        with contextlib.suppress(InterruptedError):
            trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
        return module.seen, len(data.train_dataloader())

    whole, per_epoch = run()
    assert len(whole) == 3 * per_epoch
    assert per_epoch > 4
    before, _ = run(interrupted_at=per_epoch + extra)
    after, _ = run(ckpt_path=path)
    assert before[:-1] + after == whole  # the batch that was interrupted comes again
