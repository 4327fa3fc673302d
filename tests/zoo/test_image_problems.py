"""Images as people keep them: binary CIFAR records, folders and archives of image files."""

import gzip
import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.errors import InvalidConfigError, MissingDataError, UnknownNameError
from zoo.problems import CIFARFormatError, ImageFormatError, load
from zoo.problems.pixels import scaled


def records(labels, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), np.uint8)
    return np.concatenate([np.array(labels, np.uint8)[:, None], pixels], axis=1)


@pytest.fixture
def cifar(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(records([3, 1, 4]).tobytes())
    second = records([1, 9], seed=1)
    (tmp_path / "data_batch_2.bin.gz").write_bytes(gzip.compress(second.tobytes()))
    (tmp_path / "test_batch.bin").write_bytes(records([7], seed=2).tobytes())
    return tmp_path


def test_cifar_records_become_planes(cifar):
    config = {"name": "cifar10", "mean": [0.0, 0.25, 0.5], "std": [1.0, 0.5, 0.25]}
    problem = load(config, data=cifar)
    assert problem.train_targets.tolist() == [3, 1, 4, 1, 9]
    assert problem.test_targets.tolist() == [7]
    red, green, blue = records([1, 9], seed=1)[1, 1:].reshape(3, 32, 32) / 255
    wanted = np.stack([red, (green - 0.25) / 0.5, (blue - 0.5) / 0.25])
    np.testing.assert_allclose(problem.train_inputs[4].numpy(), wanted, atol=1e-6)
    again = load(problem.config, data=cifar)
    assert again.sha256 == problem.sha256


def test_a_part_of_cifar_may_hold_records_out(cifar):
    (cifar / "test_batch.bin").unlink()
    with pytest.raises(MissingDataError, match=r"test_batch\.bin .*kriz/cifar"):
        load({"name": "cifar10"}, data=cifar)
    problem = load({"name": "cifar10", "num_test": 2}, data=cifar)
    assert problem.train_targets.tolist() == [3, 1, 4]
    assert problem.test_targets.tolist() == [1, 9]
    with pytest.raises(InvalidConfigError, match="fewer than 5"):
        load({"name": "cifar10", "num_test": 5}, data=cifar)


@pytest.mark.parametrize("content", [b"", b"\0" * 3072, b"\x0b" + b"\0" * 3072, None])
def test_damaged_cifar_is_refused(cifar, content):
    name = "data_batch_1.bin" if content is not None else "data_batch_2.bin.gz"
    whole = (cifar / name).read_bytes()
    (cifar / name).write_bytes(whole[:-50] if content is None else content)
    with pytest.raises(CIFARFormatError, match=name):
        load({"name": "cifar10"}, data=cifar)


def picture(value, size=(4, 2), mode="RGB", kind="PNG"):
    stream = io.BytesIO()
    Image.new(mode, size, value).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def pictures():
    """Files of two classes; order of paths is not order of making."""
    grey = {"a/2.png": 51, "a/10.png": 102, "b/1.png": 204, "b/0.png": 255}
    files = {f"set/train/{name}": picture((value, 0, 255)) for name, value in grey.items()}
    files["set/test/b/0.PNG"] = picture(255, mode="L")
    files["set/readme.txt"] = b"no image"
    return files


def unpacked(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def packed(path, files):
    with tarfile.open(path, "w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_folders_and_archives_give_the_same(pictures, tmp_path):
    config = {"name": "images", "mean": [0.0], "std": [1.0]}
    folder = load(config, data=unpacked(tmp_path / "unpacked", pictures))
    archive = packed(tmp_path / "only.tar.xz", pictures)
    assert load(config, data=archive).sha256 == folder.sha256
    assert load(config, data=tmp_path / "unpacked" / "..").sha256 == folder.sha256
    assert folder.train_targets.tolist() == [0, 0, 1, 1]
    assert folder.train_inputs.shape == (4, 3, 2, 4)
    reds = folder.train_inputs[:, 0, 0, 0]
    torch.testing.assert_close(reds, torch.tensor([0.4, 0.2, 1.0, 0.8]))  # a/10, a/2, b/0, b/1
    assert folder.test_targets.tolist() == [1]


def test_thinning_and_grey(pictures, tmp_path):
    config = {"name": "images", "train_every": 3, "grey": True, "mean": [0.0], "std": [1.0]}
    problem = load(config, data=unpacked(tmp_path, pictures))
    assert problem.train_inputs.shape == (2, 1, 2, 4)
    assert problem.train_targets.tolist() == [0, 1]
    assert load(problem.config, data=tmp_path).sha256 == problem.sha256
    with pytest.raises(InvalidConfigError, match="keep every"):
        load({"name": "images", "test_every": 0}, data=tmp_path)


def test_what_is_no_image_set_is_refused(pictures, tmp_path):
    with pytest.raises(MissingDataError, match="CLASS"):
        load({"name": "images"}, data=None)
    with pytest.raises(MissingDataError, match="none of a part"):
        load({"name": "images"}, data=unpacked(tmp_path / "x", {"train/a/0.png": picture(0)}))
    with pytest.raises(UnknownNameError, match="Unknown option of problem 'images' 'size'"):
        load({"name": "images", "size": 3}, data=tmp_path)
    odd = pictures | {"set/train/a/3.png": picture((1, 2, 3), size=(5, 2))}
    with pytest.raises(ImageFormatError, match=r"\(2, 4\).*\(2, 5\)"):
        load({"name": "images"}, data=unpacked(tmp_path / "y", odd))
    cut = pictures | {"set/train/a/2.png": pictures["set/train/a/2.png"][:30]}
    with pytest.raises(ImageFormatError, match=r"Cannot decode set/train/a/2\.png"):
        load({"name": "images"}, data=unpacked(tmp_path / "z", cut))
    archive = packed(tmp_path / "a.tar.xz", pictures)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageFormatError, match="Cannot read"):
        load({"name": "images"}, data=archive)


def test_scales_need_a_number_for_each_channel():
    images = np.zeros((1, 3, 2, 2), np.uint8)
    with pytest.raises(InvalidConfigError, match="3 of each"):
        scaled(images, mean=(0.5, 0.5))
    with pytest.raises(InvalidConfigError, match="positive std"):
        scaled(images, std=(0.0,))


def test_normalised_digits_of_mnist(shared_data):
    plain = load({"name": "idx"}, data=shared_data("mnist"))
    raw = load({"name": "idx", "mean": 0.0, "std": 1.0}, data=shared_data("mnist"))
    assert plain.config == {"name": "idx"}
    assert raw.config == {"name": "idx", "mean": 0.0, "std": 1.0}
    torch.testing.assert_close(raw.test_inputs * 2 - 1, plain.test_inputs)
