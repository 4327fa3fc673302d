"""Set tracing side by side with torch-pruning and rebasin on the same architectures.

Neither package is a dependency; install them next to this project first, without their own
dependencies: ``pip install --no-deps torch-pruning rebasin torchview graphviz``.

What is counted, on random weights and buffers in float64 with deviations up to 1e-9 accepted:

- **Ours**: independent symmetric groups, and of those the ones that keep the function.
- **torch-pruning** lists groups of channels to be pruned together. The first and the last unit of
  each group swap places in every tensor, at the positions that pruning them would remove; a group
  is valid if that keeps the function and moves something. Its default options are used; head
  counts, which a user may supply, are not. Groups of network outputs are not counted.
- **rebasin** matches one network to another of independent weights by relabelling its units; what
  counts is whether the relabelled network still computes its function. It leaves running statistics
  to be computed anew, so they keep their initial values here.
"""

import copy
import logging
import math
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from symmetry_table import ROOT, architectures, table, write_between
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from tqdm import tqdm

import zoo
from zoo.space import WeightSpace
from zoo.symmetry import TOLERANCE, Action, random_weights

NAMES = (
    "mlp-relu", "siren", "residual-mlp", "gated-mlp", "small-cnn", "lenet", "vgg-group-norm",
    "unet", "pixel-shuffle", "resnet20-projection", "resnet20-padded", "resnext-group-norm",
    "densenet", "mobilenet-v3", "convnext", "shufflenet-v2", "vit-fused", "vit-separate", "swin",
    "transformer-encoder-pre-norm", "mlp-mixer", "gpt-tied", "gpt-rotary", "gpt-rms-norm-swiglu",
    "gpt-grouped-query", "gru", "huggingface-bert", "huggingface-llama", "hypernetwork",
)  # fmt: skip
HEADER = (
    "architecture", "ours: valid / found", "torch-pruning: valid / listed",
    "rebasin: groups", "rebasin: function kept",
)  # fmt: skip


def main(
    *,
    out: Path = ROOT / "docs/symmetry.md",
    names: tuple[str, ...] = NAMES,
    seconds: int = 60,
    dry: bool = False,
) -> None:
    """Compare and write the table.

    Parameters
    ----------
    out
        Document whose marked part is replaced.
    names
        Architectures of the registry.
    seconds
        Time allowed to each package for each architecture.
    dry
        Print the table instead.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    registry, rows, totals = architectures(), [], [[0, 0], [0, 0], [0, 0]]
    for name in tqdm(names, disable=None):
        torch.manual_seed(0)
        module, inputs = registry[name]()
        module, inputs = module.double().eval(), _double(inputs)
        space = zoo.trace(module, *inputs)
        cells = [name, _attempt(seconds, _ours, totals[0], space, module, inputs)]
        cells.append(_attempt(seconds, _torch_pruning, totals[1], space, module, inputs))
        cells += _attempt(seconds, _rebasin, totals[2], space, module, inputs).split(";")
        rows.append(tuple((cells + [""])[: len(HEADER)]))
    text = "\n".join([*table(HEADER, rows), "", _summary(totals, len(rows))])
    print(text) if dry else write_between(out, "comparison", text)


def _summary(totals: list[list[int]], count: int) -> str:
    ours, pruning, rebasin = totals
    return (
        f"Valid groups: ours {ours[0]} of {ours[1]}, torch-pruning {pruning[0]} of {pruning[1]}. "
        f"rebasin kept the function of {rebasin[0]} of the {count} networks and changed it in "
        f"{rebasin[1]}; of the others it moved nothing or stopped with an error."
    )


class _TimeUpError(BaseException):
    """A package took longer than allowed; not an error that it could catch itself."""


@contextmanager
def _limit(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TimeUpError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _attempt(seconds: int, compare: Callable[..., str], *arguments: Any) -> str:
    try:
        with _limit(seconds):
            return compare(*arguments)
    except _TimeUpError:
        return f"no result in {seconds} s"
    except Exception as error:  # noqa: BLE001 - a package that fails is a result
        print(f"{compare.__name__}: {type(error).__name__}: {error}"[:300], file=sys.stderr)
        return f"error: {type(error).__name__}"


# ---- ours ----------------------------------------------------------------
def _ours(total: list[int], space: WeightSpace, module: nn.Module, inputs: Any) -> str:
    failed = space.verify(module, *inputs).failed
    found = sum(group.copies for group in space.groups)
    valid = sum(group.copies for group in space.groups if group.name not in failed)
    total[0], total[1] = total[0] + valid, total[1] + found
    return f"{valid} / {found}"


# ---- torch-pruning ----------------------------------------------------------------
def _torch_pruning(total: list[int], space: WeightSpace, module: nn.Module, inputs: Any) -> str:
    import torch_pruning as tp

    kinds = [tp.ops.TORCH_CONV, tp.ops.TORCH_LINEAR, tp.ops.TORCH_EMBED]
    network, graph = _graph(space, module, inputs)
    names = {value: name for name, value in network.named_modules()}
    roots = [
        (names[group[0].dep.target.module], len(group[0].idxs))
        for group in graph.get_all_groups(root_module_types=kinds)
    ]
    valid, listed = 0, 0
    for root, size in roots:
        if size < 2 or _makes_outputs(space, root):
            continue
        listed += 1
        removed = [_removed(space, module, inputs, root, unit) for unit in (0, size - 1)]
        swap = _swap(space, *removed)
        valid += swap is not None and _keeps(space, module, inputs, swap)
    total[0], total[1] = total[0] + valid, total[1] + listed
    return f"{valid} / {listed}"


def _graph(space: WeightSpace, module: nn.Module, inputs: Any) -> tuple[nn.Module, Any]:
    """Copy a module whose every weight is its position in the flat vector, and its graph."""
    import torch_pruning as tp

    network = copy.deepcopy(module)
    arguments: Any = inputs if len(inputs) > 1 else inputs[0]
    graph = tp.DependencyGraph().build_dependency(
        network, arguments, forward_fn=lambda net, x: net(*x) if isinstance(x, tuple) else net(x)
    )
    positions = space.state_dict(torch.arange(space.num_parameters, dtype=torch.float64))
    network.load_state_dict(positions, strict=False)
    return network, graph


def _makes_outputs(space: WeightSpace, root: str) -> bool:
    """Whether the units that a layer makes are outputs of the network."""
    return any(
        axis.pin == "output" and axis.role == "out"
        for tensor in space.tensors
        if tensor.name.rpartition(".")[0] == root
        for axis in tensor.axes
    )


def _removed(
    space: WeightSpace, module: nn.Module, inputs: Any, root: str, unit: int
) -> dict[tuple[str, int], Tensor]:
    """Positions on each axis that are gone once torch-pruning has pruned a unit."""
    network, graph = _graph(space, module, inputs)
    layer = network.get_submodule(root)
    prune = graph.get_pruner_of_module(layer).prune_out_channels
    graph.get_pruning_group(layer, prune, idxs=[unit]).prune()
    left = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    gone = {}
    for tensor in space.tensors:
        kept = torch.zeros(tensor.numel, dtype=torch.bool)
        kept[(left[tensor.name].detach().ravel() - space.offsets[tensor.name]).long()] = True
        kept = kept.reshape(tensor.shape)
        for dim in range(len(tensor.shape)):
            others = [axis for axis in range(len(tensor.shape)) if axis != dim]
            along = kept.amax(dim=others) if others else kept
            if not along.all():
                gone[tensor.name, dim] = (~along).nonzero().ravel()
    return gone


def _swap(
    space: WeightSpace, first: dict[tuple[str, int], Tensor], second: dict[tuple[str, int], Tensor]
) -> Action | None:
    """Exchange what two units own; ``None`` where they own unlike numbers of positions."""
    if first.keys() != second.keys():
        return None
    grids = space.unflatten(torch.arange(space.num_parameters))
    for (name, dim), one in first.items():
        two = second[name, dim]
        if one.shape != two.shape:
            return None
        source = torch.arange(grids[name].shape[dim])
        source[one], source[two] = two, one
        if not torch.equal(source.sort().values, torch.arange(len(source))):
            return None
        grids[name] = grids[name].index_select(dim, source)
    return Action(space.flatten(grids))


# ---- rebasin ----------------------------------------------------------------
def _rebasin(total: list[int], space: WeightSpace, module: nn.Module, inputs: Any) -> str:
    from rebasin import PermutationCoordinateDescent

    generator = torch.Generator().manual_seed(1)
    parameters = {tensor.name for tensor in space.tensors if tensor.kind == "parameter"}
    networks = []
    for _ in range(2):
        networks.append(copy.deepcopy(module).float())
        weights = space.unflatten(random_weights(space, generator).float())
        state = {name: value for name, value in weights.items() if name in parameters}
        networks[-1].load_state_dict(state, strict=False)
    before = copy.deepcopy(networks[1]).double()
    arguments = pytree.tree_map_only(Tensor, _single, inputs)
    descent = PermutationCoordinateDescent(
        *networks, arguments if len(arguments) > 1 else arguments[0]
    )
    descent.rebasin()
    after = networks[1].double()
    count = len(descent.pinit.model_graph.permutation_to_info)
    if all(map(torch.equal, before.parameters(), after.parameters())):
        return f"{count};nothing moved"
    change = _change(_numbers(before(*inputs)), _numbers(after(*inputs)))
    total[change > TOLERANCE] += 1
    return f"{count};" + ("yes" if change <= TOLERANCE else f"no ({change:.0e})")


# ---- functions ----------------------------------------------------------------
def _keeps(space: WeightSpace, module: nn.Module, inputs: Any, action: Action) -> bool:
    weights = random_weights(space, torch.Generator().manual_seed(2))
    moved = action(weights)
    if torch.equal(moved, weights):
        return False
    outputs = [
        torch.func.functional_call(module, space.state_dict(each), inputs, tie_weights=False)
        for each in (weights, moved)
    ]
    return _change(*map(_numbers, outputs)) <= TOLERANCE


def _change(before: Tensor, after: Tensor) -> float:
    """Largest change of the outputs as a fraction of their spread."""
    change = float((after - before).abs().max() / (before - before.mean()).abs().max())
    return change if math.isfinite(change) else math.inf


def _numbers(outputs: Any) -> Tensor:
    leaves = [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
    return torch.cat([leaf.detach().ravel() for leaf in leaves if leaf.is_floating_point()])


def _double(inputs: Any) -> Any:
    return pytree.tree_map_only(
        Tensor, lambda x: x.double() if x.is_floating_point() else x, inputs
    )


def _single(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


if __name__ == "__main__":
    auto_cli(main)
