"""Problems: real data, exact accuracies, clear errors for missing and damaged files."""

import gzip
import struct

import numpy as np
import pytest
import torch

from zoo.errors import MissingDataError, UnknownNameError
from zoo.networks import build
from zoo.problems import (
    METRICS,
    SIGNAL_METRICS,
    IDXFormatError,
    evaluate,
    load,
    read_idx,
    score,
    score_signals,
)


def write_idx(path, array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def idx_folder(tmp_path):
    rng = np.random.default_rng(0)
    for stem, count in (("train", 7), ("t10k", 5)):
        write_idx(tmp_path / f"{stem}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 4, 3)))
        write_idx(tmp_path / f"{stem}-labels-idx1-ubyte", np.arange(count) % 3)
    return tmp_path


def test_digits_are_the_same_every_time():
    first, second = load({"name": "digits"}), load({"name": "digits"})
    assert first.sha256 == second.sha256
    assert first.train_inputs.shape == (1437, 64)
    assert first.test_inputs.shape == (360, 64)
    assert float(first.train_inputs.max()) == 1
    assert first.num_classes == 10


def test_idx_files_gzipped_or_not(idx_folder):
    problem = load({"name": "idx"}, data=idx_folder)
    assert problem.train_inputs.shape == (7, 1, 4, 3)
    assert problem.test_targets.tolist() == [0, 1, 2, 0, 1]
    assert problem.num_classes == 3
    pixels = read_idx(idx_folder / "train-images-idx3-ubyte.gz")
    torch.testing.assert_close(
        problem.train_inputs[:, 0], torch.from_numpy(pixels / 127.5 - 1).float()
    )


def test_missing_files_are_named(idx_folder):
    (idx_folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(MissingDataError, match="t10k-labels-idx1-ubyte"):
        load({"name": "idx"}, data=idx_folder)
    with pytest.raises(MissingDataError, match="--data DIR"):
        load({"name": "idx"})


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-2], lambda raw: b"\1" + raw[1:], lambda _: b""]
)
def test_damaged_files_are_named(idx_folder, damage):
    path = idx_folder / "train-labels-idx1-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(IDXFormatError, match="train-labels"):
        load({"name": "idx"}, data=idx_folder)


def test_truncated_gzip_is_named(idx_folder):
    path = idx_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(IDXFormatError, match="train-images"):
        load({"name": "idx"}, data=idx_folder)


def test_images_and_labels_must_match(idx_folder):
    write_idx(idx_folder / "train-labels-idx1-ubyte", np.arange(6))
    with pytest.raises(IDXFormatError, match="one data set"):
        load({"name": "idx"}, data=idx_folder)


def test_signals_are_the_images_pixel_by_pixel(idx_folder):
    problem = load({"name": "idx-signals"}, data=idx_folder)
    images = load({"name": "idx"}, data=idx_folder)
    assert problem.num_signals == 12
    assert problem.metrics == SIGNAL_METRICS
    assert problem.train_inputs.shape == (12, 2)
    pixels = torch.cat([images.train_inputs, images.test_inputs])
    for row, column in ((0, 0), (1, 2), (3, 1)):
        place = row * 3 + column
        middle = [(2 * row + 1) / 4 - 1, (2 * column + 1) / 3 - 1]
        np.testing.assert_allclose(problem.train_inputs[place], middle, atol=1e-6)
        torch.testing.assert_close(problem.train_targets[:, place, 0], pixels[:, 0, row, column])
    assigned = problem.assign(np.array([1, 11, 12]))
    assert assigned["signal"].tolist() == [1, 11, 0]
    labels = torch.cat([images.train_targets, images.test_targets])
    assert assigned["label"].tolist() == labels[[1, 11, 0]].tolist()
    assert images.assign(np.array([1, 11])) == {}
    assert load({"name": "digit-signals"}).train_targets.shape == (1797, 64, 1)


def test_signal_scores_are_those_of_the_definition():
    outputs = torch.tensor([[[0.5, 1.0]], [[0.0, 0.0]], [[torch.nan, 0.0]]])
    targets = torch.tensor([[[0.0, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]]])
    error, ratio = score_signals(outputs, targets, peak=2.0)
    np.testing.assert_allclose(error, [0.625, 0, np.nan])
    np.testing.assert_allclose(ratio, [10 * np.log10(4 / 0.625), 200, np.nan], rtol=1e-6)


def test_unknown_problem_lists_the_known():
    with pytest.raises(UnknownNameError, match="Known: digits, idx"):
        load({"name": "imagenet"})


def test_evaluate_agrees_with_the_definition():
    problem = load({"name": "digits"})
    torch.manual_seed(0)
    module = build({"name": "mlp", "in_features": 64, "hidden": [5], "out_features": 10}).train()
    measured = evaluate(problem, module)
    assert tuple(measured) == METRICS
    assert module.training
    module = module.double().eval()
    with torch.no_grad():
        logits = module(problem.test_inputs.double())
    accuracy = (logits.argmax(-1) == problem.test_targets).double().mean()
    assert measured["test_accuracy"] == pytest.approx(float(accuracy), abs=1e-7)
    loss = torch.nn.functional.cross_entropy(logits, problem.test_targets)
    assert measured["test_loss"] == pytest.approx(float(loss), rel=1e-5)


def test_close_calls_are_decided_in_float64():
    logits = torch.tensor([[[1.0, 1.0 + 1e-6, 0.0], [5.0, 0.0, 0.0]]])
    asked = []

    def decide(network, samples):
        asked.append((network, samples.tolist()))
        return torch.tensor([[1.0, 0.5, 0.0]], dtype=torch.float64)

    _, accuracy = score(logits, torch.tensor([0, 0]), decide=decide)
    assert asked == [(0, [0])]
    assert accuracy.tolist() == [1.0]


def test_non_finite_networks_have_no_accuracy():
    logits = torch.full((1, 2, 3), torch.nan)
    loss, accuracy = score(
        logits, torch.tensor([0, 1]), decide=lambda _, samples: logits[0, samples].double()
    )
    assert torch.isnan(loss).all()
    assert torch.isnan(accuracy).all()


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_images(name, shared_data):
    problem = load({"name": "idx"}, data=shared_data(name))
    assert problem.train_inputs.shape == (60_000, 1, 28, 28)
    assert problem.test_targets.bincount().sum() == 10_000
    assert float(problem.train_inputs.min()) == -1
