"""Batches under distributed training: two real processes, joined by gloo, under Lightning."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.sampling import IndexBatchSampler
from zoo.testing import tiny_population

SCRIPT = Path(__file__).with_name("ddp_run.py")
RANKS = (0, 1)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "zoo.zarr"
    tiny_population(path, num_members=53)
    return path


@pytest.fixture(scope="module")
def everything(path, tmp_path_factory):
    out = tmp_path_factory.mktemp("reports")
    environment = {k: v for k, v in os.environ.items() if k not in ("MASTER_PORT", "MASTER_ADDR")}
    finished = subprocess.run(
        [sys.executable, SCRIPT, path, out],
        env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr
    return [json.loads((out / f"{rank}.json").read_text()) for rank in RANKS]


@pytest.fixture(scope="module", params=["rows", "blocks"])
def shuffle(request):
    return request.param


@pytest.fixture(scope="module")
def reports(everything, shuffle):
    return [report[shuffle] for report in everything]


def members(reports, name):
    """Per rank, the members of every batch."""
    return [report["seen"][name] for report in reports]


def flat(batches):
    return [member for batch in batches for member in batch]


def test_ranks_are_disjoint_and_cover_the_training_members(path, reports):
    train = zoo.open(path)["tiny"].split()["train"].tolist()
    assert len(train) % 2 == 1  # shares cannot be equal
    for epoch in (0, 1):
        ranks = members(reports, f"train {epoch}")
        assert len(ranks[0]) == len(ranks[1])
        assert {len(batch) for batches in ranks for batch in batches} <= {1, 2, 3}
        assert not set(flat(ranks[0])) & set(flat(ranks[1]))
        assert sorted(flat(ranks[0]) + flat(ranks[1])) == train
    assert flat(members(reports, "train 0")[0]) != flat(members(reports, "train 1")[0])


@pytest.mark.parametrize("name", ["validation 0", "validation 1", "test", "predict"])
def test_every_member_is_evaluated_once_and_in_order(path, reports, name):
    part = zoo.open(path)["tiny"].split()["validation" if "validation" in name else "test"]
    ranks = members(reports, name)
    assert len(ranks[0]) == len(ranks[1])
    assert flat(ranks[0]) + flat(ranks[1]) == part.tolist()


def test_the_seed_decides_the_order_of_all_ranks(path, everything):
    train = zoo.open(path)["tiny"].split()["train"]
    sampler = IndexBatchSampler(len(train), 3, shuffle=True, seed=5)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        order = train[np.concatenate(list(sampler))].tolist()
        ranks = members([report["rows"] for report in everything], f"train {epoch}")
        assert flat(ranks[0]) + flat(ranks[1]) == order


def test_lightning_leaves_loaders_and_samplers_alone(reports, shuffle):
    sampler = {"rows": "IndexBatchSampler", "blocks": "BlockShuffleSampler"}[shuffle]
    for report in reports:
        loader = "zoo.loading.WeightLoader"
        assert report["loaders"] == [loader, loader, sampler, "IndexBatchSampler"]
    assert reports[0]["weights"] == reports[1]["weights"]
