"""Texts as tokens, and data sets of Hugging Face."""

import csv
import subprocess
import sys

import numpy as np
import pytest
import torch

from zoo.errors import InvalidConfigError, MissingDataError, UnknownNameError
from zoo.problems import METRICS, DataFormatError, load

GOOD = ["a fine film", "so fine", "fine fine fine"]
BAD = ["a dull film", "so dull , so long"]
SMALL = {"vocabulary_size": 300, "context_length": 12}


def tsv(path, rows):
    path.write_text("".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")


@pytest.fixture
def sentences(tmp_path):
    tsv(tmp_path / "train.tsv", [*((text, 1) for text in GOOD), *((text, 0) for text in BAD)])
    tsv(tmp_path / "test.tsv", [("fine , so fine", 1), ("\u00e9t\u00e9 dull", 0)])
    return tmp_path


@pytest.fixture
def tokenizers():
    return pytest.importorskip("tokenizers")


def test_sentences_become_tokens(sentences, tokenizers):
    problem = load({"name": "sst2", **SMALL}, data=sentences)
    assert problem.metrics == METRICS
    assert problem.train_inputs.dtype == torch.int64
    assert problem.train_inputs.shape == (5, 12)
    assert problem.train_targets.tolist() == [1, 1, 1, 0, 0]
    assert problem.train_inputs.max() < 300
    fine, words = problem.train_inputs[2], problem.train_inputs[1]
    token = fine[0]
    assert (
        fine.tolist() == [token] * 3 + [0] * 9
    )  # a frequent word is one token; the rest is padding
    assert words[1] == token
    assert (problem.test_inputs[0] == token).sum() == 2
    assert (problem.test_inputs[1] > 0).sum() > 4  # bytes stand for what training never showed
    assert problem.config == {"name": "sst2", **SMALL}
    assert load(problem.config, data=sentences).sha256 == problem.sha256


def test_the_vocabulary_is_that_of_the_training_part(sentences, tokenizers):
    before = load({"name": "sst2", **SMALL}, data=sentences)
    tsv(sentences / "test.tsv", [("zebra zebra", 1), ("zebra zebra", 0)])
    after = load({"name": "sst2", **SMALL}, data=sentences)
    torch.testing.assert_close(after.train_inputs, before.train_inputs, rtol=0, atol=0)
    assert (after.test_inputs[0] > 0).sum() == 2 * len(" zebra")


def test_long_texts_are_refused_or_cut(sentences, tokenizers):
    config = {"name": "sst2", "vocabulary_size": 300, "context_length": 3}
    with pytest.raises(
        DataFormatError, match=r"3 tokens .*got \d longer ones of 7, the longest of"
    ):
        load(config, data=sentences)
    problem = load(config | {"truncate": True}, data=sentences)
    longer = load({"name": "sst2", **SMALL}, data=sentences)
    torch.testing.assert_close(problem.train_inputs, longer.train_inputs[:, :3], rtol=0, atol=0)
    with pytest.raises(InvalidConfigError, match="vocabulary_size from 257"):
        load({"name": "sst2", "vocabulary_size": 256}, data=sentences)


def test_glue_keeps_labels_to_itself(sentences, tokenizers):
    (sentences / "test.tsv").rename(sentences / "dev.tsv")
    own = load({"name": "sst2", **SMALL}, data=sentences)
    for name in ("train.tsv", "dev.tsv"):
        text = (sentences / name).read_text(encoding="utf-8")
        (sentences / name).write_text("sentence\tlabel\n" + text, encoding="utf-8")
    (sentences / "test.tsv").write_text("index\tsentence\n0\tfine\n", encoding="utf-8")
    assert load({"name": "sst2", **SMALL}, data=sentences).sha256 == own.sha256


@pytest.mark.parametrize("line", ["fine", "fine\t2", "\t1"])
def test_damaged_sentences_are_refused(sentences, line):
    with (sentences / "train.tsv").open("a", encoding="utf-8") as file:
        file.write("\n" + line + "\n")
    with pytest.raises(DataFormatError, match="a label 0 or 1 in line 7 of"):
        load({"name": "sst2"}, data=sentences)
    (sentences / "train.tsv").unlink()
    with pytest.raises(MissingDataError, match=r"Expected train\.tsv at"):
        load({"name": "sst2"}, data=sentences)


def news(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)


def test_news_are_split_where_there_is_one_file(tmp_path, tokenizers):
    rows = [(1 + k % 4, f'A "title" {k}', f"and, a text {k}") for k in range(20)]
    news(tmp_path / "test.csv", rows)
    config = {"name": "ag-news", "vocabulary_size": 280, "context_length": 30}
    problem = load(config, data=tmp_path)
    assert problem.train_inputs.shape == (16, 30)
    both = torch.cat([problem.train_targets, problem.test_targets])
    assert both.bincount().tolist() == [5, 5, 5, 5]
    assert load(problem.config, data=tmp_path).sha256 == problem.sha256
    assert load(config | {"seed": 1}, data=tmp_path).sha256 != problem.sha256
    news(tmp_path / "train.csv", rows[:12])
    assert load(config, data=tmp_path).test_targets.tolist() == [k % 4 for k in range(20)]
    news(tmp_path / "train.csv", [*rows[:2], (5, "title", "text")])
    with pytest.raises(DataFormatError, match=r"class 1 to 4, .*line 3 of .*train\.csv"):
        load(config, data=tmp_path)
    with pytest.raises(MissingDataError, match=r"train\.csv or test\.csv"):
        load(config, data=tmp_path / "none")


def test_packages_are_asked_for_by_name(sentences, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InvalidConfigError, match=r"weight-zoo\[text\]"):
        load({"name": "sst2"}, data=sentences)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InvalidConfigError, match=r"weight-zoo\[huggingface\]"):
        load({"name": "huggingface", "dataset": "mnist"})


def test_real_sentences(shared_data, tokenizers):
    problem = load({"name": "sst2"}, data=shared_data("text/sst2"))
    assert problem.train_targets.bincount().tolist() == [3310, 3610]
    assert problem.train_inputs.shape == (6920, 96)
    assert len(problem.test_targets) == 1821


@pytest.mark.slow
def test_every_process_learns_the_same_vocabulary(shared_data, tokenizers):
    folder = shared_data("text/ag_news")
    code = (
        "import sys, pathlib; from zoo.problems import load; "
        "print(load({'name': 'ag-news'}, data=pathlib.Path(sys.argv[1])).sha256)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            check=True, capture_output=True, text=True,
        ).stdout
        for _ in range(2)
    }  # fmt: skip
    assert found == {load({"name": "ag-news"}, data=folder).sha256 + "\n"}


# Hugging Face


@pytest.fixture
def datasets():
    return pytest.importorskip("datasets", reason="the extra huggingface is not installed")


def test_images_of_hugging_face(tmp_path, datasets):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (10, 3, 2), np.uint8)
    columns = {"image": [image.fromarray(each) for each in pixels], "label": [1, 0] * 5}
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "toy"))
    problem = load({"name": "huggingface"}, data=tmp_path / "toy")
    assert problem.train_inputs.shape == (8, 1, 3, 2)
    rows = {tuple(np.round(each / 127.5 - 1, 4).ravel()) for each in pixels}
    both = torch.cat([problem.train_inputs, problem.test_inputs])
    assert {tuple(np.round(each.double().numpy(), 4).ravel()) for each in both} == rows
    assert problem.config == {"name": "huggingface"}
    assert load(problem.config, data=tmp_path / "toy").sha256 == problem.sha256
    with pytest.raises(UnknownNameError, match="Known: image, label"):
        load({"name": "huggingface", "target": "fine"}, data=tmp_path / "toy")
    with pytest.raises(UnknownNameError, match="split of toy 'fit'"):
        load({"name": "huggingface", "train": "fit"}, data=tmp_path / "toy")


def test_numbers_and_texts_of_hugging_face(tmp_path, datasets, tokenizers):
    rows = {"a": [1.0, 2.0, 3.0], "b": [[4, 5], [6, 7], [8, 9]], "text": GOOD, "y": ["n", "p", "n"]}
    parts = {"train": datasets.Dataset.from_dict(rows)}
    parts["validation"] = datasets.Dataset.from_dict({key: v[1:] for key, v in rows.items()})
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "toy"))
    config = {"name": "huggingface", "target": "y", "test": "validation"}
    numbers = load(config | {"inputs": ["a", "b"]}, data=tmp_path / "toy")
    assert numbers.train_inputs.tolist() == [[1, 4, 5], [2, 6, 7], [3, 8, 9]]
    assert numbers.test_targets.tolist() == [1, 0]
    texts = load(config | {"inputs": "text", **SMALL}, data=tmp_path / "toy")
    assert texts.train_inputs.shape == (3, 12)
    torch.testing.assert_close(texts.test_inputs, texts.train_inputs[1:], rtol=0, atol=0)
    assert load(texts.config, data=tmp_path / "toy").sha256 == texts.sha256


def test_files_as_the_hub_has_them(tmp_path, datasets, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for part, values in (("train", [1.5, 2.5, 3.5]), ("test", [4.5])):
        table = datasets.Dataset.from_dict({"x": values, "y": [k % 2 for k in range(len(values))]})
        table.to_parquet(str(tmp_path / f"{part}.parquet"))
    config = {"name": "huggingface", "dataset": str(tmp_path), "inputs": ["x"], "target": "y"}
    problem = load(config)
    assert problem.train_inputs.tolist() == [[1.5], [2.5], [3.5]]
    assert problem.test_inputs.tolist() == [[4.5]]
    assert problem.config == config
    assert problem.source == str(tmp_path)


def test_a_data_set_must_be_there(tmp_path, datasets):
    with pytest.raises(MissingDataError, match="option dataset"):
        load({"name": "huggingface"})
    with pytest.raises(MissingDataError, match="Cannot load the data set"):
        load({"name": "huggingface"}, data=tmp_path)
