"""Running a program once for a stack of members."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from data_gen.engines.elementwise import in_memory_order
from data_gen.engines.graph import Call, Program, Ref
from data_gen.engines.operators import Stack, find_operator


def sections_of(kinds: Sequence[str]) -> list[tuple[str, int]]:
    """Cut a list into runs of equal items: ``[(item, length), ...]``."""
    runs: list[tuple[str, int]] = []
    for kind in kinds:
        if runs and runs[-1][0] == kind:
            runs[-1] = (kind, runs[-1][1] + 1)
        else:
            runs.append((kind, 1))
    return runs


class StackedProgram:
    """Runs programs that merge, each for its own run of neighbouring members of a stack.

    Parameters
    ----------
    sections
        ``(program, number of members)`` in stack order.
    """

    def __init__(self, sections: Sequence[tuple[Program, int]]) -> None:
        self.first = sections[0][0]
        self._counts = [count for _, count in sections]
        variants = zip(*(program.calls for program, _ in sections), strict=True)
        self._calls = [self._plan(calls) for calls in variants]

    def __call__(
        self, tensors: Mapping[str, Tensor], inputs: Tensor, stack: Stack
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute outputs ``[N, batch, ...]`` and the buffers' new values.

        Parameters
        ----------
        tensors
            Per tensor ``[N, *shape]``.
        inputs
            ``[N, batch, ...]``.
        stack
            Sizes, and what drops entries.
        """
        values: dict[int, Any] = {
            index: inputs if name is None else tensors.get(name)
            for index, name in enumerate(self.first.inputs)
        }
        for run, args, kwargs, result in self._calls:
            values[result] = run(stack, *_resolve(args, values), **_resolve_named(kwargs, values))
        updates = {name: values[ref.index] for name, ref in self.first.updates}
        return values[self.first.output.index], updates

    def _plan(
        self, calls: tuple[Call, ...]
    ) -> tuple[Callable[..., Any], tuple[Any, ...], tuple[tuple[str, Any], ...], int]:
        first = calls[0]
        if first.target is operator.getitem:
            return _pick, first.args, first.kwargs, first.result
        if all(call == first for call in calls):
            return find_operator(first.target), first.args, first.kwargs, first.result
        return self._side_by_side(calls), first.args[:1], (), first.result

    def _side_by_side(self, calls: tuple[Call, ...]) -> Callable[..., Tensor]:
        """Apply an own elementwise function to each run of members."""
        runs = _join(calls, self._counts)

        def apply(stack: Stack, values: Tensor) -> Tensor:
            plain, restore = in_memory_order(values)
            parts = torch.split(plain, [count for _, count in runs])
            done = [
                find_operator(call.target)(stack, part, *call.args[1:], **dict(call.kwargs))
                for (call, _), part in zip(runs, parts, strict=True)
            ]
            return restore(torch.cat(done))

        return apply


def _join(calls: Sequence[Call], counts: Sequence[int]) -> list[tuple[Call, int]]:
    runs: list[tuple[Call, int]] = []
    for call, count in zip(calls, counts, strict=True):
        if runs and runs[-1][0] == call:
            runs[-1] = (call, runs[-1][1] + count)
        else:
            runs.append((call, count))
    return runs


def _pick(_: Stack, values: Sequence[Any], index: int) -> Any:
    return values[index]


def _resolve(value: Any, values: Mapping[int, Any]) -> Any:
    if isinstance(value, Ref):
        return values[value.index]
    if isinstance(value, tuple):
        return tuple(_resolve(item, values) for item in value)
    return value


def _resolve_named(items: tuple[tuple[str, Any], ...], values: Mapping[int, Any]) -> dict[str, Any]:
    return {key: _resolve(value, values) for key, value in items}
