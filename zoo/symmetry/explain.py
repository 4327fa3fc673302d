"""A weight space in words: what moves together, and what stays where it is, and why."""

from collections.abc import Iterable, Iterator

from zoo.space import Exponent, NeuronGroup, Touch, WeightSpace

_WIDTH = 99
_REASONS = {
    "input": "inputs of the network",
    "output": "outputs of the network",
    "kernel": "positions in a kernel",
    "fixed": "told apart by position",
}


def explain(space: WeightSpace) -> str:
    """Describe a space for a reader: each group and every axis it moves, then what is pinned."""
    count = len(space.groups)
    lines = [
        f"weight space {space.fingerprint}: {space.num_parameters:,} numbers in "
        f"{len(space.tensors)} tensors, {count} neuron group{'s' * (count != 1)}",
        *(line for group in space.groups if group.parent is None for line in _group(space, group)),
        *_continuous(space),
        *_pinned(space),
    ]
    lines += [f"  tied {alias} is {name}" for alias, name in space.tied]
    lines += [f"  unsupported {item.op} at {item.source}" for item in space.unsupported]
    return "\n".join(lines)


def _group(space: WeightSpace, group: NeuronGroup, indent: str = "  ") -> Iterator[str]:
    """One line per group, those nested inside it below."""
    inside = f" in each of {group.copies}" if group.parent is not None else ""
    start = f"{indent}{group.name}: {group.size} units{inside} move "
    yield from _listed(start, map(_touch, group.touches), indent)
    for other in space.groups:
        if other.parent == group.name:
            yield from _group(space, other, indent + "  ")


def _touch(touch: Touch) -> str:
    block = f" (blocks of {touch.index.block})" if touch.index.block > 1 else ""
    return f"{touch.tensor}[{touch.dim}]{block}"


def _continuous(space: WeightSpace) -> Iterator[str]:
    """One line per scaling and per general linear block."""
    factors = {"positive": "a positive factor", "sign": "a sign"}
    for scaling in space.scalings:
        powers = ", ".join(map(_power, scaling.exponents))
        yield f"  {scaling.name}: {factors[scaling.domain]} for each unit, {powers}"
    for block in space.gl_blocks:
        count = "any" if block.copies == 1 else f"{block.copies} times any"
        yield (
            f"  {block.group} ({block.kind}): {count} invertible matrix of "
            f"{block.size} x {block.size} mixes the units"
        )


def _power(exponent: Exponent) -> str:
    slots = "" if exponent.slots is None else f" (at {', '.join(map(str, exponent.slots))})"
    return f"{exponent.tensor}[{exponent.dim}]{slots} ^{exponent.exponent:+d}"


def _pinned(space: WeightSpace) -> Iterator[str]:
    """One line per reason, with every axis that stays for it."""
    found: dict[str, list[str]] = {}
    for tensor in space.tensors:
        for dim, axis in enumerate(tensor.axes):
            if axis.pin not in (None, "single"):
                detail = "" if axis.pin == "kernel" else f" ({axis.label})"
                reason = f"{_REASONS[str(axis.pin)]}{detail if axis.label else ''}"
                found.setdefault(reason, []).append(f"{tensor.name}[{dim}]")
    for reason, axes in found.items():
        yield from _listed(f"  pinned, {reason}: ", axes, "  ")


def _listed(start: str, items: Iterable[str], indent: str) -> Iterator[str]:
    """Lay a list out on lines of at most 100 columns."""
    line = start
    for number, item in enumerate(items):
        grown = line + (", " if number else "") + item
        if len(grown) > _WIDTH and number:
            yield line + ","
            grown = f"{indent}    {item}"
        line = grown
    yield line
