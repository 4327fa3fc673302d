"""Arrays, tables, series and drawings as people keep them; fixtures are written byte by byte."""

import pickle
import pickletools
import struct

import numpy as np
import pytest
import torch

from zoo.errors import InvalidConfigError, MissingDataError, UnknownNameError
from zoo.problems import (
    REGRESSION_METRICS,
    CIFARFormatError,
    DataFormatError,
    load,
    read_mat,
)
from zoo.problems.pickles import read_pickle


def reloads(problem, data=None):
    again = load(problem.config, data=data)
    return again.sha256 == problem.sha256 and again.config == problem.config


# CIFAR


def python_2_batch(pixels, labels, key="labels"):
    """Write a batch as cPickle of Python 2 did, protocol 2, opcode by opcode."""

    def short(text):
        return b"U" + bytes([len(text)]) + text

    def integer(value):
        return b"K" + bytes([value])

    shape = b"M" + struct.pack("<H", len(pixels)) + b"M" + struct.pack("<H", pixels.shape[1])
    raw = pixels.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + short(b"b") + b"tR"
        b"(K\x01" + shape + b"\x86"
        b"cnumpy\ndtype\n(" + short(b"u1") + b"K\x00K\x01tR"
        b"(K\x03" + short(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )
    listed = b"](" + b"".join(map(integer, labels)) + b"e"
    items = short(b"data") + array + short(key.encode()) + listed
    return b"\x80\x02}(" + items + b"u."


def pixels(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)


@pytest.fixture
def pickled_cifar(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(python_2_batch(pixels(3, 0), [3, 1, 4]))
    (tmp_path / "data_batch_2").write_bytes(python_2_batch(pixels(2, 1), [1, 9]))
    (tmp_path / "test_batch").write_bytes(python_2_batch(pixels(1, 2), [7]))
    (tmp_path / "batches.meta").write_bytes(b"not looked at")
    return tmp_path


def test_both_editions_of_cifar_are_one(pickled_cifar, tmp_path_factory):
    binary = tmp_path_factory.mktemp("binary")
    for name, count, seed, labels in (
        ("data_batch_1.bin", 3, 0, [3, 1, 4]),
        ("data_batch_2.bin", 2, 1, [1, 9]),
        ("test_batch.bin", 1, 2, [7]),
    ):
        rows = np.concatenate([np.array(labels, np.uint8)[:, None], pixels(count, seed)], axis=1)
        (binary / name).write_bytes(rows.tobytes())
    python = load({"name": "cifar10"}, data=pickled_cifar)
    assert python.train_targets.tolist() == [3, 1, 4, 1, 9]
    assert python.sha256 == load({"name": "cifar10"}, data=binary).sha256
    signals = load({"name": "cifar10-signals"}, data=pickled_cifar)
    assert signals.train_targets.shape == (6, 1024, 3)
    assert signals.labels.tolist() == [3, 1, 4, 1, 9, 7]
    wanted = pixels(3, 0)[2].reshape(3, 32, 32)[:, 5, 8] / 127.5 - 1
    np.testing.assert_allclose(signals.train_targets[2, 5 * 32 + 8], wanted, atol=1e-6)
    assert reloads(signals, pickled_cifar)


def test_fine_labels_of_cifar100(tmp_path):
    coarse, fine = [4, 19], [72, 99]
    rows = np.concatenate([np.array([coarse, fine], np.uint8).T, pixels(2, 0)], axis=1)
    (tmp_path / "train.bin").write_bytes(rows.tobytes())
    (tmp_path / "test.bin").write_bytes(rows[:1].tobytes())
    binary = load({"name": "cifar100"}, data=tmp_path)
    assert binary.train_targets.tolist() == fine
    assert binary.num_classes == 100
    for name in ("train", "test"):
        (tmp_path / f"{name}.bin").unlink()
    (tmp_path / "train").write_bytes(python_2_batch(pixels(2, 0), fine, key="fine_labels"))
    (tmp_path / "test").write_bytes(python_2_batch(pixels(2, 0)[:1], [72], key="fine_labels"))
    assert load({"name": "cifar100"}, data=tmp_path).sha256 == binary.sha256
    (tmp_path / "test").write_bytes(python_2_batch(pixels(1, 0), [100], key="fine_labels"))
    with pytest.raises(CIFARFormatError, match=r"labels 0 to 99 in .*test"):
        load({"name": "cifar100"}, data=tmp_path)
    (tmp_path / "test").write_bytes(python_2_batch(pixels(1, 0), [1]))
    with pytest.raises(CIFARFormatError, match=r"'fine_labels' .* got data, labels"):
        load({"name": "cifar100"}, data=tmp_path)


class Touches:
    """Unpickled by anything that runs pickles, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickles_are_never_run(tmp_path):
    touched = tmp_path / "touched"
    attack = tmp_path / "data_batch_1"
    attack.write_bytes(pickle.dumps({"data": Touches(touched)}))
    (tmp_path / "test_batch").write_bytes(attack.read_bytes())
    with pytest.raises(DataFormatError, match=r"asks for .*\.open, and only NumPy arrays"):
        load({"name": "cifar10"}, data=tmp_path)
    attack.write_bytes(pickle.dumps({"data": np.array([Touches(touched)], dtype=object)}))
    with pytest.raises(DataFormatError, match="only NumPy arrays of numbers"):
        load({"name": "cifar10"}, data=tmp_path)
    attack.write_bytes(pickle.dumps({"data": np.array([None], dtype=object)}))
    with pytest.raises(DataFormatError, match="the type 'O8'"):
        load({"name": "cifar10"}, data=tmp_path)
    assert not touched.exists()
    # The attack is one: whoever runs this stream calls open(path, "w").
    stream = list(pickletools.genops(pickle.dumps({"data": Touches(touched)})))
    assert "REDUCE" in [code.name for code, _, _ in stream]
    assert {"open", str(touched), "w"} <= {argument for _, argument, _ in stream}


@pytest.mark.parametrize("protocol", range(5))
def test_pickles_of_arrays(tmp_path, protocol):
    path = tmp_path / "batch"
    columns = np.asfortranarray(np.arange(6).reshape(2, 3).astype(">f4"))
    value = {b"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "rows": [columns, 2, None]}
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    read = read_pickle(path)
    assert read[b"data"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read[b"data"].dtype == np.uint8
    assert read["rows"][0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read["rows"][1:] == [2, None]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataFormatError, match="batch"):
        read_pickle(path)


@pytest.mark.parametrize(
    "content", [b"cbuiltins\neval\n.", b"cnumpy\nload\n.", b"c_codecs\nlookup\n.", b"P1\n."]
)
def test_other_things_in_pickles_are_refused(tmp_path, content):
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(DataFormatError, match="only NumPy arrays"):
        read_pickle(tmp_path / "batch")


# NumPy archives


def archive(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_images_in_npz(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 2, 3), np.uint8)
    colours = rng.integers(0, 256, (5, 2, 3, 3), np.uint8)
    labels = np.array([0, 1, 1, 0, 1])
    names = {"y_train": labels[:3], "y_test": labels[3:]}
    archive(tmp_path / "grey.npz", x_train=images[:3], x_test=images[3:], **names)
    grey = load({"name": "npz"}, data=tmp_path)
    assert grey.train_inputs.shape == (3, 1, 2, 3)
    np.testing.assert_allclose(grey.test_inputs[1, 0], images[4] / 127.5 - 1, atol=1e-6)
    path = archive(tmp_path / "c.npz", x_train=colours[:3], x_test=colours[3:], **names)
    colour = load({"name": "npz", "mean": [0.0], "std": [1.0]}, data=path)
    np.testing.assert_allclose(
        colour.train_inputs[1], colours[1].transpose(2, 0, 1) / 255, atol=1e-6
    )
    assert colour.config == {"name": "npz", "mean": [0.0], "std": [1.0]}
    assert reloads(colour, path)
    with pytest.raises(MissingDataError, match=r"one \.npz file at .*, got 2"):
        load({"name": "npz"}, data=tmp_path)


def test_tables_and_tokens_in_npz(tmp_path):
    x, y = np.arange(20.0).reshape(10, 2), np.linspace(0, 1, 10)
    path = archive(tmp_path / "values.npz", x=x, y=y)
    regression = load({"name": "npz", "test_fraction": 0.3, "seed": 4}, data=path)
    assert regression.metrics == REGRESSION_METRICS
    assert regression.train_targets.shape == (7, 1)
    assert regression.test_inputs.dtype == torch.float32
    torch.testing.assert_close(regression.test_targets, (regression.test_inputs[:, :1] / 18))
    assert reloads(regression, path)
    other = load({"name": "npz", "test_fraction": 0.3, "seed": 5}, data=path)
    assert other.sha256 != regression.sha256
    tokens = np.array([[1, 5, 0], [2, 0, 0]] * 3)
    words = archive(tmp_path / "words.npz", inputs=tokens, targets=np.array(["no", "aye"] * 3))
    texts = load({"name": "npz", "tokens": True, "test_fraction": 0.34}, data=words)
    assert texts.train_inputs.dtype == torch.int64
    assert [texts.train_targets[texts.train_inputs[:, 0] == k][0] for k in (1, 2)] == [1, 0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": [1]}, "Expected inputs and targets in .*got a"),
        ({"x": [[1.0], [2.0]], "y": [1, 2, 3]}, "as many x as y"),
        ({"x": [[1.0], [np.nan]] * 4, "y": [0, 1] * 4}, "finite"),
        ({"x": np.ones((8, 2)), "y": np.eye(2, dtype=int)[[0, 1] * 4]}, "one-hot"),
        ({"x": [["a"], ["b"]] * 4, "y": [0, 1] * 4}, "inputs of numbers"),
        ({"x": np.ones((8, 2)), "y": np.zeros(8, int)}, "two classes or more"),
        ({"x": np.array([[{}], [{}]]), "y": [0, 1]}, "Python objects are never read"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, message):
    path = archive(tmp_path / "a.npz", **arrays)
    with pytest.raises((DataFormatError, MissingDataError), match=message):
        load({"name": "npz"}, data=path)


def test_classes_without_training_samples_are_refused(tmp_path):
    parts = {"train_inputs": np.ones((2, 3)), "train_targets": np.array([0, 2])}
    parts |= {"test_inputs": np.ones((1, 3)), "test_targets": np.array([1])}
    with pytest.raises(DataFormatError, match=r"all 3 classes in .*got none of 1\."):
        load({"name": "npz"}, data=archive(tmp_path / "a.npz", **parts))
    wider = parts | {"test_inputs": np.ones((1, 4)), "test_targets": np.array([0])}
    with pytest.raises(DataFormatError, match=r"one shape .*\(3,\) and \(4,\)"):
        load({"name": "npz"}, data=archive(tmp_path / "b.npz", **wider))
    (tmp_path / "c.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-60])
    with pytest.raises(DataFormatError, match=r"Cannot read .*c\.npz"):
        load({"name": "npz"}, data=tmp_path / "c.npz")
    with pytest.raises(InvalidConfigError, match="task of auto, classes, regression"):
        load({"name": "npz", "task": "rank"}, data=tmp_path / "a.npz")


# Drawings


def test_drawings_are_read_by_class(tmp_path):
    rng = np.random.default_rng(0)
    owls, cats = (rng.integers(0, 256, (n, 784), np.uint8) for n in (6, 4))
    (tmp_path / "owl.bin").write_bytes(owls.tobytes())
    np.save(tmp_path / "cat.npy", cats)
    problem = load({"name": "quickdraw"}, data=tmp_path)
    assert problem.train_inputs.shape == (8, 1, 28, 28)
    both = torch.cat([problem.train_targets, problem.test_targets])
    assert both.bincount().tolist() == [4, 6]  # cats come first
    assert reloads(problem, tmp_path)
    signals = load({"name": "quickdraw-signals", "per_class": 3}, data=tmp_path)
    assert signals.labels.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(signals.train_targets[4, :, 0], owls[1] / 127.5 - 1, atol=1e-6)
    assert reloads(signals, tmp_path)
    with pytest.raises(DataFormatError, match=r"5 drawings in .*cat\.npy, got 4"):
        load({"name": "quickdraw", "per_class": 5}, data=tmp_path)
    (tmp_path / "owl.bin").write_bytes(owls.tobytes()[:-1])
    with pytest.raises(DataFormatError, match=r"784 bytes in .*owl\.bin"):
        load({"name": "quickdraw"}, data=tmp_path)
    with pytest.raises(MissingDataError, match="one file for each class"):
        load({"name": "quickdraw"}, data=tmp_path.parent / tmp_path.name / "..")


def test_real_drawings(shared_data):
    folder = shared_data("quickdraw3")
    problem = load({"name": "quickdraw", "per_class": 50}, data=folder)
    assert problem.num_classes == 3
    assert len(problem.train_targets) == 120
    assert float(problem.train_inputs.max()) == 1
    signals = load({"name": "quickdraw-signals", "per_class": 2}, data=folder)
    raw = (folder / "rainbows1000.bin").read_bytes()[:784]
    np.testing.assert_allclose(
        signals.train_targets[2, :, 0], np.frombuffer(raw, np.uint8) / 127.5 - 1, atol=1e-6
    )


# MATLAB


def mat_element(kind, content):
    return struct.pack("<ii", kind, len(content)) + content + b"\0" * (-len(content) % 8)


def mat_variable(name, array):
    """Write one double array, real or complex, as MATLAB v5 lays it out: columns first."""
    columns = np.asfortranarray(array)
    flags = 6 | (0x0800 if np.iscomplexobj(array) else 0)
    body = mat_element(6, struct.pack("<II", flags, 0))
    body += mat_element(5, struct.pack(f"<{array.ndim}i", *array.shape))
    body += mat_element(1, name.encode())
    for part in (columns.real, columns.imag) if np.iscomplexobj(array) else (columns,):
        body += mat_element(9, part.astype("<f8").tobytes(order="F"))
    return mat_element(14, body)


def mat_file(path, **variables):
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    path.write_bytes(header + b"".join(mat_variable(n, v) for n, v in variables.items()))
    return path


def test_fields_on_a_grid(tmp_path):
    x, t = np.array([[0.0, 1.0, 2.0]]), np.array([[10.0], [20.0]])
    field = x.T * 100 + t.T * 1j  # value is (100 x, t)
    path = mat_file(tmp_path / "wave.mat", x=x, tt=t, uu=field)
    config = {"name": "mat", "values": "uu", "coordinates": ["x", "tt"], "test_fraction": 0.5}
    problem = load(config, data=tmp_path)
    inputs = torch.cat([problem.train_inputs, problem.test_inputs])
    targets = torch.cat([problem.train_targets, problem.test_targets])
    assert sorted(inputs.tolist()) == [[a, b] for a in (0, 1, 2) for b in (10, 20)]
    torch.testing.assert_close(targets, inputs * torch.tensor([100.0, 1.0]))
    assert problem.metrics == REGRESSION_METRICS
    assert reloads(problem, tmp_path)
    with pytest.raises(MissingDataError, match=r"'usol' in .*uu \(3, 2\)"):
        load({"name": "mat"}, data=path)
    with pytest.raises(DataFormatError, match=r"shape \(2, 3\), got \(3, 2\)"):
        load(config | {"coordinates": ["tt", "x"]}, data=path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataFormatError, match=r"Cannot read .*wave\.mat"):
        load(config, data=path)
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<H", 0x0200) + b"IM")
    with pytest.raises(DataFormatError, match="'-v7'"):
        load(config, data=path)


def test_real_fields(shared_data):
    folder = shared_data("sciml")
    problem = load({"name": "mat", "file": "burgers_shock.mat"}, data=folder)
    assert problem.train_inputs.shape == (20480, 2)
    start = problem.train_inputs[:, 1] == 0
    x = problem.train_inputs[start, :1]
    torch.testing.assert_close(problem.train_targets[start], -torch.sin(torch.pi * x))
    assert read_mat(folder / "NLS.mat")["uu"].dtype == np.complex128
    with pytest.raises(MissingDataError, match=r"AC\.mat, NLS\.mat, burgers_shock\.mat"):
        load({"name": "mat"}, data=folder)


# Options


def test_unknown_options_are_listed():
    with pytest.raises(UnknownNameError, match=r"option of problem 'iris' 'fold'.*test_fraction"):
        load({"name": "iris", "fold": 1})
