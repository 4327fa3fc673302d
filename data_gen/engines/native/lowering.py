"""From a network's graph to rows and planes."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from data_gen.engines.graph import Call, Program, Ref
from data_gen.engines.native import table as t
from data_gen.engines.native.calls import (
    PLAIN_ACTIVATIONS,
    activation_of,
    argument,
    aten,
    constant,
    geometry,
    pair,
)
from data_gen.engines.native.rows import Lowered, Plane, Row, filled, lacking
from data_gen.engines.operators import EXAMPLE_BATCH
from zoo.space import WeightSpace


@dataclass(frozen=True)
class _Value:
    """A value of the graph: where it lies, torch's shape without batch, and who else needs it."""

    plane: int
    shape: tuple[int, ...]
    is_free: bool


def lower(program: Program, space: WeightSpace, input_shape: Sequence[int]) -> Lowered:
    """Turn a graph in training mode into rows.

    Parameters
    ----------
    input_shape
        Shape of a sample.

    Raises
    ------
    NoKernelError
        If an operator, or a form of it, has no kernel.
    """
    return _Lowering(program, space).run(tuple(input_shape))


class _Lowering:
    def __init__(self, program: Program, space: WeightSpace) -> None:
        self._program = program
        self._shapes = {tensor.name: tensor.shape for tensor in space.tensors}
        self._unused = {tensor.name for tensor in space.tensors}
        self._rows: list[Row] = []
        self._planes: list[Plane] = []
        self._values: dict[int, _Value] = {}
        self._uses = Counter(
            ref.index for call in program.calls for ref in call.args if isinstance(ref, Ref)
        )
        self._uses[program.output.index] += 1

    def run(self, input_shape: tuple[int, ...]) -> Lowered:
        if self._program.updates:
            raise lacking("buffers that change, as BatchNorm's do")
        if self._program.inputs.count(None) != 1:
            raise lacking("networks with several inputs")
        first = self._program.inputs.index(None)
        self._values[first] = self._add_plane(input_shape, is_input=True)
        for call in self._program.calls:
            self._values[call.result] = self._lower(call)
        if self._unused:
            raise lacking(f"tensors that no operator reads: {', '.join(sorted(self._unused))}")
        output = self._values[self._program.output.index]
        if len(output.shape) != 1:
            raise lacking(f"outputs of shape {output.shape} per sample")
        self._set_modes()
        return Lowered(self._rows, self._planes, self._values[first].plane, output.plane)

    def _lower(self, call: Call) -> _Value:
        name = str(call.target)
        if "getitem" in name and call.args[1] == 0:
            return self._same(call)
        if call.target not in _RULES:
            raise lacking(f"operator {name}")
        return _RULES[call.target](self, call)

    # ---- planes and values ----------------------------------------------------------------------
    def _add_plane(self, shape: tuple[int, ...], *, is_input: bool = False) -> _Value:
        if len(shape) not in (1, 3):
            raise lacking(f"values of shape {shape} per sample")
        channels, height, width = (*shape, 1, 1)[:3]
        wide = channels if is_input else filled(channels)
        self._planes.append(Plane(channels, height, width, wide))
        return _Value(len(self._planes) - 1, shape, is_free=True)

    def _value(self, item: Any) -> _Value:
        if not isinstance(item, Ref) or item.index not in self._values:
            raise lacking("operations on parameters themselves")
        return self._values[item.index]

    def _parameter(self, item: Any) -> str | None:
        if item is None:
            return None
        names = self._program.inputs
        name: str | None = names[item.index] if item.index < len(names) else None
        if name is None or name not in self._unused:
            raise lacking("weights that are computed, or that several operators share")
        self._unused.remove(name)
        return name

    def _add_row(self, op: int, source: _Value, target: _Value, **more: Any) -> Row:
        row = Row(op, source.plane, target.plane, **more)
        own, other = self._planes[source.plane], self._planes[target.plane]
        other.differentiable |= own.differentiable or row.has_parameters
        if op not in (t.LINEAR, t.CONV, t.FLATTEN):
            own.wide = filled(own.channels)
        self._rows.append(row)
        return row

    def _same(self, call: Call, shape: tuple[int, ...] | None = None) -> _Value:
        """Give a value another name, or another shape of the same order."""
        value = self._value(call.args[0])
        is_free = value.is_free and self._uses[call.args[0].index] == 1
        return _Value(value.plane, shape or value.shape, is_free)

    def _own(self, call: Call, *, drops: bool = False) -> _Value:
        """Return the first argument in a plane that may be overwritten: its own, or a copy."""
        value = self._same(call)
        if value.is_free and (drops or not self._planes[value.plane].is_kept):
            return value
        copy = self._add_plane(value.shape)
        self._add_row(t.COPY, value, copy)
        return copy

    # ---- operators ------------------------------------------------------------------------------
    def _linear(self, call: Call) -> _Value:
        source, weight = self._value(call.args[0]), self._parameter(call.args[1])
        if len(source.shape) != 1 or weight is None:
            raise lacking(f"linear maps of values of shape {source.shape}")
        target = self._add_plane(self._shapes[weight][:1])
        bias = self._parameter(argument(call, 2, "bias"))
        self._add_row(t.LINEAR, source, target, fields={"ky": 1, "kx": 1}, weight=weight, bias=bias)
        return target

    def _conv(self, call: Call) -> _Value:
        source, weight = self._value(call.args[0]), self._parameter(call.args[1])
        assert weight is not None, "a convolution has weights"
        out, _, ky, kx = self._shapes[weight]
        (sy, sx), (py, px) = (
            pair(argument(call, 3, "stride", (1, 1))),
            pair(argument(call, 4, "padding", (0, 0))),
        )
        if pair(argument(call, 5, "dilation", (1, 1))) != (1, 1):
            raise lacking("dilated convolutions")
        if argument(call, 6, "groups", 1) != 1:
            raise lacking("grouped convolutions")
        _, height, width = source.shape
        size = ((height + 2 * py - ky) // sy + 1, (width + 2 * px - kx) // sx + 1)
        target = self._add_plane((out, *size))
        own, other = self._planes[source.plane], self._planes[target.plane]
        own.edge = max(own.edge, py, px)
        other.grad_edge = (
            max(
                (ky - 1) // sy,
                (kx - 1) // sx,
                (py + height - 1) // sy - (size[0] - 1),
                (px + width - 1) // sx - (size[1] - 1),
                0,
            )
            if own.differentiable
            else 0
        )
        bias = self._parameter(argument(call, 2, "bias"))
        self._add_row(
            t.CONV,
            source,
            target,
            fields=geometry((ky, kx), (sy, sx), (py, px)),
            weight=weight,
            bias=bias,
        )
        return target

    def _activate(self, call: Call) -> _Value:
        kind, factor = activation_of(call)
        value = self._own(call)
        before = self._rows[-1] if self._rows else None
        fields = {"kind": kind, "factor": factor}
        if before is not None and before.target == value.plane:
            if kind == t.RELU and before.op in (t.LINEAR, t.CONV):
                before.fields["fused"] = fields["fused"] = 1
            if kind in (t.SINE, t.COSINE) and before.op == t.SCALE and before.fields["shift"] == 0:
                fields["factor"] = factor * before.fields["factor"]
                self._rows.pop()
        self._planes[value.plane].is_kept = kind == t.RELU
        self._add_row(t.ACTIVATE, value, value, fields=fields)
        return value

    def _dropout(self, call: Call) -> _Value:
        value = self._own(call, drops=True)
        self._add_row(t.DROP, value, value, fields={"factor": float(call.args[1])})
        return value

    def _add(self, call: Call) -> _Value:
        if dict(call.kwargs).get("alpha", 1) != 1:
            raise lacking("sums with a factor")
        if not isinstance(call.args[1], Ref):
            return self._scale(call, 1.0, float(call.args[1]))
        other = self._value(call.args[1])
        if self._value(call.args[0]).shape != other.shape:
            raise lacking("sums of values of different shapes")
        own = self._own(call)
        self._add_row(t.COPY, other, own, fields={"kind": 1})
        return own

    def _scale(self, call: Call, factor: float, shift: float = 0.0) -> _Value:
        value = self._own(call)
        self._add_row(t.SCALE, value, value, fields={"factor": factor, "shift": shift})
        return value

    def _norm(self, call: Call) -> _Value:
        layer = call.target is aten.layer_norm.default
        source = self._value(call.args[0])
        if layer and tuple(call.args[1]) != source.shape:
            raise lacking("layer normalisation of some axes only")
        target = self._add_plane(source.shape)
        if None in (argument(call, 2, "weight"), argument(call, 3, "bias")):
            raise lacking("normalisation without gains or shifts")
        self._add_row(
            t.NORM,
            source,
            target,
            fields={
                "kind": int(layer),
                "groups": 1 if layer else int(call.args[1]),
                "factor": float(argument(call, 4, "eps", 1e-5)),
            },
            weight=self._parameter(argument(call, 2, "weight")),
            bias=self._parameter(argument(call, 3, "bias")),
        )
        return target

    def _pool(self, call: Call) -> _Value:
        kind = t.MAX_POOL if call.target is aten.max_pool2d.default else t.AVERAGE_POOL
        source, window = self._value(call.args[0]), pair(call.args[1])
        stride = pair(argument(call, 2, "stride", ()) or window)
        padding = pair(argument(call, 3, "padding", (0, 0)))
        usual = ((1, 1), False) if kind == t.MAX_POOL else (False, True, None)
        for item, wanted in zip(call.args[4:], usual, strict=False):
            if (pair(item) if isinstance(item, tuple) else item) != wanted:
                raise lacking("pooling with dilation, rounding up or divisors of its own")
        return self._windows(kind, source, window, stride, padding)

    def _adaptive(self, call: Call) -> _Value:
        source, size = self._value(call.args[0]), pair(call.args[1])
        _, height, width = source.shape
        if height % size[0] or width % size[1]:
            raise lacking("adaptive pooling into windows of different sizes")
        window = (height // size[0], width // size[1])
        return self._windows(t.AVERAGE_POOL, source, window, window, (0, 0))

    def _mean(self, call: Call) -> _Value:
        source = self._value(call.args[0])
        if len(source.shape) != 3 or sorted(dim % 4 for dim in call.args[1]) != [2, 3]:
            raise lacking("means over other axes than those of an image")
        size = (source.shape[1], source.shape[2])
        value = self._windows(t.AVERAGE_POOL, source, size, size, (0, 0))
        keep = argument(call, 2, "keepdim", default=False)
        return value if keep else _Value(value.plane, value.shape[:1], value.is_free)

    def _windows(
        self,
        kind: int,
        source: _Value,
        window: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> _Value:
        channels, *sides = source.shape
        if not sides:
            raise lacking("pooling of vectors")
        lengths = zip(sides, window, stride, padding, strict=True)
        size = [(length + 2 * p - k) // s + 1 for length, k, s, p in lengths]
        target = self._add_plane((channels, *size))
        self._add_row(kind, source, target, fields=geometry(window, stride, padding))
        return target

    def _view(self, call: Call) -> _Value:
        shape = tuple(call.args[1])
        value = self._value(call.args[0])
        if shape[0] not in (EXAMPLE_BATCH, -1):
            raise lacking("changes of shape that touch the batch")
        if prod(value.shape[1:]) == 1 or shape[1:] == value.shape:
            return self._same(call, (prod(value.shape),) if len(shape) == 2 else shape[1:])
        if len(shape) != 2:
            raise lacking(f"a change of shape from {value.shape} to {shape[1:]}")
        target = self._add_plane((prod(value.shape),))
        self._add_row(t.FLATTEN, value, target)
        return target

    # ---- gradients ------------------------------------------------------------------------------
    def _set_modes(self) -> None:
        """Say of each row whether it sets or adds to its source's gradient; the last goes first."""
        written = set()
        for row in reversed(self._rows):
            plane = self._planes[row.source]
            mode = t.ADD if row.source in written else t.SET
            row.fields["mode"] = mode if plane.differentiable else t.SKIP
            written.add(row.source)


_Rule = Callable[[_Lowering, Call], _Value]
_RULES: Mapping[Any, _Rule] = {
    aten.linear.default: _Lowering._linear,
    aten.conv2d.default: _Lowering._conv,
    aten.native_dropout.default: _Lowering._dropout,
    aten.group_norm.default: _Lowering._norm,
    aten.layer_norm.default: _Lowering._norm,
    aten.max_pool2d.default: _Lowering._pool,
    aten.avg_pool2d.default: _Lowering._pool,
    aten.adaptive_avg_pool2d.default: _Lowering._adaptive,
    aten.mean.dim: _Lowering._mean,
    aten.add.Tensor: _Lowering._add,
    aten.sub.Tensor: lambda self, call: self._scale(call, 1.0, -constant(call)),
    aten.mul.Tensor: lambda self, call: self._scale(call, constant(call)),
    aten.div.Tensor: lambda self, call: self._scale(call, 1 / constant(call)),
    aten.neg.default: lambda self, call: self._scale(call, -1.0),
    **{
        target: _Lowering._view
        for target in (aten.view.default, aten.reshape.default, aten._unsafe_view.default)
    },
    **{target: _Lowering._same for target in (aten.clone.default, aten.alias.default)},
    **{
        target: _Lowering._activate
        for target in (
            *PLAIN_ACTIVATIONS,
            aten.leaky_relu.default,
            aten.gelu.default,
            aten.elu.default,
            aten.softplus.default,
        )
    },
}
