"""The front door: help, one-line errors with exit code 2, and the verbs about zoos as they are."""

import pytest

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
