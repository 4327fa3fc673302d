"""A zoo is read to the bit by readers that know nothing of it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import zarr

import zoo
from zoo.layout import TIERS
from zoo.store.upkeep.repack import repack
from zoo.testing import tiny_block, tiny_population, tiny_spec

SCRIPT = Path(__file__).parents[2] / "scripts/read_elsewhere.py"
SPEC = importlib.util.spec_from_file_location("read_elsewhere", SCRIPT)
read_elsewhere = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(read_elsewhere)
READERS = pytest.mark.parametrize("reader", ["zarr", "tensorstore", "xarray"])


@pytest.fixture(scope="module", params=list(TIERS))
def path(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    tiny_population(folder / "hot.zarr", num_members=23, diverged=(2,))
    if request.param == "hot":
        return folder / "hot.zarr"
    repack(folder / "hot.zarr", folder / "packed.zarr", tier=request.param)
    return folder / "packed.zarr"


@READERS
def test_other_readers_see_what_was_written(path, reader):
    pytest.importorskip(reader)
    found = read_elsewhere.READERS[reader](path)
    written = tiny_block(tiny_spec(), range(23), diverged=(2,))
    layout = zoo.open(path)["tiny"]._files.weights
    weights = written["weights"].astype(layout.dtype)
    assert found["populations/tiny/weights"] == read_elsewhere.digest(weights)
    for metric, values in written["metrics"].items():
        assert found[f"populations/tiny/metrics/{metric}"] == read_elsewhere.digest(values)
    rates = np.array(written["columns"]["learning_rate"])
    assert found["populations/tiny/columns/learning_rate"] == read_elsewhere.digest(rates)
    assert found["populations/tiny/member"] == read_elsewhere.digest(np.arange(23))
    assert len(found) == len(list(path.rglob("c")))  # every array was read, and none twice


def test_the_command_notices_a_single_bit(tmp_path, capsys):
    tiny_population(tmp_path / "zoo.zarr", num_members=20)
    saved = str(tmp_path / "digests.json")
    assert read_elsewhere.main([str(tmp_path / "zoo.zarr"), "--save", saved]) == 0
    assert "zarr 3" in capsys.readouterr().out
    weights = zarr.open_array(tmp_path / "zoo.zarr/populations/tiny/weights", mode="r+")
    weights[3, 1, 5] = np.nextafter(weights[3, 1, 5], np.float32(np.inf))
    assert read_elsewhere.main([str(tmp_path / "zoo.zarr"), "--compare", saved]) == 1
    assert "1 different\n  populations/tiny/weights: <f4 (20, 3, 47)" in capsys.readouterr().out
