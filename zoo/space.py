"""The weight space: a network's tensors, their place in a flat vector, and its relabellings.

A :class:`WeightSpace` is frozen, holds no weights and round-trips through JSON. It is derived from
any ``torch.nn.Module`` by :func:`zoo.trace` and never written by hand.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import lgamma, log, prod
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from zoo.errors import WeightSpaceMismatchError, unknown_name

if TYPE_CHECKING:
    from zoo.symmetry.act import Action
    from zoo.symmetry.verify import Verification

TensorKind = Literal["parameter", "buffer"]
TensorRole = Literal["weight", "bias", "gain", "shift", "mean", "variance", "other"]
AxisRole = Literal["out", "in", "node", "kernel", "other"]
PinKind = Literal["input", "output", "kernel", "single", "fixed"]


@dataclass(frozen=True, kw_only=True)
class AxisSpec:
    """What one axis of a tensor is for.

    Parameters
    ----------
    role
        What the operator that reads the tensor does with the axis.
    pin
        Why positions of the axis stay where they are; ``None`` when a neuron group moves all of
        them.
    label
        Name of the pinned axis; axes with one label index the same thing (the network's inputs,
        say).
    """

    role: AxisRole = "other"
    pin: PinKind | None = None
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One tensor of the network: a parameter, or a floating-point buffer.

    ``layer`` names the operation that reads it first; tensors of one layer share it.
    """

    name: str
    shape: tuple[int, ...]
    kind: TensorKind
    role: TensorRole
    layer: str
    axes: tuple[AxisSpec, ...]

    @property
    def numel(self) -> int:
        """Number of entries."""
        return prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class UnitIndex:
    """Positions on an axis that each unit of a group owns.

    Unit ``i`` owns ``offset + i * stride + j * block_stride`` for ``j < block``: one position for a
    plain layer, a run of them where a convolution is flattened. ``explicit`` lists them where no
    such rule holds.
    """

    size: int
    block: int = 1
    offset: int = 0
    stride: int = 1
    block_stride: int = 1
    explicit: tuple[int, ...] | None = None

    @classmethod
    def from_array(cls, positions: np.ndarray) -> Self:
        """Compress positions, shape ``[size, block]``, int."""
        size, block = positions.shape
        offset = int(positions[0, 0])
        stride = int(positions[1, 0]) - offset if size > 1 else 1
        block_stride = int(positions[0, 1]) - offset if block > 1 else 1
        regular = cls(
            size=size, block=block, offset=offset, stride=stride, block_stride=block_stride
        )
        if np.array_equal(regular.array(), positions):
            return regular
        return cls(size=size, block=block, explicit=tuple(int(p) for p in positions.ravel()))

    def array(self) -> np.ndarray:
        """Positions, shape ``[size, block]``, int64."""
        if self.explicit is not None:
            return np.array(self.explicit, dtype=np.int64).reshape(self.size, self.block)
        units = np.arange(self.size, dtype=np.int64)[:, None] * self.stride
        return self.offset + units + np.arange(self.block, dtype=np.int64) * self.block_stride


@dataclass(frozen=True, kw_only=True)
class Touch:
    """One axis that a neuron group moves.

    Parameters
    ----------
    tensor, dim
        The axis.
    index
        Positions that each unit owns; of a nested group, copy after copy.
    rows_dim, rows
        Where the kernel of a grouped convolution is touched: copy ``c`` moves only the entries
        whose position on axis ``rows_dim`` is in row ``c`` of ``rows``.
    """

    tensor: str
    dim: int
    index: UnitIndex
    rows_dim: int | None = None
    rows: UnitIndex | None = None


@dataclass(frozen=True, kw_only=True)
class NeuronGroup:
    """Hidden units that may be relabelled freely, and every tensor axis that moves with them.

    Parameters
    ----------
    name
        Name within the space, after the layer whose outputs the units are.
    size
        Number of units (in each copy).
    touches
        Axes that move.
    parent
        Of a nested group, the group whose units it lies inside (units inside each head).
    copies
        Number of independent copies: units of the parent, times the parent's copies.
    """

    name: str
    size: int
    touches: tuple[Touch, ...]
    parent: str | None = None
    copies: int = 1


@dataclass(frozen=True, kw_only=True)
class Unsupported:
    """An operation without a rule: every axis it touches was pinned."""

    op: str
    source: str


@dataclass(frozen=True, kw_only=True)
class WeightSpace:
    """Named tensors plus the relabellings of hidden units that leave the function unchanged.

    The flat layout: parameters in definition order, then floating-point buffers; tied tensors once.
    Each tensor is raveled in C order.

    Parameters
    ----------
    tensors
        Every tensor of the flat vector, in order.
    groups
        Independent neuron groups.
    tied
        ``(alias, name)`` for each further name of a tensor.
    unsupported
        Operations that had no rule.
    """

    tensors: tuple[TensorSpec, ...]
    groups: tuple[NeuronGroup, ...]
    tied: tuple[tuple[str, str], ...] = ()
    unsupported: tuple[Unsupported, ...] = ()

    # ---- layout -------------------------------------------------------------------------------
    @cached_property
    def offsets(self) -> dict[str, int]:
        """First position of each tensor in the flat vector."""
        starts = np.cumsum([0, *(tensor.numel for tensor in self.tensors)])
        return {
            tensor.name: int(start) for tensor, start in zip(self.tensors, starts, strict=False)
        }

    @cached_property
    def num_parameters(self) -> int:
        """Length ``P`` of the flat vector (parameters and floating-point buffers)."""
        return sum(tensor.numel for tensor in self.tensors)

    @cached_property
    def num_trainable(self) -> int:
        """Length of the flat vector's first part, the parameters that an optimiser updates."""
        return sum(tensor.numel for tensor in self.tensors if tensor.kind == "parameter")

    def tensor(self, name: str) -> TensorSpec:
        """Return the tensor called ``name``."""
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise unknown_name("tensor", name, (tensor.name for tensor in self.tensors))

    def group(self, name: str) -> NeuronGroup:
        """Return the neuron group called ``name``."""
        for group in self.groups:
            if group.name == name:
                return group
        raise unknown_name("neuron group", name, (group.name for group in self.groups))

    def flatten(self, state_dict: Mapping[str, Tensor]) -> Tensor:
        """Lay a state dict out as one vector.

        Parameters
        ----------
        state_dict
            Per tensor ``[..., *shape]``; entries that are no tensor of this space are ignored.

        Returns
        -------
        Tensor
            ``[..., P]``, a copy.

        Raises
        ------
        WeightSpaceMismatchError
            If a tensor is missing or has another shape.
        """
        parts = []
        for tensor in self.tensors:
            if tensor.name not in state_dict:
                raise WeightSpaceMismatchError(
                    f"Expected a tensor {tensor.name!r} of shape {tensor.shape} for weight space "
                    f"{self.fingerprint}, got only: {', '.join(state_dict)}. "
                    "Was it written with another network?"
                )
            value = state_dict[tensor.name]
            rank = len(tensor.shape)
            if tuple(value.shape[value.ndim - rank :]) != tensor.shape or value.ndim < rank:
                raise WeightSpaceMismatchError(
                    f"Expected {tensor.name!r} of shape {tensor.shape} for weight space "
                    f"{self.fingerprint}, got {tuple(value.shape)}. "
                    "Was it written with another network?"
                )
            parts.append(value.reshape(*value.shape[: value.ndim - rank], tensor.numel))
        return torch.cat(parts, dim=-1)

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Cut a flat vector ``[..., P]`` into views, per tensor ``[..., *shape]``."""
        self.check_vector(vector)
        return {
            tensor.name: vector.narrow(-1, self.offsets[tensor.name], tensor.numel).reshape(
                (*vector.shape[:-1], *tensor.shape)
            )
            for tensor in self.tensors
        }

    def state_dict(self, vector: Tensor) -> dict[str, Tensor]:
        """Like :meth:`unflatten`, with aliases of tied tensors: what ``load_state_dict`` takes."""
        tensors = self.unflatten(vector)
        return tensors | {alias: tensors[name] for alias, name in self.tied}

    def check_vector(self, vector: Tensor) -> None:
        """Raise :class:`WeightSpaceMismatchError` unless the last axis has ``P`` entries."""
        if vector.ndim == 0 or vector.shape[-1] != self.num_parameters:
            raise WeightSpaceMismatchError(
                f"Expected weights of shape [..., {self.num_parameters}] for weight space "
                f"{self.fingerprint}, got {list(vector.shape)}."
            )

    # ---- symmetry -----------------------------------------------------------------------------
    def sample(
        self, generator: torch.Generator, *, groups: tuple[str, ...] | None = None
    ) -> "Action":
        """Draw a uniformly random relabelling; see :func:`zoo.symmetry.act.sample`."""
        from zoo.symmetry.act import sample

        return sample(self, generator, groups=groups)

    def act(self, action: "Action", vector: Tensor) -> Tensor:
        """Apply a relabelling to weights ``[..., P]``; see :class:`zoo.symmetry.act.Action`."""
        self.check_vector(vector)
        return action(vector)

    def verify(self, module: torch.nn.Module, *inputs: Any) -> "Verification":
        """Prove numerically that every group keeps the function; see :mod:`zoo.symmetry.verify`."""
        from zoo.symmetry.verify import verify

        return verify(self, module, *inputs)

    @cached_property
    def log10_order(self) -> float:
        """Decimal logarithm of the number of relabellings."""
        return sum(g.copies * lgamma(g.size + 1) for g in self.groups) / log(10)

    # ---- identity -----------------------------------------------------------------------------
    def to_json(self) -> str:
        """Serialise; :meth:`from_json` restores an equal space."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Restore a space written by :meth:`to_json`."""
        raw = json.loads(text)
        return cls(
            tensors=tuple(_tensor_from_json(item) for item in raw["tensors"]),
            groups=tuple(_group_from_json(item) for item in raw["groups"]),
            tied=tuple((alias, name) for alias, name in raw["tied"]),
            unsupported=tuple(Unsupported(**item) for item in raw["unsupported"]),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that equal spaces share."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def explain(self) -> str:
        """Describe the space for a reader: each group, its size and every axis it moves."""
        lines = [
            f"weight space {self.fingerprint}: {self.num_parameters:,} numbers in "
            f"{len(self.tensors)} tensors, {len(self.groups)} neuron groups"
        ]
        for group in self.groups:
            moved = ", ".join(
                f"{touch.tensor}[{touch.dim}]"
                + (f" (blocks of {touch.index.block})" if touch.index.block > 1 else "")
                for touch in group.touches
            )
            lines.append(f"  {group.name}: {group.size} units move {moved}")
        for tensor in self.tensors:
            for dim, axis in enumerate(tensor.axes):
                if axis.pin not in (None, "single"):
                    lines.append(f"  pinned {tensor.name}[{dim}]: {axis.pin} {axis.label}".rstrip())
        lines += [f"  unsupported {item.op} at {item.source}" for item in self.unsupported]
        return "\n".join(lines)


def _tensor_from_json(raw: dict[str, Any]) -> TensorSpec:
    axes = tuple(AxisSpec(**axis) for axis in raw["axes"])
    return TensorSpec(**{**raw, "shape": tuple(raw["shape"]), "axes": axes})


def _group_from_json(raw: dict[str, Any]) -> NeuronGroup:
    touches = tuple(
        Touch(
            **touch
            | {
                "index": _index_from_json(touch["index"]),
                "rows": None if touch["rows"] is None else _index_from_json(touch["rows"]),
            }
        )
        for touch in raw["touches"]
    )
    return NeuronGroup(**raw | {"touches": touches})


def _index_from_json(raw: dict[str, Any]) -> UnitIndex:
    explicit = raw["explicit"]
    return UnitIndex(**{**raw, "explicit": None if explicit is None else tuple(explicit)})
