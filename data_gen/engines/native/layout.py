"""Where everything lies in a member's memory: the finished table of a network."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from data_gen.engines.native import table as t
from data_gen.engines.native.rows import Lowered, Plane, Row
from zoo.space import WeightSpace

_ALIGNED = 16
_CACHE = 2**15
"""Numbers that the samples of one pass should not exceed: 128 KiB, a part of a core's own cache."""
_FEW, _MANY, _MOST = 4, 8, 112
"""Samples of a pass: at least; at least where linear layers have so many weights that each pass
should serve several; at most."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Network:
    """What kernels read of a network.

    Parameters
    ----------
    rows, planes, plan
        The table; ``plan`` has one entry; see :mod:`data_gen.engines.native.table`.
    places
        Where each number of the flat vector lies in memory, ``[num_trainable]``.
    num_inputs, num_outputs
        Numbers of a sample, before and after.
    """

    rows: np.ndarray
    planes: np.ndarray
    plan: np.ndarray
    places: np.ndarray
    num_inputs: int
    num_outputs: int

    @property
    def num_draws(self) -> int:
        """Uniform numbers that dropout takes per sample."""
        return int(self.plan["draws"][0])


def lay_out(
    lowered: Lowered, space: WeightSpace, *, samples_per_pass: int | None = None
) -> Network:
    """Give everything its place.

    Parameters
    ----------
    samples_per_pass
        Samples that go through the network together; by default what fits the cache. Changes
        speed, never a number.
    """
    return _Layout(lowered, space).finish(samples_per_pass)


class _Layout:
    def __init__(self, lowered: Lowered, space: WeightSpace) -> None:
        self._lowered, self._space = lowered, space
        self._end = 0
        self._rows = np.zeros(len(lowered.rows), dtype=t.ROW)
        self._planes = np.zeros(len(lowered.planes), dtype=t.PLANE)
        self._plan = np.zeros(1, dtype=t.PLAN)
        self._places = np.full(space.num_trainable, -1, dtype=np.int64)
        self._starts = _starts(space)

    def finish(self, samples_per_pass: int | None) -> Network:
        planes, plan = self._lowered.planes, self._plan
        widest = max(plane.wide for plane in planes)
        self._take(t.ZERO + widest)
        self._place_weights()
        count = samples_per_pass or self._best_pass()
        self._place_planes(count)
        self._place_rows(count)
        plan["scratch"] = self._take(max(2 * widest, *map(self._apart, self._lowered.rows)))
        plan["batch"] = count
        plan["input"], plan["output"] = self._lowered.input, self._lowered.output
        plan["memory"] = self._end
        first, last = planes[self._lowered.input], planes[self._lowered.output]
        for table in (self._rows, self._planes, plan, self._places):
            table.setflags(write=False)
        return Network(
            rows=self._rows,
            planes=self._planes,
            plan=plan,
            places=self._places,
            num_inputs=first.channels * first.height * first.width,
            num_outputs=last.channels,
        )

    def _take(self, size: int) -> int:
        """Set numbers aside; returns their offset."""
        start = self._end
        self._end += -(-size // _ALIGNED) * _ALIGNED
        return start

    # ---- weights --------------------------------------------------------------------------------
    def _place_weights(self) -> None:
        start = self._end
        for entries, row in zip(self._rows, self._lowered.rows, strict=True):
            entries["bias"] = t.ZERO
            if row.has_parameters:
                self._place_parameters(entries, row)
        size = self._end - start
        self._plan["weights"], self._plan["num_weights"] = start, size
        for section in ("gradient", "moment1", "moment2"):
            self._plan[section] = self._take(size)

    def _place_parameters(self, entries: Any, row: Row) -> None:
        """Place weights as ``[ky, kx, in, out]`` and biases; of NORM, gains and shifts."""
        target = self._lowered.planes[row.target]
        if row.op == t.NORM:
            places = _pixels(target) if row.fields["kind"] else np.arange(target.channels)
            size = places.max() + target.wide
            entries["weight"], entries["bias"] = self._take(size), self._take(size)
            self._fill(row.weight, entries["weight"] + places)
            self._fill(row.bias, entries["bias"] + places)
            return
        channels = self._lowered.planes[row.source].channels
        ky, kx, wide = int(row.fields["ky"]), int(row.fields["kx"]), target.wide
        entries["weight"] = self._take(ky * kx * channels * wide)
        out, into, y, x = np.ix_(*map(np.arange, (target.channels, channels, ky, kx)))
        self._fill(row.weight, entries["weight"] + ((y * kx + x) * channels + into) * wide + out)
        if row.bias is not None:
            entries["bias"], entries["has_bias"] = self._take(wide), 1
            self._fill(row.bias, entries["bias"] + np.arange(target.channels))

    def _fill(self, name: str | None, places: np.ndarray) -> None:
        if name is not None:
            start = self._starts[name]
            self._places[start : start + places.size] = places.ravel()

    # ---- planes ---------------------------------------------------------------------------------
    def _best_pass(self) -> int:
        numbers = sum(
            _area(plane, plane.edge) + _area(plane, plane.grad_edge)
            for plane in self._lowered.planes
        )
        linear = (
            self._space.tensor(row.weight)
            for row in self._lowered.rows
            if row.op == t.LINEAR and row.weight
        )
        heavy = sum(tensor.numel for tensor in linear) > _CACHE // 2
        return min(max(_MANY if heavy else _FEW, _CACHE // numbers), _MOST)

    def _place_planes(self, count: int) -> None:
        for entries, plane in zip(self._planes, self._lowered.planes, strict=True):
            data, gradient = _area(plane, plane.edge), _area(plane, plane.grad_edge)
            for name in ("channels", "wide", "height", "width", "edge", "grad_edge"):
                entries[name] = getattr(plane, name)
            entries["data"], entries["data_step"] = self._take(count * data), data
            entries["grad"], entries["grad_step"] = self._take(count * gradient), gradient

    def _apart(self, row: Row) -> int:
        """Return how many numbers a row works on aside: those of a tap for all windows."""
        return _area(self._lowered.planes[row.target], 0) if row.op == t.MAX_POOL else 0

    # ---- rows -----------------------------------------------------------------------------------
    def _place_rows(self, count: int) -> None:
        for entries, row in zip(self._rows, self._lowered.rows, strict=True):
            source, target = (self._lowered.planes[each] for each in (row.source, row.target))
            entries["op"], entries["source"], entries["target"] = row.op, row.source, row.target
            for name, value in row.fields.items():
                entries[name] = value
            is_relu = row.op == t.ACTIVATE and row.fields["kind"] == t.RELU
            if row.op in (t.ACTIVATE, t.DROP, t.NORM, t.MAX_POOL) and not is_relu:
                entries["slope"] = self._take(count * _area(target, target.edge))
            if row.op == t.NORM:
                entries["stats"] = self._take(count * target.wide)
            if row.op in (t.LINEAR, t.CONV) and row.fields["mode"] != t.SKIP:
                taps = int(row.fields["ky"] * row.fields["kx"])
                entries["turned"] = self._take(taps * target.channels * source.wide)
            if row.op == t.DROP:
                entries["first_draw"] = self._plan["draws"][0]
                self._plan["draws"] += target.channels * target.height * target.width


def _starts(space: WeightSpace) -> dict[str, int]:
    starts, start = {}, 0
    for tensor in space.tensors:
        starts[tensor.name] = start
        start += tensor.numel
    return starts


def _area(plane: Plane, edge: int) -> int:
    return (plane.height + 2 * edge) * (plane.width + 2 * edge) * plane.wide


def _pixels(plane: Plane) -> np.ndarray:
    """Return where entries ``[channel, y, x]`` lie in a plane without edge."""
    sizes = (plane.channels, plane.height, plane.width)
    c, y, x = np.ix_(*map(np.arange, sizes))
    places: np.ndarray = ((y * plane.width + x) * plane.wide + c).reshape(prod(sizes))
    return places
