"""Tracing parts: for modules whose forward cannot be captured as a whole.

A submodule whose function is unchanged leaves the function of what contains it unchanged. So parts
that can be captured are traced by themselves, their inputs and outputs in place, whatever control
flow lies between them; parameters outside them stay in place.
"""

import copy
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from zoo.errors import TraceError, unknown_name
from zoo.space import AxisSpec, NeuronGroup, TensorSpec, Touch, WeightSpace
from zoo.symmetry.export import check_tensor
from zoo.symmetry.trace import keep_verified, trace


def trace_boundaries(module: nn.Module, *inputs: Any, submodules: Iterable[str]) -> WeightSpace:
    """Derive the weight space of a module from those of some of its submodules.

    Parameters
    ----------
    module
        Any module; it is run once in eval mode to see what its parts are given.
    *inputs
        Example inputs that reach every named submodule.
    submodules
        Dotted names, none inside another. Relabellings that span two of them are not found, nor
        are scalings.

    Raises
    ------
    TraceError
        If a submodule is not reached, or cannot be captured either.
    UnknownNameError
        If the module has no such submodule.
    """
    parts = _parts(module, list(submodules))
    spaces = {
        name: trace(part, *arguments)
        for (name, part), arguments in zip(
            parts.items(), _arguments(module, inputs, list(parts)), strict=True
        )
    }
    return keep_verified(_joined(module, parts, spaces), module, inputs)


def _parts(module: nn.Module, names: list[str]) -> dict[str, nn.Module]:
    known = {name: part for name, part in module.named_modules() if name}
    for name in names:
        if name not in known:
            raise unknown_name("submodule", name, known)
        if any(other != name and name.startswith(f"{other}.") for other in names):
            raise TraceError(f"Expected submodules apart, got {name!r} inside another one.")
    return {name: known[name] for name in names}


@torch.no_grad()
def _arguments(module: nn.Module, inputs: tuple[Any, ...], names: list[str]) -> list[Any]:
    """Run the module and catch what each part is called with first."""
    private = copy.deepcopy(module).eval()
    seen: dict[str, tuple[Any, ...]] = {}
    for name in names:

        def catch(
            part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = name
        ) -> None:
            if kwargs:
                raise TraceError(
                    f"Submodule {name!r} is called with keywords {', '.join(kwargs)}; only "
                    "positional arguments can be captured."
                )
            seen.setdefault(name, args)

        private.get_submodule(name).register_forward_pre_hook(catch, with_kwargs=True)
    private(*inputs)
    if missing := [name for name in names if name not in seen]:
        raise TraceError(
            f"The example inputs do not reach {', '.join(missing)}. Give inputs that do."
        )
    return [seen[name] for name in names]


def _joined(
    module: nn.Module, parts: dict[str, nn.Module], spaces: dict[str, WeightSpace]
) -> WeightSpace:
    """One space of all tensors, with the groups of the parts."""
    own: dict[str, torch.Tensor] = dict(module.named_parameters(remove_duplicate=False))
    floating = {n: b for n, b in module.named_buffers() if b.is_floating_point()}
    stored = module.state_dict()
    own |= {name: buffer for name, buffer in floating.items() if name in stored}
    canonical = {id(tensor): name for name, tensor in reversed(own.items())}
    uses = Counter(id(tensor) for tensor in own.values())
    specs = {f"{part}.{tensor.name}": tensor for part in parts for tensor in spaces[part].tensors}
    inside = {
        part: Counter(id(t) for n, t in own.items() if n.startswith(f"{part}.")) for part in parts
    }
    groups = [
        _renamed(group, part, {name: canonical[id(own[name])] for name in own})
        for part, space in spaces.items()
        for group in space.groups
        if all(
            inside[part][key] == uses[key]
            for touch in group.touches
            for key in [id(own[f"{part}.{touch.tensor}"])]
        )
    ]
    return WeightSpace(
        tensors=tuple(
            _spec(name, tensor, specs.get(name), is_parameter=name not in floating)
            for name, tensor in own.items()
            if canonical[id(tensor)] == name
        ),
        groups=tuple(groups),
        tied=tuple((n, canonical[id(t)]) for n, t in own.items() if canonical[id(t)] != n),
        unsupported=tuple(item for space in spaces.values() for item in space.unsupported),
    )


def _renamed(group: NeuronGroup, part: str, canonical: dict[str, str]) -> NeuronGroup:
    """Name a part's group and tensors as the whole module does."""
    touches: tuple[Touch, ...] = tuple(
        replace(touch, tensor=canonical[f"{part}.{touch.tensor}"]) for touch in group.touches
    )
    parent = None if group.parent is None else f"{part}.{group.parent}"
    return replace(group, name=f"{part}.{group.name}", touches=touches, parent=parent)


def _spec(
    name: str, tensor: torch.Tensor, spec: TensorSpec | None, *, is_parameter: bool
) -> TensorSpec:
    check_tensor(name, tensor)
    if spec is not None:
        return replace(spec, name=name)
    pinned = AxisSpec(pin="fixed", label="outside the boundaries")
    return TensorSpec(
        name=name,
        shape=tuple(tensor.shape),
        kind="parameter" if is_parameter else "buffer",
        role="other",
        layer="",
        axes=tuple(pinned for _ in tensor.shape),
    )
