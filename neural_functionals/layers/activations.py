"""Running members on given inputs and reading what their units compute on the way."""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.func import vmap
from torch.fx import Node

from neural_functionals.layers.probes import check_network, check_real
from zoo.networks import build, example_input
from zoo.space import WeightSpace
from zoo.symmetry import export
from zoo.symmetry.export import operator_name

_CHANNELS = {"linear": -1, "conv1d": 1, "conv2d": 1, "conv3d": 1, "convolution": 1}
"""Operators whose second argument is a weight with outputs first, and their axis of outputs."""
_COPIES = ("clone", "alias", "dropout")


class Layer(NamedTuple):
    """A layer of a traced network: its weight, what it activates, and the axis of its outputs."""

    weight: str
    node: Node
    dim: int


class ActivationRunner:
    """Runs members and returns what the outputs of each of their layers become.

    Layers are found in the graph of the traced network, not by the names of modules: linear maps
    and convolutions whose weight is a tensor of the space. Their outputs are followed through
    pointwise operators and batch normalisation, as long as nothing else reads them: to the
    activation of a hidden layer, or the sum with a residual stream. Nothing here is learnt.

    Parameters
    ----------
    space
        Weight space of the members.
    network
        Their network, as :func:`zoo.networks.build` takes it.
    num_inputs
        Inputs of every run.

    Attributes
    ----------
    input_shape
        Of one input, without the batch.
    layers
        Name of each layer's weight; its first axis is that of the outputs.

    Raises
    ------
    InvalidConfigError
        If the network takes something else than real numbers.
    WeightSpaceMismatchError
        If its tensors are not those of the weight space.
    """

    def __init__(self, space: WeightSpace, network: Mapping[str, Any], num_inputs: int) -> None:
        example = example_input(network, num_inputs)
        check_real(example, network)
        module = build(network).eval()
        check_network(module, space, network)
        program = _exported(module, example)
        self.space = space
        self.input_shape = tuple(example.shape[1:])
        self._arguments = [(spec.kind, spec.target) for spec in program.graph_signature.input_specs]
        self._constants = dict(program.constants) | dict(program.state_dict)
        found = list(_layers(space, program))
        self.layers = [layer.weight for layer in found]
        self._dims = [layer.dim for layer in found]
        self._graph = _ending_with(program, [layer.node for layer in found])

    def __call__(self, weights: Tensor, inputs: Tensor) -> list[Tensor]:
        """Run each member on each input.

        Parameters
        ----------
        weights
            ``[batch, P]``.
        inputs
            ``[num_inputs, *input_shape]``, on the same device.

        Returns
        -------
        list
            Per layer ``[batch, num_inputs, outputs]``, averaged over all further axes (pixels), of
            the weights' dtype. Gradients reach inputs and weights.
        """

        def run(member: Tensor) -> tuple[Tensor, ...]:
            state = self.space.state_dict(member)
            values = [self._argument(*one, state, probes) for one in self._arguments]
            return tuple(map(_averaged, self._graph(*values), self._dims))

        with torch.autocast(weights.device.type, enabled=False):  # members as they are
            probes = inputs.to(weights.dtype)
            outputs: tuple[Tensor, ...] = vmap(run)(weights)
        return list(outputs)

    def _argument(
        self, kind: InputKind, target: str | None, state: Mapping[str, Tensor], inputs: Tensor
    ) -> Tensor:
        """Find the value of one of the graph's placeholders."""
        if kind == InputKind.USER_INPUT:
            return inputs
        assert target is not None
        if target in state:
            return state[target]
        constant: Tensor = self._constants[target]
        return constant.to(inputs.device)


def _exported(module: nn.Module, example: Tensor) -> ExportedProgram:
    """Trace a network, and take batch normalisation apart."""
    parts = {torch.ops.aten._native_batch_norm_legit_no_training.default: _batch_norm}
    with warnings.catch_warnings():  # torch's own remark about copying graphs
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        program: ExportedProgram = export(module, (example,)).run_decompositions(parts)
    return program


def _layers(space: WeightSpace, program: ExportedProgram) -> Iterator[Layer]:
    """Find linear maps and convolutions whose weight is a tensor of the space."""
    same = dict(space.tied)
    known = {tensor.name for tensor in space.tensors}
    names = {
        spec.arg.name: same.get(spec.target, spec.target)
        for spec in program.graph_signature.input_specs
        if spec.target is not None
    }
    for node in program.graph.nodes:
        if node.op != "call_function" or (name := operator_name(node)) not in _CHANNELS:
            continue
        weight = names.get(getattr(node.args[1], "name", ""))
        if weight in known:
            yield Layer(weight, _activation(node), _CHANNELS[name])


def _activation(node: Node) -> Node:
    """Follow an output through what acts on each of its entries."""
    while len(node.users) == 1:
        (user,) = node.users
        if not _keeps_units(user, node):
            return node
        node = user
    return node


def _keeps_units(user: Node, node: Node) -> bool:
    """Tell whether an operator makes one number of each number of a tensor."""
    pointwise = torch.Tag.pointwise in getattr(user.target, "tags", ())
    if user.op != "call_function" or not (pointwise or operator_name(user) in _COPIES):
        return False
    return bool(user.meta["val"].shape == node.meta["val"].shape)


def _batch_norm(
    values: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalisation in evaluation, of pointwise operators, which can be followed and vmapped.

    The second and third result, statistics of the batch, are empty, as torch's own are.
    """
    shape = [-1, *[1] * (values.ndim - 2)]
    normal = (values - mean.view(shape)) * (variance.view(shape) + epsilon).rsqrt()
    scaled = normal if weight is None else normal * weight.view(shape)
    shifted = scaled if bias is None else scaled + bias.view(shape)
    return shifted, values.new_empty(0), values.new_empty(0)


def _ending_with(program: ExportedProgram, nodes: list[Node]) -> torch.fx.GraphModule:
    """Return a network's graph with other outputs, without what these do not need."""
    graph = program.graph_module.graph
    output = next(node for node in graph.nodes if node.op == "output")
    output.args = (tuple(nodes),)
    graph.eliminate_dead_code()
    module: torch.fx.GraphModule = program.graph_module
    module.recompile()
    return module


def _averaged(activations: Tensor, dim: int) -> Tensor:
    """Average over all axes but the first and that of the outputs: ``[inputs, outputs]``."""
    moved = activations.movedim(dim, -1)
    return moved.flatten(1, -2).mean(dim=1) if moved.ndim > 2 else moved
