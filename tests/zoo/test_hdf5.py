"""One HDF5 file for exchange: nothing is lost either way."""

import h5py
import numpy as np
import pytest

import zoo
from zoo.cli import main
from zoo.convert import from_hdf5, to_hdf5
from zoo.errors import StoreError
from zoo.testing import tiny_population, tiny_spec, write_tiny_block


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_population(tmp_path_factory.mktemp("hdf5") / "tiny.zarr", diverged=[7])


def test_round_trip_keeps_the_dataset_version(tiny, tmp_path):
    file = to_hdf5(tiny, tmp_path / "tiny.h5")
    back = from_hdf5(file, tmp_path / "back.zarr")
    assert back.version == tiny.version
    before, after = tiny["tiny"], back["tiny"]
    np.testing.assert_array_equal(before.weights(checkpoint=1), after.weights(checkpoint=1))
    assert before.table.equals(after.table, null_equal=True)
    for part, ids in before.split().items():
        np.testing.assert_array_equal(ids, after.split()[part])


def test_file_is_plain_hdf5(tiny, tmp_path):
    with h5py.File(to_hdf5(tiny, tmp_path / "tiny.h5")) as file:
        weights = file["populations/tiny/weights"]
        assert [dim.label for dim in weights.dims] == ["member", "checkpoint", "parameter"]
        assert weights.dims[1]["checkpoint"][:].tolist() == [0, 2, 5]
        assert weights.fletcher32
        np.testing.assert_array_equal(weights[:, 2], tiny["tiny"].weights(checkpoint=2))


def test_command_works_in_both_directions(tiny, tmp_path, capsys):
    file, out = str(tmp_path / "a.h5"), str(tmp_path / "b.zarr")
    assert main(["convert", str(tiny.path), file]) == 0
    assert main(["convert", file, out]) == 0
    assert capsys.readouterr().out.count(tiny.version) == 2
    assert main(["convert", file, file]) == 2
    assert "Expected one" in capsys.readouterr().err


def test_bad_files_are_refused(tiny, tmp_path):
    (tmp_path / "no.h5").write_text("no HDF5")
    with pytest.raises(StoreError, match="Expected an HDF5 file"):
        from_hdf5(tmp_path / "no.h5", tmp_path / "out.zarr")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(StoreError, match="weight-zoo"):
        from_hdf5(tmp_path / "other.h5", tmp_path / "out.zarr")
    existing = to_hdf5(tiny, tmp_path / "tiny.h5")
    with pytest.raises(StoreError, match="exists already"):
        to_hdf5(tiny, existing)


def test_unfinished_populations_are_refused(tmp_path):
    writer = zoo.create(tmp_path / "part.zarr").create_population(tiny_spec())
    write_tiny_block(writer, 0)
    with pytest.raises(StoreError, match="not complete"):
        to_hdf5(zoo.open(tmp_path / "part.zarr"), tmp_path / "part.h5")
    assert not (tmp_path / "part.h5").exists()


def test_long_recipes_and_adopted_splits_survive(tmp_path):
    names = [f"a-member-with-a-long-name-{i:05}" for i in range(3_000)]  # over HDF5's 64 KiB
    made = tiny_population(
        tmp_path / "a.zarr", recipe={"name": "convert", "text": {"source": names}}
    )
    made.writer("tiny").adopt_split("theirs", {"train": [1, 2], "test": [0]}, source="paper.json")
    back = from_hdf5(to_hdf5(zoo.open(made.path), tmp_path / "a.h5"), tmp_path / "b.zarr")
    assert back["tiny"].recipe["text"]["source"] == names
    parts = {part: ids.tolist() for part, ids in back["tiny"].split("theirs").items()}
    assert parts == {"train": [1, 2], "validation": [], "test": [0]}
    assert back.version == zoo.open(made.path).version


def test_files_of_an_older_layout_are_read(tiny, tmp_path):
    file = to_hdf5(tiny, tmp_path / "old.h5")
    with h5py.File(file, "a") as content:
        group = content["populations/tiny"]
        text = group["spec"].asstr()[()]
        del group["spec"]
        group.attrs["spec"] = text
    assert from_hdf5(file, tmp_path / "back.zarr").version == tiny.version
