"""The weight space of converted networks: traced where the architecture is known, else bare."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

from zoo.convert.source import Shapes
from zoo.errors import InvalidConfigError
from zoo.networks import FACTORY, UNKNOWN, build, example_input, from_dict, to_dict
from zoo.space import AxisSpec, TensorSpec, WeightSpace
from zoo.symmetry import trace

_BUFFERS = ("running_mean", "running_var")


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """What members of one population have in common.

    Parameters
    ----------
    network
        What the population carries as its network.
    space
        Its weight space.
    shapes
        Names and shapes of its tensors, in the order of the module's state dict.
    """

    network: dict[str, Any]
    space: WeightSpace
    shapes: Shapes

    @property
    def is_known(self) -> bool:
        """Whether the space was traced, rather than read off names and shapes."""
        return bool(self.network["name"] != UNKNOWN["name"])


def of_network(
    network: Mapping[str, Any], *, variants: Iterable[Mapping[str, Any]] = ()
) -> Blueprint:
    """Trace the network that ``zoo.networks.build`` makes of a configuration.

    Parameters
    ----------
    network
        The configuration.
    variants
        Configurations of members that differ from it, such as in their activation; what scales and
        signs the space allows is what all of them do.

    Raises
    ------
    InvalidConfigError
        If a variant has other tensors or relabellings.
    """
    space = _traced(json.dumps(dict(network), sort_keys=True))
    for variant in variants:
        other = _traced(json.dumps(dict(variant), sort_keys=True))
        if other.fingerprint != space.fingerprint:
            raise InvalidConfigError(
                f"Expected networks of one weight space, got {json.dumps(network)} and "
                f"{json.dumps(dict(variant))}. Leave what differs out of the network columns."
            )
        space = replace(
            space,
            scalings=tuple(each for each in space.scalings if each in other.scalings),
            gl_blocks=tuple(each for each in space.gl_blocks if each in other.gl_blocks),
        )
    full = to_dict(from_dict(network))  # defaults may change, stored networks must not
    return Blueprint(network=full, space=space, shapes=shapes_of(build(network)))


@lru_cache(maxsize=256)
def _traced(network: str) -> WeightSpace:
    values = json.loads(network)
    return trace(build(values), example_input(values))


def of_factory(factory: str, module: nn.Module, inputs: tuple[Any, ...]) -> Blueprint:
    """Trace a module that a function of the user's made.

    Parameters
    ----------
    factory
        Where the function is, ``PACKAGE.MODULE:FUNCTION``; a population only names it.
    module, inputs
        What it returned.
    """
    network = dict(FACTORY) | {"factory": factory}
    return Blueprint(network=network, space=trace(module, *inputs), shapes=shapes_of(module))


def unknown(shapes: Shapes) -> Blueprint:
    """Describe networks of which only names and shapes are known: nothing may be relabelled."""
    tensors = tuple(
        TensorSpec(
            name=name,
            shape=shape,
            kind="buffer" if name.endswith(_BUFFERS) else "parameter",
            role="other",
            layer=name.rpartition(".")[0],
            axes=tuple(AxisSpec(pin="fixed", label=f"{name}.{dim}") for dim in range(len(shape))),
        )
        for name, shape in shapes
    )
    ordered = sorted(tensors, key=lambda tensor: tensor.kind == "buffer")
    space = WeightSpace(tensors=tuple(ordered), groups=())
    return Blueprint(network=dict(UNKNOWN), space=space, shapes=shapes)


def shapes_of(module: nn.Module) -> Shapes:
    """Return names and shapes of a module's floating-point tensors, in order."""
    state: Mapping[str, Tensor] = module.state_dict()
    return tuple(
        (name, tuple(tensor.shape)) for name, tensor in state.items() if tensor.is_floating_point()
    )
