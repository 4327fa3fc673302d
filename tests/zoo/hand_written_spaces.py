"""Partitions written by hand, in the sense of Git Re-Basin, to compare traced spaces with.

A group is ``{"size", "copies", "touches"}``: ``size`` units that may be relabelled, and every
(tensor, axis) of which some position moves when they are, batch normalisation's statistics too.
A group inside another (units of a head, channels of a group of channels) is given once, with
``copies``, the number of its parents' units, each of which may relabel its own ``size`` units; it
lists every axis whose positions it moves, as do the groups around it, which move whole blocks.
Biases that cannot change the function (a key's, under softmax) move with their units. Groups of one
unit are left out.

Nothing here comes from tracing: the tables follow from reading the modules.
"""

from collections.abc import Iterable
from typing import Any

Axes = set[tuple[str, int]]
Group = dict[str, Any]


def group(size: int, *parts: Iterable[tuple[str, int]], copies: int = 1) -> Group:
    return {"size": size, "copies": copies, "touches": set().union(*parts)}


def out(*layers: str, bias: bool = True) -> Axes:
    """What a layer's outputs are made from."""
    return {(f"{layer}.weight", 0) for layer in layers} | (
        {(f"{layer}.bias", 0) for layer in layers} if bias else set()
    )


def into(*layers: str) -> Axes:
    """Where layers read their inputs."""
    return {(f"{layer}.weight", 1) for layer in layers}


def batch_norm(*layers: str) -> Axes:
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {(f"{layer}.{kind}", 0) for layer in layers for kind in kinds}


def chain(sizes: Iterable[int], layers: list[str]) -> list[Group]:
    """Layers one after another, the last one reading only."""
    pairs = zip(sizes, layers[:-1], layers[1:], strict=True)
    return [group(size, out(now), into(after)) for size, now, after in pairs]


def vgg16() -> list[Group]:
    """Thirteen convolutions (each before its norm), two hidden linear layers."""
    sizes = [4, 4, 6, 6, 8, 8, 8, 10, 10, 10, 12, 12, 12]
    convs = [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]
    after = [*convs[1:], 45]
    groups = [
        group(size, out(f"{conv}"), batch_norm(f"{conv + 1}"), into(f"{reader}"))
        for size, conv, reader in zip(sizes, convs, after, strict=True)
    ]
    return groups + chain([14, 11], ["45", "48", "51"])


def vgg_group_norm() -> list[Group]:
    """Channels in two groups: the groups swap, and so do channels inside each."""
    groups = []
    for size, conv, reader in ((4, 0, 4), (6, 4, 7), (8, 7, 11), (10, 11, 16)):
        touches = out(f"{conv}", f"{conv + 1}") | into(f"{reader}")
        groups += [group(2, touches), group(size // 2, touches, copies=2)]
    return groups


def units_of_block(block: str, sizes: Iterable[int]) -> list[Group]:
    """The channels between the convolutions of a residual block."""
    return [
        group(
            size,
            out(f"{block}.convs.{i}", bias=False),
            batch_norm(f"{block}.norms.{i}"),
            into(f"{block}.convs.{i + 1}"),
        )
        for i, size in enumerate(sizes)
    ]


def writes(block: str, last: int) -> Axes:
    return out(f"{block}.convs.{last}", bias=False) | batch_norm(f"{block}.norms.{last}")


def projects(block: str) -> Axes:
    return out(f"{block}.shortcut.0", bias=False) | batch_norm(f"{block}.shortcut.1")


STEM = out("stem.0", bias=False) | batch_norm("stem.1")


def resnet20() -> list[Group]:
    """Three residual streams and the channels inside nine blocks; the stem feeds the first."""
    first, second, third = ([f"blocks.{i}" for i in range(at, at + 3)] for at in (0, 3, 6))
    groups = []
    for size, blocks in ((4, first), (6, second), (7, third)):
        for block in blocks:
            groups += units_of_block(block, [size])
    written = [set().union(*(writes(b, 1) for b in blocks)) for blocks in (first, second, third)]
    read = [into(*(f"{b}.convs.0" for b in blocks)) for blocks in (first, second[1:], third[1:])]
    onward = [into(f"{b}.convs.0", f"{b}.shortcut.0") for b in ("blocks.3", "blocks.6")]
    return [
        *groups,
        group(4, STEM, written[0], read[0], onward[0]),
        group(6, projects("blocks.3"), written[1], read[1], onward[1]),
        group(7, projects("blocks.6"), written[2], read[2], into("head")),
    ]


def resnet50() -> list[Group]:
    """The stem, four residual streams, two sets of channels in each of sixteen bottlenecks."""
    groups = [group(7, STEM, into("blocks.0.convs.0", "blocks.0.shortcut.0"))]
    stages = ((3, range(0, 3)), (4, range(3, 7)), (5, range(7, 13)), (6, range(13, 16)))
    for size, numbers in stages:
        blocks = [f"blocks.{number}" for number in numbers]
        for block in blocks:
            groups += units_of_block(block, [size, size])
        written = [writes(block, 2) for block in blocks]
        read = into(*(f"{block}.convs.0" for block in blocks[1:]))
        following = f"blocks.{numbers[-1] + 1}"
        onward = into(f"{following}.convs.0", f"{following}.shortcut.0")
        if numbers[-1] == 15:
            onward = into("head")
        groups.append(group(4 * size, projects(blocks[0]), *written, read, onward))
    return groups


def resnext() -> list[Group]:
    """Grouped convolutions: blocks of channels swap as wholes, channels inside on either side."""
    groups = [
        group(5, STEM, into("blocks.0.convs.0", "blocks.0.shortcut.0")),
        group(
            8, projects("blocks.0"), writes("blocks.0", 2), writes("blocks.1", 2),
            into("blocks.1.convs.0", "blocks.2.convs.0", "blocks.2.shortcut.0"),
        ),
        group(14, projects("blocks.2"), writes("blocks.2", 2), into("head")),
    ]  # fmt: skip
    for block, number, size in (("blocks.0", 2, 3), ("blocks.1", 3, 4), ("blocks.2", 2, 5)):
        before = writes(block, 0)
        after = writes(block, 1) | into(f"{block}.convs.2")
        groups += [
            group(number, before, after),
            group(size, before, into(f"{block}.convs.1"), copies=number),
            group(size, after, copies=number),
        ]
    return groups


def densenet() -> list[Group]:
    """What a layer appends is read by all that follow, up to the next transition."""

    def reads(*layers: str) -> Axes:
        norms = batch_norm(*(f"{layer}.norm1" for layer in layers))
        return norms | into(*(f"{layer}.conv1" for layer in layers))

    def appends(layer: str) -> Axes:
        return out(f"{layer}.conv2", bias=False)

    layers = [f"blocks.{i}" for i in (0, 1, 6, 7)]
    middle = [
        group(size, out(f"{b}.conv1", bias=False), batch_norm(f"{b}.norm2"), into(f"{b}.conv2"))
        for b, size in zip(layers, (7, 4, 5, 3), strict=True)
    ]
    transition = batch_norm("blocks.2") | into("blocks.4")
    end = batch_norm("blocks.8") | into("head")
    return [
        *middle,
        group(5, STEM, reads("blocks.0", "blocks.1"), transition),
        group(3, appends("blocks.0"), reads("blocks.1"), transition),
        group(3, appends("blocks.1"), transition),
        group(6, out("blocks.4", bias=False), reads("blocks.6", "blocks.7"), end),
        group(2, appends("blocks.6"), reads("blocks.7"), end),
        group(2, appends("blocks.7"), end),
    ]


def vit() -> list[Group]:
    """The residual stream; in each block heads, the features inside them, hidden units."""
    stream = {("extra", 2), ("positions", 2)} | out("patch", "norm") | into("heads.0")
    groups = []
    for block, heads, head_width, hidden in (("blocks.0", 2, 5, 11), ("blocks.1", 3, 4, 7)):
        stream |= out(f"{block}.norm1", f"{block}.norm2", f"{block}.attention.proj")
        stream |= out(f"{block}.down") | into(f"{block}.attention.qkv", f"{block}.up")
        qkv, proj = out(f"{block}.attention.qkv"), into(f"{block}.attention.proj")
        groups += [
            group(heads, qkv, proj),
            group(head_width, qkv, copies=heads),  # queries and keys
            group(head_width, qkv, proj, copies=heads),  # values
            group(hidden, out(f"{block}.up"), into(f"{block}.down")),
        ]
    return [*groups, group(6, stream)]


def grouped_query() -> list[Group]:
    """Key-value heads, the query heads that share one, features of queries and keys, of values."""
    stream = {("tokens.weight", 1), ("positions.weight", 1)} | into("head")
    stream |= out(*(f"norms.{i}" for i in range(4)))
    stream |= into("layers.1.up") | out("layers.1.down")
    groups = [group(9, out("layers.1.up"), into("layers.1.down"))]
    shapes = (("layers.0", 3, 2, 2, True), ("layers.2", 2, 3, 5, False))
    for layer, shared, queries, width, bias in shapes:
        q, k, v = (out(f"{layer}.{name}", bias=bias) for name in "qkv")
        read = into(f"{layer}.out")
        stream |= into(*(f"{layer}.{name}" for name in "qkv")) | out(f"{layer}.out", bias=bias)
        groups += [
            group(shared, q, k, v, read),
            group(queries, q, read, copies=shared),
            group(width, q, k, copies=shared),
            group(width, v, read, copies=shared),
        ]
    return [*groups, group(8, stream)]


def lstm() -> list[Group]:
    """Word vectors; hidden units of two directions in two layers, each in four gates."""
    groups = [
        group(4, {("words.weight", 1), ("lstm.weight_ih_l0", 1), ("lstm.weight_ih_l0_reverse", 1)})
    ]
    for layer in (0, 1):
        upper = {("lstm.weight_ih_l1", 1), ("lstm.weight_ih_l1_reverse", 1)}
        for direction in ("", "_reverse"):
            suffix = f"l{layer}{direction}"
            kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            gates = {(f"lstm.{kind}_{suffix}", 0) for kind in kinds}
            read = into("head") if layer else upper
            groups.append(group(5, gates, {(f"lstm.weight_hh_{suffix}", 1)}, read))
    return groups


def soft_experts() -> list[Group]:
    """Experts, and the hidden units inside each."""
    experts = out("router") | {("up", 0), ("up_bias", 0), ("down", 0)}
    return [group(3, experts), group(5, {("up", 2), ("up_bias", 1), ("down", 1)}, copies=3)]


HAND_WRITTEN: dict[str, list[Group]] = {
    "mlp-relu": chain([7, 5], ["0", "2", "4"]),
    "siren": chain([7, 5, 6], [f"layers.{i}" for i in range(4)]),
    "small-cnn": chain([4, 6, 5], ["layers.0", "layers.3", "layers.6", "head"]),
    "lenet": chain([4, 6, 9, 7], ["conv1", "conv2", "fc1", "fc2", "fc3"]),
    "vgg16-batch-norm": vgg16(),
    "vgg-group-norm": vgg_group_norm(),
    "resnet20-projection": resnet20(),
    "resnet50": resnet50(),
    "resnext-batch-norm": resnext(),
    "densenet": densenet(),
    "vit-fused": vit(),
    "gpt-grouped-query": grouped_query(),
    "lstm-bidirectional": lstm(),
    "soft-experts": soft_experts(),
}
"""By the name of an architecture in the registry."""
