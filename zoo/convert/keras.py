"""Keras weight files, read with h5py alone; no TensorFlow, and nothing is run.

Three kinds of file [1]_: HDF5 of Keras 1 and 2, also of whole models (attributes ``layer_names``
and ``weight_names`` give the order); ``.weights.h5`` of Keras 3 (groups ``layers/NAME/vars`` with
numbered variables); ``.keras`` archives (a zip of such a file and ``config.json``). Kernels are
channels last there and become torch's.

References
----------
.. [1] Keras, ``legacy_h5_format.py`` and ``saving_lib.py``; keras.io, "Save, serialize, and export
   models".
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from zoo.convert.channels_last import torch_flattened, torch_kernel
from zoo.convert.state_dicts import FileKind, StateDicts
from zoo.convert.torch_files import Checkpoint, UnreadableFileError
from zoo.errors import InvalidConfigError

SUFFIXES = (".h5", ".hdf5", ".keras")

_WEIGHTS_IN_ARCHIVE = "model.weights.h5"
_TOP = "top_level_model_weights"
_LEAVES = {
    "kernel": "weight",
    "embeddings": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""Keras's names of variables to torch's; layers with any other are refused."""

_VARIABLES = {
    "dense": ("kernel", "bias"),
    "conv1d": ("kernel", "bias"),
    "conv2d": ("kernel", "bias"),
    "conv3d": ("kernel", "bias"),
    "embedding": ("embeddings",),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "layer_normalization": ("gamma", "beta"),
}
"""What Keras 3 numbers 0, 1, ... in layers of each class."""

Layers = dict[str, dict[str, np.ndarray]]
"""Per layer in order its variables by Keras's names."""


def keras_weights(
    path: Path,
    *,
    flattened: Mapping[str, Sequence[int]] | None = None,
    layers: Sequence[str] = (),
    **options: Any,
) -> StateDicts:
    """Make the reader of Keras weight files: one file, or a folder with one per network or epoch.

    Parameters
    ----------
    path
        The folder, searched recursively, or one file.
    flattened
        Per dense layer that reads flattened feature maps their height and width, because Keras lays
        positions out before channels and torch after.
    layers
        Order of the layers, for ``.weights.h5`` of Keras 3, which does not keep it; there they are
        sorted by class and number otherwise.
    **options
        Of :class:`zoo.convert.state_dicts.StateDicts`.
    """
    maps = {name: tuple(size) for name, size in (flattened or {}).items()}
    read = partial(read_keras, flattened=maps, layers=tuple(layers))
    kind = FileKind(format="keras", suffixes=SUFFIXES, read=read)
    source = StateDicts(path, kind=kind, **options)
    source.recipe |= {"source": "Keras", "batch_norm_epsilon": 1e-3}  # Keras's; torch's is 1e-5
    return source


def recognise(path: Path) -> bool:
    """Tell whether a path is a Keras file, or a folder with one in it."""
    if path.is_dir():
        return any(recognise(each) for each in path.iterdir() if each.is_file())
    if path.suffix == ".keras":
        return path.is_file()
    if path.suffix not in SUFFIXES or not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path) as file:
            return _is_legacy(file) or "model_weights" in file or "layers" in file
    except OSError:
        return False


def read_keras(
    path: Path,
    *,
    flattened: Mapping[str, tuple[int, ...]] | None = None,
    layers: Sequence[str] = (),
) -> Checkpoint:
    """Read the weights of one file in torch's layout, named ``LAYER.weight`` and so on.

    Raises
    ------
    UnreadableFileError
        If it is damaged or no Keras file, has layers whose layout is not known here, or a dense
        layer reads feature maps whose size ``flattened`` does not give.
    """
    with _opened(path) as (file, order):
        root = file.get("model_weights", file)
        found = _legacy(root) if _is_legacy(root) else _numbered(root, layers or order)
    lacking = [layer for layer in layers if layer not in found]
    if lacking:
        raise UnreadableFileError(f"has no layer {lacking[0]!r}; it has {', '.join(found)}")
    if not found:
        raise UnreadableFileError("holds no layers with weights")
    dtypes = {str(values.dtype) for variables in found.values() for values in variables.values()}
    return Checkpoint(
        tensors=_converted(found, flattened or {}), extras={}, dtype="+".join(sorted(dtypes))
    )


# ---- files --------------------------------------------------------------------------------------
@contextmanager
def _opened(path: Path) -> Iterator[tuple[h5py.File, list[str]]]:
    """Open a file or the one in an archive; with it the order of layers, where that is kept."""
    order: list[str] = []
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                order = _order(json.loads(archive.read("config.json")))
                opened = h5py.File(io.BytesIO(archive.read(_WEIGHTS_IN_ARCHIVE)))
        else:
            opened = h5py.File(path)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UnreadableFileError(f"is damaged or no Keras file: {error}") from error
    with opened as file:
        try:
            yield file, order
        except (OSError, KeyError, RuntimeError) as error:
            raise UnreadableFileError(f"is damaged: {error}") from error


def _is_legacy(group: Any) -> bool:
    return any(re.fullmatch(r"layer_names\d*", name) for name in group.attrs)


def _names(group: Any, name: str) -> list[str]:
    """Read a list of names, which Keras cuts into ``name0``, ``name1``, ... where it is long."""
    if name in group.attrs:
        parts = [group.attrs[name]]
    else:
        numbered = sum(re.fullmatch(rf"{name}\d+", key) is not None for key in group.attrs)
        parts = [group.attrs[f"{name}{number}"] for number in range(numbered)]
    return [
        each.decode() if isinstance(each, bytes) else str(each) for part in parts for each in part
    ]


def _legacy(root: Any) -> Layers:
    """Read layers and variables in the order that the attributes give."""
    layers: Layers = {}
    for layer in (*_names(root, "layer_names"), *([_TOP] if _TOP in root else [])):
        for name in _names(root[layer], "weight_names"):
            # "dense/kernel:0", or a path of nested models before it
            *scopes, leaf = name.removesuffix(":0").split("/")
            owner = scopes[-1] if scopes else layer
            variables = layers.setdefault(owner, {})
            if leaf in variables:
                raise UnreadableFileError(f"two layers are called {owner!r}")
            variables[leaf] = np.asarray(root[layer][name])
    return layers


def _numbered(root: Any, order: Sequence[str]) -> Layers:
    """Read the numbered variables of Keras 3."""
    top = next(
        (root[key] for key in ("layers", "_layer_checkpoint_dependencies") if key in root), None
    )
    if top is None:
        raise UnreadableFileError("is no Keras file: neither layer_names nor layers in it")
    found: Layers = {}
    for layer in sorted(top, key=_place):
        group = top[layer]
        nested = [key for key in group if key != "vars" and len(group[key])]
        if nested:
            raise UnreadableFileError(f"layer {layer!r} holds others ({', '.join(nested)})")
        if "vars" in group and len(group["vars"]):
            found[layer] = _variables(layer, group["vars"])
    return {layer: found[layer] for layer in (*order, *found) if layer in found}


def _variables(layer: str, group: Any) -> dict[str, np.ndarray]:
    kind = re.sub(r"_\d+$", "", layer)
    names = _VARIABLES.get(kind, ())
    numbers = sorted(group, key=int)
    if len(numbers) > len(names) or (kind == "batch_normalization" and len(numbers) != len(names)):
        raise UnreadableFileError(
            f"layer {layer!r} has {len(numbers)} variables, whose meaning is not known here"
        )
    if any(group[number].attrs.get("dtype") == "bfloat16" for number in numbers):
        raise UnreadableFileError(f"layer {layer!r} is stored as bfloat16")
    return {name: np.asarray(group[number]) for name, number in zip(names, numbers, strict=False)}


def _place(layer: str) -> tuple[str, int]:
    """Sort ``conv2d``, ``conv2d_1``, ..., ``conv2d_10``."""
    match = re.fullmatch(r"(.*?)(?:_(\d+))?", layer)
    return (match[1], int(match[2] or 0)) if match else (layer, 0)


def _order(config: Mapping[str, Any]) -> list[str]:
    """Return the groups of the layers that ``config.json`` lists: class and number."""
    counts: dict[str, int] = {}
    names = []
    for layer in config.get("config", {}).get("layers", ()):
        kind = _snake_case(str(layer.get("class_name", "")))
        counts[kind] = counts.get(kind, -1) + 1
        names.append(f"{kind}_{counts[kind]}" if counts[kind] else kind)
    return names


def _snake_case(name: str) -> str:
    """Write a class name as Keras does: ``Conv2D`` is ``conv2d``."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


# ---- layout -------------------------------------------------------------------------------------
def _converted(layers: Layers, flattened: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    unknown = [name for name in flattened if name not in layers]
    if unknown:
        raise UnreadableFileError(
            f"has no layer {unknown[0]!r} to be read as flattened; it has {', '.join(layers)}"
        )
    tensors: dict[str, np.ndarray] = {}
    planes = 0
    for layer, variables in layers.items():
        for name, values in variables.items():
            if name not in _LEAVES:
                raise UnreadableFileError(
                    f"layer {layer!r} has a variable {name!r}, whose layout is not known here"
                )
            if name == "kernel":
                values = _kernel(layer, values, flattened.get(layer), planes)
                planes = values.shape[0] if values.ndim > 2 else 0
            numbers: np.ndarray = np.ascontiguousarray(values, dtype=np.float32)
            tensors[f"{layer}.{_LEAVES[name]}"] = numbers
    return tensors


def _kernel(
    layer: str, kernel: np.ndarray, maps: tuple[int, ...] | None, planes: int
) -> np.ndarray:
    """Reorder a kernel; ``planes`` are those of the feature maps it may read, 0 for none."""
    if maps is not None:
        try:
            return torch_flattened(kernel, maps)
        except InvalidConfigError as error:
            raise UnreadableFileError(f"layer {layer!r}: {error}") from error
    if kernel.ndim == 2 and planes and kernel.shape[0] != planes:
        raise UnreadableFileError(
            f"layer {layer!r} reads feature maps of {planes} planes, flattened to "
            f"{kernel.shape[0]} numbers; give their height and width in the option flattened, "
            f'such as {{"{layer}": [4, 4]}}'
        )
    if kernel.ndim == 3 and not layer.startswith("conv1d"):  # attention has them, too
        raise UnreadableFileError(
            f"layer {layer!r} has a kernel of three axes and is not called conv1d: not known here"
        )
    return torch_kernel(kernel)
