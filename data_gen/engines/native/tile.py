"""The one heavy kernel: a register tile that all products of layers go through.

Convolutions and linear layers, forward and backward, are sums of one kind::

    out[a, r, j] = init[a, r, j] + sum over k1, k2, k3 of x[a, r, k1, k2, k3] * w[k1, k2, k3, j]

with strides of their own. Some rows ``r`` times 16 columns ``j`` stay in registers while the sum
runs, as many as the processor has registers for. LLVM does not find that form in plain loops, so it
is written in its own language; this is the only module that computes addresses, and
:func:`contract` the only way in. It checks every extent against the memory at hand.

A sum runs over ``k1``, ``k2``, ``k3`` in that order, whatever the tile: cutting rows or columns
into other tiles never changes a number.
"""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils as plain_cgutils
from numba.extending import intrinsic as plain_intrinsic

from data_gen.engines.native.jit import Real, array, callback, has_512_bits, kernel

# numba has no types for what follows
cgutils: Any = plain_cgutils
intrinsic: Any = plain_intrinsic

_ROWS_OF_16, _ROWS_OF_8 = (12, 12) if has_512_bits() else (6, 8)
"""Most rows of a tile of 16 and of 8 lanes: a few more and LLVM runs out of registers; fewer, and
products wait for sums."""
_INDEX, _FLOAT, _LANE = ir.IntType(64), ir.FloatType(), ir.IntType(32)
_SIZES = (
    "n1 rows columns x x1 xr k1 xa k2 xb k3 xc w wa wb wc init i1 ir out o1 yr".split()  # noqa: SIM905
)
_PACKED: Any = types.UniTuple(types.int64, len(_SIZES))  # type: ignore[no-untyped-call]

NO_LIMIT = np.float32(-np.inf)
"""Lower bound of the outputs where there is none; 0 makes them rectified."""


# ---- in LLVM's language -------------------------------------------------------------------------
def _number(value: int) -> ir.Constant:
    return ir.Constant(_INDEX, value)


class _Tile:
    """Emits one tile of ``rows`` times ``lanes`` sums."""

    def __init__(self, builder: ir.IRBuilder, rows: int, lanes: int) -> None:
        self._b, self._rows, self._vector = builder, rows, ir.VectorType(_FLOAT, lanes)
        self._same = ir.Constant(ir.VectorType(_LANE, lanes), [0] * lanes)
        self._fma = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(self._vector, [self._vector] * 3),
            f"llvm.fmuladd.v{lanes}f32",
        )

    def emit(self, x: Any, w: Any, init: Any, out: Any, sizes: dict[str, Any], low: Any) -> None:
        """Load ``init``, add products, bound from below, store; pointers are to floats."""
        sums = [cgutils.alloca_once(self._b, self._vector) for _ in range(self._rows)]
        for row, total in enumerate(sums):
            self._b.store(self._load(self._at(init, sizes["ir"], _number(row))), total)
        self._reduce(x, w, sizes, sums, level=1)
        bound = self._spread(low)
        for row, total in enumerate(sums):
            value = self._b.load(total)
            # An unordered comparison would hide NaN, and with it a divergence.
            value = self._b.select(self._b.fcmp_ordered("<", value, bound), bound, value)
            place = self._at(out, sizes["yr"], _number(row))
            self._b.store(value, self._b.bitcast(place, self._vector.as_pointer())).align = 4

    def _reduce(self, x: Any, w: Any, sizes: dict[str, Any], sums: list[Any], level: int) -> None:
        if level > 3:
            self._add_products(x, w, sizes, sums)
            return
        with cgutils.for_range(self._b, sizes[f"k{level}"], intp=_INDEX) as loop:
            next_x = self._at(x, sizes[f"x{'abc'[level - 1]}"], loop.index)
            next_w = self._at(w, sizes[f"w{'abc'[level - 1]}"], loop.index)
            self._reduce(next_x, next_w, sizes, sums, level + 1)

    def _add_products(self, x: Any, w: Any, sizes: dict[str, Any], sums: list[Any]) -> None:
        weights = self._load(w)
        for row, total in enumerate(sums):
            value = self._spread(self._b.load(self._at(x, sizes["xr"], _number(row))))
            added = self._b.call(self._fma, [value, weights, self._b.load(total)])
            self._b.store(added, total)

    def _at(self, pointer: Any, stride: Any, index: Any) -> Any:
        return self._b.gep(pointer, [self._b.mul(stride, index)])

    def _load(self, pointer: Any) -> Any:
        loaded = self._b.load(self._b.bitcast(pointer, self._vector.as_pointer()))
        loaded.align = 4
        return loaded

    def _spread(self, value: Any) -> Any:
        empty = ir.Constant(self._vector, ir.Undefined)
        first = self._b.insert_element(empty, value, ir.Constant(_LANE, 0))
        return self._b.shuffle_vector(first, empty, self._same)


@intrinsic(prefer_literal=True)
def _tiles(
    typing: Any,  # noqa: ARG001 - numba passes it
    lanes: Any,
    rows: Any,  # noqa: ARG001
    columns: Any,  # noqa: ARG001
    base: Any,  # noqa: ARG001
    sizes: Any,  # noqa: ARG001
    low: Any,  # noqa: ARG001
) -> Any:
    """Run ``n1`` times ``columns`` tiles of ``rows`` rows, one below the other in memory."""
    width = lanes.literal_value

    def generate(context: Any, builder: ir.IRBuilder, _: Any, values: Any) -> Any:
        _, count, n2, memory, packed, bound = values
        named = dict(zip(_SIZES, cgutils.unpack_tuple(builder, packed), strict=True)) | {"n2": n2}
        floats = builder.inttoptr(memory, _FLOAT.as_pointer())
        after = builder.append_basic_block("after")
        choice = builder.switch(count, after)
        for each in range(1, (_ROWS_OF_16 if width == 16 else _ROWS_OF_8) + 1):
            block = builder.append_basic_block(f"rows{each}")
            choice.add_case(_number(each), block)
            builder.position_at_end(block)
            _emit_grid(builder, each, width, floats, named, bound)
            builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    plain = [types.int64] * 3
    return types.void(lanes, *plain, _PACKED, types.float32), generate


def _emit_grid(
    b: ir.IRBuilder, rows: int, lanes: int, floats: Any, sizes: dict[str, Any], low: Any
) -> None:
    def start(name: str, outer: Any, outer_step: str, inner: Any, inner_step: str) -> Any:
        down = b.mul(b.mul(inner, sizes[inner_step]), _number(rows))
        return b.gep(floats, [b.add(b.add(sizes[name], b.mul(outer, sizes[outer_step])), down)])

    with (
        cgutils.for_range(b, sizes["n1"], intp=_INDEX) as first,
        cgutils.for_range(b, sizes["n2"], intp=_INDEX) as second,
    ):
        x = start("x", first.index, "x1", second.index, "xr")
        init = start("init", first.index, "i1", second.index, "ir")
        out = start("out", first.index, "o1", second.index, "yr")
        _Tile(b, rows, lanes).emit(x, b.gep(floats, [sizes["w"]]), init, out, sizes, low)


@intrinsic
def _call(typing: Any, address: Any, base: Any, sizes: Any, low: Any) -> Any:  # noqa: ARG001
    """Call :func:`_product` through its address, so that it is compiled once and for all."""

    def generate(context: Any, builder: ir.IRBuilder, _: Any, values: Any) -> Any:
        numbers = cgutils.unpack_tuple(builder, values[2])
        kind = ir.FunctionType(ir.VoidType(), [_INDEX] * (1 + len(_SIZES)) + [_FLOAT])
        pointer = builder.inttoptr(values[0], kind.as_pointer())
        builder.call(pointer, [values[1], *numbers, values[3]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, _PACKED, types.float32), generate


# ---- in Python ----------------------------------------------------------------------------------
@callback(types.void(*[types.int64] * (1 + len(_SIZES)), types.float32))
def _product(
    base: int,
    n1: int,
    rows: int,
    columns: int,
    x: int,
    x1: int,
    xr: int,
    k1: int,
    xa: int,
    k2: int,
    xb: int,
    k3: int,
    xc: int,
    w: int,
    wa: int,
    wb: int,
    wc: int,
    init: int,
    i1: int,
    ir: int,
    out: int,
    o1: int,
    yr: int,
    low: Real,
) -> None:
    """Cut rows and columns into tiles: of rows as even as can be, the taller ones first."""
    j = 0
    while j < columns:
        lanes, most = (16, _ROWS_OF_16) if columns - j >= 16 else (8, _ROWS_OF_8)
        count = (rows + most - 1) // most
        height = rows // count
        taller = rows - count * height
        done = 0
        while done < rows:
            tall = height if done or not taller else height + 1
            number = count - taller if done or not taller else taller
            # fmt: off
            sizes = (
                n1, rows, columns, x + done * xr, x1, xr, k1, xa, k2, xb, k3, xc, w + j, wa, wb, wc,
                init + j + done * ir, i1, ir, out + j + done * yr, o1, yr,
            )
            # fmt: on
            if lanes == 16:
                _tiles(16, tall, number, base, sizes, low)
            else:
                _tiles(8, tall, number, base, sizes, low)
            done += tall * number
        j += lanes


@kernel
def _inside(limit: int, start: int, ways: tuple[int, int, int, int, int]) -> bool:
    first, last = start, start
    for way in ways:
        first += min(way, 0)
        last += max(way, 0)
    return first >= 0 and last < limit


@kernel(types.void(types.int64, _PACKED))
def _check(limit: int, sizes: tuple[int, ...]) -> None:
    # fmt: off
    (
        n1, rows, columns, x, x1, xr, k1, xa, k2, xb, k3, xc, w, wa, wb, wc, init, i1, ir, out, o1,
        yr,
    ) = sizes
    # fmt: on
    if n1 < 1 or rows < 1 or columns < 8 or columns % 8 != 0 or min(k1, k2, k3) < 0:
        raise IndexError("a product has impossible sizes")
    a, r, j = n1 - 1, rows - 1, columns - 1
    inside = _inside(limit, init, (a * i1, r * ir, j, 0, 0))
    inside &= _inside(limit, out, (a * o1, r * yr, j, 0, 0))
    if k1 > 0 and k2 > 0 and k3 > 0:
        along_x = ((k1 - 1) * xa, (k2 - 1) * xb, (k3 - 1) * xc)
        along_w = ((k1 - 1) * wa, (k2 - 1) * wb, (k3 - 1) * wc)
        inside &= _inside(limit, x, (a * x1, r * xr, *along_x))
        inside &= _inside(limit, w, (j, 0, *along_w))
    if not inside:
        raise IndexError("an operand of a product lies outside of memory")


@kernel(types.void(types.int64, array(types.float32, writes=True), _PACKED, types.float32))
def contract(product: int, memory: np.ndarray, sizes: tuple[int, ...], low: Real) -> None:
    """Compute a product; see the head of this module.

    Parameters
    ----------
    product
        What :func:`address` returns.
    memory
        Where all operands lie, float32.
    sizes
        ``n1, rows, columns, x, x1, xr, k1, xa, k2, xb, k3, xc, w, wa, wb, wc, init, i1, ir, out,
        o1, yr``: counts, offsets and strides in floats. ``columns`` is a multiple of 8 and runs
        along neighbours in memory. Strides are ``x1`` and ``xr`` along ``a`` and ``r``, ``xa``,
        ``xb``, ``xc`` along the sums; those of the others likewise.
    low
        Lower bound of what is stored.

    Raises
    ------
    IndexError
        If an operand leaves the memory.
    """
    _check(len(memory), sizes)
    _call(product, np.int64(memory.ctypes.data), sizes, low)


def address() -> int:
    """Return where the compiled product lies."""
    return int(_product.address)
