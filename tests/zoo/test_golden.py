"""Archives of released format versions: what anybody stored once stays readable."""

import json
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

import zoo
from zoo.store.upkeep.check import check
from zoo.testing import ragged_block, ragged_spec, tiny_block, tiny_spec

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = json.loads((GOLDEN / "versions.json").read_text())
SEED, DIVERGED = 7, 21


@pytest.fixture(params=sorted(VERSIONS))
def archive(request, tmp_path):
    with ZipFile(GOLDEN / f"{request.param}.zip") as packed:
        packed.extractall(tmp_path)
    return request.param, tmp_path


def test_there_is_an_archive_of_every_tier_and_none_besides():
    assert {path.stem for path in GOLDEN.glob("*.zip")} == set(VERSIONS)
    assert {"v1-hot", "v1-compact", "v1-archive"} <= set(VERSIONS)


def test_nothing_in_it_is_damaged_and_its_version_is_what_it_was(archive):
    name, path = archive
    report = check(path)
    assert report.ok, report
    assert report.num_bytes > 10_000
    assert zoo.open(path).version == VERSIONS[name]


def test_its_weights_are_those_that_were_written(archive):
    name, path = archive
    population = zoo.open(path)["tiny"]
    wanted = tiny_block(tiny_spec(), range(40), seed=SEED, diverged=[DIVERGED])["weights"]
    for index in range(3):
        found = population.weights(checkpoint=index)
        np.testing.assert_array_equal(found, _stored(name, wanted[:, index]))


def test_its_ragged_weights_are_those_that_were_written(archive):
    name, path = archive
    population = zoo.open(path)["ragged"]
    shapes = {member: member % 3 for member in range(20)}
    spec = ragged_spec(list(shapes.values()))
    wanted = ragged_block(spec, shapes, seed=SEED)["weights"]
    for member, found in enumerate(population.vectors(range(20))):
        np.testing.assert_array_equal(found, _stored(name, wanted[member][-1]))
    assert population.module(4)(_input(4)).shape == (1, 2)


def test_its_table_and_splits_are_those_that_were_written(archive):
    _, path = archive
    population = zoo.open(path)["tiny"]
    columns = tiny_block(tiny_spec(), range(40), seed=SEED, diverged=[DIVERGED])["columns"]
    table = population.table
    for column, values in columns.items():
        assert table[column].to_list() == values
    test = population.split("unseen-rates")["test"]
    rates = np.array(columns["learning_rate"])
    assert test.tolist() == np.flatnonzero(rates > 0.01).tolist()
    assert sum(map(len, population.split().values())) == 40


def _stored(name, weights):
    if not name.endswith("compact"):
        return weights
    with np.errstate(over="ignore"):
        return weights.astype(np.float16).astype(np.float32)


def _input(size):
    import torch

    return torch.zeros(1, size)
