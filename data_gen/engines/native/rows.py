"""A network as rows and planes, before anything has a place in memory."""

from dataclasses import dataclass, field

from data_gen.engines.native import table as t
from zoo.errors import ZooError


class NoKernelError(ZooError, NotImplementedError):
    """A network does something that the native engine has no kernel for."""


@dataclass
class Plane:
    """Numbers of one sample; several values of the graph may share it, one after the other.

    Parameters
    ----------
    channels, height, width
        Of a vector, its length and 1, 1.
    wide
        Channels with their filling.
    edge, grad_edge
        Zeros around data and gradient, in pixels.
    differentiable
        Whether parameters lie behind it.
    is_kept
        Whether backward needs what the producer wrote, so that nothing may work in place.
    """

    channels: int
    height: int
    width: int
    wide: int
    edge: int = 0
    grad_edge: int = 0
    differentiable: bool = False
    is_kept: bool = False


@dataclass
class Row:
    """One row of the table; offsets come later."""

    op: int
    source: int
    target: int
    fields: dict[str, float] = field(default_factory=dict)
    weight: str | None = None
    bias: str | None = None

    @property
    def has_parameters(self) -> bool:
        """Whether the row has weights, or gains."""
        return self.op in (t.LINEAR, t.CONV, t.NORM)


@dataclass(frozen=True)
class Lowered:
    """A network as rows and planes; ``input`` and ``output`` are planes."""

    rows: list[Row]
    planes: list[Plane]
    input: int
    output: int


def lacking(what: str) -> NoKernelError:
    """Build the error for what no kernel does."""
    return NoKernelError(f"Engine 'native' has no kernel for {what}; use engine 'stacked'.")


def filled(channels: int) -> int:
    """Return how many channels a plane has with its filling."""
    return -(-channels // t.LANES) * t.LANES
