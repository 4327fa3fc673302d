"""A zoo as safetensors files, and back to the same dataset version."""

import json

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from zoo.convert.safetensors import from_safetensors, to_safetensors
from zoo.convert.sink import write
from zoo.convert.state_dicts import StateDicts
from zoo.errors import StoreError
from zoo.store import create
from zoo.store import open as open_zoo
from zoo.store.upkeep.check import check
from zoo.testing import (
    TINY_NETWORK,
    ragged_population,
    tiny_population,
    tiny_spec,
    write_tiny_block,
)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    path = tmp_path_factory.mktemp("zoo") / "tiny.zarr"
    return tiny_population(path, num_members=20, diverged=(3,))


@pytest.mark.parametrize("per", ["checkpoint", "member"])
def test_round_trip_gives_an_equal_version(zoo, tmp_path, per):
    folder = to_safetensors(zoo, tmp_path / "files", per=per)
    back = from_safetensors(folder, tmp_path / "back.zarr")
    assert back.version == zoo.version
    assert check(tmp_path / "back.zarr").ok
    for name, members in zoo["tiny"].split().items():
        np.testing.assert_array_equal(back["tiny"].split()[name], members)


@pytest.mark.parametrize("per", ["checkpoint", "member"])
def test_members_of_several_architectures_make_the_round_trip(tmp_path, per):
    zoo = ragged_population(tmp_path / "ragged.zarr")
    folder = to_safetensors(zoo, tmp_path / "files", per=per)
    back = from_safetensors(folder, tmp_path / "back.zarr")
    assert len(back["ragged"].spaces) == 3
    assert back.version == zoo.version
    assert check(tmp_path / "back.zarr").ok
    assert "**weight spaces**: 3, one per architecture" in (folder / "README.md").read_text()


def test_a_file_is_a_state_dict_that_says_what_it_is(zoo, tmp_path):
    folder = to_safetensors(zoo, tmp_path / "files")
    file = folder / "tiny/0000/member-000007-epoch-2.safetensors"
    module = zoo["tiny"].module(7, checkpoint=1)
    rebuilt = zoo["tiny"].module(10)  # the same activation
    rebuilt.load_state_dict(load_file(file))
    inputs = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rebuilt(inputs), module(inputs), atol=0, rtol=0)
    with safe_open(file, "pt") as opened:
        said = opened.metadata()
    assert (said["population"], said["member"], said["epoch"]) == ("tiny", "7", "2")
    assert json.loads(said["network"]) == zoo["tiny"].network_of(7)
    assert said["seed"] == "1007"
    assert float(said["test_accuracy"]) == zoo["tiny"].metric("test_accuracy")[7, 1]


def test_one_file_per_member_holds_every_checkpoint(zoo, tmp_path):
    folder = to_safetensors(zoo, tmp_path / "files", per="member")
    tensors = load_file(folder / "tiny/0000/member-000007.safetensors")
    names = [tensor.name for tensor in zoo["tiny"].space.tensors]
    assert set(tensors) == {f"{epoch}/{name}" for epoch in (0, 2, 5) for name in names}
    assert len(list((folder / "tiny").rglob("*.safetensors"))) == 20


def test_table_and_card_describe_the_members(zoo, tmp_path):
    folder = to_safetensors(zoo, tmp_path / "files", licence="mit", name="Tiny")
    table = pl.read_parquet(folder / "tiny/table.parquet")
    assert table["activation"].to_list() == zoo["tiny"].table["activation"].to_list()
    assert table["test_loss"][5].to_list() == zoo["tiny"].metric("test_loss")[5].tolist()
    front = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert front["license"] == "mit"
    assert (folder / front["configs"][0]["data_files"]).is_file()


def test_both_directions_resume(zoo, tmp_path):
    def stop(done, total):
        if done == 12:
            raise KeyboardInterrupt

    folder = tmp_path / "files"
    with pytest.raises(KeyboardInterrupt):
        to_safetensors(zoo, folder, progress=stop)
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert len(files) == 3 * 13
    to_safetensors(zoo, folder)
    assert all(path.stat().st_mtime_ns == before for path, before in files.items())
    lost = folder / "tiny/0000/member-000018-epoch-5.safetensors"
    held = lost.read_bytes()
    lost.unlink()
    back = tmp_path / "back.zarr"
    with pytest.raises(StoreError, match="member-000018-epoch-5.safetensors is missing"):
        from_safetensors(folder, back)
    assert open_zoo(back)["tiny"].num_members == 16
    lost.write_bytes(held)
    assert from_safetensors(folder, back).version == zoo.version


def test_damaged_and_foreign_files_are_named(zoo, tmp_path):
    folder = to_safetensors(zoo, tmp_path / "files")
    path = folder / "tiny/0000/member-000004-epoch-0.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(StoreError, match="member-000004-epoch-0.safetensors is missing or damaged"):
        from_safetensors(folder, tmp_path / "a.zarr")
    save_file({"layers.1.weight": torch.ones(2, 5)}, path)
    with pytest.raises(StoreError, match=r"layers\.1\.weight.*epoch 0 of member 4.*\(2, 5\)"):
        from_safetensors(folder, tmp_path / "b.zarr")
    with pytest.raises(StoreError, match="none"):
        from_safetensors(tmp_path / "b.zarr", tmp_path / "c.zarr")


def test_a_reader_of_state_dicts_leaves_damaged_members_out(zoo, tmp_path):
    folder = to_safetensors(zoo, tmp_path / "files")
    path = folder / "tiny/0000/member-000004-epoch-0.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    source = StateDicts(folder / "tiny")
    report = write(source, tmp_path / "zoo.zarr", name="t", networks=[TINY_NETWORK])
    reasons = {each.name: each.reason for each in report.skipped}
    assert reasons["0000/member-000004-epoch-0.safetensors"].startswith("is damaged")
    assert reasons["0000/member-000004"] == "lacks 1 of 3 checkpoints: epochs 0"
    population = open_zoo(tmp_path / "zoo.zarr")["t"]
    kept = [member for member in range(20) if member != 4]
    assert population.epochs.tolist() == [0, 2, 5]
    for index in range(3):
        np.testing.assert_array_equal(
            population.weights(checkpoint=index), zoo["tiny"].weights(kept, checkpoint=index)
        )
    wanted = zoo["tiny"].table.filter(pl.col("member") != 4)
    assert population.table["learning_rate"].to_list() == wanted["learning_rate"].to_list()
    assert population.table["seed"].to_list() == wanted["seed"].to_list()
    np.testing.assert_array_equal(
        population.metric("test_accuracy"), zoo["tiny"].metric("test_accuracy")[kept]
    )


def test_unfinished_and_other_populations_are_refused(zoo, tmp_path):
    folder = to_safetensors(zoo, tmp_path / "files")
    other = tiny_population(tmp_path / "other.zarr", num_members=33)
    with pytest.raises(StoreError, match="holds another population"):
        to_safetensors(other, folder)
    half = create(tmp_path / "half.zarr")
    write_tiny_block(half.create_population(tiny_spec()), 0)
    with pytest.raises(StoreError, match="not complete"):
        to_safetensors(half, tmp_path / "half")
