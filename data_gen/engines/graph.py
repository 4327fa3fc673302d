"""The graph of a network, as the stacked engine runs it: once for a stack of members at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node

from data_gen.engines.operators import (
    EXAMPLE_BATCH,
    RECURRENT,
    Table,
    aten,
    is_batched,
    is_elementwise,
)
from zoo.errors import TraceError
from zoo.symmetry.export import export

_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default)
_ATTENTION = aten.scaled_dot_product_attention.default
_SCORE_TENSORS = _GATE_TENSORS = 3
"""Tensors of that size that a step holds at once."""


@dataclass(frozen=True)
class Ref:
    """A value computed earlier: its position among a program's values."""

    index: int


@dataclass(frozen=True)
class Call:
    """One operator, its arguments with :class:`Ref` for values, and where its value goes."""

    target: Any
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    result: int

    def same_inputs(self, other: "Call") -> bool:
        """Whether another call reads the same first value and writes the same place."""
        return (self.args[:1], self.result) == (other.args[:1], other.result)


@dataclass(frozen=True)
class Program:
    """A network in training or evaluation mode.

    Parameters
    ----------
    inputs
        Names of the tensors that fill the first values, in order; ``None`` is the network's input.
    calls
        Operators in order.
    output
        Value of the network's output.
    updates
        Per buffer, the value it has after the step.
    footprint
        Numbers that a sample's intermediates take.
    """

    inputs: tuple[str | None, ...]
    calls: tuple[Call, ...]
    output: Ref
    updates: tuple[tuple[str, Ref], ...]
    footprint: int = field(compare=False)

    @property
    def is_batched(self) -> bool:
        """Whether every operator has a batched form, so that stacks may have any size."""
        return all(is_batched(call.target) for call in self.calls)

    def merges_with(self, other: "Program") -> bool:
        """Whether both differ in elementwise functions alone: one pass can run them together."""
        return (
            self.inputs == other.inputs
            and self.output == other.output
            and self.updates == other.updates
            and len(self.calls) == len(other.calls)
            and all(
                mine == theirs
                or (
                    is_elementwise(mine.target)
                    and is_elementwise(theirs.target)
                    and mine.same_inputs(theirs)
                )
                for mine, theirs in zip(self.calls, other.calls, strict=True)
            )
        )


def capture(module: nn.Module, example: Tensor, *, training: bool) -> Program:
    """Trace a module whose one input has :data:`~data_gen.engines.operators.EXAMPLE_BATCH` samples.

    Raises
    ------
    TraceError
        If the module cannot be captured.
    """
    exported = export(module, (example,), training=training)
    reader = _Reader(exported)
    return reader.program()


def scale_weights(program: Program) -> Program:
    """Turn ``scale * (W x + b)`` into ``(scale W) x + (scale b)``, which touches fewer numbers."""
    scales = {
        call.args[0].index: call
        for call in program.calls
        if call.target is aten.mul.Tensor and isinstance(call.args[1], int | float)
    }
    uses = [ref.index for call in program.calls for ref in _refs(call.args)]
    free = max((call.result for call in program.calls), default=0) + 1
    calls: list[Call] = []
    for call in program.calls:
        scale = scales.get(call.result)
        if call.target is not aten.linear.default or not scale or uses.count(call.result) > 1:
            calls.append(call)
            continue
        x, *tensors = call.args
        scaled = [Ref(free + place) for place in range(len(tensors))]
        free += len(tensors)
        for tensor, ref in zip(tensors, scaled, strict=True):
            calls.append(Call(aten.mul.Tensor, (tensor, scale.args[1]), (), ref.index))
        calls.append(Call(call.target, (x, *scaled), call.kwargs, scale.result))
    fused = {call.result for call in calls if call.target is aten.linear.default}
    kept = [
        call for call in calls if call.result not in fused or call.target is aten.linear.default
    ]
    return replace(program, calls=tuple(kept))


class _Reader:
    """Turns an exported program into a :class:`Program`."""

    def __init__(self, exported: ExportedProgram) -> None:
        self._exported = exported
        self._index: dict[Node, int] = {}

    def program(self) -> Program:
        signature = self._exported.graph_signature
        names = {
            spec.arg.name: spec.target if spec.kind is not InputKind.USER_INPUT else None
            for spec in signature.input_specs
        }
        inputs: list[str | None] = []
        calls: list[Call] = []
        tables: dict[int, Table] = {}
        results: Sequence[Node] = ()
        for node in self._exported.graph.nodes:
            if node.op == "placeholder":
                self._index[node] = len(inputs)
                name = names[node.name]
                if name in self._exported.constants:
                    tables[len(inputs)] = Table.from_tensor(self._exported.constants[name])
                inputs.append(name)
            elif node.op == "output":
                results = node.args[0]
            elif node.op == "call_function":
                self._index[node] = len(self._index)
                calls.append(self._call(node))
            else:
                raise TraceError(f"Cannot run {node.op} {node.name!r} for a stack of members.")
        shared = [
            Call(table, (Ref(inputs.index(None)),), (), place) for place, table in tables.items()
        ]
        return self._assemble(tuple(inputs), shared + calls, results)

    def _assemble(
        self, inputs: tuple[str | None, ...], calls: list[Call], results: Sequence[Node]
    ) -> Program:
        output, updates = Ref(-1), []
        buffers = self._exported.state_dict
        for node, spec in zip(results, self._exported.graph_signature.output_specs, strict=True):
            if spec.kind is OutputKind.USER_OUTPUT:
                output = Ref(self._index[node])
            elif spec.target in buffers and buffers[spec.target].is_floating_point():
                updates.append((spec.target, Ref(self._index[node])))
        live = _live(calls, [output, *(ref for _, ref in updates)])
        return Program(inputs, tuple(live), output, tuple(updates), self._footprint())

    def _footprint(self) -> int:
        sizes = [_numel(node) for node in self._index if node.op == "call_function"]
        hidden = [_windows(node) for node in self._index if node.target in _CONVOLUTIONS]
        hidden += [_scores(node) for node in self._index if node.target is _ATTENTION]
        hidden += [_gates(node) for node in self._index if node.target in RECURRENT]
        return -(-(sum(sizes) + sum(hidden)) // EXAMPLE_BATCH)

    def _call(self, node: Node) -> Call:
        args = self._refer(node.args)
        if node.target in RECURRENT and all(map(_is_zeros, _flat(node.args[1]))):
            args = (args[0], None, *args[2:])
        kwargs = tuple((key, self._refer(value)) for key, value in node.kwargs.items())
        return Call(node.target, args, kwargs, self._index[node])

    def _refer(self, value: Any) -> Any:
        if isinstance(value, Node):
            return Ref(self._index[value])
        if isinstance(value, list | tuple):
            return tuple(self._refer(item) for item in value)
        return value


def _numel(node: Node) -> int:
    value = node.meta.get("val")  # checks compute nothing
    return sum(each.numel() for each in ([value] if isinstance(value, Tensor) else value or ()))


def _windows(node: Node) -> int:
    """Count the numbers that the windows of a convolution hold, all samples together."""
    batch, _, *positions = node.meta["val"].shape
    weight = node.all_input_nodes[1].meta["val"]
    return int(batch * prod(positions) * weight[0].numel())


def _scores(node: Node) -> int:
    """Count the numbers that attention computes in between: scores and weights, and their kin."""
    query, key = (each.meta["val"] for each in node.all_input_nodes[:2])
    return int(_SCORE_TENSORS * query[..., 0].numel() * key.shape[-2])


def _gates(node: Node) -> int:
    """Count the numbers that recurrent layers compute in between, layer by layer."""
    states = node.meta["val"][0]
    weights = [each.meta["val"] for each in _flat(node.args[2])]
    rows = sum(weight.shape[0] for weight in weights if weight.ndim == 2)
    return int(_GATE_TENSORS * states[..., 0].numel() * rows)


def _flat(value: Any) -> list[Node]:
    return [value] if isinstance(value, Node) else list(value)


def _is_zeros(node: Node) -> bool:
    return node.target is aten.zeros.default


def _live(calls: list[Call], wanted: list[Ref]) -> list[Call]:
    """Drop calls that nothing wanted depends on (integer step counters of BatchNorm, say)."""
    needed = {ref.index for ref in wanted}
    kept = []
    for call in reversed(calls):
        if call.result in needed:
            kept.append(call)
            needed.update(ref.index for ref in _refs([call.args, [v for _, v in call.kwargs]]))
    return kept[::-1]


def _refs(value: Any) -> list[Ref]:
    if isinstance(value, Ref):
        return [value]
    if isinstance(value, list | tuple):
        return [ref for item in value for ref in _refs(item)]
    return []
