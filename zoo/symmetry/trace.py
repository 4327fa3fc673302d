"""Tracing: a module in, its verified weight space out.

The module's graph of ATen operators is interpreted on *unit ids* instead of numbers: every axis of
every tensor says which unit each of its positions belongs to, and each operator's rule merges units
that must move together. What the graph never distinguishes may be relabelled;
:mod:`zoo.symmetry.groups` reads the neuron groups off the result, and :mod:`zoo.symmetry.verify`
proves them on numbers.
"""

import contextlib
import dataclasses
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node
from torch.utils import _pytree as pytree

from zoo.errors import TraceError, ZooWarning
from zoo.space import NeuronGroup, Unsupported, WeightSpace
from zoo.symmetry.degrees import Recording
from zoo.symmetry.export import check_tensor, export, operator_name
from zoo.symmetry.groups import build_space
from zoo.symmetry.labels import Labelled, UnsupportedError, along
from zoo.symmetry.rules import RULES
from zoo.symmetry.rules.registry import accepts
from zoo.symmetry.scaling import with_scalings
from zoo.symmetry.scene import Scene
from zoo.symmetry.units import Pin
from zoo.symmetry.verify import refuted_scalings, verify

_REARRANGING = {
    "alias", "clone", "contiguous", "detach", "flatten", "mT", "movedim", "numpy_T", "permute",
    "reshape", "squeeze", "swapaxes", "t", "transpose", "unflatten", "unsqueeze", "_unsafe_view",
    "view", "view_copy",
}  # fmt: skip
_TORCH = str(Path(torch.__file__).parent)


def trace(module: nn.Module, *inputs: Any, strict: bool = False) -> WeightSpace:
    """Derive the weight space of a module.

    The space describes the module in eval mode. Every neuron group and every scaling is verified on
    random weights and buffers in float64; one that fails is left out with a warning, never used.

    Parameters
    ----------
    module
        Any module that ``torch.export`` captures; it is not changed.
    *inputs
        Example inputs of its forward; values do not matter. Give at least two samples.
    strict
        Raise where an operator has no rule, instead of pinning every axis that it touches.

    Raises
    ------
    TraceError
        If the module cannot be captured, has a parameter that a weight space cannot hold, or, with
        ``strict``, uses an operator without a rule.

    Examples
    --------
    >>> import torch, zoo
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> space = zoo.trace(net, torch.zeros(2, 2))
    >>> [(group.name, group.size) for group in space.groups]
    [('0', 3)]
    """
    interpreter, space = _interpreted(module, export(module, inputs), strict=strict)
    space = keep_verified(space, module, inputs)
    return _keep_verified_scalings(with_scalings(space, interpreter.recording()), module, inputs)


def interpret(module: nn.Module, program: ExportedProgram, *, strict: bool = False) -> WeightSpace:
    """Read the weight space off a module's graph, without proving it.

    Parameters
    ----------
    module
        The module that ``program`` was captured from.
    program
        Its graph; see :func:`zoo.symmetry.export`.
    strict
        As for :func:`trace`.
    """
    return _interpreted(module, program, strict=strict)[1]


def _interpreted(
    module: nn.Module, program: ExportedProgram, *, strict: bool
) -> tuple["_Interpreter", WeightSpace]:
    with _collector_paused():
        return _read(_Interpreter(module, program), strict=strict)


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep Python's garbage collector from searching all of torch for the many small objects."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read(interpreter: "_Interpreter", *, strict: bool) -> tuple["_Interpreter", WeightSpace]:
    interpreter.run()
    if strict and interpreter.unsupported:
        listing = "; ".join(f"{item.op} at {item.source}" for item in interpreter.unsupported)
        raise TraceError(f"No rule for: {listing}.")
    space = build_space(
        scene=interpreter.scene,
        kinds=interpreter.kinds,
        tied=interpreter.tied,
        unsupported=tuple(interpreter.unsupported),
    )
    return interpreter, space


def keep_verified(space: WeightSpace, module: nn.Module, inputs: tuple[Any, ...]) -> WeightSpace:
    """Drop groups that verification refutes."""
    if not space.groups:
        return space
    result = verify(space, module, *inputs)
    if result.passed:
        return space
    kept: tuple[NeuronGroup, ...] = tuple(
        group for group in space.groups if group.name not in result.failed
    )
    names = ", ".join(result.failed) or "(all together)"
    warnings.warn(
        f"Neuron groups {names} of {type(module).__name__} do not keep its function and are left "
        "out. This is a bug in a tracing rule: please report it.",
        ZooWarning,
        stacklevel=3,
    )
    if len(kept) == len(space.groups):
        kept = ()  # each alone is right, together they are not: trust none
    return keep_verified(dataclasses.replace(space, groups=kept), module, inputs)


def _keep_verified_scalings(
    space: WeightSpace, module: nn.Module, inputs: tuple[Any, ...]
) -> WeightSpace:
    """Drop scalings and general linear blocks that verification refutes."""
    failed = refuted_scalings(space, module, *inputs)
    if not failed:
        return space
    warnings.warn(
        f"Scalings {', '.join(failed)} of {type(module).__name__} do not keep its function and are "
        "left out. This is a bug in a scaling rule: please report it.",
        ZooWarning,
        stacklevel=3,
    )
    kept = tuple(scaling for scaling in space.scalings if scaling.name not in failed)
    blocks = tuple(block for block in space.gl_blocks if f"{block.group}/gl" not in failed)
    return dataclasses.replace(space, scalings=kept, gl_blocks=blocks)


@dataclasses.dataclass(frozen=True)
class _Parameter:
    """Stands for a parameter, whose labels may still change."""

    name: str


class _Interpreter:
    """One pass over a graph, from placeholders to outputs."""

    def __init__(self, module: nn.Module, program: ExportedProgram) -> None:
        self.scene = Scene()
        self.kinds: dict[str, str] = {}
        self.tied: list[tuple[str, str]] = []
        self.unsupported: list[Unsupported] = []
        self._program = program
        self._module = module
        self._values: dict[Node, Any] = {}

    def run(self) -> None:
        """Interpret every node."""
        self._label_parameters()
        specs = {spec.arg.name: spec for spec in self._program.graph_signature.input_specs}
        num_inputs = 0
        for node in self._program.graph.nodes:
            if node.op == "placeholder":
                spec = specs[node.name]
                if spec.kind == InputKind.USER_INPUT:
                    self._values[node] = self._input(node, num_inputs)
                    num_inputs += 1
                elif spec.target in self._canonical:
                    self._values[node] = _Parameter(self._canonical[spec.target])
                else:
                    self._values[node] = self._constant(self._tensor(spec.target))
            elif node.op == "call_function":
                self._values[node] = self._call(node)
            elif node.op == "output":
                self._pin_outputs(node)

    def recording(self) -> Recording:
        """Return what was interpreted, for the scalings."""
        values = self._values
        return Recording(
            graph=self._program.graph,
            parameters={n: v.name for n, v in values.items() if isinstance(v, _Parameter)},
            constants={
                node: value.constant
                for node, value in values.items()
                if isinstance(value, Labelled) and value.constant is not None
            },
        )

    def _label_parameters(self) -> None:
        """Give fresh units to every parameter and floating-point buffer, tied ones once."""
        named: dict[str, tuple[Tensor, str]] = {
            name: (tensor, "parameter")
            for name, tensor in self._module.named_parameters(remove_duplicate=False)
        }
        stored = self._module.state_dict(keep_vars=True)
        for name, tensor in self._module.named_buffers(remove_duplicate=False):
            if name in stored and tensor.is_floating_point():
                named[name] = (tensor, "buffer")
        self._canonical: dict[str, str] = {}
        first: dict[int, str] = {}
        for name, (tensor, kind) in named.items():
            check_tensor(name, tensor)
            owner = first.setdefault(id(tensor), name)
            self._canonical[name] = owner
            if owner != name:
                self.tied.append((name, owner))
                continue
            self.kinds[name] = kind
            self.scene.parameters[name] = Labelled(
                tuple(tensor.shape),
                tuple(
                    None if n == 1 else along(self.scene.units.fresh(n), dim, tensor.ndim)
                    for dim, n in enumerate(tensor.shape)
                ),
                name=name,
            )

    def _input(self, node: Node, position: int) -> Any:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return value
        return self._pinned(value, "input", f"input[{position}]")

    def _pinned(self, value: Tensor, kind: Any, label: str) -> Labelled:
        """Label a tensor of which nothing moves, each axis with a name of its own."""
        shape = tuple(int(length) for length in value.shape)
        axes = [
            self.scene.pinned(length, Pin(kind, f"{label}.{dim}"), dim, len(shape))
            for dim, length in enumerate(shape)
        ]
        return Labelled(shape, tuple(axes))

    def _constant(self, tensor: Tensor) -> Labelled:
        """Label a constant by its values: an axis along which it does not vary is free."""
        axes = []
        for dim, length in enumerate(tensor.shape):
            varies = length > 1 and not bool((tensor == tensor.narrow(dim, 0, 1)).all())
            pin = Pin("fixed", "constant")
            axes.append(self.scene.pinned(length, pin, dim, tensor.ndim) if varies else None)
        return Labelled(tuple(tensor.shape), tuple(axes), constant=tensor)

    def _tensor(self, target: str | None) -> Tensor:
        assert target is not None
        stores = (self._program.state_dict, self._program.constants)
        tensor: Tensor = next(store[target] for store in stores if target in store)
        return tensor

    def _read(self, node: Node) -> Any:
        value = self._values[node]
        return self.scene.parameters[value.name] if isinstance(value, _Parameter) else value

    def _call(self, node: Node) -> Any:
        args, kwargs = pytree.tree_map_only(Node, self._read, (node.args, node.kwargs))
        self.scene.layer = node.name
        if (folded := self._fold(node, args, kwargs)) is not None:
            return folded
        name = operator_name(node)
        self.scene.rearranging = name in _REARRANGING
        if not self.scene.rearranging:
            for leaf in pytree.tree_leaves((args, kwargs)):
                if isinstance(leaf, Labelled):
                    self.scene.read(leaf)
        rule = RULES.get(name)
        if rule is None or not accepts(rule, self.scene, node, *args, **kwargs):
            return self._give_up(node, args, kwargs)
        try:
            return rule(self.scene, node, *args, **kwargs)
        except UnsupportedError:
            return self._give_up(node, args, kwargs)

    def _fold(self, node: Node, args: Any, kwargs: Any) -> Any:
        """Compute what depends on constants only; ``None`` if something else is involved."""
        leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Labelled)]
        pure = isinstance(node.target, torch._ops.OpOverload) and not _is_random(node.target)
        if not pure or any(leaf.constant is None for leaf in leaves):
            return None
        plain_args, plain_kwargs = pytree.tree_map_only(
            Labelled, lambda leaf: leaf.constant, (args, kwargs)
        )
        result = node.target(*plain_args, **plain_kwargs)  # type: ignore[operator]
        return pytree.tree_map_only(Tensor, self._constant, result)

    def _give_up(self, node: Node, args: Any, kwargs: Any) -> Any:
        """Pin every axis that an operator without a rule touches, and remember it."""
        pin = Pin("fixed", f"unsupported {operator_name(node)}")
        for leaf in pytree.tree_leaves((args, kwargs)):
            if isinstance(leaf, Labelled):
                self.scene.pin(leaf, range(leaf.rank), pin)
        self.unsupported.append(Unsupported(op=str(node.target), source=_source(node)))
        return pytree.tree_map_only(
            Tensor, lambda value: self._pinned(value, "fixed", node.name), node.meta["val"]
        )

    def _pin_outputs(self, node: Node) -> None:
        (outputs,) = pytree.tree_map_only(Node, self._read, node.args)
        tensors = [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Labelled)]
        for position, tensor in enumerate(tensors):
            for dim in range(tensor.rank):
                self.scene.pin(tensor, [dim], Pin("output", f"output[{position}].{dim}"))


def _is_random(operator: torch._ops.OpOverload) -> bool:
    return torch.Tag.nondeterministic_seeded in operator.tags


def _source(node: Node) -> str:
    """File, line and code that made a node, outside of torch where there is such a line."""
    lines = [line.strip() for line in (node.stack_trace or "").splitlines() if line.strip()]
    frames = [lines[at : at + 2] for at, line in enumerate(lines) if line.startswith("File ")]
    own = [frame for frame in frames if _TORCH not in frame[0]]
    return " ".join((own or frames)[-1]) if frames else node.name
