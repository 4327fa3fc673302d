"""ONNX models: their initialisers, as the weights of one network per file.

A model is parsed, never run. Weights take torch's layout by what the graph does with them [1]_:
``Conv`` holds ``[out, in, *size]`` already; the second operand of ``MatMul``, and that of ``Gemm``
without ``transB``, is ``[in, out]`` and is transposed. Names stay as they are in the graph.

References
----------
.. [1] ONNX operators, onnx.ai/onnx/operators: Conv, Gemm, MatMul, BatchNormalization.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.convert.side_files import parsed
from zoo.convert.state_dicts import FileKind, StateDicts
from zoo.convert.torch_files import Checkpoint, UnreadableFileError
from zoo.errors import InvalidConfigError

if TYPE_CHECKING:
    from types import ModuleType

SUFFIX = ".onnx"


def onnx_models(path: Path, **options: Any) -> StateDicts:
    """Make the reader of ONNX models: one file, or a folder with one per network or epoch.

    Needs the extra ``weight-zoo[convert]``.

    Parameters
    ----------
    path
        The folder, searched recursively, or one file.
    **options
        Of :class:`zoo.convert.state_dicts.StateDicts`.
    """
    kind = FileKind(format="onnx", suffixes=(SUFFIX,), read=read_onnx)
    return StateDicts(path, kind=kind, **options)


def recognise(path: Path) -> bool:
    """Tell whether a path is an ONNX file, or a folder with one in it."""
    if path.is_dir():
        return any(path.rglob(f"*{SUFFIX}"))
    return path.suffix == SUFFIX and path.is_file()


def read_onnx(path: Path) -> Checkpoint:
    """Read the floating-point initialisers of one model that have an axis, in the graph's order.

    Raises
    ------
    UnreadableFileError
        If the file is damaged, holds none, keeps numbers outside of its folder, or uses a weight in
        both layouts.
    """
    model = _parsed(path)
    turned = _transposed(model.graph)
    tensors: dict[str, np.ndarray] = {}
    dtypes: set[str] = set()
    for initializer in model.graph.initializer:
        values = _values(initializer, path.parent)
        if values.dtype.kind == "f" and values.ndim > 0:
            dtypes.add(str(values.dtype))
            numbers = values.T if initializer.name in turned else values
            tensors[initializer.name] = np.ascontiguousarray(numbers, dtype=np.float32)
    if not tensors:
        raise UnreadableFileError("holds no floating-point initialisers")
    return Checkpoint(
        tensors=tensors,
        extras={each.key: parsed(each.value) for each in model.metadata_props},
        dtype="+".join(sorted(dtypes)),
    )


def _parsed(path: Path) -> Any:
    onnx = _package()
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # noqa: BLE001 - protobuf's DecodeError, which has no common base
        raise UnreadableFileError(f"is damaged or no ONNX model: {error}") from error
    return model


def _package() -> "ModuleType":
    try:
        import onnx
    except ImportError as error:
        raise InvalidConfigError(
            "Reading ONNX models needs onnx. Install it with `pip install 'weight-zoo[convert]'`."
        ) from error
    return onnx


def _values(initializer: Any, folder: Path) -> np.ndarray:
    """Return the numbers of an initialiser; those in other files only from inside the folder."""
    from onnx import TensorProto, numpy_helper

    if initializer.data_location == TensorProto.EXTERNAL:
        location = next((e.value for e in initializer.external_data if e.key == "location"), "")
        held = (folder / location).resolve()
        if not location or not held.is_relative_to(folder.resolve()):
            raise UnreadableFileError(
                f"keeps {initializer.name!r} in {location!r}, outside of its folder: refused"
            )
        if not held.is_file():
            raise UnreadableFileError(
                f"keeps {initializer.name!r} in {location!r}, which is missing"
            )
    try:
        values: np.ndarray = numpy_helper.to_array(initializer, base_dir=str(folder))
    except (ValueError, TypeError, OSError) as error:
        raise UnreadableFileError(f"{initializer.name!r} is damaged: {error}") from error
    return values


def _transposed(graph: Any) -> set[str]:
    """Return the names of weights that the graph uses as ``[in, out]``.

    Raises
    ------
    UnreadableFileError
        If it uses one as ``[out, in]``, too.
    """
    uses: dict[str, set[bool]] = {}
    for name, is_turned in _uses(graph):
        uses.setdefault(name, set()).add(is_turned)
    for name, layouts in uses.items():
        if len(layouts) > 1:
            raise UnreadableFileError(f"uses {name!r} as [in, out] and as [out, in]")
    ranks = {each.name: len(each.dims) for each in graph.initializer}
    return {name for name, layouts in uses.items() if True in layouts and ranks.get(name) == 2}


def _uses(graph: Any) -> Iterator[tuple[str, bool]]:
    for node in graph.node:
        if node.op_type == "MatMul":
            yield node.input[1], True
        elif node.op_type == "Gemm":
            attributes = {each.name: each.i for each in node.attribute}
            yield node.input[1], not attributes.get("transB", 0)
