"""Problems made of others: corrupted copies as domains, images of another size."""

import numpy as np
import pytest
import torch

from zoo.errors import InvalidConfigError, UnknownNameError
from zoo.problems import CORRUPTIONS, load


def test_corrupted_copies_are_domains_of_the_clean_data():
    clean = load({"name": "digits"})
    config = {"name": "corrupted", "base": {"name": "digits"}}
    problem = load(config)
    count = len(clean.train_inputs)
    assert problem.domain_names == ("clean", *CORRUPTIONS)
    assert len(problem.train_inputs) == count * (1 + len(CORRUPTIONS))
    torch.testing.assert_close(problem.train_inputs[:count], clean.train_inputs)
    torch.testing.assert_close(problem.test_inputs, clean.test_inputs)
    for domain in range(1, 1 + len(CORRUPTIONS)):
        own = problem.samples_of_domain(domain)
        assert own.tolist() == list(range(domain * count, (domain + 1) * count))
        assert (problem.train_inputs[own] - clean.train_inputs).abs().max() > 0.1
        assert problem.train_targets[own].equal(clean.train_targets)
    assert load(problem.config).sha256 == problem.sha256
    with pytest.raises(InvalidConfigError, match="Expected a domain"):
        problem.samples_of_domain(99)
    with pytest.raises(InvalidConfigError, match="it has none"):
        clean.samples_of_domain(0)


def test_simple_corruptions_are_their_definition():
    options = {"corruptions": ["mirror", "inversion", "turn"], "severity": 1.0}
    problem = load({"name": "corrupted", "base": {"name": "digits"}, **options})
    images = problem.train_inputs.view(4, -1, 8, 8)
    torch.testing.assert_close(images[1], images[0].flip(-1))
    torch.testing.assert_close(images[2], 1 - images[0])
    torch.testing.assert_close(images[3], images[0].transpose(-1, -2).flip(-2))


def test_what_is_no_image_is_not_corrupted():
    with pytest.raises(InvalidConfigError, match="Expected images"):
        load({"name": "corrupted", "base": {"name": "wine"}})
    with pytest.raises(UnknownNameError, match="Known: noise"):
        load({"name": "corrupted", "base": {"name": "digits"}, "corruptions": ["rain"]})


def npz(folder, side):
    rng = np.random.default_rng(0)
    images = {
        f"{part}_inputs": rng.integers(0, 255, (count, side, side, 3), np.uint8)
        for part, count in (("train", 5), ("test", 4))
    }
    labels = {"train_targets": np.arange(5) % 2, "test_targets": np.arange(4) % 2}
    np.savez(folder / "set.npz", **images, **labels)
    return folder


def test_images_are_cut_and_scaled(tmp_path):
    base = {"name": "npz"}
    plain = load(base, data=npz(tmp_path, 12))
    cut = load({"name": "resized", "base": base, "crop": 6}, data=tmp_path)
    torch.testing.assert_close(cut.train_inputs, plain.train_inputs[:, :, 3:9, 3:9])
    small = load({"name": "resized", "base": base, "size": 7, "crop": 10}, data=tmp_path)
    assert small.test_inputs.shape == (4, 3, 7, 7)
    assert small.train_inputs.mean().item() == pytest.approx(
        plain.train_inputs[:, :, 1:11, 1:11].mean().item(), abs=0.05
    )
    assert load(small.config, data=tmp_path).sha256 == small.sha256
    with pytest.raises(InvalidConfigError, match="crop 13"):
        load({"name": "resized", "base": base, "crop": 13}, data=tmp_path)
    with pytest.raises(InvalidConfigError, match="Expected images"):
        load({"name": "resized", "base": {"name": "wine"}, "size": 7})
