"""Running members: their outputs on given inputs, all of a batch at once, with gradients."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils import _pytree as pytree

from zoo.errors import InvalidConfigError, WeightSpaceMismatchError
from zoo.networks import build, example_input
from zoo.space import WeightSpace


class MemberRunner:
    """Runs members of a weight space as the networks they are, in evaluation mode.

    Outputs are a function of what members compute: whatever keeps their function (relabelling,
    scaling and flipping hidden units) keeps the outputs. Nothing here is learnt, so this is no
    module.

    Parameters
    ----------
    space
        Weight space of the members.
    network
        Their network, as :func:`zoo.networks.build` takes it.

    Attributes
    ----------
    input_shape
        Of one input, without the batch.
    num_outputs
        Numbers per input.

    Raises
    ------
    InvalidConfigError
        If the network takes something else than real numbers.
    WeightSpaceMismatchError
        If its tensors are not those of the weight space.
    """

    def __init__(self, space: WeightSpace, network: Mapping[str, Any]) -> None:
        example = example_input(network)
        check_real(example, network)
        self.space = space
        self.buffers = [tensor.name for tensor in space.tensors if tensor.kind == "buffer"]
        self.module = build(network).eval().requires_grad_(requires_grad=False)
        check_network(self.module, space, network)
        self.input_shape = tuple(example.shape[1:])
        with torch.no_grad():
            self.num_outputs = _joined(self.module(example)).shape[1]

    def __call__(self, weights: Tensor, probes: Tensor) -> Tensor:
        """Run each member on each probe.

        Parameters
        ----------
        weights
            ``[batch, P]``.
        probes
            ``[probes, *input_shape]``, on the same device.

        Returns
        -------
        Tensor
            ``[batch, probes, num_outputs]``, of the weights' dtype. Gradients reach probes and
            parameters, not buffers.
        """
        if not len(weights):
            return weights.new_zeros(0, len(probes), self.num_outputs)

        def run(member: Tensor) -> Tensor:
            state = self.space.state_dict(member)
            state |= {name: state[name].detach() for name in self.buffers}
            return _joined(functional_call(self.module, state, (inputs,)))

        with torch.autocast(weights.device.type, enabled=False):  # members as they are
            inputs = probes.to(weights.dtype)
            outputs: Tensor = vmap(run)(weights)
        return outputs


def _joined(outputs: Any) -> Tensor:
    """All numbers of a network's outputs, ``[inputs, num_outputs]``."""
    parts = [part.flatten(1) for part in pytree.tree_leaves(outputs) if isinstance(part, Tensor)]
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def check_real(example: Tensor, network: Mapping[str, Any]) -> None:
    """Raise :class:`InvalidConfigError` unless a network's inputs are real numbers."""
    if not example.is_floating_point():
        raise InvalidConfigError(
            f"Expected a network that takes real numbers, which can be learnt, got "
            f"{network['name']!r}, which takes {example.dtype}. Use a model that reads weights."
        )


def check_network(module: nn.Module, space: WeightSpace, network: Mapping[str, Any]) -> None:
    """Raise :class:`WeightSpaceMismatchError` unless a module's tensors are those of a space."""
    expected = {tensor.name: tensor.shape for tensor in space.tensors}
    expected |= {alias: expected[name] for alias, name in space.tied}
    came = {
        name: tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point()
    }
    if came != expected:
        differing = ", ".join(sorted({name for name, _ in came.items() ^ expected.items()}))
        raise WeightSpaceMismatchError(
            f"Expected a network with the tensors of weight space {space.fingerprint}, got "
            f"{network['name']!r}, which differs in {differing}. Give the members' own network."
        )
