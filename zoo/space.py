"""The weight space: a network's tensors, their place in a flat vector, and its relabellings.

A :class:`WeightSpace` is frozen, holds no weights and round-trips through JSON. It is derived from
any ``torch.nn.Module`` by :func:`zoo.trace` and never written by hand.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import lgamma, log, prod
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from zoo.errors import WeightSpaceMismatchError, unknown_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from zoo.symmetry.act import Action
    from zoo.symmetry.verify import Verification

TensorKind = Literal["parameter", "buffer"]
TensorRole = Literal["weight", "bias", "gain", "shift", "mean", "variance", "other"]
AxisRole = Literal["out", "in", "node", "kernel", "other"]
PinKind = Literal["input", "output", "kernel", "single", "fixed"]
Domain = Literal["positive", "sign"]
GLKind = Literal["qk", "vo", "linear"]


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
class Exponent:
    """How the entries that a hidden unit owns on one axis scale with the unit.

    Parameters
    ----------
    tensor, dim
        An axis that the unit's group moves.
    exponent
        Entries are multiplied by the unit's factor to this power.
    slots
        Which of the positions that the unit owns (columns of its touch's index); ``None`` for all.
    """

    tensor: str
    dim: int
    exponent: int
    slots: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ScaleGroup:
    """Factors that every unit of a neuron group may be multiplied by, each unit by its own.

    Parameters
    ----------
    name
        Name within the space.
    group
        The neuron group.
    domain
        ``positive`` for any positive factor, ``sign`` for plus or minus one.
    exponents
        Which entries a unit's factor multiplies, and to which power; others stay.
    """

    name: str
    group: str
    domain: Domain
    exponents: tuple[Exponent, ...]


@dataclass(frozen=True, kw_only=True)
class GLBlock:
    """Units that meet only as vectors and covectors: any invertible matrix may mix them.

    Parameters
    ----------
    kind
        ``qk`` where two vectors that depend on the inputs meet (queries and keys), ``vo`` where the
        vectors are averaged with weights that do (values), ``linear`` for two linear maps in a row.
    group
        The neuron group.
    size, copies
        Units, and the number of independent copies: ``copies * size**2`` dimensions.
    exponents
        Entries that the matrix multiplies (1), and those that its inverse transpose does (-1).
    """

    kind: GLKind
    group: str
    size: int
    copies: int
    exponents: tuple[Exponent, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors that are mixed."""
        return tuple(dict.fromkeys(each.tensor for each in self.exponents))


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
    scalings
        Factors that hidden units may be multiplied by.
    gl_blocks
        Groups whose units any invertible matrix may mix; the diagonal matrices among these are
        scalings, too.
    """

    tensors: tuple[TensorSpec, ...]
    groups: tuple[NeuronGroup, ...]
    tied: tuple[tuple[str, str], ...] = ()
    unsupported: tuple[Unsupported, ...] = ()
    scalings: tuple[ScaleGroup, ...] = ()
    gl_blocks: tuple[GLBlock, ...] = ()

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

    def scaling(self, name: str) -> ScaleGroup:
        """Return the scaling called ``name``."""
        for scaling in self.scalings:
            if scaling.name == name:
                return scaling
        raise unknown_name("scaling", name, (scaling.name for scaling in self.scalings))

    def flatten(self, state_dict: "Mapping[str, Tensor]") -> "Tensor":
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
        import torch

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

    def unflatten(self, vector: "Tensor") -> "dict[str, Tensor]":
        """Cut a flat vector ``[..., P]`` into views, per tensor ``[..., *shape]``."""
        self.check_vector(vector)
        return {
            tensor.name: vector.narrow(-1, self.offsets[tensor.name], tensor.numel).reshape(
                (*vector.shape[:-1], *tensor.shape)
            )
            for tensor in self.tensors
        }

    def state_dict(self, vector: "Tensor") -> "dict[str, Tensor]":
        """Like :meth:`unflatten`, with aliases of tied tensors: what ``load_state_dict`` takes."""
        tensors = self.unflatten(vector)
        return tensors | {alias: tensors[name] for alias, name in self.tied}

    def check_vector(self, vector: "Tensor") -> None:
        """Raise :class:`WeightSpaceMismatchError` unless the last axis has ``P`` entries."""
        if vector.ndim == 0 or vector.shape[-1] != self.num_parameters:
            raise WeightSpaceMismatchError(
                f"Expected weights of shape [..., {self.num_parameters}] for weight space "
                f"{self.fingerprint}, got {list(vector.shape)}."
            )

    # ---- symmetry -----------------------------------------------------------------------------
    def sample(
        self, generator: "torch.Generator", *, groups: tuple[str, ...] | None = None
    ) -> "Action":
        """Draw a uniformly random relabelling; see :func:`zoo.symmetry.act.sample`."""
        from zoo.symmetry.act import sample

        return sample(self, generator, groups=groups)

    def act(self, action: "Action", vector: "Tensor") -> "Tensor":
        """Apply a relabelling to weights ``[..., P]``; see :class:`zoo.symmetry.act.Action`."""
        self.check_vector(vector)
        return action(vector)

    def verify(self, module: "torch.nn.Module", *inputs: Any) -> "Verification":
        """Prove numerically that every group keeps the function; see :mod:`zoo.symmetry.verify`."""
        from zoo.symmetry.verify import verify

        return verify(self, module, *inputs)

    def canonical(self, vector: "Tensor") -> "Tensor":
        """Relabel weights ``[..., P]`` to the same bits for every relabelling of a network."""
        from zoo.symmetry.canonical import canonical

        return canonical(self, vector)

    def override(
        self, *, pin: Iterable[str] = (), merge: Iterable[tuple[str, str]] = ()
    ) -> "WeightSpace":
        """Return a space with fewer relabellings.

        Parameters
        ----------
        pin
            Names of groups that stay in place from now on, with those nested inside them.
        merge
            Pairs of groups of one size that move together from now on, under the first one's name.

        Raises
        ------
        UnknownNameError
            If there is no such group (any more).
        WeightSpaceMismatchError
            If two groups to merge differ in size or in the group that they are nested inside.
        """
        from zoo.symmetry.override import override

        return override(self, pin=pin, merge=merge)

    @cached_property
    def log10_order(self) -> float:
        """Decimal logarithm of the number of relabellings."""
        return sum(g.copies * lgamma(g.size + 1) for g in self.groups) / log(10)

    # ---- identity -----------------------------------------------------------------------------
    def to_json(self) -> str:
        """Serialise; :meth:`from_json` restores an equal space."""
        raw = asdict(self)
        for name in ("scalings", "gl_blocks"):  # left out when empty, as before they existed
            if not raw[name]:
                del raw[name]
        return json.dumps(raw, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Restore a space written by :meth:`to_json`."""
        raw = json.loads(text)
        return cls(
            tensors=tuple(_tensor_from_json(item) for item in raw["tensors"]),
            groups=tuple(_group_from_json(item) for item in raw["groups"]),
            tied=tuple((alias, name) for alias, name in raw["tied"]),
            unsupported=tuple(Unsupported(**item) for item in raw["unsupported"]),
            scalings=tuple(
                ScaleGroup(**item | {"exponents": _exponents_from_json(item["exponents"])})
                for item in raw.get("scalings", ())
            ),
            gl_blocks=tuple(
                GLBlock(**item | {"exponents": _exponents_from_json(item["exponents"])})
                for item in raw.get("gl_blocks", ())
            ),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of layout and relabellings; what else is known adds nothing."""
        raw = asdict(self)
        structure = {name: raw[name] for name in ("tensors", "groups", "tied")}
        text = json.dumps(structure, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def explain(self) -> str:
        """Describe the space for a reader: what moves together, what stays, and why."""
        from zoo.symmetry.explain import explain

        return explain(self)


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


def _exponents_from_json(raw: list[dict[str, Any]]) -> tuple[Exponent, ...]:
    return tuple(
        Exponent(**each | {"slots": None if each["slots"] is None else tuple(each["slots"])})
        for each in raw
    )


def _index_from_json(raw: dict[str, Any]) -> UnitIndex:
    explicit = raw["explicit"]
    return UnitIndex(**{**raw, "explicit": None if explicit is None else tuple(explicit)})
