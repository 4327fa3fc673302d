"""Data sets of SANE: networks cut into tokens, put together again [1]_.

A folder holds, per split, ``dataset_torch.train/sample_0.pt`` and so on (``w`` tokens, ``m`` mask,
``p`` positions, ``props``), ``dataset_info_train.json`` and ``dataset_normalization_train.json``.
Each layer is ``[out, in * kernel (+ 1 for the bias)]``, padded with zeros to whole tokens; position
``[n, layer, channel]`` tells where a token belongs. Layers are those of a reference, in its order,
whose name has ``weight``, ``running_mean`` or ``running_var``.

Samples that are windows of networks, or were normalised by numbers that nobody kept, cannot be put
together and are refused; so is every ``dataset.pt`` that pickles more than plain values.

References
----------
.. [1] Schürholt et al., "Towards Scalable and Versatile Weight Space Learning", ICML 2024,
   Sec. 3.1; files: ``dataset_auxiliaries.py`` and ``dataset_preprocessing.py`` of its code.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.convert.blueprint import shapes_of
from zoo.convert.source import Entry, Shapes, Skipped
from zoo.convert.torch_files import UnreadableFileError, read_checkpoint, read_torch
from zoo.errors import InvalidConfigError, MissingDataError
from zoo.networks import build
from zoo.schema import PARTS, ColumnSpec

FOLDER, DATASET = "dataset_torch", "dataset*.pt"

_SPLITS = dict(zip(("train", "val", "test"), PARTS, strict=True))
_NORMS = ("bn", "downsample.1", "batchnorm")
_ITERATION = "training_iteration"
_RENAMED = {"test_acc": "test_accuracy", "train_acc": "train_accuracy"}


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """One layer of the token sequence: the tensor, its bias if it has one, and their places."""

    name: str
    shape: tuple[int, ...]
    bias: str | None

    @property
    def content(self) -> int:
        """Numbers per channel, without the bias."""
        return prod(self.shape[1:])

    def tokens(self, size: int) -> int:
        """Tokens of ``size`` numbers that the layer takes."""
        return self.shape[0] * -(-(self.content + (self.bias is not None)) // size)


class Sane:
    """Source of a data set of SANE; every sample is a network with the one checkpoint 0.

    Samples of one network, at several epochs or permuted, share a lineage. Of permuted samples the
    first view is taken, which is the network as it was aligned.

    Parameters
    ----------
    path
        The folder.
    reference
        What says names and shapes: a file with a state dict of the same network, or what
        ``zoo.networks.build`` takes.

    Raises
    ------
    MissingDataError
        If there are no samples and no ``dataset.pt``.
    InvalidConfigError
        If there is no reference for samples.
    """

    format = "sane"
    column_specs: Sequence[ColumnSpec] = (
        ColumnSpec(name=_ITERATION, dtype="float64", role="identity", unit="epochs"),
    )
    network_columns: Sequence[str] = ()

    def __init__(
        self, path: Path, *, reference: str | Path | Mapping[str, Any] | None = None
    ) -> None:
        if not recognise(path):
            raise MissingDataError(
                f"Expected {FOLDER}.train/sample_0.pt or dataset.pt in {path}, got none."
            )
        self.path = path
        self.problem: dict[str, Any] = {"name": "unknown", "source": path.resolve().name}
        self._reference = reference
        self._splits = [split for split in _SPLITS if (path / f"{FOLDER}.{split}").is_dir()]
        if self._splits and reference is None:
            raise InvalidConfigError(
                "Samples of SANE hold numbers without names: give the option reference, a state "
                "dict of one of the networks, or their configuration."
            )

    @property
    def recipe(self) -> dict[str, Any]:
        """How the samples were made, as far as the data set says."""
        return {"source": "SANE", "dataset": self.path.resolve().name} | {
            f"info_{split}": self._json(f"dataset_info_{split}.json") for split in self._splits
        }

    def scan(self) -> Iterator[Entry | Skipped]:
        """Read every sample, split by split, in the order of their numbers."""
        for path in sorted(self.path.glob(DATASET)):
            yield Skipped(path.name, _why_not(path))
        for split in self._splits:
            for number, path in _samples(self.path / f"{FOLDER}.{split}"):
                name = f"{split}/sample_{number}"
                try:
                    yield self._entry(split, number, name, path)
                except UnreadableFileError as error:
                    yield Skipped(name, str(error))

    def load(self, entry: Entry, epoch: int) -> Mapping[str, np.ndarray]:
        """Read one sample again."""
        split, _, name = entry.name.partition("/")
        tensors, _ = self._read(split, self.path / f"{FOLDER}.{split}" / f"{name}.pt")
        return tensors

    # ---- one sample ---------------------------------------------------------------------------
    def _entry(self, split: str, number: int, name: str, path: Path) -> Entry:
        info = self._json(f"dataset_info_{split}.json")
        tensors, sample = self._read(split, path)
        keys = info.get("properties", ())
        values = sample["props"].to(torch.float64).flatten().tolist()
        if len(values) != len(keys):
            raise UnreadableFileError(f"has {len(values)} properties, not {', '.join(keys)}")
        known: dict[str, float] = dict(zip(map(str, keys), values, strict=True))
        return Entry(
            name=name,
            shapes=tuple((tensor, numbers.shape) for tensor, numbers in tensors.items()),
            network=dict(self._reference) if isinstance(self._reference, Mapping) else None,
            columns={_ITERATION: known.pop(_ITERATION)} if _ITERATION in known else {},
            metrics={_RENAMED.get(key, key): [value] for key, value in known.items()},
            parent=_parent(split, number, info),
            parts={"sane": _SPLITS[split]},
            dtype=str(sample["w"].dtype).removeprefix("torch."),
        )

    def _read(self, split: str, path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, Any]]:
        """Read a sample and put its tokens together."""
        sample = read_torch(path)
        wanted = ("w", "p", "props")
        if not isinstance(sample, Mapping) or any(
            not isinstance(sample.get(key), torch.Tensor) for key in wanted
        ):
            raise UnreadableFileError(f"is no sample: no tensors {', '.join(wanted)}")
        tokens, places = sample["w"].to(torch.float32).numpy(), sample["p"].numpy()
        if tokens.ndim == 3:
            tokens = tokens[0]
        if tokens.ndim != 2 or places.shape != (len(tokens), 3):
            raise UnreadableFileError(
                f"holds tokens of shape {tokens.shape} at places of shape {places.shape}"
            )
        tensors = _assembled(tokens, places, self._layout(tokens, places))
        return self._restored(split, tensors), sample

    def _layout(self, tokens: np.ndarray, places: np.ndarray) -> list[_Layer]:
        """Find the layers of a sample: all of the reference, or all but batch normalisation."""
        whole = self._layers
        without = [each for each in whole if not any(norm in each.name for norm in _NORMS)]
        for layers in (whole, without):
            if sum(layer.tokens(tokens.shape[1]) for layer in layers) == len(tokens):
                return layers
        total = sum(layer.tokens(tokens.shape[1]) for layer in whole)
        first, last = int(places[:, 0].min()), int(places[:, 0].max())
        raise UnreadableFileError(
            f"holds tokens {first} to {last}, not the {total} of a whole network: it is a window, "
            "or of another network than the reference"
        )

    @cached_property
    def _layers(self) -> list[_Layer]:
        shapes = dict(self._shapes)
        found = []
        for name, shape in shapes.items():
            if "weight" in name or "running_mean" in name or "running_var" in name:
                bias = name.replace("weight", "bias") if "weight" in name else None
                found.append(_Layer(name=name, shape=shape, bias=bias if bias in shapes else None))
        return found

    @cached_property
    def _shapes(self) -> Shapes:
        if isinstance(self._reference, Mapping):
            return shapes_of(build(self._reference))
        tensors = read_checkpoint(Path(str(self._reference))).tensors
        return tuple((name, values.shape) for name, values in tensors.items())

    # ---- normalisation ------------------------------------------------------------------------
    def _restored(self, split: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Undo the normalisation; the layers of the file are ours, in order."""
        info = self._json(f"dataset_info_{split}.json")
        norms = self._json(f"dataset_normalization_{split}.json")
        mode = norms.pop("mode", None)
        standardised = info.get("standardize")
        if mode is None and standardised not in (None, False):
            raise UnreadableFileError(
                f"was normalised ({standardised}) by numbers that the data set does not keep"
            )
        if mode is None:
            return tensors
        layers = [layer for layer in self._layers if layer.name in tensors]
        if len(norms) != len(layers):
            raise UnreadableFileError(
                f"has {len(layers)} layers, but the normalisation of {len(norms)}"
            )
        for layer, norm in zip(layers, norms.values(), strict=True):
            for name in (layer.name, layer.bias):
                if name is not None:
                    tensors[name] = _denormalised(tensors[name], mode, norm)
        return tensors

    def _json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def recognise(path: Path) -> bool:
    """Tell whether a folder holds samples, or data sets saved whole beside their info."""
    return path.is_dir() and (
        any(next(path.glob(f"{FOLDER}.{split}/sample_*.pt"), None) for split in _SPLITS)
        or (path / "dataset.pt").is_file()
    )


def _samples(folder: Path) -> list[tuple[int, Path]]:
    found = []
    for path in folder.glob("sample_*.pt"):
        if match := re.fullmatch(r"sample_(\d+)", path.stem):
            found.append((int(match[1]), path))
    return sorted(found)


def _why_not(path: Path) -> str:
    """Say why a data set that was saved whole is left alone."""
    try:
        content = read_torch(path)
    except UnreadableFileError as error:
        return str(error)
    return f"holds a {type(content).__name__} whose layout SANE does not document"


def _parent(split: str, number: int, info: Mapping[str, Any]) -> str | None:
    """Return the first sample of the same network: they come by network, epoch by epoch, again."""
    count, epochs = int(info.get("num_samples", 0)), len(info.get("epoch_list", ()))
    if count < 1 or epochs < 1 or count % epochs:
        return None
    first = (number % count) // epochs * epochs
    return None if first == number else f"{split}/sample_{first}"


def _assembled(
    tokens: np.ndarray, places: np.ndarray, layers: Sequence[_Layer]
) -> dict[str, np.ndarray]:
    """Put the tokens of a whole network together."""
    if (places[:, 0] != np.arange(len(tokens))).any():
        raise UnreadableFileError("holds its tokens out of order or twice")
    tensors: dict[str, np.ndarray] = {}
    start = 0
    for number, layer in enumerate(layers):
        stop = start + layer.tokens(tokens.shape[1])
        if (places[start:stop, 1] != number).any():
            raise UnreadableFileError(f"has other layers than the reference, from {layer.name!r}")
        rows = tokens[start:stop].reshape(layer.shape[0], -1)
        tensors[layer.name] = rows[:, : layer.content].reshape(layer.shape)
        if layer.bias is not None:
            tensors[layer.bias] = rows[:, layer.content]
        start = stop
    return tensors


def _denormalised(values: np.ndarray, mode: str, norm: Mapping[str, float]) -> np.ndarray:
    if mode == "standardize":
        restored = values * np.float32(norm["std"]) + np.float32(norm["mean"])
    elif mode == "minmax":
        spread = np.float32(norm["max"] - norm["min"])
        restored = (values + 1) * spread / 2 + np.float32(norm["min"])
    else:
        raise UnreadableFileError(f"was normalised by {mode!r}, which is not known here")
    return np.asarray(restored, dtype=np.float32)
