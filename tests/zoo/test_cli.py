"""The front door: help, one-line errors with exit code 2, and the verbs about zoos as they are."""

import subprocess
import sys

import pytest

from zoo import WeightSpace
from zoo.cli import VERBS, main
from zoo.testing import tiny_population


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_population(tmp_path_factory.mktemp("cli") / "tiny.zarr")


def complaint(capsys, *words):
    assert main(list(words)) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err


def test_overview_lists_every_verb(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert f"usage: zoo {verb}" in capsys.readouterr().out


def test_unknown_verb(capsys):
    assert "Known: recipes, generate" in complaint(capsys, "generat")


def test_bad_values_are_one_line(capsys):
    assert "members" in complaint(capsys, "generate", "x", "--out", "y", "--members", "many")
    assert "required: path" in complaint(capsys, "info")
    assert "unrecognized" in complaint(capsys, "info", "a", "--colour", "blue")


def test_missing_zoo(capsys, tmp_path):
    assert "nothing.zarr" in complaint(capsys, "info", str(tmp_path / "nothing.zarr"))


def test_info_describes(tiny, capsys):
    assert main(["info", str(tiny.path)]) == 0
    text = capsys.readouterr().out
    assert tiny.version in text
    assert "layers.1 (3), layers.4 (5)" in text
    assert "test accuracy" in text


def test_check_finds_nothing_wrong(tiny, capsys):
    assert main(["check", str(tiny.path)]) == 0
    text = capsys.readouterr().out
    assert "tiny: 3 of 3 blocks stored" in text
    assert "everything stored is intact" in text


def test_check_names_a_flipped_bit(tmp_path, capsys):
    damaged = tiny_population(tmp_path / "damaged.zarr")
    chunk = next((damaged.path / "populations/tiny/weights/c/1").rglob("*/0"))
    content = bytearray(chunk.read_bytes())
    content[5] ^= 1
    chunk.write_bytes(content)
    assert main(["check", str(damaged.path)]) == 1
    text = capsys.readouterr().out
    assert "damaged tiny/weights/c/1" in text
    assert "epochs" in text


def test_page_is_written_beside_the_zoo(tmp_path, capsys):
    zoo = tiny_population(tmp_path / "some.zarr")
    assert main(["page", str(zoo.path)]) == 0
    assert (tmp_path / "some.html").stat().st_size > 1_000_000
    assert "some.html" in capsys.readouterr().out
    assert "nowhere.parquet" in complaint(
        capsys, "page", str(zoo.path), "--predictions", '["nowhere.parquet"]'
    )


NETWORKS = """
import torch
from torch import nn

def pair():
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.zeros(2, 4)

def alone():
    return nn.Sequential(nn.Conv2d(3, 5, 1), nn.Flatten(), nn.Linear(20, 2))

def nothing():
    return 7

def needs(width):
    return width

class Branches(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x

class Transforms(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.second(torch.fft.fft(self.first(x)).abs())
"""


@pytest.fixture
def networks(tmp_path, monkeypatch):
    (tmp_path / "networks_to_trace.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "networks_to_trace", raising=False)
    return "networks_to_trace"


def test_trace_explains_and_proves(networks, tmp_path, capsys):
    assert main(["trace", f"{networks}:pair", "--json", "space.json"]) == 0
    text = capsys.readouterr().out
    assert "0: 3 units move 0.weight[0], 0.bias[0], 2.weight[1]" in text
    assert "pinned, inputs of the network (input[0].1): 0.weight[1]" in text
    assert "independent symmetric groups: 1, of order 10^0.8" in text
    assert "operators without a rule: none" in text
    assert "verified: outputs change by at most" in text
    space = WeightSpace.from_json((tmp_path / "space.json").read_text())
    assert space.group("0").size == 3


def test_trace_makes_inputs_of_a_shape(networks, capsys):
    assert main(["trace", f"{networks}:alone", "--input-shape", "[2, 3, 2, 2]"]) == 0
    assert "2.weight[1] (blocks of 4)" in capsys.readouterr().out
    assert main(["trace", f"{networks}:alone", "--input_shape=[2, 3, 2, 2]"]) == 0


def test_trace_names_operators_without_a_rule(networks, capsys):
    words = ["trace", f"{networks}:Transforms", "--input-shape", "[2, 4]"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "unsupported aten.fft_fft.default at File" in text
    assert "networks_to_trace.py" in text
    assert "operators without a rule: 1" in text
    assert "No rule for: aten.fft_fft" in complaint(capsys, *words, "--strict", "true")


def test_trace_refuses_in_one_line(networks, capsys):
    assert "Expected PACKAGE.MODULE:FACTORY" in complaint(capsys, "trace", networks)
    assert "No module named 'no_such'" in complaint(capsys, "trace", "no_such:thing")
    assert "Known: pair, alone, nothing" in complaint(capsys, "trace", f"{networks}:pear")
    assert "needs failed: TypeError" in complaint(capsys, "trace", f"{networks}:needs")
    assert "got int" in complaint(capsys, "trace", f"{networks}:nothing")
    assert "--input-shape" in complaint(capsys, "trace", f"{networks}:alone")
    shape = ("--input-shape", "[2, 4]")
    branch = complaint(capsys, "trace", f"{networks}:Branches", *shape)
    assert "line 19: if x.sum() > 0:" in branch
    assert "cannot capture Sequential" in complaint(capsys, "trace", f"{networks}:alone", *shape)


def test_a_reader_that_has_seen_enough_is_no_error():
    """As in `zoo recipes | head -1`."""
    zoo = [sys.executable, "-c", "from zoo.cli import main; raise SystemExit(main(['recipes']))"]
    with subprocess.Popen(zoo, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaint = process.stderr.read().decode()
    assert "Traceback" not in complaint
    assert process.returncode == 0
