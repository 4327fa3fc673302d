"""From a module to its graph of ATen operators."""

import contextlib
import copy
import io
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.nn.parameter import is_lazy

from zoo.errors import TraceError


def export(
    module: nn.Module, inputs: tuple[Any, ...], *, training: bool = False
) -> ExportedProgram:
    """Capture a module as a functional graph of ATen operators; the module itself is not changed.

    Parameters
    ----------
    module
        Any module that ``torch.export`` captures.
    inputs
        Example inputs. A batch axis should have at least two entries.
    training
        Capture the behaviour of training mode (dropout, batch statistics) rather than of eval mode.

    Raises
    ------
    TraceError
        If the module cannot be captured.
    """
    check_module(module)
    private = copy.deepcopy(module).train(training)
    with warnings.catch_warnings():
        # torch's own remarks about copying graphs, recurrent weights and oneDNN: nothing that a
        # caller could change, and nothing that matters to the graph
        for message in (r".*LeafSpec", r".*_flat_weights", r".*not supported with oneDNN"):
            warnings.filterwarnings("ignore", message=message)
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # it prints the graph where it fails
                program = torch.export.export(private, inputs, strict=False)
            functional: ExportedProgram = program.run_decompositions({})
        except Exception as error:  # noqa: BLE001 - whatever torch.export raises, its cause is kept
            reason = str(error).strip().splitlines()
            raise TraceError(
                f"torch.export cannot capture {type(module).__name__} with inputs of shapes "
                f"{[tuple(getattr(item, 'shape', ())) for item in inputs]}: "
                f"{reason[0] if reason else type(error).__name__} {_line(error)}"
                "Check the example inputs. Control flow that depends on data cannot be traced; "
                f"trace the parts around it: {_offer(module)}"
            ) from error
    known = {name for name, _ in module.named_parameters()}
    if created := [name for name, _ in private.named_parameters() if name not in known]:
        raise TraceError(
            f"{type(module).__name__} creates parameters in its forward: {', '.join(created)}. "
            "Create them in __init__, or run the module once before tracing it."
        )
    return functional


def check_module(module: nn.Module) -> None:
    """Raise :class:`TraceError` unless a weight space can hold every parameter and buffer."""
    for name, value in module.state_dict(keep_vars=True).items():
        if not isinstance(value, Tensor):
            raise TraceError(
                f"Expected tensors, got {name!r} of type {type(value).__name__}: packed or "
                "quantised weights. Trace the module before it is quantised."
            )
    for name, parameter in module.named_parameters():
        check_tensor(name, parameter)


def check_tensor(name: str, tensor: Tensor) -> None:
    """Raise :class:`TraceError` unless a weight space can hold the tensor."""
    if is_lazy(tensor):
        raise TraceError(
            f"Parameter {name!r} has no shape yet (a lazy module). Run the module once first."
        )
    plain = (
        tensor.is_floating_point() and tensor.layout is torch.strided and not tensor.is_quantized
    )
    if not plain:
        raise TraceError(
            f"Expected dense floating-point parameters, got {name!r} with dtype {tensor.dtype} and "
            f"layout {tensor.layout}. Convert it before tracing."
        )


def _offer(module: nn.Module) -> str:
    """Call that traces a module at its boundaries, with its own children as an example."""
    children = [
        name
        for name, child in module.named_children()
        if next(child.parameters(), None) is not None
    ]
    listing = ", ".join(repr(name) for name in children) or "..."
    return f"zoo.symmetry.trace_boundaries(module, *inputs, submodules=[{listing}])."


def _line(error: BaseException) -> str:
    """Last line outside of torch and of this package on the way to an error, as a sentence."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if not frame.filename.startswith(ours) and frame.line:
            return f"It happened at {frame.filename}, line {frame.lineno}: {frame.line} "
    return ""


def operator_name(node: Node) -> str:
    """Name of a node's operator, without namespace, overload and the mark of in-place ones."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return str(getattr(node.target, "__name__", node.target))
    return str(schema.name.split("::")[-1]).rstrip("_")
