"""The formats that ``zoo convert`` reads and writes: each named here, imported on use."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from zoo.convert.source import Source
from zoo.errors import InvalidConfigError, unknown_name


@dataclass(frozen=True)
class Format:
    """A foreign format.

    Parameters
    ----------
    what
        One line of help.
    source
        ``PACKAGE.MODULE:NAME`` of a function ``(path, **options) -> Source``; empty if not read.
    writer
        ``PACKAGE.MODULE:NAME`` of a function ``(zoo, path) -> Path``; empty if not written.
    recognise
        ``PACKAGE.MODULE:NAME`` of a function ``(path) -> bool`` that is true only where the path is
        unmistakably of this format; empty where nothing tells.
    """

    what: str
    source: str = ""
    writer: str = ""
    recognise: str = ""


FORMATS: dict[str, Format] = {
    "state-dicts": Format(
        "a folder of .pt, .pth, .th, .bin and .safetensors files, one network each",
        source="zoo.convert.state_dicts:StateDicts",
        recognise="zoo.convert.state_dicts:recognise",
    ),
    "modelzoos": Format(
        "ModelZoos: folders of Ray Tune trials",
        source="zoo.convert.modelzoos:ModelZoos",
        recognise="zoo.convert.modelzoos:recognise",
    ),
    "small-cnn-zoo": Format(
        "the Small CNN Zoo: weights.npy, metrics.csv and layout.csv",
        source="zoo.convert.small_cnn_zoo:SmallCNNZoo",
        recognise="zoo.convert.small_cnn_zoo:recognise",
    ),
    "sane": Format(
        "data sets of SANE: networks cut into tokens",
        source="zoo.convert.sane:Sane",
        recognise="zoo.convert.sane:recognise",
    ),
    "gpt": Format(
        "checkpoints of G.pt: LMDB environments with runs.json",
        source="zoo.convert.gpt:GptCheckpoints",
        recognise="zoo.convert.gpt:recognise",
    ),
    "keras": Format(
        "Keras weight files: .h5, .weights.h5 and .keras, one network each",
        source="zoo.convert.keras:keras_weights",
        recognise="zoo.convert.keras:recognise",
    ),
    "onnx": Format(
        "ONNX models: their initialisers, one network each",
        source="zoo.convert.onnx:onnx_models",
        recognise="zoo.convert.onnx:recognise",
    ),
    "safetensors": Format(
        "a folder of safetensors files, with a table and a data card",
        source="zoo.convert.safetensors:safetensors_files",
        writer="zoo.convert.safetensors:to_safetensors",
    ),
    "hub": Format(
        "a data set repository of the Hugging Face Hub: the zoo, a data card, Git LFS rules",
        writer="zoo.convert.hub:export",
    ),
}
"""Per name on the command line; one HDF5 file of ours is told by its ending instead."""

GENERAL = "state-dicts"
"""What a folder is where nothing but its files tells."""


def open_source(path: Path, format_name: str | None = None, **options: Any) -> Source:
    """Make the reader of a foreign format.

    Parameters
    ----------
    path
        File or folder.
    format_name
        A name of :data:`FORMATS`; recognised by default.
    **options
        Of that reader.

    Raises
    ------
    UnknownNameError
        If there is no such format to read.
    InvalidConfigError
        If the format is not given and cannot be told, or the reader has no such option.
    """
    name = format_name or _recognised(path)
    readable = [key for key, each in FORMATS.items() if each.source]
    if name not in readable:
        raise unknown_name("format to convert from", name, readable)
    try:
        source: Source = _imported(FORMATS[name].source)(path, **options)
    except TypeError as error:
        raise InvalidConfigError(
            f"The reader of format {name!r} does not take {', '.join(options)}: {error}."
        ) from error
    return source


def writer_of(format_name: str) -> Callable[..., Path]:
    """Return the function that writes a zoo in a foreign format.

    Raises
    ------
    UnknownNameError
        If there is no such format to write.
    """
    writable = [key for key, each in FORMATS.items() if each.writer]
    if format_name not in writable:
        raise unknown_name("format to convert to", format_name, writable)
    function: Callable[..., Path] = _imported(FORMATS[format_name].writer)
    return function


def _recognised(path: Path) -> str:
    found = [
        name for name, each in FORMATS.items() if each.recognise and _imported(each.recognise)(path)
    ]
    if len(found) > 1 and GENERAL in found:  # other formats keep torch files, too
        found.remove(GENERAL)
    if len(found) != 1:
        told = f"it could be {' or '.join(found)}" if found else "nothing there tells"
        raise InvalidConfigError(
            f"Cannot tell the format of {path}: {told}. Give --from, one of "
            f"{', '.join(name for name, each in FORMATS.items() if each.source)}."
        )
    return found[0]


def _imported(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)
