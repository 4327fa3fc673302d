"""Every format that the command names exists, and folders are told apart."""

import json

import h5py
import numpy as np
import pytest
import torch

from zoo.cli import main
from zoo.convert.formats import FORMATS, _imported, open_source, writer_of
from zoo.convert.safetensors import to_safetensors
from zoo.errors import UnknownNameError
from zoo.store import open as open_zoo
from zoo.testing import TINY_NETWORK, tiny_population


@pytest.mark.parametrize("name", FORMATS)
def test_every_function_of_a_format_exists(name, tmp_path):
    named = FORMATS[name]
    assert named.source or named.writer
    for where in (named.source, named.writer, named.recognise):
        assert not where or callable(_imported(where))
    if named.recognise:
        assert not _imported(named.recognise)(tmp_path)  # an empty folder is of no format


def test_folders_that_keep_torch_files_are_told_apart(tmp_path):
    trial = tmp_path / "zoo/trial_0"
    (trial / "checkpoint_000000").mkdir(parents=True)
    (trial / "params.json").write_text("{}")
    torch.save({"a.weight": torch.ones(2, 3)}, tmp_path / "zoo/dataset_of_images.pt")
    assert open_source(tmp_path / "zoo").format == "modelzoos"
    (tmp_path / "plain").mkdir()
    torch.save({"a.weight": torch.ones(2, 3)}, tmp_path / "plain/a.pt")
    assert open_source(tmp_path / "plain").format == "state-dicts"


def test_names_of_formats_are_checked_by_direction():
    with pytest.raises(UnknownNameError, match="format to convert to"):
        writer_of("keras")
    assert writer_of("hub").__name__ == "export"


def test_command_writes_and_reads_safetensors(tmp_path, capsys):
    zoo = tiny_population(tmp_path / "tiny.zarr", num_members=20)
    files = tmp_path / "files"
    options = '{"per": "member", "licence": "mit"}'
    written = ["convert", str(zoo.path), str(files), "--to", "safetensors"]
    assert main([*written, "--options", options]) == 0
    assert 'license: "mit"' in (files / "README.md").read_text()
    assert len(list(files.rglob("*.safetensors"))) == 20
    assert main(["convert", str(files), str(tmp_path / "back.zarr")]) == 0
    assert open_zoo(tmp_path / "back.zarr").version == zoo.version
    assert main([*written, "--options", '{"license": "mit"}']) == 2
    assert "Unknown option of format 'safetensors' 'license'" in capsys.readouterr().err


def test_command_reads_one_folder_of_ours_as_anybodys(tmp_path, capsys):
    zoo = tiny_population(tmp_path / "tiny.zarr", num_members=20)
    files = to_safetensors(zoo, tmp_path / "files")
    words = ["convert", str(files / "tiny"), str(tmp_path / "again.zarr"), "--from", "safetensors"]
    assert main([*words, "--network", json.dumps(TINY_NETWORK)]) == 0
    np.testing.assert_array_equal(
        open_zoo(tmp_path / "again.zarr")["tiny"].weights(), zoo["tiny"].weights()
    )
    assert "20 members" in capsys.readouterr().out


def test_command_passes_options_and_lists_what_it_skips(tmp_path, capsys):
    with h5py.File(tmp_path / "models.h5", "w") as file:
        file.attrs["layer_names"] = [b"conv2d", b"dense"]
        for layer, shape in (("conv2d", (1, 1, 2, 3)), ("dense", (12, 5))):
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/kernel:0".encode()]
            group[f"{layer}/kernel:0"] = np.ones(shape, np.float32)
    words = ["convert", str(tmp_path / "models.h5"), str(tmp_path / "zoo.zarr")]
    assert main(words) == 1
    assert '{"dense": [4, 4]}' in capsys.readouterr().out
    assert main([*words, "--options", '{"flattened": {"dense": [2, 2]}}']) == 0
    population = open_zoo(tmp_path / "zoo.zarr")["models"]
    assert [tensor.shape for tensor in population.space.tensors] == [(3, 2, 1, 1), (5, 12)]
