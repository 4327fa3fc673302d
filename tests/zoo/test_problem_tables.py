"""Tables and time series: what rows become, and every way in which files go wrong."""

import numpy as np
import pytest
import torch

from zoo.errors import InvalidConfigError, MissingDataError, UnknownNameError
from zoo.problems import METRICS, REGRESSION_METRICS, DataFormatError, load


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def reloads(problem, data=None):
    again = load(problem.config, data=data)
    return again.sha256 == problem.sha256 and again.config == problem.config


def whole(problem):
    return torch.cat([problem.train_inputs, problem.test_inputs])


ROWS = [("2.5", "red", "10", "yes"), ("-1", "blue", "20", "no")] * 4


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "  "])
@pytest.mark.parametrize("header", [True, False])
def test_any_delimiter_with_or_without_header(tmp_path, delimiter, header):
    rows = [("size", "colour", "weight", "sold"), *ROWS] if header else ROWS
    path = written(tmp_path / "t.csv", "\n".join(delimiter.join(row) for row in rows) + "\n\n")
    problem = load({"name": "csv", "test_fraction": 0.25}, data=path)
    assert problem.metrics == METRICS
    assert problem.train_inputs.shape == (6, 4)
    yes = problem.train_targets == 1  # no, yes
    train = problem.train_inputs
    assert train[yes, 2:].unique(dim=0).tolist() == [[0, 1]]  # blue, red
    torch.testing.assert_close(train[:, :2].mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(train[:, :2].std(0, correction=0), torch.ones(2))
    assert (train[yes, 0] > 0).all()
    assert (train[yes, 1] < 0).all()
    assert reloads(problem, path)


def test_targets_decide_what_the_task_is(tmp_path):
    few = "".join(f"{k * k},{k % 3}\n" for k in range(30))
    path = written(tmp_path / "few.csv", few)
    assert load({"name": "csv"}, data=path).num_classes == 3
    values = load({"name": "csv", "task": "regression"}, data=path)
    assert values.metrics == REGRESSION_METRICS
    assert values.train_targets.shape == (24, 1)
    torch.testing.assert_close(values.train_targets.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    many = written(tmp_path / "many.csv", "".join(f"{k * k},{k % 21}\n" for k in range(42)))
    assert load({"name": "csv"}, data=many).num_classes == 0
    classes = {"name": "csv", "task": "classes"}
    with pytest.raises(DataFormatError, match="got none of"):
        load(classes | {"test_fraction": 0.6}, data=many)
    assert load(classes | {"test_fraction": 0.05}, data=many).num_classes == 21
    assert load({"name": "csv", "target": 0, "file": "few.csv"}, data=tmp_path).num_classes == 0


def test_columns_by_name(tmp_path):
    text = "id,a,sold\n" + "".join(f"x{k},{k},{k % 2}\n" for k in range(120))
    path = written(tmp_path / "t.csv", text)
    with pytest.raises(DataFormatError, match="different texts, in column 'id' .*got 120"):
        load({"name": "csv"}, data=path)
    problem = load({"name": "csv", "target": "sold", "drop": ["id"]}, data=path)
    assert problem.train_inputs.shape == (96, 1)
    assert problem.config == {"name": "csv", "target": "sold", "drop": ["id"]}
    assert reloads(problem, path)
    with pytest.raises(UnknownNameError, match="Known: id, a, sold"):
        load({"name": "csv", "target": "price"}, data=path)
    with pytest.raises(InvalidConfigError, match="from -3 to 2"):
        load({"name": "csv", "target": 3}, data=path)
    with pytest.raises(DataFormatError, match="as targets of a regression .*'x0'"):
        load({"name": "csv", "target": "id", "task": "regression"}, data=path)
    with pytest.raises(DataFormatError, match="columns beside the target"):
        load({"name": "csv", "drop": [0, "a"]}, data=path)


def test_pairs_share_scales_and_categories(tmp_path):
    written(tmp_path / "set.tra", "1,a,0\n3,b,1\n")
    written(tmp_path / "set.tes", "5,c,1\n")
    problem = load({"name": "csv"}, data=tmp_path)
    assert problem.train_inputs.tolist() == [[-1, 1, 0, 0], [1, 0, 1, 0]]
    assert problem.test_inputs.tolist() == [[3, 0, 0, 1]]
    named = {"name": "csv", "file": "set.tra", "test_file": "set.tes"}
    assert load(named, data=tmp_path).sha256 == problem.sha256
    with pytest.raises(MissingDataError, match=r"other\.tes"):
        load(named | {"test_file": "other.tes"}, data=tmp_path)
    written(tmp_path / "set.tes", "5,1\n")
    with pytest.raises(DataFormatError, match="same columns"):
        load({"name": "csv"}, data=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n3,4\n5,6,7\n", "2 fields in every row .*got 3 in line 3"),
        ("a,b\n1,2\n\n3,?\n", r"missing values in .*'\?' as 'b' in line 4"),
        ("1,0\n,1\n", "missing values in .*'' as 'column 0' in line 2"),
        ("a,b\n", "leaves samples for both parts"),
        ("", "rows of fields"),
        ('1,"2\n3,4\n', "Cannot read line"),
        ("1,0\n2,0\n3,0\n4,0\n", "two classes or more"),
    ],
)
def test_damaged_tables_are_refused(tmp_path, text, message):
    path = written(tmp_path / "t.csv", text)
    with pytest.raises((DataFormatError, InvalidConfigError), match=message):
        load({"name": "csv", "delimiter": ","}, data=path)


def test_a_table_must_be_found(tmp_path):
    with pytest.raises(MissingDataError, match="at --data, got None"):
        load({"name": "csv"})
    written(tmp_path / "a.csv", "1,2\n")
    written(tmp_path / "b.csv", "1,2\n")
    with pytest.raises(MissingDataError, match=r"got a\.csv, b\.csv\. Name it"):
        load({"name": "csv"}, data=tmp_path)
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe1,2\n")
    with pytest.raises(DataFormatError, match="UTF-8"):
        load({"name": "csv", "file": "a.csv"}, data=tmp_path)
    with pytest.raises(InvalidConfigError, match="one character"):
        load({"name": "csv", "file": "b.csv", "delimiter": "::"}, data=tmp_path)


@pytest.mark.parametrize(
    ("name", "inputs", "classes"),
    [("iris", 4, 3), ("wine", 13, 3), ("breast-cancer", 30, 2), ("diabetes", 10, 0)],
)
def test_tables_that_need_no_files(name, inputs, classes):
    problem = load({"name": name, "seed": 3})
    assert problem.train_inputs.shape[1] == inputs
    assert problem.num_classes == classes
    torch.testing.assert_close(problem.train_inputs.mean(0), torch.zeros(inputs), atol=1e-5, rtol=0)
    assert problem.config == {"name": name, "seed": 3}
    assert reloads(problem)
    assert load({"name": name}).sha256 != problem.sha256
    assert problem.source


def test_real_tables(shared_data):
    folder = shared_data("tabular")
    abalone = load({"name": "csv", "file": "abalone.csv"}, data=folder)
    assert abalone.train_inputs.shape == (3342, 10)  # seven measures, three sexes
    assert abalone.num_classes == 0
    sexes = whole(abalone)[:, 7:]
    assert sexes.sum(0).tolist() == [1307, 1342, 1528]  # F, I, M, as UCI counts them
    wine = load({"name": "csv", "file": "winequality-white.csv"}, data=folder)
    assert wine.num_classes == 7
    optdigits = load({"name": "csv"}, data=folder / "optdigits")
    assert optdigits.test_targets.bincount().tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip


# Time series

HEADER = """#A comment: with a colon
@problemName Toy
@timeStamps false
@classLabel true walk run
@data
"""


@pytest.fixture
def series(tmp_path):
    written(tmp_path / "Toy_TRAIN.ts", HEADER + "1,2,3:4,5,6:walk\n7,8,9:10,11,12:run\n")
    written(tmp_path / "Toy_TEST.ts", HEADER + "-1,-2,-3:0,0,1e1:run\n")
    return tmp_path


def test_series_of_several_dimensions(series):
    problem = load({"name": "ucr"}, data=series)
    assert problem.train_inputs.tolist() == [
        [[1, 2, 3], [4, 5, 6]],
        [[7, 8, 9], [10, 11, 12]],
    ]
    assert problem.train_targets.tolist() == [1, 0]  # run, walk
    assert problem.name == "Toy"
    assert reloads(problem, series)
    signals = load({"name": "ucr-signals", "dataset": "Toy"}, data=series)
    np.testing.assert_allclose(signals.train_inputs[:, 0], [-2 / 3, 0, 2 / 3], atol=1e-7)
    assert signals.train_targets[2].tolist() == [[-1, 0], [-2, 0], [-3, 10]]
    assert signals.labels.tolist() == [1, 0, 0]
    assert signals.peak == 24
    assert reloads(signals, series)


@pytest.mark.parametrize("suffix", ["tsv", "txt"])
def test_series_with_the_class_first(tmp_path, suffix):
    gap = "\t" if suffix == "tsv" else "   "
    rows = [("2", "0.5", "1.5"), ("10", "2.5", "3.5"), ("-1", "4.5", "5.5")]
    text = "\n".join(gap.join(row) for row in rows) + "\n"
    written(tmp_path / f"Old_TRAIN.{suffix}", text)
    test = text.replace("-1", "-1.0000000e+00").replace("10", "1.0000e+01")
    written(tmp_path / f"Old_TEST.{suffix}", test)
    problem = load({"name": "ucr"}, data=tmp_path)
    assert problem.train_targets.tolist() == [1, 2, 0]  # -1, 2, 10
    assert problem.test_targets.tolist() == [1, 2, 0]
    assert problem.train_inputs[1].tolist() == [[2.5, 3.5]]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("1,2,3", "1,2"), "dimensions of one length in line 6"),
        (("7,8,9:10,11,12", "7,8:10,11"), r"\(2, 3\) .*first and \(2, 2\) in line 7"),
        (("7,8,9", "7,?,9"), "missing values .*line 7"),
        (("7,8,9", "7,x,9"), "numbers in line 7"),
        (("12:run", "12:swim"), "class of walk, run in line 7"),
        (("@data\n", ""), "'@data'"),
        (("timeStamps false", "timeStamps true"), "even times"),
        (("1,2,3:4,5,6:walk\n7,8,9:10,11,12:run\n", ""), "got none"),
        (("1,2,3:4,5,6:walk\n7,8,9:10,11,12:run\n", "1:2:walk\n3:4:run\n"), "both parts of Toy"),
    ],
)
def test_damaged_series_are_refused(series, damage, message):
    path = series / "Toy_TRAIN.ts"
    written(path, path.read_text().replace(*damage))
    with pytest.raises(DataFormatError, match=message):
        load({"name": "ucr"}, data=series)


def test_series_must_be_found(series):
    (series / "Toy_TEST.ts").rename(series / "Two_TRAIN.ts")
    with pytest.raises(MissingDataError, match=r"got Toy, Two\. Name it"):
        load({"name": "ucr"}, data=series)
    with pytest.raises(MissingDataError, match=r"Expected Toy_TEST\.ts"):
        load({"name": "ucr", "dataset": "Toy"}, data=series)


def test_real_series(shared_data):
    folder = shared_data("timeseries")
    motions = load({"name": "ucr", "dataset": "BasicMotions"}, data=folder)
    assert motions.train_inputs.shape == (40, 6, 100)
    assert motions.train_targets.bincount().tolist() == [10, 10, 10, 10]
    arrows = load({"name": "ucr-signals", "dataset": "ArrowHead"}, data=folder)
    assert arrows.train_targets.shape == (211, 251, 1)
    assert float(arrows.train_targets[0, 0, 0]) == pytest.approx(-1.9630089)
